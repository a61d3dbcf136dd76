"""A cohort's vertebrae against the simulator's truth: slots, keypoints and grades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, LEVELS, overlapping_pairs
from fracsurv.cohort.cohort import Cohort
from fracsurv.detection.scores import KeypointErrors
from fracsurv.vertebrae.covariates import slot_values
from fracsurv.vertebrae.morphometry import grade_probabilities, morphometry

CALLS = {"any_fracture": 1, "grade_2_or_more": 2}
"""What is called, and the least grade that makes it true."""


@dataclass(frozen=True)
class Comparison:
    """What was found beside what is there.

    Attributes
    ----------
    right : ndarray (n,) bool
        Patients whose 13 slots all hold the vertebra that they are named after, and are empty where the radiograph
        does not show it.
    vertebrae : DataFrame
        A row for every true vertebra of a slot: `patient_id`, `level`, `true_grade`; `found`, whether a box overlaps
        its own by half; and of that box `grade`, `p_any_fracture`, `p_grade_2_or_more` (0 for a vertebra not found).
    keypoints : KeypointErrors
        Of every vertebra of a slot whose keypoints were located.
    """

    right: np.ndarray
    vertebrae: pd.DataFrame
    keypoints: KeypointErrors

    def summary(self) -> dict[str, float]:
        """Every number by name; sensitivities count a vertebra that was not found as not called."""
        result = {
            "patients": len(self.right),
            "patients_with_13_right_slots": float(self.right.mean()),
            "vertebrae": len(self.vertebrae),
            "vertebrae_found": float(self.vertebrae["found"].mean()),
        }
        if located := self.keypoints.summary():
            result |= located
            worst = self.vertebrae.groupby("patient_id", sort=False)
            patients = worst[["true_grade", "grade", *(f"p_{call}" for call in CALLS)]].max()
            for unit, rows in (("vertebra", self.vertebrae), ("patient", patients)):
                for call, least in CALLS.items():
                    result |= _call(
                        f"{unit}_{call}", rows["true_grade"] >= least, rows["grade"] >= least, rows[f"p_{call}"]
                    )
        return result


def compare(cohort: Cohort, true_boxes: pd.DataFrame, truth: pd.DataFrame) -> Comparison:
    """Compare `cohort.vertebrae` with what the simulator drew.

    Parameters
    ----------
    true_boxes : DataFrame
        As `Cohort.true_vertebrae` gives it.
    truth : DataFrame
        Indexed by patient, with `grade_T4` …
    """
    index = cohort.slot_index
    points, scales = slot_values(cohort)
    grade = morphometry(torch.from_numpy(points), ordered=True).grade.numpy()
    chance = np.concatenate(
        [
            grade_probabilities(
                torch.from_numpy(points[at]), torch.from_numpy(np.nan_to_num(scales[at])), ordered=True
            ).numpy()
            for at in np.array_split(np.arange(len(points)), -(-len(points) // 50))
        ]
    )
    found_of, true_of = (dict(list(table.groupby("patient_id"))) for table in (cohort.vertebrae, true_boxes))
    right, rows, located = np.zeros(len(cohort), bool), [], []
    for number, patient in enumerate(cohort.table["patient_id"]):
        theirs = true_of.get(patient, true_boxes.iloc[:0]).reset_index(drop=True)
        theirs = theirs[theirs["level"].isin(LEVELS)]
        boxes = found_of[patient][BOX_COLUMNS].to_numpy(float) if patient in found_of else np.zeros((0, 4))
        level_of = {
            i: theirs["level"].iloc[j] for i, j in overlapping_pairs(boxes, theirs[BOX_COLUMNS].to_numpy(float))
        }
        slot_of = {level_of[i]: slot for slot, i in enumerate(index[number]) if i in level_of}
        shown = set(theirs["level"])
        right[number] = all(
            level_of.get(i) == level if i >= 0 else level not in shown
            for level, i in zip(LEVELS, index[number], strict=True)
        )
        true_points = theirs[KEYPOINT_COLUMNS].to_numpy(float).reshape(-1, 6, 2)
        for level, wanted in zip(theirs["level"], true_points, strict=True):
            row = {"patient_id": patient, "level": level, "true_grade": int(truth.loc[patient, f"grade_{level}"])}
            row |= {"found": level in level_of.values(), "grade": 0, "p_any_fracture": 0.0, "p_grade_2_or_more": 0.0}
            if level in slot_of and np.isfinite(points[number, slot_of[level]]).all():
                at = number, slot_of[level]
                row |= {"grade": int(grade[at])}
                row |= {f"p_{call}": float(chance[at][least:].sum()) for call, least in CALLS.items()}
                if np.isfinite(wanted).all():
                    located.append((points[at], scales[at], wanted))
            rows.append(row)
    mean, scale, true = np.array(located, float).reshape(-1, 3, 6, 2).swapaxes(0, 1)
    return Comparison(right, pd.DataFrame(rows), KeypointErrors.of(mean, scale, true))


def _share(name: str, right: pd.Series) -> dict[str, float]:
    """A share with its exact 95 % interval (Clopper–Pearson), which takes the rows for independent."""
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="exact")
    return {name: float(right.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def _call(name: str, is_so: pd.Series, called: pd.Series, chance: pd.Series) -> dict[str, float]:
    """Sensitivity, specificity and AUC of a call; NaN-free: left out where nobody, or everybody, has it."""
    result = {f"{name}_n": int(is_so.sum())}
    if 0 < is_so.sum() < len(is_so):
        result |= {
            **_share(f"{name}_sensitivity", called[is_so]),
            **_share(f"{name}_specificity", ~called[~is_so]),
            f"{name}_auc": float(roc_auc_score(is_so, chance)),
        }
    return result
