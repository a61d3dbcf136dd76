"""How good a finder is: average precision, sensitivity, exact counts; keypoints; slots and grades against a truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from torchvision.ops import box_iou

from fracsurv.cohort.boxes import BOX_COLUMNS, CHI2_90, KEYPOINT_COLUMNS, LEVELS, overlapping_pairs
from fracsurv.cohort.cohort import Cohort
from fracsurv.detection.inference import Detections
from fracsurv.vertebrae.covariates import slot_values
from fracsurv.vertebrae.morphometry import grade_probabilities, morphometry

IOU_STEPS = tuple(np.arange(0.5, 1.0, 0.05).round(2))
RECALL_GRID = np.linspace(0, 1, 101)
MIN_GRADES = {"any_fracture": 1, "grade_2_or_more": 2}
"""Diagnoses, and the minimum grade of each."""


def matches(found: Detections, truth: np.ndarray, iou: float) -> np.ndarray:
    """The vertebra that each detection hits, (n,) int, a row of `truth`; -1 = none, a false box.

    In order of falling score each takes, of the true boxes that are still free and that it overlaps by at least `iou`
    (intersection over union), the one it overlaps most: the rule of COCO.
    """
    hit = np.full(len(found.score), -1)
    if len(truth) == 0 or len(hit) == 0:
        return hit
    overlap = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(np.asarray(truth, float))).numpy()
    free = np.ones(len(truth), bool)
    for row in np.argsort(-found.score, kind="stable"):
        candidates = np.where(free, overlap[row], -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= iou:
            hit[row], free[best] = best, False
    return hit


def _pooled(found: Sequence[Detections], truth: Sequence[np.ndarray], iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and hits of all radiographs' detections, highest score first."""
    score = np.concatenate([each.score for each in found])
    hit = np.concatenate([matches(each, boxes, iou) >= 0 for each, boxes in zip(found, truth, strict=True)])
    order = np.argsort(-score, kind="stable")
    return score[order], hit[order]


def average_precision(found: Sequence[Detections], truth: Sequence[np.ndarray], iou: float) -> float:
    """Area under the precision-recall curve, precision made non-increasing and read at 101 recalls (COCO's AP)."""
    _, hit = _pooled(found, truth, iou)
    n_true = sum(map(len, truth))
    if n_true == 0:
        return float("nan")
    if not len(hit):
        return 0.0
    true = np.cumsum(hit)
    recall, precision = true / n_true, true / np.arange(1, len(hit) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, RECALL_GRID, side="left")].mean())


def sensitivity_at(found: Sequence[Detections], truth: Sequence[np.ndarray], false_per_image: float) -> float:
    """Share of the vertebrae that are hit (IoU 0.5) at the lowest score with at most so many false boxes an image."""
    _, hit = _pooled(found, truth, 0.5)
    n_true = sum(map(len, truth))
    if n_true == 0:
        return float("nan")
    allowed = np.flatnonzero(np.cumsum(~hit) <= false_per_image * len(found))
    return float(hit[: allowed[-1] + 1].sum() / n_true) if len(allowed) else 0.0


def best_threshold(found: Sequence[Detections], truth: Sequence[np.ndarray]) -> float:
    """The minimum score of a vertebra that gives the best F1 at IoU 0.5; 0.5 where no detection hits."""
    score, hit = _pooled(found, truth, 0.5)
    if not hit.any():
        return 0.5
    f1 = 2 * np.cumsum(hit) / (np.arange(1, len(hit) + 1) + sum(map(len, truth)))
    return float(score[int(f1.argmax())])


def detection_scores(found: Sequence[Detections], truth: Sequence[np.ndarray], threshold: float) -> dict[str, float]:
    """Every score of a set of radiographs, by name.

    `ap50`, `ap50_95` and `sensitivity_at_half` (0.5 false boxes an image) are of all detections, by their scores;
    `recall`, `precision` (IoU 0.5) and `exact_count` (share of radiographs with as many boxes as vertebrae) of the
    single columns at `threshold`.
    """
    columns = [each.column(threshold) for each in found]
    hits = [matches(each, boxes, 0.5) >= 0 for each, boxes in zip(columns, truth, strict=True)]
    n_hit, n_found, n_true = sum(hit.sum() for hit in hits), sum(map(len, hits)), sum(map(len, truth))
    exact = [len(each.score) == len(boxes) for each, boxes in zip(columns, truth, strict=True)]
    return {
        "n_images": len(truth),
        "n_vertebrae": n_true,
        "ap50": average_precision(found, truth, 0.5),
        "ap50_95": float(np.mean([average_precision(found, truth, iou) for iou in IOU_STEPS])),
        "sensitivity_at_half": sensitivity_at(found, truth, 0.5),
        "recall": float(n_hit / max(1, n_true)),
        "precision": float(n_hit / max(1, n_found)),
        "exact_count": float(np.mean(exact)),
    }


