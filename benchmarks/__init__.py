"""Measurements that are too long, or need data too large, for the tests."""
