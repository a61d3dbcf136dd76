"""The rows of an image store: a radiograph read, cut and resized, and written where it belongs.

Stands apart from `store` so that a worker process imports no more than this.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fracsurv.cohort.boxes import off_the_picture
from fracsurv.images.crops import crop_stack
from fracsurv.images.radiographs import read_radiograph, resize, source_kind
from fracsurv.utils.errors import UserError
from fracsurv.vertebrae.slots import slots

INPUTS = ("crops", "full")
RANGES = ["crops_min", "crops_max", "full_min", "full_max"]
SLOT_RULES = ["n_boxes", "discarded_tall", "dropped_top", "inserted_gap", "filled_top", "filled_bottom"]
COUNTS = [*SLOT_RULES, "n_shrunk"]


@dataclass(frozen=True)
class Task:
    """One patient's row: where its radiograph is, how messages call it, its boxes (n, 4); see `Cohort.windowed`.

    `name` is '' for a patient without a radiograph.
    """

    row: int
    patient_id: str
    path: Path
    name: str
    boxes: np.ndarray
    windowed: bool = False


EIGHT_TO_SIXTEEN = 257
"""By what 8-bit pixels are multiplied where others have more bits: 255 becomes 65,535."""


def common_dtype(tasks: list[Task]) -> np.dtype:
    """uint8 if every radiograph has 8 bits, uint16 otherwise."""
    dtype = np.dtype(np.uint8)
    for task in tasks:
        if not task.name:
            continue
        with suppress(UserError):  # told, with all others, when it is read
            dtype = np.promote_types(dtype, source_kind(task.path, name=task.name, windowed=task.windowed)[0])
    return dtype


def write_rows(folder: Path, tasks: list[Task], settings: dict[str, Any]) -> tuple[list[dict], list[str]]:
    """Fill these tasks' rows of the arrays; returns a table row for each, and the faults found."""
    rows, faults = [], []
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r+")
        for name in ("crops", "crop_sizes", "full")
        if (folder / f"{name}.npy").exists()
    }
    for task in tasks:
        try:
            rows.append(_write_row(arrays, task, settings))
        except UserError as error:
            faults += error.faults
    return rows, faults


def _write_row(arrays: dict[str, np.ndarray], task: Task, settings: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"patient_id": task.patient_id} | dict.fromkeys(RANGES, np.nan)
    if not task.name:  # the arrays are zeros from the start
        return row | (dict.fromkeys(COUNTS, 0) if "crops" in arrays else {})
    image = read_radiograph(task.path, name=task.name, windowed=task.windowed)
    dtype = next(arrays[name].dtype for name in INPUTS if name in arrays)
    if image.dtype == np.uint8 and dtype == np.uint16:
        image = image.astype(np.uint16) * np.uint16(EIGHT_TO_SIXTEEN)
    if "full" in arrays:
        full = arrays["full"][task.row] = resize(image, tuple(settings["full_shape"]))
        row |= {"full_min": float(full.min()), "full_max": float(full.max())}
    if "crops" in arrays:
        if n_off := int(off_the_picture(task.boxes, image.shape).sum()):
            raise UserError(
                f"boxes of patient {task.patient_id}: less than half of {n_off} of {len(task.boxes)} lies on the "
                f"radiograph of {image.shape[1]}×{image.shape[0]} pixels; are they in other pixels?"
            )
        found = slots(task.boxes, max_height=settings["max_height"], image_height=image.shape[0])
        frame, factor = tuple(settings["crop_shape"]), settings["scale_factor"]
        cut = crop_stack(image, task.boxes, found.index, scale_factor=factor, frame=frame)
        arrays["crops"][task.row], arrays["crop_sizes"][task.row] = cut.stack, cut.sizes
        inside = [_pasted(crop, size) for crop, size in zip(cut.stack, cut.sizes, strict=True) if size[0]]
        if inside:
            row["crops_min"] = float(min(crop.min() for crop in inside))
            row["crops_max"] = float(max(crop.max() for crop in inside))
        row |= {name: getattr(found, name) for name in SLOT_RULES} | {"n_shrunk": cut.n_shrunk}
    return row


def _pasted(crop: np.ndarray, size: np.ndarray) -> np.ndarray:
    top, left = (crop.shape[0] - size[0]) // 2, (crop.shape[1] - size[1]) // 2
    return crop[top : top + size[0], left : left + size[1]]
