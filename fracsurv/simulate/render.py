"""A lateral spine radiograph from a spine and a bone quality.

Everything is laid out in millimetres or protocol pixels and only then sampled at the wanted resolution: the
same woman at a quarter of the size looks like the full picture scaled down. Values are attenuations (soft
tissue about 1, bone on top) until the exposure turns them into 12-bit grey values, bone bright. What lies around the
vertebral bodies is smooth, so it is drawn on a grid a quarter of the protocol's size and interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from fracsurv.simulate.anatomy import BODIES, PICTURE_WIDTH, Spine
from fracsurv.simulate.settings import stream

GREY_LEVELS = 4096

# Trabecular texture: grid pitch and half size (mm), and the two families' correlation lengths (mm, across
# and along the spine). Vertical struts carry load; horizontal ones tie them and are lost first.
_PITCH, _HALF_X, _HALF_Y = 0.9, 23.4, 21.6
_VERTICAL, _HORIZONTAL = (1.0, 4.0), (3.0, 1.0)

_CORTEX_WIDTH = 1.1  # mm
_EDGE = 0.6  # mm over which a body's outline fades
_CORNER = 2.4  # mm, radius of a body's corners


@dataclass(frozen=True)
class BoneAppearance:
    """How one woman's bone looks: attenuations added by interior, cortex and the two texture families."""

    interior: float
    endplate: float
    wall: float
    vertical: float
    horizontal: float


def appearance(bone_quality: float, t_score: float, rng: np.random.Generator) -> BoneAppearance:
    """Bone quality (and a little the T-score) as looks, blurred by what differs between women otherwise.

    Weak bone: a paler interior inside a more prominent outline, weaker texture, horizontal struts gone
    first.
    """
    density, outline, texture = rng.normal(0.0, [0.06, 0.08, 0.12])
    q = float(np.clip(bone_quality, -2.5, 2.5))
    t = float(np.clip((t_score + 1.6) / 0.9, -3.0, 3.0))
    interior = 0.34 * np.exp(0.30 * q + 0.04 * t + density)
    endplate = 0.60 * np.exp(-0.10 * q + outline)
    amplitude = 0.042 * np.exp(texture)
    return BoneAppearance(
        interior=interior,
        endplate=endplate,
        wall=0.5 * endplate,
        vertical=amplitude * np.exp(0.25 * q),
        horizontal=0.8 * amplitude * np.exp(0.45 * q),
    )


def render(
    spine: Spine, bone_quality: float, t_score: float, seed: int, patient: int, resolution: float
) -> np.ndarray:
    """The radiograph, uint16 (height, width) with values 0 to 4095, bone bright.

    Parameters
    ----------
    spine : Spine
    bone_quality : float
        Standard-normal score, higher = stronger bone; beyond ±2.5 it looks like ±2.5.
    t_score : float
        Bone mineral density; touches only the interior's brightness, slightly.
    seed, patient : int
        Choose the random streams.
    resolution : float
        Picture pixels a protocol pixel.
    """
    shape = (round(spine.height * resolution), round(PICTURE_WIDTH * resolution))
    texture_rng = stream(seed, patient, "texture")
    look = appearance(bone_quality, t_score, texture_rng)
    attenuation = background(spine, shape, stream(seed, patient, "background"))
    _add_bodies(attenuation, spine, look, _texture(texture_rng, len(spine.centre), look), resolution)
    return _expose(attenuation, stream(seed, patient, "noise"), resolution)


def _texture(rng: np.random.Generator, bodies: int, look: BoneAppearance) -> np.ndarray:
    """Texture of each body on a grid of millimetres in its own frame, float32 (bodies, y, x)."""
    shape = (bodies, round(2 * _HALF_Y / _PITCH) + 1, round(2 * _HALF_X / _PITCH) + 1)
    total = np.zeros(shape, dtype=np.float32)
    for (across, along), amplitude in ((_VERTICAL, look.vertical), (_HORIZONTAL, look.horizontal)):
        field = rng.standard_normal(shape, dtype=np.float32)
        for axis, length in ((2, across / _PITCH), (1, along / _PITCH)):
            field = gaussian_filter1d(field, length, axis=axis, mode="wrap", truncate=3.0)
            # A Gaussian filter leaves white noise a variance of 1 / (2 sqrt(pi) length).
            field *= np.sqrt(2 * np.sqrt(np.pi) * length)
        total += np.float32(amplitude) * field
    return total


