"""From a radiograph to a column of boxes: into the detector's frame, through the network, back to image pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import nms

from fracsurv.detection.network import FRAME, VertebraDetector, boxes_around, cell_centres
from fracsurv.detection.single_column import one_column
from fracsurv.images.radiographs import resize
from fracsurv.utils.devices import reproducible

BATCH_SIZE = 8
PERCENTILES = (0.5, 99.5)
"""Grey levels that become 0 and 255, so that burnt-in marks and the collimator's edge do not set the contrast."""
MIN_SCORE = 0.02
DUPLICATE_IOU = 0.45
MAX_BOXES = 100


@dataclass(frozen=True)
class Placement:
    """Where a radiograph lies in its frame: frame pixel = `scale` · image pixel + (`left`, `top`)."""

    scale: float
    left: int
    top: int

    def to_frame(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in frame pixels."""
        return boxes * self.scale + np.tile([self.left, self.top], 2)

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in image pixels."""
        return (boxes - np.tile([self.left, self.top], 2)) / self.scale


def letterbox(image: np.ndarray) -> tuple[np.ndarray, Placement]:
    """A radiograph in the middle of a black `FRAME`, proportions kept, uint8; and its place.

    Grey levels from the 0.5th to the 99.5th percentile are spread over 0 to 255.
    """
    height, width = image.shape
    scale = min(FRAME[0] / height, FRAME[1] / width)
    shape = tuple(int(np.clip(round(side * scale), 1, most)) for side, most in zip(image.shape, FRAME, strict=True))
    small = resize(image, shape).astype(np.float32)
    low, high = np.percentile(small, PERCENTILES)
    small = (small - low) * (255 / max(high - low, 1.0))
    top, left = (FRAME[0] - shape[0]) // 2, (FRAME[1] - shape[1]) // 2
    frame = np.zeros(FRAME, np.uint8)
    frame[top : top + shape[0], left : left + shape[1]] = np.rint(small.clip(0, 255))
    return frame, Placement(scale, left, top)


@dataclass(frozen=True)
class Detections:
    """Boxes, float64, and scores (n,) in [0, 1], highest first."""

    boxes: np.ndarray
    score: np.ndarray

    def column(self, threshold: float) -> Detections:
        """Those with a score of at least `threshold` that make one column of vertebrae, top to bottom."""
        likely = np.flatnonzero(self.score >= threshold)
        chosen = likely[one_column(self.boxes[likely], self.score[likely])]
        return Detections(self.boxes[chosen], self.score[chosen])


def detect(model: VertebraDetector, images: Iterable[np.ndarray]) -> Iterator[Detections]:
    """All boxes that the detector sees in each radiograph, not yet one column.

    Always in float32: in bfloat16 a box near the threshold would be found on one computer and not on the next.
    """
    images = iter(images)
    while batch := list(islice(images, BATCH_SIZE)):
        frames, placements = zip(*map(letterbox, batch), strict=True)
        for found, placement, image in zip(predict_frames(model, np.stack(frames)), placements, batch, strict=True):
            boxes = placement.to_image(found.boxes).clip(0, np.tile(image.shape[::-1], 2))
            kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            yield Detections(boxes[kept], found.score[kept])


def as_input(frames: np.ndarray) -> Tensor:
    """uint8 frames (n, H, W) to the network's (n, 1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(frames).float().div_(255).unsqueeze(1)


def predict_frames(model: VertebraDetector, frames: np.ndarray) -> list[Detections]:
    """Detections in uint8 frames (n, H, W), boxes in frame pixels; puts the model into evaluation mode."""
    model.eval()
    image = as_input(frames).to(next(model.parameters()).device)
    with torch.no_grad(), reproducible():
        logits, sides = model(image.contiguous(memory_format=torch.channels_last))
    return decode(logits.sigmoid(), sides)


def decode(score: Tensor, sides: Tensor) -> list[Detections]:
    """Boxes in frame pixels of each radiograph, without duplicates: cells whose score exceeds their neighbours'.

    `score` (n, 1, h, w) is in [0, 1]; `sides` (n, 4, h, w) are the network's distances.
    """
    peak = functional.max_pool2d(score, 3, stride=1, padding=1) == score
    centres = cell_centres(tuple(score.shape[2:]), score.device)
    result = []
    for values, is_peak, distances in zip(score[:, 0], peak[:, 0], sides, strict=True):
        chosen = is_peak & (values >= MIN_SCORE)
        boxes = boxes_around(centres[chosen], distances.permute(1, 2, 0)[chosen])
        kept = nms(boxes, values[chosen], DUPLICATE_IOU)[:MAX_BOXES]
        result.append(Detections(boxes[kept].double().cpu().numpy(), values[chosen][kept].double().cpu().numpy()))
    return result
