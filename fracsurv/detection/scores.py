"""How good detections are: average precision, sensitivity at a rate of false boxes, exact counts; and keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from fracsurv.cohort.boxes import CHI2_90
from fracsurv.detection.inference import Detections

IOU_STEPS = tuple(np.arange(0.5, 1.0, 0.05).round(2))
RECALL_GRID = np.linspace(0, 1, 101)


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


def pooled(found: Sequence[Detections], truth: Sequence[np.ndarray], iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and hits of all radiographs' detections, highest score first."""
    score = np.concatenate([each.score for each in found])
    hit = np.concatenate([matches(each, boxes, iou) >= 0 for each, boxes in zip(found, truth, strict=True)])
    order = np.argsort(-score, kind="stable")
    return score[order], hit[order]


def average_precision(found: Sequence[Detections], truth: Sequence[np.ndarray], iou: float) -> float:
    """Area under the precision-recall curve, precision made non-increasing and read at 101 recalls (COCO's AP)."""
    _, hit = pooled(found, truth, iou)
    n_true = sum(map(len, truth))
    if n_true == 0:
        return float("nan")
    if not len(hit):
        return 0.0
    true = np.cumsum(hit)
    recall, precision = true / n_true, true / np.arange(1, len(hit) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALL_GRID, side="left")
    return float(np.where(at < len(envelope), envelope[np.minimum(at, len(envelope) - 1)], 0.0).mean())


def sensitivity_at(found: Sequence[Detections], truth: Sequence[np.ndarray], false_per_image: float) -> float:
    """Share of the vertebrae that are hit (IoU 0.5) at the lowest score with at most so many false boxes an image."""
    _, hit = pooled(found, truth, 0.5)
    n_true = sum(map(len, truth))
    if n_true == 0:
        return float("nan")
    allowed = np.flatnonzero(np.cumsum(~hit) <= false_per_image * len(found))
    return float(hit[: allowed[-1] + 1].sum() / n_true) if len(allowed) else 0.0


def best_threshold(found: Sequence[Detections], truth: Sequence[np.ndarray]) -> float:
    """The score from which on counting boxes as vertebrae gives the best F1 at IoU 0.5."""
    score, hit = pooled(found, truth, 0.5)
    if not hit.any():
        return 0.5
    f1 = 2 * np.cumsum(hit) / (np.arange(1, len(hit) + 1) + sum(map(len, truth)))
    return float(score[int(f1.argmax())])


def scores(found: Sequence[Detections], truth: Sequence[np.ndarray], threshold: float) -> dict[str, float]:
    """Every score of a set of radiographs.

    `ap50`, `ap50_95`, `sensitivity_at_half` (0.5 false boxes an image) judge all detections by their scores;
    `recall`, `precision` (IoU 0.5) and `exact_count` (share of radiographs with as many boxes as vertebrae) what
    remains as one column at `threshold`.
    """
    columns = [each.column(threshold) for each in found]
    hits = [matches(each, boxes, 0.5) >= 0 for each, boxes in zip(columns, truth, strict=True)]
    n_hit, n_found = sum(hit.sum() for hit in hits), sum(map(len, hits))
    counts = [len(each.score) == len(boxes) for each, boxes in zip(columns, truth, strict=True)]
    return {
        "n_images": len(truth),
        "n_vertebrae": sum(map(len, truth)),
        "ap50": average_precision(found, truth, 0.5),
        "ap50_95": float(np.mean([average_precision(found, truth, iou) for iou in IOU_STEPS])),
        "sensitivity_at_half": sensitivity_at(found, truth, 0.5),
        "recall": float(n_hit / max(1, sum(map(len, truth)))),
        "precision": float(n_hit / max(1, n_found)),
        "exact_count": float(np.mean(counts)),
    }


@dataclass(frozen=True)
class KeypointErrors:
    """How far located keypoints lie from the true ones, each (k,): one vertebra's six, or many vertebrae's.

    `error` in pixels, `share` of the vertebra's mean height, `inside` whether the true point lies in the located
    one's 90 % ellipse; only of points that have a standard deviation.
    """

    error: np.ndarray
    share: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, scale: np.ndarray, true: np.ndarray) -> KeypointErrors:
        """Of vertebrae (n, 6, 2) without NaN; a scale that is not above 0 is none."""
        error = np.linalg.norm(mean - true, axis=-1)
        height = np.linalg.norm(true[:, :3] - true[:, 3:], axis=-1).mean(axis=-1)
        told = (scale > 0).all(axis=-1)
        inside = np.square((mean - true)[told] / scale[told]).sum(axis=-1) <= CHI2_90
        return cls(error.ravel(), (error / height[:, None]).ravel(), inside)

    def summary(self) -> dict[str, float]:
        """Every number by name; those that cannot be told are left out."""
        if not len(self.error):
            return {}
        result = {
            "keypoint_error_px_median": float(np.median(self.error)),
            "keypoint_error_px_mean": float(self.error.mean()),
            "keypoint_error_share_of_height_mean": float(self.share.mean()),
        }
        if len(self.inside):
            result["coverage_of_90_percent_ellipses"] = float(self.inside.mean())
        return result