def _add_bodies(
    canvas: np.ndarray, spine: Spine, look: BoneAppearance, texture: np.ndarray, resolution: float
) -> None:
    """Add all vertebral bodies in one go: a stack of equal patches, each in its body's frame."""
    pixel = 1 / (spine.scale * resolution)  # mm
    half = np.hypot(spine.depth / 2, np.maximum(-spine.top, spine.bottom).max(axis=1)).max() / spine.scale
    size = int(2 * np.ceil((half + 1.5) / pixel)) + 1
    corner = np.round(spine.centre * resolution).astype(int) - size // 2
    seen = (corner[:, 1] < canvas.shape[0]) & (corner[:, 1] + size > 0)
    patches = _bodies(spine, look, texture, resolution, size, corner, seen, pixel)
    for (x, y), patch in zip(corner[seen], patches, strict=True):
        rows = slice(max(y, 0), min(y + size, canvas.shape[0]))
        columns = slice(max(x, 0), min(x + size, canvas.shape[1]))
        canvas[rows, columns] += patch[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]


def _bodies(
    spine: Spine,
    look: BoneAppearance,
    texture: np.ndarray,
    resolution: float,
    size: int,
    corner: np.ndarray,
    seen: np.ndarray,
    pixel: float,
) -> np.ndarray:
    """Attenuation of the seen bodies, float32 (seen, size, size)."""

    def column(values: np.ndarray) -> np.ndarray:
        return values[seen].astype(np.float32)[:, None, None]

    # Pixel centres relative to each body's centre, mm, turned into the body's frame.
    offset = (corner + 0.5) * pixel - spine.centre / spine.scale
    grid = np.arange(size, dtype=np.float32) * np.float32(pixel)
    dx, dy = column(offset[:, 0]) + grid[None, None, :], column(offset[:, 1]) + grid[None, :, None]
    cos, sin = column(np.cos(spine.tilt)), column(np.sin(spine.tilt))
    x, y = dx * cos + dy * sin, dy * cos - dx * sin

    half = column(spine.depth / 2 / spine.scale)
    u = x / half

    def endplate(heights: np.ndarray) -> np.ndarray:
        a, m, p = (column(h / spine.scale) for h in heights.T)
        return m + u * ((p - a) / 2 + u * ((p + a) / 2 - m))

    plates = np.minimum(y - endplate(spine.top), endplate(spine.bottom) - y)
    # The walls are hollow by a fourteenth of the half depth at mid-height.
    tall = column((spine.bottom.mean(axis=1) - spine.top.mean(axis=1)) / 2 / spine.scale)
    walls = half * (1 - np.maximum(1 - (y / tall) ** 2, 0) / 14) - np.abs(x)
    # Round corners: within the radius of both edges, the distance to the corner's circle.
    corner_distance = np.hypot(np.maximum(_CORNER - plates, 0), np.maximum(_CORNER - walls, 0))
    depth = np.minimum(np.minimum(plates, walls), np.float32(_CORNER) - corner_distance)

    edge = max(_EDGE, pixel)
    inside = np.clip(depth / np.float32(edge) + np.float32(0.5), 0, 1)
    # The outline is thinner than a small picture's pixel: widen it and keep its integral.
    width = np.hypot(_CORTEX_WIDTH, 0.6 * pixel)
    shrink = _CORTEX_WIDTH / width
    cortex = np.float32(look.endplate * shrink) * np.exp(-np.abs(plates) / np.float32(width))
    cortex += np.float32(look.wall * shrink) * np.exp(-np.abs(walls) / np.float32(width))

    which = np.broadcast_to(np.arange(seen.sum(), dtype=np.float32)[:, None, None], x.shape)
    points = (which, (y + _HALF_Y) / np.float32(_PITCH), (x + _HALF_X) / np.float32(_PITCH))
    struts = map_coordinates(texture[seen], points, order=1, mode="nearest", output=np.float32)
    return inside * (np.float32(look.interior) + cortex + struts)


def _expose(attenuation: np.ndarray, rng: np.random.Generator, resolution: float) -> np.ndarray:
    """Grey values: this picture's gain and offset, and quantum noise that averages out in small pictures."""
    gain, offset, dose = rng.normal([1_450.0, -330.0, 1.0], [80.0, 60.0, 0.12])
    sigma = np.float32(0.065 * max(dose, 0.5) * resolution)
    noise = rng.standard_normal(attenuation.shape, dtype=np.float32)
    # Fewer quanta pass where attenuation is high.
    picture = attenuation + noise * sigma * np.sqrt(np.maximum(attenuation, 0.2))
    return np.clip(np.rint(picture * gain + offset), 0, GREY_LEVELS - 1).astype(np.uint16)


# Around the bodies: soft tissue, lung, diaphragm, ribs and posterior elements.

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
