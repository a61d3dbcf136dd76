"""Survival of women whose spine was radiographed: models, losses, metrics."""

__version__ = "0.2.0"
