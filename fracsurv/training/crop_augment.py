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

from fracsurv.training.augment import transform
from fracsurv.training.sampler import Share

NOISE_SHARED = 8
"""The noise of a batch is cut from a strip of 1/8 of its length; see `draw_crops`."""


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
    """What was drawn for the patients of a batch: contrast, zoom and flips, each (n,), and their noise.

    `noise` is a strip of normal numbers, or None; each crop's starts at `start` (n, slots) and has the sign `sign`.
    """

    contrast: Tensor
    zoom: Tensor
    vertical: Tensor
    horizontal: Tensor
    noise: Tensor | None = None
    start: Tensor | None = None
    sign: Tensor | None = None

    def of(self, mine: slice) -> CropDraws:
        """Those of some of the patients; the strip is everyone's."""
        return self._make(
            value if value is None or name == "noise" else value[mine] for name, value in self._asdict().items()
        )


def draw_crops(
    n: int, slots: int, frame: tuple[int, int], generator: torch.Generator, settings: CropAugment | None = None
) -> CropDraws:
    """Draw for `n` patients with so many crops of this size, on the device of the generator.

    Noise: within a crop the numbers are independent. Each crop's are cut from one strip at a random place and get a
    random sign, so that those of two crops are uncorrelated; but the strip holds an eighth of the numbers that a
    batch takes, so most of them occur in several crops, at other places and with either sign. On a CPU, drawing them
    all would take longer than the rest of the augmentation.
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
    spare = n * slots * size // NOISE_SHARED
    start = torch.randint(spare + 1, (n, slots), generator=generator, device=device)
    sign = torch.randint(2, (n, slots), generator=generator, device=device) * 2.0 - 1.0
    noise = torch.randn(size + spare, generator=generator, device=device).mul_(settings.noise_sd)
    return draws._replace(noise=noise, start=start, sign=sign)


def change_crops(
    pixels: Tensor, sizes: Tensor, low: Tensor, high: Tensor, draws: CropDraws, frame: tuple[int, int]
) -> Tensor:
    """Normalise, change and pad crops as was drawn; see `augment_crops`. Pure arithmetic, which can be compiled.

    All of normalisation and contrast is a·(pixel − low) + b inside a crop and 0 outside of it. What is outside is 0
    already, and bilinear resampling is linear: so it is enough to resample the numbers, and to know how much of each
    resampled pixel lies inside, which for an upright box is the product of a column and a row.
    """
    n, slots, *stored = pixels.shape
    per_patient = (-1, 1, 1, 1)
    scale = 1 / (high - low).clamp_min(1.0)
    # still whole numbers, and small ones: 16-bit pixels of a narrow range would lose digits in the resampling
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
    share: Share | None = None,
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
        Pixel values that become 0 and 1; see `normalise`. No pixel inside a crop may lie below `low`: in a fit it is
        the least of the training patients'.
    generator : torch.Generator
        On the device of the pixels.
    frame : (H, W)
        Of the result, the crops in its middle; by default as the pixels come. The vision transformer's is square.
    change : callable
        `change_crops`, or the same compiled.
    share : Share, optional
        Which rows of a batch these patients are: they are changed as they would be among the others.

    Returns
    -------
    Tensor (n, 13, H, W), float32
    """
    n, slots, *stored = pixels.shape
    frame = frame or (stored[0], stored[1])
    share = share or Share.all_of(n)
    draws = draw_crops(share.whole, slots, frame, generator, settings).of(share.mine)
    return change(pixels, sizes, low, high, draws, frame)


def _share_inside(size: Tensor, stored: int, length: int, zoom: Tensor, flip: Tensor) -> Tensor:
    """How much of each resampled row lies inside a crop, by one axis: (n, 13, length) from sizes (n, 13)."""
    start = (length - stored) // 2 + (stored - size) // 2
    away = torch.arange(length, device=size.device) - (length - 1) / 2
    source = away * ((1 - 2 * flip.float()) / zoom)[:, None] + (length - 1) / 2  # as `transform`'s grid
    source = source[:, None]
    start, end = start[..., None], (start + size)[..., None]
    return torch.minimum(source - start + 1, end - source).clamp(0, 1) * (size[..., None] > 0)
