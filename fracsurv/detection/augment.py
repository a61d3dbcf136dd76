"""What the detector shall not mind: turned, shifted, larger, darker, inverted, blurred radiographs, and implants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class DetectorAugment:
    """Strengths. Every random number comes from the generator given, one set a radiograph.

    Attributes
    ----------
    degrees : largest rotation to either side.
    zoom : smallest and largest factor, log-uniform.
    shift : largest shift to any side, as a share of the frame.
    flip : probability of a left-right flip.
    invert : probability of dark bone on a bright ground.
    gamma, contrast : smallest and largest, log-uniform; the contrast is a factor on the distance from the mean.
    noise_sd : largest standard deviation of the Gaussian noise, in units of the grey range.
    blur : probability of half the resolution.
    implants : probability of a bright bar over part of the picture.
    """

    degrees: float = 12.0
    zoom: tuple[float, float] = (0.85, 1.18)
    shift: float = 0.06
    flip: float = 0.5
    invert: float = 0.2
    gamma: tuple[float, float] = (0.6, 1.6)
    contrast: tuple[float, float] = (0.7, 1.4)
    noise_sd: float = 0.03
    blur: float = 0.15
    implants: float = 0.15


def augment(
    image: Tensor, boxes: list[Tensor], generator: torch.Generator, how: DetectorAugment | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Change a batch and its boxes alike.

    Parameters
    ----------
    image : Tensor (n, 1, H, W) float32 in [0, 1]
    boxes : list of n tensors (k, 4), frame pixels

    Returns
    -------
    The changed batch, and boxes that fit what it shows: a turned box becomes the upright one around the ellipse
    within it (around its corners it would be too large). Boxes whose centre has left the frame are gone; others
    end at it.
    """
    how = how or DetectorAugment()
    moved, matrix, shift = turn(image, generator, degrees=how.degrees, zoom=how.zoom, shift=how.shift, flip=how.flip)
    size = torch.tensor([image.shape[3], image.shape[2]], dtype=torch.float32, device=image.device)
    placed = [_move(each, m, s, size) for each, m, s in zip(boxes, matrix, shift, strict=True)]
    return _grey(moved, placed, generator, how), placed


def turn(
    image: Tensor,
    generator: torch.Generator,
    *,
    degrees: float,
    zoom: tuple[float, float],
    shift: float,
    flip: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn, zoom, shift and flip each picture of a batch (n, 1, H, W) by random amounts; dark outside.

    Returns
    -------
    The batch, and what was done to pixels counted from the middle: new = matrix (n, 2, 2) · old + shift (n, 2).
    """
    angle = math.radians(degrees) * _uniform(image, generator, -1, 1)
    factor = _log_uniform(image, generator, zoom)
    mirror = 1 - 2 * (_uniform(image, generator) < flip).float()
    size = torch.tensor([image.shape[3], image.shape[2]], dtype=torch.float32, device=image.device)
    moved_by = torch.stack([_uniform(image, generator, -1, 1) for _ in size], dim=1) * shift * size
    cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
    matrix = torch.stack([torch.stack([cos * mirror, -sin], 1), torch.stack([sin * mirror, cos], 1)], 1)
    return _warp(image, matrix, moved_by, size), matrix, moved_by


def _warp(image: Tensor, matrix: Tensor, shift: Tensor, size: Tensor) -> Tensor:
    back = torch.linalg.inv(matrix)
    half = size / 2
    theta = torch.cat([back * half[None, None] / half[None, :, None], -(back @ shift[:, :, None]) / half[:, None]], 2)
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, align_corners=False)


def _move(boxes: Tensor, matrix: Tensor, shift: Tensor, size: Tensor) -> Tensor:
    if len(boxes) == 0:
        return boxes
    centre = ((boxes[:, :2] + boxes[:, 2:]) - size) / 2
    side = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = centre @ matrix.T + shift + size / 2
    side = torch.sqrt((matrix.square()[None] * side.square()[:, None]).sum(dim=2))
    kept = ((centre > 0) & (centre < size)).all(dim=1)
    low, high = (centre - side)[kept], (centre + side)[kept]
    return torch.cat([low.clamp_min(0), torch.minimum(high, size)], dim=1)


def _grey(image: Tensor, boxes: list[Tensor], generator: torch.Generator, how: DetectorAugment) -> Tensor:
    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    image = _implants(image, boxes, generator, how)
    image = image.clamp(0, 1) ** each(_log_uniform(image, generator, how.gamma))
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * each(_log_uniform(image, generator, how.contrast))
    turned = each(_uniform(image, generator) < how.invert)
    image = torch.where(turned, 1 - image, image)
    half = functional.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
    half = functional.interpolate(half, scale_factor=2.0, mode="bilinear")
    image = torch.where(each(_uniform(image, generator) < how.blur), half, image)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return image + noise * each(_uniform(image, generator) * how.noise_sd)


def _implants(image: Tensor, boxes: list[Tensor], generator: torch.Generator, how: DetectorAugment) -> Tensor:
    """A bright bar through up to three vertebrae of some radiographs, as screws and rods are; their boxes stay."""
    image = image.clone()
    chosen = (_uniform(image, generator) < how.implants).tolist()
    draws = torch.rand((len(boxes), 4), generator=generator, device=image.device).tolist()
    for row, (wanted, found, (which, width, x, length)) in enumerate(zip(chosen, boxes, draws, strict=True)):
        if not wanted or len(found) == 0:
            continue
        order = found[:, 1].argsort()
        first = int(which * len(found))
        covered = found[order[first : first + 1 + int(3 * length)]]
        left, top = covered[:, :2].amin(dim=0).tolist()
        right, bottom = covered[:, 2:].amax(dim=0).tolist()
        bar = (right - left) * (0.15 + 0.35 * width)
        start = left + x * (right - left - bar)
        image[row, :, int(top) : int(bottom) + 1, int(start) : int(start + bar) + 1] = 1.0
    return image


def _uniform(like: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(len(like), generator=generator, device=like.device)


def _log_uniform(like: Tensor, generator: torch.Generator, bounds: tuple[float, float]) -> Tensor:
    return torch.exp(_uniform(like, generator, math.log(bounds[0]), math.log(bounds[1])))
