"""What lies around the vertebral bodies: soft tissue, lung, diaphragm, ribs and posterior elements.

All of it is smooth, so it is drawn on a grid a quarter of the protocol's size and interpolated.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from .anatomy import BODIES, PICTURE_WIDTH, Spine

GRID = 0.25  # grid points a protocol pixel

_T1, _THORACIC = BODIES.index("T1"), 12


def background(spine: Spine, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Attenuation without the vertebral bodies, float32 of `shape`; soft tissue is about 1."""
    grid = (round(spine.height * GRID), round(PICTURE_WIDTH * GRID))
    pixel = 1 / (spine.scale * GRID)  # mm
    centre = spine.centre * GRID
    layer = _soft_tissue(spine, centre, grid, pixel, rng)
    bone = _ribs(spine, centre, grid, pixel, rng) + _posterior(spine, centre, grid, pixel, rng)
    layer += gaussian_filter(bone, 0.7)
    return _resize(layer.astype(np.float32), shape)


def _resize(layer: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Linear interpolation between pixel centres, one axis after the other."""
    for axis in (0, 1):
        n, m = layer.shape[axis], shape[axis]
        if n == m:
            continue
        at = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), n - 2)
        part = (at - low).astype(np.float32)
        part = part[:, None] if axis == 0 else part[None, :]
        layer = np.take(layer, low, axis) * (1 - part) + np.take(layer, low + 1, axis) * part
    return layer


def _soft_tissue(
    spine: Spine, centre: np.ndarray, grid: tuple[int, int], pixel: float, rng: np.random.Generator
) -> np.ndarray:
    """Trunk thickness, lung above the diaphragm, skin line behind; broad variations on top."""
    y, x = np.arange(grid[0], dtype=np.float32), np.arange(grid[1], dtype=np.float32)
    middle = np.interp(y, centre[:, 1], centre[:, 0]).astype(np.float32)
    behind = (x[None, :] - middle[:, None]) * pixel  # mm behind the bodies' centres
    dome = float(centre[BODIES.index("T10"), 1] + rng.normal(0, 12 / pixel))
    slope = rng.uniform(0.15, 0.4)
    below = (y[:, None] - dome - slope * behind / pixel) * pixel  # mm below the diaphragm
    abdomen = _step(below / 9)
    lung = (1 - abdomen) * _step((6 - behind) / 10)
    thickness = rng.normal(1.0, 0.07)
    skin = rng.uniform(68, 90)
    column = 0.12 * np.exp(-((behind / 30) ** 2))  # muscle and discs about the spine
    tissue = thickness * (0.75 + 0.33 * abdomen - 0.30 * lung + column) * _step((skin - behind) / 7)
    coarse = gaussian_filter(rng.standard_normal((14, 7)), 0.6)
    return tissue + 0.05 * _resize(coarse, grid)


def _step(x: np.ndarray) -> np.ndarray:
    """A smooth step from 0 to 1 about x = 0."""
    return 0.5 + 0.5 * x / np.sqrt(1 + x * x)


def _ribs(
    spine: Spine, centre: np.ndarray, grid: tuple[int, int], pixel: float, rng: np.random.Generator
) -> np.ndarray:
    """Both sides' ribs: from the costovertebral joint down and forwards, brighter at their edges."""
    n = 2 * _THORACIC
    level = np.repeat(np.arange(_THORACIC), 2)
    start = centre[_T1 + level] + rng.normal(0, 2.5, (n, 2)) / pixel + np.array([14.0, -4.0]) / pixel
    slope = 0.38 + 0.04 * level / _THORACIC * 5 + rng.normal(0, 0.05, n)
    bend = rng.normal(0.0016, 0.0005, n) * pixel
    half = rng.normal(4.6, 0.4, n) / pixel
    x = np.arange(grid[1])
    forward = start[:, 0, None] - x[None, :]
    # In front of the joint a rib falls; behind it, it turns round its angle and falls as well.
    line = start[:, 1, None] + np.where(forward > 0, slope[:, None], -1.5 * slope[:, None]) * forward
    line += bend[:, None] * forward**2 * np.sign(forward + 1e-9)
    reach = np.where(level < 10, 130, 45)[:, None] / pixel
    present = _step((reach - forward) / 6) * _step((forward + 26 / pixel) / 3)
    band = np.arange(-8, 9)
    row = np.rint(line).astype(int)[:, :, None] + band
    across = np.abs((row - line[:, :, None]) / (half * np.sqrt(1 + slope**2))[:, None, None])
    profile = np.clip((1.15 - across) / 0.3, 0, 1) * (0.07 + 0.12 * np.clip((across - 0.45) / 0.4, 0, 1))
    weight = profile * present[:, :, None] * rng.normal(1.0, 0.15, n)[:, None, None]
    ok = (row >= 0) & (row < grid[0])
    flat = (row * grid[1] + x[None, :, None])[ok]
    return np.bincount(flat, weight[ok], minlength=grid[0] * grid[1]).reshape(grid)


#: Posterior elements as soft ellipses in a body's frame, in half depths: offset back, offset down,
#: half length, half height, turn (radians, tail down), brightness.
_ELEMENTS = np.array(
    [
        [1.22, -0.22, 0.30, 0.24, 0.10, 0.22],  # pedicle
        [1.62, -0.45, 0.22, 0.42, 0.35, 0.24],  # superior facet
        [1.72, 0.45, 0.20, 0.45, 0.25, 0.24],  # inferior facet
        [2.45, 0.55, 0.62, 0.30, 0.45, 0.17],  # spinous process
    ]
)


def _posterior(
    spine: Spine, centre: np.ndarray, grid: tuple[int, int], pixel: float, rng: np.random.Generator
) -> np.ndarray:
    """Pedicles, facets and spinous processes of every vertebra but the sacrum's first."""
    n = len(BODIES) - 1
    half = spine.depth[:n] * GRID / 2
    jitter = rng.normal(1.0, 0.07, (n, len(_ELEMENTS), 6))
    part = _ELEMENTS * jitter
    part[..., 4] += np.where(np.arange(n) < BODIES.index("T10"), 0.5, 0.0)[:, None] * (np.arange(len(_ELEMENTS)) == 3)
    cos, sin = np.cos(spine.tilt[:n])[:, None], np.sin(spine.tilt[:n])[:, None]
    back, down = part[..., 0] * half[:, None], part[..., 1] * half[:, None]
    at = np.stack([back * cos - down * sin, back * sin + down * cos], -1) + centre[:n, None]
    angle = spine.tilt[:n, None] + part[..., 4]
    reach = int(np.ceil(1.1 * half.max() * 0.75)) + 2
    window = np.arange(-reach, reach + 1)
    column = np.rint(at[..., 0]).astype(int)[..., None, None] + window[None, None, None, :]
    row = np.rint(at[..., 1]).astype(int)[..., None, None] + window[None, None, :, None]
    dx, dy = column - at[..., 0, None, None], row - at[..., 1, None, None]
    ca, sa = np.cos(angle)[..., None, None], np.sin(angle)[..., None, None]
    u = (dx * ca + dy * sa) / (part[..., 2] * half[:, None])[..., None, None]
    v = (dy * ca - dx * sa) / (part[..., 3] * half[:, None])[..., None, None]
    radius = np.sqrt(u * u + v * v)
    # A bright rim, as cortex seen edge on.
    weight = np.clip((1.12 - radius) / 0.35, 0, 1) * (0.55 + 0.45 * np.clip((radius - 0.4) / 0.4, 0, 1))
    weight = weight * part[..., 5][..., None, None]
    ok = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
    flat = np.broadcast_to(row * grid[1] + column, weight.shape)
    return np.bincount(flat[ok], weight[ok], minlength=grid[0] * grid[1]).reshape(grid)
