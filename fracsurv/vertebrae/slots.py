"""Detected boxes to 13 ordered vertebra slots."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.boxes import BOX_COLUMNS, LEVELS, N_SLOTS
from fracsurv.cohort.cohort import Cohort
from fracsurv.utils.files import atomic_path

FILE = "slots.parquet"
VERSION = 1
"""Raised whenever the same boxes would fill other slots."""
RULES = ["n_boxes", "discarded_tall", "dropped_top", "inserted_gap", "filled_top", "filled_bottom"]
"""Counts of a `SlotResult`, and columns of a slot table."""
MAX_HEIGHT = 230.0
"""A taller box holds several vertebrae; pixels of the protocol's radiographs."""
GAP_FACTOR = 1.5
"""A distance between neighbours of this many expected ones, or more, holds a missing vertebra."""
MAX_SPACING_PER_HEIGHT = 1.5
"""No disc is thicker than half a vertebra; bounds the first estimate where most vertebrae are missing."""


@dataclass(frozen=True)
class SlotResult:
    """Which box fills which slot, and what each rule did.

    `index` (13,) int: position in the given boxes, top to bottom, −1 = empty slot. The counts add up:
    `n_boxes = discarded_tall + dropped_top + filled slots`, and
    `13 = filled slots + inserted_gap + filled_top + filled_bottom`.
    """

    index: np.ndarray
    n_boxes: int
    discarded_tall: int
    dropped_top: int
    inserted_gap: int
    filled_top: int
    filled_bottom: int


def slots(
    boxes: np.ndarray,
    *,
    n_slots: int = N_SLOTS,
    max_height: float = MAX_HEIGHT,
    image_height: float | None = None,
) -> SlotResult:
    """Boxes to 13 ordered slots by the protocol's rules, in this order.

    1. Discard every box taller than `max_height`.
    2. Sort by vertical centre; while more than 13 remain, drop the topmost (neck).
    3. While fewer, put empty slots where the gap between neighbours exceeds a threshold: 1.5 times the
       distance expected there (see `expected_spacing`). A gap of r expected distances holds round(r) − 1
       vertebrae; the largest gaps are filled first, until 13.
    4. If gaps do not account for all missing ones, fill at one end. That is the top: the stack hangs on its
       lowest box, as it does in rule 2, and the upper thoracic vertebrae, behind the shoulders, are the ones
       most often missed. It is the bottom only where a box discarded by rule 1 lies below the lowest kept
       one; or, with none discarded above the topmost and `image_height` given, where the next vertebra would
       not fit in the picture below the lowest box but would above the topmost: the lower ones were cut off.

    Parameters
    ----------
    boxes : ndarray (n, 4)
        x_min, y_min, x_max, y_max in image pixels, y downwards, in any order; n may be 0.
    max_height : float
        In the boxes' pixels: the protocol's 230 times the cohort's `resolution`.
    image_height : float, optional
        Height of the picture in the same pixels.

    Raises
    ------
    ValueError
        Boxes that are not (n, 4), not finite, or without height or width.
    """
    boxes = checked_boxes(boxes)
    height = boxes[:, 3] - boxes[:, 1]
    centre = (boxes[:, 1] + boxes[:, 3]) / 2
    single = np.flatnonzero(height <= max_height)
    ordered = single[np.argsort(centre[single], kind="stable")]
    dropped = max(0, len(ordered) - n_slots)
    kept = ordered[dropped:]
    missing = n_slots - len(kept)
    inserted = _missing_in_gaps(centre[kept], height[kept], missing)
    ends = missing - int(inserted.sum())
    at_bottom = ends > 0 and _missing_at_bottom(boxes[kept], centre[height > max_height], image_height)
    index = np.full(n_slots, -1)
    position = np.arange(len(kept)) + np.concatenate([[0], np.cumsum(inserted)])[: len(kept)]
    index[position + (0 if at_bottom else ends)] = kept
    return SlotResult(
        index=index,
        n_boxes=len(boxes),
        discarded_tall=len(boxes) - len(single),
        dropped_top=dropped,
        inserted_gap=int(inserted.sum()),
        filled_top=0 if at_bottom else ends,
        filled_bottom=ends if at_bottom else 0,
    )


def slot_table(cohort: Cohort, heights: NDArray) -> pd.DataFrame:
    """Slots of patients, in the table's order: `patient_id`, a column a level (T4 … L4), and `RULES`.

    A level's column says which of the patient's boxes, in the order of `cohort.vertebrae`, fills its slot; −1: none.

    Parameters
    ----------
    heights : ndarray (n,)
        Of the radiographs, pixels; NaN where there is none.
    """
    of = {patient: rows[BOX_COLUMNS].to_numpy(float) for patient, rows in cohort.vertebrae.groupby("patient_id")}
    none, tallest = np.zeros((0, 4)), MAX_HEIGHT * cohort.resolution
    patients = cohort.table["patient_id"]
    found = [
        slots(of.get(patient, none), max_height=tallest, image_height=None if np.isnan(height) else float(height))
        for patient, height in zip(patients, heights, strict=True)
    ]
    index = np.stack([each.index for each in found])
    counts = {rule: [getattr(each, rule) for each in found] for rule in RULES}
    slots_of = dict(zip(LEVELS, index.T, strict=True))
    return pd.DataFrame({"patient_id": patients, **slots_of, **counts})


