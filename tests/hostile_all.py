"""All hostile cohorts: what may stand in a folder, and pictures, names and tables as people have them."""

from tests import hostile, hostile_images, hostile_labels, hostile_tables
from tests.hostile import sound

CASES = [*hostile.CASES, *hostile_images.CASES, *hostile_labels.CASES, *hostile_tables.CASES]

__all__ = ["CASES", "sound"]
