"""Detections into one column of vertebrae: duplicates and boxes off the spine's curve are taken out."""

from __future__ import annotations

import numpy as np

MAX_OVERLAP = 0.5
"""Vertical overlap, as a share of the lower box, above which two boxes are the same vertebra."""
MAX_STEP = 1.0
"""Sideways step between neighbours, in box widths a box height of distance, that no spine takes."""


def one_column(boxes: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Rows, (k,) int, of the boxes that form the best single column, top to bottom.

    Of all chains of boxes, each below the one before, it is the chain with the greatest sum of scores less a penalty
    for every sideways step. So of two boxes over one vertebra the better stays, and a box beside the spine (a hip, a
    hand, a mark) goes, unless its whole chain outweighs the spine's. For a step from box i to the next box j:

    - they may overlap vertically by at most half of the smaller height;
    - with dx the distance sideways and dy the one downwards of their centres, w their mean width and h their mean
      height, the step s = (dx / w) / max(1, dy / h) costs s², and is not allowed from 1 on.

    Gaps cost nothing: `vertebrae.slots` decides which vertebra is missing. Boxes may be in any unit.
    """
    boxes, score = np.asarray(boxes, float).reshape(-1, 4), np.asarray(score, float)
    n = len(boxes)
    if n == 0:
        return np.zeros(0, int)
    order = np.argsort(boxes[:, 1] + boxes[:, 3], kind="stable")
    low, high = boxes[order, :2], boxes[order, 2:]
    centre, side = (low + high) / 2, high - low
    mean = (side[:, None] + side[None]) / 2
    dx = np.abs(centre[None, :, 0] - centre[:, None, 0])
    dy = centre[None, :, 1] - centre[:, None, 1]
    overlap = np.minimum(high[:, None, 1], high[None, :, 1]) - np.maximum(low[:, None, 1], low[None, :, 1])
    step = dx / mean[:, :, 0] / np.maximum(1.0, dy / mean[:, :, 1])
    apart = overlap <= MAX_OVERLAP * np.minimum(side[:, None, 1], side[None, :, 1])
    gain = np.where(apart & (step < MAX_STEP), -np.square(step), -np.inf)
    best, before = score[order].copy(), np.full(n, -1)
    for j in range(1, n):
        candidates = best[:j] + gain[:j, j]
        i = int(candidates.argmax())
        if candidates[i] > 0:
            best[j] += candidates[i]
            before[j] = i
    chain = [int(best.argmax())]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return order[chain[::-1]]
