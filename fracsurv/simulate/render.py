"""A lateral spine radiograph from a spine and a bone quality.

Everything is laid out in millimetres or protocol pixels and only then sampled at the wanted resolution: the
same woman at a quarter of the size looks like the full picture scaled down. Values are attenuations (soft
tissue about 1, bone on top) until the exposure turns them into 12-bit grey values, bone bright.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from .anatomy import PICTURE_WIDTH, Spine
from .background import background
from .streams import stream

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
