"""A trained detector at work: from radiographs to boxes with scores, and to one column of vertebrae."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import nms

from fracsurv.detection.column import one_column
from fracsurv.detection.frames import into_frame
from fracsurv.detection.network import VertebraDetector
from fracsurv.detection.targets import boxes_around, cell_centres
from fracsurv.utils.devices import reproducible

LEAST_SCORE = 0.02
"""Below this nothing is listed at all."""
OVERLAP = 0.45
"""Intersection over union from which the lower-scored of two boxes is a duplicate."""
MOST = 100


@dataclass(frozen=True)
class Detections:
    """Boxes (n, 4) float64 in image pixels, x_min, y_min, x_max, y_max, and scores (n,) in [0, 1], highest first."""

    boxes: np.ndarray
    score: np.ndarray

    def column(self, threshold: float) -> Detections:
        """Those that make one column of vertebrae (`one_column`), from a score of `threshold` on, top to bottom."""
        likely = np.flatnonzero(self.score >= threshold)
        chosen = likely[one_column(self.boxes[likely], self.score[likely])]
        return Detections(self.boxes[chosen], self.score[chosen])


def detect(model: VertebraDetector, images: Iterable[np.ndarray], *, batch_size: int = 8) -> Iterator[Detections]:
    """Every box that the detector sees in each radiograph (uint8 or uint16, any size), before `Detections.column`.

    In float32, whatever the device is quick at: boxes are data, and in bfloat16 a box near the threshold is there on
    one computer and not on the next.
    """
    batch: list[np.ndarray] = []
    for image in images:
        batch.append(image)
        if len(batch) == batch_size:
            yield from _detect_batch(model, batch)
            batch = []
    if batch:
        yield from _detect_batch(model, batch)


def _detect_batch(model: VertebraDetector, images: list[np.ndarray]) -> list[Detections]:
    frames, placings = zip(*map(into_frame, images), strict=True)
    device = next(model.parameters()).device
    found = decode(*answer(model, as_input(np.stack(frames)).to(device)))
    result = []
    for (boxes, score), placing, image in zip(found, placings, images, strict=True):
        boxes = placing.to_image(boxes).clip(0, np.tile(image.shape[::-1], 2))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        result.append(Detections(boxes[kept], score[kept]))
    return result


def as_input(frames: np.ndarray) -> Tensor:
    """uint8 frames (n, H, W) to the network's (n, 1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(frames).float().div_(255).unsqueeze(1)


def answer(model: VertebraDetector, image: Tensor) -> tuple[Tensor, Tensor]:
    """Centre scores and distances, in evaluation mode."""
    model.eval()
    with torch.no_grad(), reproducible():
        logits, sides = model(image.contiguous(memory_format=torch.channels_last))
    return logits.sigmoid(), sides


def decode(score: Tensor, sides: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes (k, 4) in frame pixels and scores (k,) of each radiograph, highest first, without duplicates.

    A cell counts whose score is the highest among its eight neighbours.
    """
    peak = functional.max_pool2d(score, 3, stride=1, padding=1) == score
    at = cell_centres(tuple(score.shape[2:]), score.device)
    result = []
    for values, is_peak, distances in zip(score[:, 0], peak[:, 0], sides, strict=True):
        chosen = is_peak & (values >= LEAST_SCORE)
        boxes = boxes_around(at[chosen], distances.permute(1, 2, 0)[chosen])
        kept = nms(boxes, values[chosen], OVERLAP)[:MOST]
        result.append((boxes[kept].double().cpu().numpy(), values[chosen][kept].double().cpu().numpy()))
    return result
