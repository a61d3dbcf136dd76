"""Crops as a network sees them: normalised, the padding exactly 0, and in training changed a little.

Order: normalise, mask the padding, contrast, pad, geometry, noise; done in one pass over a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fracsurv.augment import transform

NOISE_SHARED = 8
"""A batch's noise is cut from a strip of 1/8 of its length."""


@dataclass(frozen=True)
class CropAugment:
    """Strengths for crops.

    Attributes
    ----------
    vertical_flip, horizontal_flip : probabilities. Every crop of a patient is turned in its own frame alike;
        the order of the vertebrae stays.
    zoom : smallest and largest factor, drawn log-uniformly, one for all crops of a patient.
    noise_sd : standard deviation of the Gaussian noise, in units of the training range. Trabecular texture has
        one of about 0.016 in simulated crops at a quarter of the resolution: more noise would drown it.
    contrast : smallest and largest factor on the distance from the mean over a patient's crops.
    """

    vertical_flip: float = 0.5
    horizontal_flip: float = 0.5
    zoom: tuple[float, float] = (0.9, 1.1)
    noise_sd: float = 0.005
    contrast: tuple[float, float] = (0.9, 1.1)


def inside(sizes: Tensor, frame: tuple[int, int]) -> Tensor:
    """Where crops lie in their frames: bool (..., H, W) from `sizes` (..., 2); empty slots are False all over."""
    sides = []
    for axis in (0, 1):
        size = sizes[..., axis, None].to(torch.int64)
        start = (frame[axis] - size) // 2
        at = torch.arange(frame[axis], device=sizes.device)
        sides.append((at >= start) & (at < start + size))
    return sides[0][..., :, None] & sides[1][..., None, :]


def mask_padding(crops: Tensor, sizes: Tensor) -> Tensor:
    """Set what lies outside the crops to exactly 0, also after `normalise` moved the padding away from it.

    `crops` (n, 13, H, W) in the store's frame, before `pad_to`; `sizes` (n, 13, 2).
    """
    return crops * inside(sizes, crops.shape[-2:])


class CropDraws(NamedTuple):
    """What was drawn for the patients of a batch, each (n,): contrast, zoom, flips, and where its noise starts.

    `noise` is a strip of standard normal numbers, or None, of which every patient's are a part, times `noise_sd`.
    """

    contrast: Tensor
    zoom: Tensor
    vertical: Tensor
    horizontal: Tensor
    noise: Tensor | None
    start: Tensor | None
    noise_sd: float


def draw_crops(n: int, size: int, generator: torch.Generator, settings: CropAugment | None = None) -> CropDraws:
    """Draw for `n` patients whose images hold `size` numbers each, on the device of the generator.

    The noise strip is shorter than all that is cut from it: within a patient the numbers are independent, two
    patients of a batch may have some in common, at other places. Drawing them all would take longer than the rest.
    """
    settings, device = settings or CropAugment(), generator.device
    contrast, zoom, vertical, horizontal = torch.rand((4, n), generator=generator, device=device)
    near, far = (math.log(bound) for bound in settings.zoom)
    noise = start = None
    if settings.noise_sd > 0:
        spare = n * size // NOISE_SHARED
        noise = torch.randn(size + spare, generator=generator, device=device)
        start = torch.randint(spare + 1, (n,), generator=generator, device=device)
    return CropDraws(
        settings.contrast[0] + (settings.contrast[1] - settings.contrast[0]) * contrast,
        torch.exp(near + (far - near) * zoom),
        vertical < settings.vertical_flip,
        horizontal < settings.horizontal_flip,
        noise,
        start,
        settings.noise_sd,
    )


def change_crops(
    pixels: Tensor, sizes: Tensor, low: Tensor, high: Tensor, draws: CropDraws, frame: tuple[int, int]
) -> Tensor:
    """Normalise, change and pad crops as was drawn; see `augment_crops`. Pure arithmetic, which can be compiled.

    All of normalisation and contrast is a·pixel + b inside a crop and 0 outside of it. The pixels are 0 there
    already, and bilinear resampling is linear: so it is enough to resample the integers, and to know how much of each
    resampled pixel lies inside, which for an upright box is the product of a column and a row.
    """
    n, slots, *stored = pixels.shape
    scale = 1 / (high - low).clamp_min(1.0)
    n_inside = sizes.float().prod(-1).sum(1).clamp_min(1)
    values = pixels.float()
    mean = (values.sum((1, 2, 3)) / n_inside - low) * scale
    slope = draws.contrast * scale
    offset = (mean - draws.contrast * (mean + low * scale)).view(-1, 1, 1, 1)
    turned = transform(values, zoom=draws.zoom, vertical=draws.vertical, horizontal=draws.horizontal, frame=frame)
    rows = _share_inside(sizes[..., 0], stored[0], frame[0], draws.zoom, draws.vertical)[..., :, None]
    columns = _share_inside(sizes[..., 1], stored[1], frame[1], draws.zoom, draws.horizontal)[..., None, :]
    if draws.noise is not None:
        cut = draws.noise.unfold(0, slots * frame[0] * frame[1], 1)[draws.start]
        offset = torch.add(offset, cut.view(n, slots, *frame), alpha=draws.noise_sd)
    return turned.mul_(slope.view(-1, 1, 1, 1)).addcmul_(rows * columns, offset)


def augment_crops(
    pixels: Tensor,
    sizes: Tensor,
    low: Tensor,
    high: Tensor,
    generator: torch.Generator,
    settings: CropAugment | None = None,
    *,
    frame: tuple[int, int] | None = None,
    change: Callable[..., Tensor] = change_crops,
) -> Tensor:
    """Normalise crops as they lie in the store and give them contrast, zoom, flips and noise, each patient its own.

    Contrast and noise touch what is inside the crops alone, so that padding and empty slots stay exactly 0: an
    empty slot must not look like a faint vertebra. Geometry moves all crops of a patient alike. Zooming in cuts a
    crop that fills its frame.

    Parameters
    ----------
    pixels : Tensor (n, 13, h, w), integer
        Exactly 0 around the crops.
    sizes : Tensor (n, 13, 2), integer
        Height and width of each crop in the middle of its frame, 0 = empty.
    low, high : Tensor (n,)
        Pixel values that become 0 and 1; see `normalise`.
    generator : torch.Generator
        On the device of the pixels.
    frame : (H, W)
        Of the result, the crops in its middle; by default as the pixels come. The vision transformer's is square.
    change : callable
        `change_crops`, or the same compiled.

    Returns
    -------
    Tensor (n, 13, H, W), float32
    """
    n, slots, *stored = pixels.shape
    frame = frame or (stored[0], stored[1])
    return change(pixels, sizes, low, high, draw_crops(n, slots * frame[0] * frame[1], generator, settings), frame)


def _share_inside(size: Tensor, stored: int, length: int, zoom: Tensor, flip: Tensor) -> Tensor:
    """How much of each resampled row lies inside a crop, by one axis: (n, 13, length) from sizes (n, 13)."""
    start = (length - stored) // 2 + (stored - size) // 2
    away = torch.arange(length, device=size.device) - (length - 1) / 2
    source = away * ((1 - 2 * flip.float()) / zoom)[:, None] + (length - 1) / 2  # as `transform`'s grid
    source = source[:, None]
    start, end = start[..., None], (start + size)[..., None]
    return torch.minimum(source - start + 1, end - source).clamp(0, 1) * (size[..., None] > 0)
