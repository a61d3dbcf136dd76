"""Vertebra boxes as a detector would list them: neighbours, cut pictures and rare faults included."""

from __future__ import annotations

import numpy as np

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS
from fracsurv.simulate.anatomy import BODIES, FIRST, LAST, PICTURE_WIDTH, Spine
from fracsurv.simulate.settings import SimulationSettings
from fracsurv.vertebrae.slots import MAX_HEIGHT

_MARGIN = 4.0  # mm around the keypoints' hull
_LEAST_SEEN = 0.5  # share of a box's height that must lie in the picture for it to be found

COLUMNS = ("level", *BOX_COLUMNS, "score", *KEYPOINT_COLUMNS)


def list_boxes(
    spine: Spine, rng: np.random.Generator, resolution: float, settings: SimulationSettings
) -> list[dict[str, object]]:
    """The picture's boxes, top to bottom, one dict of `COLUMNS` each, in picture pixels (pixel i covers i to i+1).

    T4 to L4 where at least half of the box is in the picture; in some women T2 and T3 as well; in a few one
    box is missing, or one tall box without level and keypoints stands for two to four vertebrae. Keypoints
    are empty (NaN) where any of the six is outside of the picture. `score` is 1.
    """
    keypoints = spine.keypoints()
    hull = np.concatenate([keypoints.min(axis=1), keypoints.max(axis=1)], axis=1)
    hull += _MARGIN * spine.scale * np.array([-1, -1, 1, 1])
    limit = np.array([PICTURE_WIDTH, spine.height])
    inside = np.clip(hull, 0, np.tile(limit, 2))
    seen = (inside[:, 3] - inside[:, 1]) >= _LEAST_SEEN * (hull[:, 3] - hull[:, 1])
    neck, fault = rng.random(2)
    order = rng.random(LAST + 1)

    first = FIRST - 2 if neck < settings.neck_boxes else FIRST
    shown = [i for i in range(first, LAST + 1) if seen[i]]
    rows = {i: _row(BODIES[i], inside[i], keypoints[i], limit, resolution) for i in shown}
    if fault < settings.box_faults:
        del rows[min((i for i in shown if i >= FIRST), key=lambda i: order[i])]
    elif fault < 2 * settings.box_faults:
        _merge(rows, inside, order, resolution)
    return [rows[i] for i in sorted(rows)]


def _row(
    level: str, box: np.ndarray, keypoints: np.ndarray | None, limit: np.ndarray, resolution: float
) -> dict[str, object]:
    known = keypoints is not None and (keypoints >= 0).all() and (keypoints <= limit).all()
    points = keypoints.ravel() * resolution if known else np.full(len(KEYPOINT_COLUMNS), np.nan)
    numbers = np.round([*(box * resolution), 1.0, *points], 3)
    return dict(zip(COLUMNS, [level, *numbers.tolist()], strict=True))


def _merge(rows: dict[int, dict[str, object]], box: np.ndarray, order: np.ndarray, resolution: float) -> None:
    """Put one box over neighbours that are together taller than the protocol's limit, in their place."""
    for start in sorted((i for i in rows if i >= FIRST), key=lambda i: order[i]):
        for end in range(start + 1, min(start + 4, LAST + 1)):
            if end not in rows:
                break
            group = box[start : end + 1]
            tall = np.concatenate([group[:, :2].min(axis=0), group[:, 2:].max(axis=0)])
            if tall[3] - tall[1] > MAX_HEIGHT:
                for i in range(start, end + 1):
                    del rows[i]
                rows[start] = _row("", tall, None, tall[2:], resolution)
                return
