"""Radiographs of any size and depth into the detector's frame, and boxes there and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fracsurv.detection.network import FRAME
from fracsurv.images.radiographs import resize

PERCENTILES = (0.5, 99.5)
"""Grey levels that become 0 and 255: burnt-in marks and the collimator's edge shall not decide the contrast."""


@dataclass(frozen=True)
class Placing:
    """Where a radiograph lies in its frame: frame pixel = `scale` · image pixel + (`left`, `top`)."""

    scale: float
    left: int
    top: int

    def to_frame(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) or points (n, 2) from image pixels to frame pixels."""
        return boxes * self.scale + self._shift(boxes)

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) or points (n, 2) from frame pixels to image pixels."""
        return (boxes - self._shift(boxes)) / self.scale

    def _shift(self, boxes: np.ndarray) -> np.ndarray:
        return np.tile([self.left, self.top], boxes.shape[1] // 2)


def into_frame(image: np.ndarray) -> tuple[np.ndarray, Placing]:
    """Fit a radiograph, proportions kept, into the middle of a black frame.

    Parameters
    ----------
    image : ndarray (h, w), uint8 or uint16

    Returns
    -------
    frame : ndarray `FRAME`, uint8
        Grey levels from the 0.5th to the 99.5th percentile of the picture spread over 0 to 255.
    placing : Placing
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
    return frame, Placing(scale, left, top)
