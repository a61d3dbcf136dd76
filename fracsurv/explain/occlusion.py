"""How much each vertebra moves the risk: the log hazard with it, less the log hazard with it taken away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fracsurv.cohort.boxes import BOX_COLUMNS, N_SLOTS
from fracsurv.cohort.cohort import Cohort
from fracsurv.images.radiographs import source_kind
from fracsurv.vertebrae.slots import into_slots


def occluded(call: Callable[..., Tensor], tabular: Tensor, images: Tensor, frames: Tensor | None) -> Tensor:
    """Contribution of each vertebra to each patient's log hazard: above 0, it makes the patient riskier.

    Parameters
    ----------
    call : callable
        (covariates, images) to (n,) log hazards; a network in evaluation mode.
    tabular : Tensor (n, p)
    images : Tensor (n, 13, H, W) or (n, 1, H, W)
        Normalised and padded. A crop is taken away as an empty slot is shown, all zeros; a vertebra of a full
        radiograph by giving its box the mean of the picture around it.
    frames : Tensor (n, 13, 4) or None
        For full radiographs: x_min, y_min, x_max, y_max of each slot's box in the image's pixels, NaN = none.

    Returns
    -------
    Tensor (n, 13), float32; NaN where there is no vertebra to take away.
    """
    with torch.no_grad():
        whole = call(tabular, images).float()
        result = torch.full((len(images), N_SLOTS), torch.nan)
        for slot in range(N_SLOTS):
            if frames is None:
                there = images[:, slot].flatten(1).any(dim=1)
                without = images.clone()
                without[:, slot] = 0
            else:
                there = torch.isfinite(frames[:, slot]).all(dim=1)
                without = torch.stack(
                    [_blanked(image, box) for image, box in zip(images, frames[:, slot], strict=True)]
                )
            if there.any():
                changed = call(tabular[there], without[there]).float()
                result[there.cpu(), slot] = (whole[there] - changed).cpu()
    return result


def _blanked(image: Tensor, box: Tensor) -> Tensor:
    """An image (1, H, W) whose box has the mean of a border around it, half as wide as the box."""
    if not torch.isfinite(box).all():
        return image
    height, width = image.shape[-2:]
    left, top, right, bottom = (int(side) for side in (*box[:2].floor(), *box[2:].ceil()))
    rim = max(1, (right - left) // 2)
    around = image[:, max(0, top) : bottom, max(0, left - rim) : min(width, right + rim)]
    result = image.clone()
    result[:, max(0, top) : min(height, bottom), max(0, left) : min(width, right)] = around.mean()
    return result


def vertebra_frames(cohort: Cohort, rows: np.ndarray, resized: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """Boxes of the 13 slots in a padded full image, (len(rows), 13, 4) in its pixels; NaN where a slot is empty.

    Parameters
    ----------
    resized, frame : (height, width)
        Of the stored picture, and of the zero-padded one.
    """
    part = cohort.of_rows(rows)
    index = part.slot_index
    of = {patient: boxes[BOX_COLUMNS].to_numpy(float) for patient, boxes in part.vertebrae.groupby("patient_id")}
    result = np.full((len(rows), N_SLOTS, 4), np.nan)
    top, left = (frame[0] - resized[0]) // 2, (frame[1] - resized[1]) // 2
    for number, (patient, name) in enumerate(zip(part.table["patient_id"], part.table["image"], strict=True)):
        if patient not in of:
            continue
        height, width = source_kind(part.folder / name, name=name)[1]
        across, down = resized[1] / width, resized[0] / height
        boxes = of[patient] * [across, down, across, down] + [left, top, left, top]
        result[number] = into_slots(boxes, index[number])
    return result
