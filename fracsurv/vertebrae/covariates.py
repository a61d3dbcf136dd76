"""Vertebral fractures as covariates: what the graded vertebrae of a patient come to, one row a patient."""

from __future__ import annotations

import numpy as np

from fracsurv.cohort.boxes import KEYPOINT_COLUMNS, N_SLOTS, SCALE_COLUMNS
from fracsurv.cohort.cohort import Cohort
from fracsurv.vertebrae.slots import into_slots

VERTEBRAL = {
    "vf_worst_grade": "worst Genant grade",
    "vf_number": "fractured vertebrae",
    "vf_mean_apr": "mean ha/hp",
    "vf_mean_mpr": "mean hm/hp",
}
"""The block's columns and what they are called. The third ratio, hm/ha, is the quotient of the other two."""


def slot_values(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and their standard deviations by slot, each (n, 13, 6, 2), in pixels; NaN where unknown."""
    index = cohort.slot_index
    result = [np.full((len(cohort), N_SLOTS, 6, 2), np.nan) for _ in range(2)]
    of = dict(list(cohort.vertebrae.groupby("patient_id")))
    for row, patient in enumerate(cohort.table["patient_id"]):
        if patient in of:
            for values, columns in zip(result, (KEYPOINT_COLUMNS, SCALE_COLUMNS), strict=True):
                values[row] = into_slots(of[patient][columns].to_numpy(float).reshape(-1, 6, 2), index[row])
    return result[0], result[1]


def vertebral_covariates(cohort: Cohort) -> np.ndarray:
    """(n, 4) float64, the columns of `VERTEBRAL`; NaN for a patient in whom no vertebra's keypoints are known.

    Grades are Genant's with his tolerances, of the slots' vertebrae as one spine (`morphometry(ordered=True)`).
    Nothing is learnt from the cohort, so that no patient's row depends on another's.
    """
    import torch  # here, since the block's names are read by much that computes none of it

    from fracsurv.vertebrae.morphometry import morphometry

    points = slot_values(cohort)[0]
    points[~np.isfinite(points).all(axis=(2, 3))] = np.nan  # measured is what has all six points
    found = morphometry(torch.from_numpy(points), ordered=True)
    known = torch.isfinite(found.apr) & torch.isfinite(found.mpr) & (found.mpr > 0)
    n = known.sum(dim=1)
    grade = torch.where(known, found.grade, 0).double()
    block = torch.stack(
        [
            grade.amax(dim=1),
            (grade > 0).double().sum(dim=1),
            torch.where(known, found.apr, 0).sum(dim=1) / n,
            torch.where(known, found.mpr, 0).sum(dim=1) / n,
        ],
        dim=1,
    )
    return torch.where(n[:, None] > 0, block, torch.nan).numpy()
