"""Vertebral fractures as covariates: what the graded vertebrae of a patient come to, one row a patient."""

from __future__ import annotations

import numpy as np
import torch

from fracsurv.cohort import Cohort
from fracsurv.cohort_checks import BOX_COLUMNS, KEYPOINT_COLUMNS, SCALE_COLUMNS
from fracsurv.morphometry import morphometry
from fracsurv.radiographs import source_kind
from fracsurv.vertebrae import MAX_HEIGHT, N_SLOTS, slots

VERTEBRAL = {
    "vf_worst_grade": "worst Genant grade",
    "vf_number": "fractured vertebrae",
    "vf_mean_apr": "mean ha/hp",
    "vf_mean_mpr": "mean hm/hp",
}
"""The block's columns and what they are called. The third ratio, hm/ha, is the quotient of the other two."""


def slot_index(cohort: Cohort) -> np.ndarray:
    """(n, 13) int: which of a patient's boxes, in the order of `cohort.vertebrae`, fills which slot; −1 = empty.

    The slots of the crops.
    """
    of = {patient: rows[BOX_COLUMNS].to_numpy() for patient, rows in cohort.vertebrae.groupby("patient_id")}
    none, tallest = np.zeros((0, 4)), MAX_HEIGHT * cohort.resolution
    pairs = zip(cohort.table["patient_id"], cohort.table["image"], strict=True)
    heights = {patient: source_kind(cohort.folder / name, name=name)[1][0] for patient, name in pairs}
    return np.stack(
        [
            slots(of.get(patient, none), max_height=tallest, image_height=height).index
            for patient, height in heights.items()
        ]
    )


def slot_values(cohort: Cohort, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and their standard deviations, each (n, 13, 6, 2), in pixels; NaN where unknown."""
    result = [np.full((len(cohort), N_SLOTS, 6, 2), np.nan) for _ in range(2)]
    of = dict(list(cohort.vertebrae.groupby("patient_id")))
    for row, patient in enumerate(cohort.table["patient_id"]):
        filled = index[row] >= 0
        if filled.any():
            for values, columns in zip(result, (KEYPOINT_COLUMNS, SCALE_COLUMNS), strict=True):
                theirs = of[patient][columns].to_numpy(float).reshape(-1, 6, 2)
                values[row, filled] = theirs[index[row, filled]]
    return result[0], result[1]


def vertebral_covariates(cohort: Cohort) -> np.ndarray:
    """(n, 4) float64, the columns of `VERTEBRAL`; NaN for a patient in whom no vertebra's keypoints are known.

    Grades are Genant's with his tolerances, of the slots' vertebrae as one spine (`morphometry(ordered=True)`).
    Nothing is learnt from the cohort, so that no patient's row depends on another's.
    """
    measured = morphometry(torch.from_numpy(slot_values(cohort, slot_index(cohort))[0]), ordered=True)
    known = torch.isfinite(measured.apr)
    n = known.sum(dim=1)
    grade = measured.grade.double()
    block = torch.stack(
        [
            grade.amax(dim=1),
            (grade > 0).double().sum(dim=1),
            measured.apr.nansum(dim=1) / n,
            measured.mpr.nansum(dim=1) / n,
        ],
        dim=1,
    )
    return torch.where(n[:, None] > 0, block, torch.nan).numpy()
