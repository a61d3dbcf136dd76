"""Batched augmentation on the device of the images, with a generator of its own.

The protocol names the kinds (full images: salt-and-pepper dropout, rotation, vertical flip; crops: flips, zoom,
Gaussian noise, contrast) but, except for ±15°, no strengths: those below are ours. All geometry of a batch is
one `grid_sample`; nothing loops over the samples. Order, full images: normalise, dropout, pad, geometry; crops:
normalise, mask the padding, contrast, pad, geometry, noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

NOISE_SHARED = 8
"""A batch's noise is cut from a strip of 1/8 of its length."""


@dataclass(frozen=True)
class FullAugment:
    """Strengths for full images.

    Attributes
    ----------
    dropout : share of pixels set to 0 or 1 (pepper or salt, half each).
    degrees : largest rotation to either side; the padded frame has room for 15.
    vertical_flip : its probability.
    """

    dropout: float = 0.02
    degrees: float = 15.0
    vertical_flip: float = 0.5


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


def normalise(batch: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Min-max normalise integer pixels to float32: `low` becomes 0, `high` becomes 1.

    `low`, `high`: the training fold's, or one a sample (n,). Not clipped: a validation image may lie a little
    outside [0, 1], and clipping would hide its brightest bone. A constant image (low = high) becomes 0.
    """
    low, high = (
        torch.as_tensor(bound, dtype=torch.float32, device=batch.device).reshape(-1, *[1] * (batch.ndim - 1))
        for bound in (low, high)
    )
    # Pixels are whole numbers: a range below 1 can only be 0.
    return (batch.to(torch.float32) - low).div_((high - low).clamp_min(1.0))


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


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pad the last two axes to (height, width), the picture in the centre."""
    h, w = x.shape[-2:]
    if h > height or w > width:
        raise ValueError(f"an image of {h}×{w} does not fit in {height}×{width}")
    top, left = (height - h) // 2, (width - w) // 2
    if (h, w) == (height, width):
        return x
    return functional.pad(x, (left, width - w - left, top, height - h - top))


def transform(
    x: Tensor,
    *,
    degrees: Tensor | None = None,
    zoom: Tensor | None = None,
    vertical: Tensor | None = None,
    horizontal: Tensor | None = None,
    frame: tuple[int, int] | None = None,
) -> Tensor:
    """Pad, rotate, zoom and flip each sample in one bilinear step; zeros come in from outside.

    Parameters
    ----------
    x : Tensor (n, C, h, w), float
        All channels of a sample move alike.
    degrees, zoom : Tensor (n,)
        Rotation about the frame's centre, counter-clockwise as in torchvision; zoom > 1 enlarges.
    vertical, horizontal : Tensor (n,) bool
        Flip after rotation and zoom.
    frame : (H, W)
        Zero-pad to this first, as `pad_to` does (without making the padded copy); None = as x is.
    """
    n, channels, h, w = x.shape
    height, width = frame or (h, w)
    device = x.device
    zero = torch.zeros(n, device=device)
    radians = zero if degrees is None else degrees * (math.pi / 180)
    scale = torch.ones_like(zero) if zoom is None else 1 / zoom
    down = torch.ones_like(zero) if vertical is None else 1 - 2 * vertical.to(zero.dtype)
    right = torch.ones_like(zero) if horizontal is None else 1 - 2 * horizontal.to(zero.dtype)
    cos, sin = torch.cos(radians) * scale, torch.sin(radians) * scale
    # Output pixels, as distances from the frame's centre, to source pixels (u, v) of the padded frame, and on to
    # grid_sample's [−1, 1] over the unpadded picture, whose centre is half a pixel off where padding is uneven.
    off_x = (width - w) / 2 - (width - w) // 2
    off_y = (height - h) / 2 - (height - h) // 2
    theta = torch.stack(
        [
            torch.stack([cos * right * width / w, -sin * down * height / w, zero + 2 * off_x / w], 1),
            torch.stack([sin * right * width / h, cos * down * height / h, zero + 2 * off_y / h], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, [n, channels, height, width], align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def salt_and_pepper(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set about `share` of the pixels to 0 or 1, half each."""
    drawn = torch.rand(x.shape, generator=generator, device=x.device)
    return torch.where(drawn < share, (drawn < share / 2).to(x.dtype), x)


def augment_full(
    x: Tensor,
    generator: torch.Generator,
    settings: FullAugment | None = None,
    *,
    frame: tuple[int, int] | None = None,
) -> Tensor:
    """Dropout, rotation and vertical flip of normalised full images, each sample with its own draw.

    Parameters
    ----------
    x : Tensor (n, 1, h, w), float32
        Unpadded, from `normalise`.
    generator : torch.Generator
        On x's device.
    frame : (H, W)
        The padded size (`radiographs.full_image_shape`); a batch that is not augmented takes `pad_to`. Dropout
        comes before the padding, which stays 0.
    """
    settings = settings or FullAugment()
    n, device = len(x), x.device
    degrees = (torch.rand(n, generator=generator, device=device) * 2 - 1) * settings.degrees
    vertical = torch.rand(n, generator=generator, device=device) < settings.vertical_flip
    if settings.dropout > 0:
        x = salt_and_pepper(x, settings.dropout, generator)
    return transform(x, degrees=degrees, vertical=vertical, frame=frame)


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
