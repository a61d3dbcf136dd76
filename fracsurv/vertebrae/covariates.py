"""Vertebral fractures as covariates: what the graded vertebrae of a patient come to, one row a patient."""

from __future__ import annotations

import numpy as np

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, N_SLOTS, SCALE_COLUMNS
from fracsurv.cohort.cohort import Cohort
from fracsurv.images.radiographs import source_kind
from fracsurv.vertebrae.slots import MAX_HEIGHT, into_slots, slots

VERTEBRAL = {
    "vf_worst_grade": "worst Genant grade",
    "vf_number": "fractured vertebrae",
    "vf_mean_apr": "mean ha/hp",
    "vf_mean_mpr": "mean hm/hp",
}
"""The block's columns and what they are called. The third ratio, hm/ha, is the quotient of the other two."""


def slot_index(cohort: Cohort, *, look_at_radiographs: bool = True) -> np.ndarray:
    """(n, 13) int: which of a patient's boxes, in the order of `cohort.vertebrae`, fills which slot; −1 = empty.

    The slots of the crops. Without looking at the radiographs (their heights), vertebrae that no gap accounts for
    count as missing at the top: all slots may be moved, but none against another.
    """
    of = {patient: rows[BOX_COLUMNS].to_numpy() for patient, rows in cohort.vertebrae.groupby("patient_id")}
    none, tallest = np.zeros((0, 4)), MAX_HEIGHT * cohort.resolution
    patients = cohort.table["patient_id"]
    heights: list[int | None] = [None] * len(cohort)
    if look_at_radiographs:
        names = cohort.table["image"]
        heights = [source_kind(cohort.folder / name, name=name)[1][0] if name else None for name in names]
    return np.stack(
        [
            slots(of.get(patient, none), max_height=tallest, image_height=height).index
            for patient, height in zip(patients, heights, strict=True)
        ]
    )


def slot_values(cohort: Cohort, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and their standard deviations, each (n, 13, 6, 2), in pixels; NaN where unknown."""
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

    points = slot_values(cohort, slot_index(cohort, look_at_radiographs=False))[0]
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
