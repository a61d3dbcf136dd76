"""Batched augmentation on the device of the images, with a generator of its own: geometry, and full images.

The protocol names the kinds (full images: salt-and-pepper dropout, rotation, vertical flip; crops: flips, zoom,
Gaussian noise, contrast) but, except for ±15°, no strengths: those here and in `crop_augment` are ours. All geometry
of a batch is one `grid_sample`; nothing loops over the samples. Order: normalise, dropout, pad, geometry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fracsurv.training.sampler import Share


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
    if n == 0:  # affine_grid refuses it; of several processes one may have no patient of a batch
        return x.new_zeros((0, channels, height, width))
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


def salt_and_pepper(x: Tensor, part: float, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Set about `part` of the pixels to 0 or 1, half each; `share` as `augment_full` takes it."""
    share = share or Share.all_of(len(x))
    drawn = torch.rand((share.whole, *x.shape[1:]), generator=generator, device=x.device)[share.mine]
    return torch.where(drawn < part, (drawn < part / 2).to(x.dtype), x)


def augment_full(
    x: Tensor,
    generator: torch.Generator,
    settings: FullAugment | None = None,
    *,
    frame: tuple[int, int] | None = None,
    share: Share | None = None,
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
    share : Share, optional
        Which rows of a batch `x` is: they are changed as they would be among the others.
    """
    settings = settings or FullAugment()
    (n, mine), device = share or Share.all_of(len(x)), x.device
    degrees = (torch.rand(n, generator=generator, device=device) * 2 - 1) * settings.degrees
    vertical = torch.rand(n, generator=generator, device=device) < settings.vertical_flip
    if settings.dropout > 0:
        x = salt_and_pepper(x, settings.dropout, generator, share)
    return transform(x, degrees=degrees[mine], vertical=vertical[mine], frame=frame)
