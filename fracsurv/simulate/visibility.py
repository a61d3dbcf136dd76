"""How visible bone quality is in a radiograph, by a statistic that knows nothing of the simulation."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

_SAMPLES = np.linspace(-1.0, 1.0, 25)


def trabecular_contrast(image: np.ndarray, keypoints: np.ndarray) -> float:
    """Texture of the vertebrae's interior against the brightness of their endplates, as a logarithm.

    The median over vertebrae of the SD of the interior's grey values about their best plane, over the median
    of the endplates' brightness above the interior. A ratio of differences of grey values: exposure (gain
    and offset) has no effect. Higher = more texture; NaN where the endplates are not the brighter ones.

    Parameters
    ----------
    image : array (height, width)
    keypoints : float array (vertebrae, 6, 2)
        In pixels of `image` (pixel i covers i to i + 1), in the order of vertebrae.csv, all inside.
    """
    texture, contrast = np.median([_one(image, points) for points in keypoints], axis=0)
    return float(np.log(texture / contrast)) if contrast > 0 else float("nan")


def _one(image: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Interior's SD and endplates' contrast of one vertebra, grey values."""
    patch = _straightened(image, points)
    u, v = np.meshgrid(_SAMPLES, _SAMPLES)
    inner = (np.abs(u) < 0.7) & (np.abs(v) < 0.6)
    columns = np.abs(_SAMPLES) < 0.7
    # Just inside the endplates: at the very edge a small picture's pixels are half disc.
    rows = (np.abs(_SAMPLES) > 0.8) & (np.abs(_SAMPLES) < 0.95)
    plates = patch[rows][:, columns].mean()
    plane = np.stack([np.ones(inner.sum()), u[inner], v[inner]], axis=1)
    residual = patch[inner] - plane @ np.linalg.lstsq(plane, patch[inner], rcond=None)[0]
    return float(residual.std()), float(plates - patch[inner].mean())


def _straightened(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The vertebra's grey values on a square: columns anterior to posterior, rows top to bottom."""
    u = _SAMPLES[:, None]

    def endplate(a: np.ndarray, m: np.ndarray, p: np.ndarray) -> np.ndarray:
        return m + u * ((p - a) / 2 + u * ((p + a) / 2 - m))

    top, bottom = endplate(*points[:3]), endplate(*points[3:])
    part = (1 + _SAMPLES)[:, None, None] / 2
    xy = top * (1 - part) + bottom * part
    return map_coordinates(image.astype(np.float64), (xy[..., 1] - 0.5, xy[..., 0] - 0.5), order=1, mode="nearest")