def write_slots(cohort: Cohort, table: pd.DataFrame, heights: NDArray, folder: Path) -> None:
    """Write a slot table of the cohort into `folder`, with the state of the cohort that it was made from."""
    table = table.assign(height=heights)
    table.attrs = {"key": _key(cohort), "files": cohort.image_fingerprint()}
    with atomic_path(folder / FILE) as temporary:
        table.to_parquet(temporary, index=False)


def read_slots(cohort: Cohort, folder: Path, heights: Callable[[Cohort], NDArray]) -> pd.DataFrame | None:
    """The slot table that `write_slots` left in `folder`; None where it is missing, damaged or of another state.

    `heights` gives the radiographs' heights; it is called only where files have other dates, as those of a copy.
    """
    try:
        table = pd.read_parquet(folder / FILE)
    except (OSError, ValueError):
        return None
    made_from, table.attrs = table.attrs, {}
    if made_from.get("key") != _key(cohort):
        return None
    height = table.pop("height")
    is_same = made_from.get("files") == cohort.image_fingerprint()
    return table if is_same or np.array_equal(height, heights(cohort), equal_nan=True) else None


def _key(cohort: Cohort) -> str:
    """Fingerprint of what slots depend on besides the radiographs' heights: boxes and resolution."""
    digest = hashlib.sha256(repr((VERSION, MAX_HEIGHT, cohort.resolution)).encode())
    for table in (cohort.table[["patient_id"]], cohort.vertebrae[["patient_id", *BOX_COLUMNS]]):
        digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def expected_spacing(centre: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Distance from each box's centre to the next one's, were none missing between them, (n − 1,).

    Made from the patient's own boxes, sorted top to bottom. First the neighbours' mean height times the
    median ratio of distance to height (at most 1.5): heights do not change when a neighbour is missing. Then,
    three times over, each distance is divided by the nearest whole number of expected ones, and a robust
    straight line (Theil–Sen) through these unit distances becomes the expectation, since spacing grows down
    the spine.
    """
    distance = np.diff(centre)
    if len(distance) == 0:
        return distance
    local = (height[1:] + height[:-1]) / 2
    expected = local * min(np.median(distance / local), MAX_SPACING_PER_HEIGHT)
    # Two boxes at the same height (a detector's double) would make the expectation zero.
    floor = 0.25 * np.median(height)
    expected = np.maximum(expected, floor)
    middle = (centre[1:] + centre[:-1]) / 2
    for _ in range(3):
        unit = distance / np.maximum(1, np.rint(distance / expected))
        expected = np.maximum(_theil_sen(middle, unit), floor)
    return expected


def into_slots(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """What belongs to boxes (n, …) in the order of their slots (13, …), float; NaN where a slot is empty."""
    filled = index >= 0
    result = np.full((len(index), *values.shape[1:]), np.nan)
    result[filled] = values[index[filled]]
    return result


def checked_boxes(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, float)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (n, 4), got {boxes.shape}")
    flat = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if not np.isfinite(boxes).all() or flat.any():
        raise ValueError("boxes must be finite with x_min < x_max and y_min < y_max")
    return boxes


def _missing_in_gaps(centre: np.ndarray, height: np.ndarray, missing: int) -> np.ndarray:
    """How many empty slots follow each kept box but the last, (n − 1,) int, at most `missing` in all."""
    inserted = np.zeros(max(0, len(centre) - 1), int)
    if missing == 0 or len(inserted) == 0:
        return inserted
    ratio = np.diff(centre) / expected_spacing(centre, height)
    for gap in np.argsort(-ratio, kind="stable"):
        if ratio[gap] >= GAP_FACTOR:
            # Halves up: at 1.5 something is missing, and Python would round 2.5 down.
            inserted[gap] = min(int(ratio[gap] + 0.5) - 1, missing - inserted.sum())
    return inserted


def _missing_at_bottom(kept: np.ndarray, tall_centre: np.ndarray, image_height: float | None) -> bool:
    """Whether what no gap accounts for is missing below the lowest box rather than above the topmost."""
    if len(kept) == 0:
        return False
    first, last = kept[0], kept[-1]
    if (tall_centre > last[1::2].mean()).any():
        return True
    if image_height is None or (tall_centre < first[1::2].mean()).any():
        return False
    return bool(image_height - last[3] < last[3] - last[1] and first[1] >= first[3] - first[1])


def _theil_sen(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Robust straight line through (x, y), at x, within twice and half the median; that if under 4 points."""
    middle = np.median(y)
    if len(x) < 4:
        return np.full(len(x), middle)
    i, j = np.triu_indices(len(x), 1)
    apart = x[j] != x[i]
    if not apart.any():
        return np.full(len(x), middle)
    slope = np.median((y[j] - y[i])[apart] / (x[j] - x[i])[apart])
    return np.clip(slope * x + np.median(y - slope * x), middle / 2, middle * 2)
