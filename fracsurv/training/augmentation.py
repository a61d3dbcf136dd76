"""Augmentation of a batch, on the device of its images and from a generator of its own.

The protocol names the kinds (full images: salt-and-pepper dropout, rotation, vertical flip; crops: flips, zoom,
Gaussian noise, contrast). Except for ±15° it gives no strengths: those here are ours. All geometry of a batch is one
`grid_sample`; nothing loops over the samples.

Order for full images: normalise, dropout, pad, geometry. Order for crops: normalise, mask the padding, contrast, pad,
geometry, noise, in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


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


def normalise(batch: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Integer pixels, min-max normalised to float32: `low` becomes 0, `high` becomes 1.

    `low`, `high`: the training fold's, or one per sample (n,). Not clipped: a validation image may lie a little
    outside [0, 1], and clipping would hide its brightest bone. A constant image (low = high) becomes 0.
    """
    low, high = (
        torch.as_tensor(bound, dtype=torch.float32, device=batch.device).reshape(-1, *[1] * (batch.ndim - 1))
        for bound in (low, high)
    )
    # pixels are whole numbers: a range below 1 can only be 0
    return (batch.to(torch.float32) - low).div_((high - low).clamp_min(1.0))


def pad_to(x: Tensor, height: int, width: int) -> Tensor:
    """x with its last two axes zero-padded to (height, width), the image in the centre."""
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
    """Samples padded, rotated, zoomed and flipped in one bilinear step; the outside is 0.

    Parameters
    ----------
    x : Tensor (n, C, h, w), float
        All channels of a sample are moved alike.
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
    if n == 0:  # a batch in which nobody has an image; affine_grid refuses it
        return x.new_zeros((0, channels, height, width))
    zero = torch.zeros(n, device=device)
    radians = zero if degrees is None else degrees * (math.pi / 180)
    scale = torch.ones_like(zero) if zoom is None else 1 / zoom
    down = torch.ones_like(zero) if vertical is None else 1 - 2 * vertical.to(zero.dtype)
    right = torch.ones_like(zero) if horizontal is None else 1 - 2 * horizontal.to(zero.dtype)
    cos, sin = torch.cos(radians) * scale, torch.sin(radians) * scale
    # Output pixels, as distances from the frame's centre, to source pixels (u, v) of the padded frame, and on to
    # grid_sample's [−1, 1] over the unpadded image, whose centre is half a pixel off where padding is uneven.
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


def salt_and_pepper(x: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Set about `part` of the pixels to 0 or 1, half each."""
    drawn = torch.rand(x.shape, generator=generator, device=x.device)
    return torch.where(drawn < part, (drawn < part / 2).to(x.dtype), x)


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
        The padded size (`radiographs.full_image_shape`). Dropout comes before the padding, which stays 0.
    """
    settings = settings or FullAugment()
    n, device = len(x), x.device
    degrees = (torch.rand(n, generator=generator, device=device) * 2 - 1) * settings.degrees
    vertical = torch.rand(n, generator=generator, device=device) < settings.vertical_flip
    if settings.dropout > 0:
        x = salt_and_pepper(x, settings.dropout, generator)
    return transform(x, degrees=degrees, vertical=vertical, frame=frame)


NOISE_REUSE = 8
"""The noise of a batch is cut from a strip of 1/8 of its length; see `draw_crops`."""


@dataclass(frozen=True)
class CropAugment:
    """Strengths for crops.

    Attributes
    ----------
    vertical_flip, horizontal_flip : probabilities. All crops of a patient are flipped, each in its own frame;
        the order of the vertebrae stays.
    zoom : minimum and maximum factor, drawn log-uniformly, one for all crops of a patient.
    noise_sd : standard deviation of the Gaussian noise, in units of the training range. More than about 0.016 would
        hide the trabecular texture of simulated crops at a quarter of the resolution.
    contrast : minimum and maximum factor on the distance from the mean over a patient's crops.
    """

    vertical_flip: float = 0.5
    horizontal_flip: float = 0.5
    zoom: tuple[float, float] = (0.9, 1.1)
    noise_sd: float = 0.005
    contrast: tuple[float, float] = (0.9, 1.1)


def inside(sizes: Tensor, frame: tuple[int, int]) -> Tensor:
    """Where crops lie in their frames: bool (..., H, W) from `sizes` (..., 2); empty slots are False."""
    sides = []
    for axis in (0, 1):
        size = sizes[..., axis, None].to(torch.int64)
        start = (frame[axis] - size) // 2
        at = torch.arange(frame[axis], device=sizes.device)
        sides.append((at >= start) & (at < start + size))
    return sides[0][..., :, None] & sides[1][..., None, :]


def mask_padding(crops: Tensor, sizes: Tensor) -> Tensor:
    """Crops with exactly 0 outside them; `normalise` moves the padding away from 0.

    `crops` (n, 13, H, W) in the store's frame, before `pad_to`; `sizes` (n, 13, 2).
    """
    return crops * inside(sizes, crops.shape[-2:])


class CropDraws(NamedTuple):
    """Draws for the patients of a batch: contrast, zoom and flips, each (n,), and their noise.

    `noise` is a strip of normal numbers, or None; a crop's part begins at `start` (n, slots) and has the sign `sign`.
    """

    contrast: Tensor
    zoom: Tensor
    vertical: Tensor
    horizontal: Tensor
    noise: Tensor | None = None
    start: Tensor | None = None
    sign: Tensor | None = None


def draw_crops(
    n: int, slots: int, frame: tuple[int, int], generator: torch.Generator, settings: CropAugment | None = None
) -> CropDraws:
    """Draws for `n` patients with `slots` crops each, on the device of the generator.

    The noise of all crops is cut from one strip, each crop's at a random place and with a random sign. It is
    independent within a crop and uncorrelated between crops. The strip holds an eighth of the numbers that a batch
    needs, since on a CPU drawing them all would take longer than the rest of the augmentation.
    """
    settings, device = settings or CropAugment(), generator.device
    contrast, zoom, vertical, horizontal = torch.rand((4, n), generator=generator, device=device)
    near, far = (math.log(bound) for bound in settings.zoom)
    draws = CropDraws(
        settings.contrast[0] + (settings.contrast[1] - settings.contrast[0]) * contrast,
        torch.exp(near + (far - near) * zoom),
        vertical < settings.vertical_flip,
        horizontal < settings.horizontal_flip,
    )
    if settings.noise_sd == 0:
        return draws
    size = frame[0] * frame[1]
    spare = n * slots * size // NOISE_REUSE
    start = torch.randint(spare + 1, (n, slots), generator=generator, device=device)
    sign = torch.randint(2, (n, slots), generator=generator, device=device) * 2.0 - 1.0
    noise = torch.randn(size + spare, generator=generator, device=device).mul_(settings.noise_sd)
    return draws._replace(noise=noise, start=start, sign=sign)


def change_crops(
    pixels: Tensor, sizes: Tensor, low: Tensor, high: Tensor, draws: CropDraws, frame: tuple[int, int]
) -> Tensor:
    """Normalised, changed and padded crops, as drawn; see `augment_crops`. Pure arithmetic, which can be compiled.

    Normalisation and contrast together are a·(pixel − low) + b inside a crop and 0 outside. The outside is 0 already,
    and bilinear resampling is linear. So it is enough to resample the pixels, and to know the share of each resampled
    pixel that lies inside, which for an upright box is the product of a column and a row.
    """
    n, slots, *stored = pixels.shape
    per_patient = (-1, 1, 1, 1)
    scale = 1 / (high - low).clamp_min(1.0)
    # whole, small numbers: 16-bit pixels of a narrow range would lose digits in the resampling
    above = (pixels.float() - low.view(per_patient)).clamp_min_(0)
    n_inside = sizes.float().prod(-1).sum(1).clamp_min(1)
    mean = above.sum((1, 2, 3)) / n_inside * scale
    offset = (mean * (1 - draws.contrast)).view(per_patient)
    turned = transform(above, zoom=draws.zoom, vertical=draws.vertical, horizontal=draws.horizontal, frame=frame)
    rows = _share_inside(sizes[..., 0], stored[0], frame[0], draws.zoom, draws.vertical)[..., :, None]
    columns = _share_inside(sizes[..., 1], stored[1], frame[1], draws.zoom, draws.horizontal)[..., None, :]
    if draws.noise is not None:
        cut = draws.noise.unfold(0, frame[0] * frame[1], 1)[draws.start].view(n, slots, *frame)
        offset = torch.addcmul(offset, cut, draws.sign[..., None, None])
    return turned.mul_((draws.contrast * scale).view(per_patient)).addcmul_(rows * columns, offset)


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
    """Crops from the store, normalised, with contrast, zoom, flips and noise, each patient with its own draw.

    Contrast and noise change only the inside of the crops. Padding and empty slots stay exactly 0: an empty slot must
    not look like a faint vertebra. Geometry is the same for all crops of a patient. Zooming in cuts a crop that fills
    its frame.

    Parameters
    ----------
    pixels : Tensor (n, 13, h, w), integer
        Exactly 0 around the crops.
    sizes : Tensor (n, 13, 2), integer
        Height and width of each crop in the middle of its frame, 0 = empty.
    low, high : Tensor (n,)
        Pixel values that become 0 and 1; see `normalise`. No pixel inside a crop may lie below `low`: in a fit it is
        the minimum of the training patients.
    generator : torch.Generator
        On the device of the pixels.
    frame : (H, W)
        Of the result, the crops in its middle; by default (h, w). The vision transformer's is square.
    change : callable
        `change_crops`, or the same compiled.

    Returns
    -------
    Tensor (n, 13, H, W), float32
    """
    n, slots, *stored = pixels.shape
    frame = frame or (stored[0], stored[1])
    draws = draw_crops(n, slots, frame, generator, settings)
    return change(pixels, sizes, low, high, draws, frame)


def _share_inside(size: Tensor, stored: int, length: int, zoom: Tensor, flip: Tensor) -> Tensor:
    """Share of each resampled row that lies inside a crop, along one axis: (n, 13, length) from sizes (n, 13)."""
    start = (length - stored) // 2 + (stored - size) // 2
    away = torch.arange(length, device=size.device) - (length - 1) / 2
    source = away * ((1 - 2 * flip.float()) / zoom)[:, None] + (length - 1) / 2  # as `transform`'s grid
    source = source[:, None]
    start, end = start[..., None], (start + size)[..., None]
    return torch.minimum(source - start + 1, end - source).clamp(0, 1) * (size[..., None] > 0)
