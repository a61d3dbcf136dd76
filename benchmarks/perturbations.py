"""Changes of a radiograph that a vertebra finder should not mind; boxes and keypoints are changed alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from fracsurv.images.radiographs import resize

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, boxes (n, 4), keypoints (n, 6, 2)


def rotated(degrees: float) -> Callable[[Sample], Sample]:
    """Turned about the middle, counter-clockwise, in a picture of the same size; dark comes in at the corners.

    A box becomes the upright one around the turned ellipse within it: what the annotator would have drawn around the
    turned vertebra is not known.
    """

    def change(sample: Sample) -> Sample:
        image, boxes, keypoints = sample
        turned = Image.fromarray(image.astype(np.float32)).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=0)
        angle = math.radians(degrees)
        matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        middle = np.array(image.shape[::-1]) / 2
        centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle) @ matrix.T + middle
        half = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (matrix**2).T)
        limit = np.array(image.shape[::-1], float)
        kept = ((centre > 0) & (centre < limit)).all(axis=1)
        moved = np.hstack([(centre - half).clip(0), np.minimum(centre + half, limit)])[kept]
        return np.asarray(turned).round().astype(image.dtype), moved, ((keypoints - middle) @ matrix.T + middle)[kept]

    return change


def half_resolution(sample: Sample) -> Sample:
    """Half as many pixels in either direction."""
    image, boxes, keypoints = sample
    return resize(image, (image.shape[0] // 2, image.shape[1] // 2)), boxes / 2, keypoints / 2


def inverted(sample: Sample) -> Sample:
    """Dark bone on a bright ground."""
    image, *rest = sample
    return image.max() - image + image.min(), *rest


def exposed(factor: float) -> Callable[[Sample], Sample]:
    """Every grey level times `factor`, cut off at the radiograph's own brightest."""

    def change(sample: Sample) -> Sample:
        image, *rest = sample
        return (image * factor).clip(0, image.max()).round().astype(image.dtype), *rest

    return change


def implant(sample: Sample) -> Sample:
    """A rod over two neighbouring vertebrae in the lower half of the column, with a screw into each."""
    image, boxes, keypoints = sample
    image = image.copy()
    if len(boxes) < 4:
        return image, boxes, keypoints
    pair = boxes[np.argsort(boxes[:, 1])[2 * len(boxes) // 3 :][:2]]
    left, top = pair[:, :2].min(axis=0)
    right, bottom = pair[:, 2:].max(axis=0)
    width = right - left
    bright = image.max()
    image[int(top) : int(bottom), int(left + 0.55 * width) : int(left + 0.75 * width)] = bright
    for box in pair:
        middle, thick = (box[1] + box[3]) / 2, 0.12 * (box[3] - box[1])
        rows = slice(int(middle - thick), int(middle + thick) + 1)
        image[rows, int(box[0] + 0.1 * width) : int(box[2])] = bright
    return image, boxes, keypoints


CHANGES: dict[str, Callable[[Sample], Sample]] = {
    "as it is": lambda sample: sample,
    "turned by 10°": rotated(10),
    "turned by −10°": rotated(-10),
    "half resolution": half_resolution,
    "inverted": inverted,
    "exposure × 0.7": exposed(0.7),
    "exposure × 1.3": exposed(1.3),
    "implant over two vertebrae": implant,
}
