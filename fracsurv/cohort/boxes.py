"""Columns of vertebrae.csv, the thirteen levels, and the geometry of boxes."""

from __future__ import annotations

import numpy as np

LEVELS = ("T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4")
N_SLOTS = len(LEVELS)
CHI2_90 = 4.605
"""90 % of a two-dimensional normal's squared standardised distances, as keypoints', are below this."""
BOX_COLUMNS = ["x_min", "y_min", "x_max", "y_max"]
KEYPOINT_COLUMNS = [f"{axis}{k}" for k in range(1, 7) for axis in "xy"]
SCALE_COLUMNS = [f"s{name}" for name in KEYPOINT_COLUMNS]  # standard deviations of those


def overlapping_pairs(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j) of boxes (n, 4) and (m, 4) that overlap by half at least, one to one, the best overlap first.

    Overlap is intersection over union.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    overlap = shared / (areas[0][:, None] + areas[1][None] - shared)
    pairs = []
    while overlap.size and overlap.max() >= 0.5:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        pairs.append((int(i), int(j)))
        overlap[i], overlap[:, j] = 0, 0
    return pairs


def off_the_picture(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whether less than half of a box (n, 4), x_min y_min x_max y_max, lies on a picture (height, width), bool."""
    on = np.clip(boxes, 0, [shape[1], shape[0]] * 2)
    area, shown = ((part[:, 2] - part[:, 0]) * (part[:, 3] - part[:, 1]) for part in (boxes, on))
    return shown < area / 2
