"""Crops of vertebrae: cut out of a radiograph, padded with zeros and stacked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fracsurv.images.radiographs import resize
from fracsurv.vertebrae.slots import checked_boxes

CROP_SHAPE = (230, 272)
"""Height and width of the frame that a crop is padded to, pixels at scale 1 (272×272 for the ViT)."""


class CropStack(NamedTuple):
    """Crops in their frames (13, H, W), sizes (13, 2) as height and width, 0 = empty; how many shrunk."""

    stack: np.ndarray
    sizes: np.ndarray
    n_shrunk: int


def crop_shape(scale: float, *, square: bool = False) -> tuple[int, int]:
    """Height and width of a crop's frame at `scale`: the protocol's 230×272, or 272×272 if `square` (ViT)."""
    height, width = (max(1, round(side * scale)) for side in CROP_SHAPE)
    return (width, width) if square else (height, width)


def crop_stack(
    image: np.ndarray,
    boxes: np.ndarray,
    index: np.ndarray,
    *,
    scale_factor: float,
    frame: tuple[int, int],
) -> CropStack:
    """Cut the slots' boxes out of a radiograph and stack them, each centred in a zero frame.

    Parameters
    ----------
    image : ndarray (h, w), uint8 or uint16
    boxes : ndarray (n, 4)
        x_min, y_min, x_max, y_max in the image's pixels; widened to whole pixels and cut at the image's edge.
    index : ndarray (13,) int
        Box of each slot, −1 = empty (`SlotResult.index`).
    scale_factor : float
        Target pixels per source pixel, the same in both directions, so crops keep their proportions. A crop
        that is still larger than `frame` is shrunk to fit, and counted.

    Raises
    ------
    ValueError
        A box that lies outside the image.
    """
    boxes = checked_boxes(boxes)
    stack = np.zeros((len(index), *frame), image.dtype)
    sizes = np.zeros((len(index), 2), np.int16)
    n_shrunk = 0
    for slot in np.flatnonzero(np.asarray(index) >= 0):
        crop = image[_pixels(boxes[index[slot]], image.shape)]
        if crop.size == 0:
            shown = ", ".join(f"{side:g}" for side in boxes[index[slot]])
            raise ValueError(f"box ({shown}) lies outside the image of {image.shape[1]}×{image.shape[0]} pixels")
        wanted = np.maximum(1, np.rint(np.array(crop.shape) * scale_factor))
        fit = min(1.0, *(np.array(frame) / wanted))
        n_shrunk += fit < 1
        h, w = np.maximum(1, np.floor(wanted * fit + 1e-9)).astype(int)
        top, left = (frame[0] - h) // 2, (frame[1] - w) // 2
        stack[slot, top : top + h, left : left + w] = resize(crop, (h, w))
        sizes[slot] = h, w
    return CropStack(stack, sizes, int(n_shrunk))


def _pixels(box: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    x_min, y_min = np.floor(box[:2]).astype(int)
    x_max, y_max = np.ceil(box[2:]).astype(int)
    return slice(max(0, y_min), max(0, min(y_max, shape[0]))), slice(max(0, x_min), max(0, min(x_max, shape[1])))