def keypoint_scores(mean: np.ndarray, scale: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Errors of located keypoints by name, {} without any; `mean`, standard deviations `scale` and `true` (n, 6, 2).

    Errors are in pixels and in shares of the vertebra's mean height. The coverage of the 90 % ellipses is of the
    points whose `scale` is above 0, and missing without such.
    """
    if not len(mean):
        return {}
    error = np.linalg.norm(mean - true, axis=-1)
    height = np.linalg.norm(true[:, :3] - true[:, 3:], axis=-1).mean(axis=-1)
    result = {
        "keypoint_error_px_median": float(np.median(error)),
        "keypoint_error_px_mean": float(error.ravel().mean()),
        "keypoint_error_share_of_height_mean": float((error / height[:, None]).ravel().mean()),
    }
    known = (scale > 0).all(axis=-1)
    if known.any():
        inside = np.square((mean - true)[known] / scale[known]).sum(axis=-1) <= CHI2_90
        result["coverage_of_90_percent_ellipses"] = float(inside.mean())
    return result


@dataclass(frozen=True)
class Comparison:
    """A cohort's vertebrae beside the true ones.

    `right` (n,) bool: patients whose 13 slots all hold the vertebra that they are named after, and are empty where
    the radiograph does not show it. `vertebrae` has a row for every true vertebra of a slot: `patient_id`, `level`,
    `true_grade`; `found`, whether a box overlaps its own by half; and of that box `grade`, `p_any_fracture`,
    `p_grade_2_or_more` (0 for a vertebra not found). `keypoints` (3, k, 6, 2): located keypoints, their standard
    deviations and the true keypoints of the vertebrae that have all three.
    """

    right: np.ndarray
    vertebrae: pd.DataFrame
    keypoints: np.ndarray

    def summary(self) -> dict[str, float]:
        """Every number by name; sensitivities count a vertebra that was not found as not diagnosed."""
        result = {
            "patients": len(self.right),
            "patients_with_13_right_slots": float(self.right.mean()),
            "vertebrae": len(self.vertebrae),
            "vertebrae_found": float(self.vertebrae["found"].mean()),
        }
        if located := keypoint_scores(*self.keypoints):
            result |= located
            maximum = self.vertebrae.groupby("patient_id", sort=False)
            patients = maximum[["true_grade", "grade", *(f"p_{name}" for name in MIN_GRADES)]].max()
            for unit, rows in (("vertebra", self.vertebrae), ("patient", patients)):
                for name, least in MIN_GRADES.items():
                    has, called = rows["true_grade"] >= least, rows["grade"] >= least
                    result |= _diagnosis(f"{unit}_{name}", has, called, rows[f"p_{name}"])
        return result


def compare(cohort: Cohort, true_boxes: pd.DataFrame, truth: pd.DataFrame) -> Comparison:
    """`cohort.vertebrae` compared with what the simulator drew: `Cohort.true_vertebrae` and `Cohort.truth`."""
    index = cohort.slot_index
    points, scales = slot_values(cohort)
    grade, chance = _grades(points, scales)
    true_boxes = true_boxes[true_boxes["level"].isin(LEVELS)]
    found_of, true_of = (dict(list(table.groupby("patient_id"))) for table in (cohort.vertebrae, true_boxes))
    right, rows, located = np.zeros(len(cohort), bool), [], []
    for number, patient in enumerate(cohort.table["patient_id"]):
        theirs = true_of.get(patient, true_boxes.iloc[:0])
        levels = theirs["level"].tolist()
        boxes = found_of[patient][BOX_COLUMNS].to_numpy(float) if patient in found_of else np.zeros((0, 4))
        level_of = {i: levels[j] for i, j in overlapping_pairs(boxes, theirs[BOX_COLUMNS].to_numpy(float))}
        slot_of = {level_of[i]: slot for slot, i in enumerate(index[number]) if i in level_of}
        right[number] = all(
            level_of.get(i) == level if i >= 0 else level not in levels
            for level, i in zip(LEVELS, index[number], strict=True)
        )
        true_points = theirs[KEYPOINT_COLUMNS].to_numpy(float).reshape(-1, 6, 2)
        for level, wanted in zip(levels, true_points, strict=True):
            row = {"patient_id": patient, "level": level, "true_grade": int(truth.loc[patient, f"grade_{level}"])}
            row |= {"found": level in level_of.values(), "grade": 0, **{f"p_{name}": 0.0 for name in MIN_GRADES}}
            if level in slot_of and np.isfinite(points[number, slot_of[level]]).all():
                at = number, slot_of[level]
                row |= {"grade": int(grade[at])}
                row |= {f"p_{name}": float(chance[at][least:].sum()) for name, least in MIN_GRADES.items()}
                if np.isfinite(wanted).all():
                    located.append((points[at], scales[at], wanted))
            rows.append(row)
    return Comparison(right, pd.DataFrame(rows), np.array(located, float).reshape(-1, 3, 6, 2).swapaxes(0, 1))


def _grades(points: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genant's grades (n, 13) and the chance of each grade (n, 13, 4)."""
    grade = morphometry(torch.from_numpy(points), ordered=True).grade.numpy()
    parts = np.array_split(np.arange(len(points)), -(-len(points) // 50))
    known = np.nan_to_num(scales)
    chances = [
        grade_probabilities(torch.from_numpy(points[at]), torch.from_numpy(known[at]), ordered=True).numpy()
        for at in parts
    ]
    return grade, np.concatenate(chances)


def _diagnosis(name: str, has: pd.Series, called: pd.Series, chance: pd.Series) -> dict[str, float]:
    """Sensitivity and specificity with exact 95 % intervals (Clopper–Pearson), and AUC.

    The intervals take the rows for independent. Only the count where nobody, or everybody, has it.
    """
    result = {f"{name}_n": int(has.sum())}
    if not 0 < has.sum() < len(has):
        return result
    for what, right in (("sensitivity", called[has]), ("specificity", ~called[~has])):
        low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="exact")
        result |= {f"{name}_{what}": float(right.mean())}
        result |= {f"{name}_{what}_low": float(low), f"{name}_{what}_high": float(high)}
    return result | {f"{name}_auc": float(roc_auc_score(has, chance))}
