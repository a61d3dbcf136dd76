"""The spine in the sagittal plane: bodies, six keypoints a vertebra, and where the picture cuts it off.

Lengths are millimetres until the field of view is chosen, then protocol pixels (a picture 600 wide). The
woman faces left: anterior is small x. Down is large y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fracsurv.cohort.boxes import LEVELS
from fracsurv.simulate.settings import SimulationSettings

#: Bodies drawn, top to bottom; the protocol's thirteen are BODIES[FIRST : LAST + 1].
BODIES = ("C6", "C7", *(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)), "S1")
FIRST, LAST = BODIES.index(LEVELS[0]), BODIES.index(LEVELS[-1])

PICTURE_WIDTH = 600.0
PICTURE_HEIGHT = (1_200.0, 1_600.0)

# Rounded means of elderly women, C6 … S1: posterior height, antero-posterior depth, disc below, and the
# normal ratios of the anterior and middle height to the posterior one.
_HEIGHT = np.array(
    [13, 14.5, 16, 17, 17.5, 18.5, 19, 19.5, 20, 20.5, 21, 22.5, 23.5, 25, 26.5, 27.5, 27.5, 27, 25.5, 27]
)
_DEPTH = np.array(
    [15, 15.5, 16, 17.5, 19, 21, 22.5, 24, 25.5, 27, 28, 28.5, 29, 29.5, 30.5, 31.5, 32.5, 33.5, 34, 32]
)
_DISC = np.array([4.5, 4.5, 4, 4, 3.8, 3.6, 3.6, 3.8, 4, 4, 4.2, 4.6, 5.2, 6, 7.2, 8.2, 9.2, 9.8, 9.5, 0])
_APR = np.array([0.98] * 6 + [0.97, 0.96, 0.95, 0.95, 0.96, 0.97, 0.95, 0.94, 0.95, 0.97, 0.99, 1.02, 1.08, 1.0])
_MPR = np.array([0.95] * 11 + [0.94, 0.94, 0.93, 0.93, 0.93, 0.93, 0.94, 0.95, 1.0])

#: Height loss of a broken vertebra by grade: inside Genant's 20-25, 25-40 and over 40 %, clear of the edges.
LOSS = {1: (0.205, 0.245), 2: (0.260, 0.390), 3: (0.410, 0.600)}
#: An unbroken vertebra's lowest height is at least this share of its highest.
LOWEST_NORMAL_RATIO = 0.825
_SUPERIOR_SHARE = 0.65  # of a fracture's height loss, taken by the superior endplate


@dataclass(frozen=True)
class Spine:
    """One woman's spine in protocol pixels of her own picture.

    centre (20, 2) x, y; tilt (20,) radians, > 0 when the upper end leans backwards (to the right);
    depth (20,); top and bottom (20, 3), the endplates' anterior, middle and posterior height in the body's
    own frame (down positive, so `top` is negative); height: of the picture; scale: pixels a millimetre.
    """

    centre: np.ndarray
    tilt: np.ndarray
    depth: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    height: int
    scale: float

    def keypoints(self) -> np.ndarray:
        """Six keypoints a body, (20, 6, 2): superior then inferior, each anterior, middle, posterior."""
        x = np.concatenate([self.depth[:, None] / 2 * np.array([-1.0, 0.0, 1.0])] * 2, axis=1)
        y = np.concatenate([self.top, self.bottom], axis=1)
        cos, sin = np.cos(self.tilt)[:, None], np.sin(self.tilt)[:, None]
        return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1) + self.centre[:, None]


def simulate_spine(
    rng: np.random.Generator, grades: np.ndarray, types: np.ndarray, settings: SimulationSettings
) -> Spine:
    """Draw a spine with the given Genant grades (int, 13) and types (str, 13) and put it into a picture."""
    stature = rng.normal(1.0, 0.04)
    depth = _DEPTH * stature * rng.normal(1.0, 0.025, len(BODIES)) * rng.normal(1.0, 0.03)
    heights, unbroken = _heights(rng, grades, types, stature)
    loss = unbroken - heights
    top = -unbroken / 2 + _SUPERIOR_SHARE * loss
    bottom = unbroken / 2 - (1 - _SUPERIOR_SHARE) * loss
    disc = _DISC * stature * rng.normal(0.95, 0.10) * rng.uniform(0.8, 1.15, len(BODIES))
    tilt = _tilts(rng, top, bottom, depth, loss)
    return _place(rng, _chain(top, bottom, disc, tilt), tilt, depth, top, bottom, settings)


def _heights(
    rng: np.random.Generator, grades: np.ndarray, types: np.ndarray, stature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Anterior, middle and posterior heights (20, 3), broken and as they were before."""
    posterior = _HEIGHT * stature * rng.normal(1.0, 0.02, len(BODIES))
    ratio = np.stack([_APR, _MPR, np.ones(len(BODIES))], axis=1)
    ratio[:, :2] += rng.normal(0.0, [0.025, 0.018], (len(BODIES), 2))
    normal = ratio[FIRST : LAST + 1]
    np.maximum(normal, LOWEST_NORMAL_RATIO * normal.max(axis=1, keepdims=True), out=normal)
    unbroken = posterior[:, None] * ratio
    broken = unbroken.copy()
    # Drawn for every vertebra, broken or not, so that one fracture does not move the other vertebrae.
    where, inside, rest = rng.random((3, len(LEVELS)))
    for i in np.flatnonzero(grades):
        low, high = LOSS[int(grades[i])]
        kept = 1 - (low + (high - low) * where[i])
        broken[FIRST + i] = _collapse(unbroken[FIRST + i], types[i], kept, inside[i], rest[i])
    return broken, unbroken


def _collapse(heights: np.ndarray, kind: str, kept: float, inside: float, rest: float) -> np.ndarray:
    """Heights after a fracture; the lowest is `kept` of the highest, exactly."""
    anterior, _, posterior = heights
    if kind == "wedge":
        # The middle ends between the two walls, nearer to the anterior one in some.
        middle = posterior * (kept + (1 - kept) * (0.25 + 0.45 * inside))
        return np.array([kept * posterior, middle, posterior])
    if kind == "biconcave":
        # The walls lose some height too, but less than half of what the middle loses.
        walls = np.array([anterior, posterior]) * (1 - 0.08 * rest)
        return np.array([walls[0], kept * walls.max(), max(walls[1], 0.9 * walls[0])])
    # Crush: the whole body sinks and the posterior wall sinks most.
    anterior = anterior * (1 - 0.05 - 0.10 * rest)
    return np.array([anterior, anterior * (kept + (1 - kept) * (0.2 + 0.4 * inside)), kept * anterior])


def _tilts(
    rng: np.random.Generator, top: np.ndarray, bottom: np.ndarray, depth: np.ndarray, loss: np.ndarray
) -> np.ndarray:
    """Tilt of each body: kyphosis T1-T12, lordosis T12-S1, and what wedge fractures add."""
    kyphosis = np.radians(np.clip(rng.normal(40, 9), 18, 66))
    lordosis = np.radians(np.clip(rng.normal(38, 9), 12, 62))
    step = np.empty(len(BODIES) - 1)
    step[:2] = np.radians(-4)  # the neck straightens up again
    step[2:13] = kyphosis / 8
    step[13:] = -lordosis * np.array([0.08, 0.15, 0.2, 0.25, 0.32, 0.45])
    step += np.radians(rng.normal(0.0, 0.8, len(step)))
    # A body lower in front than behind turns its neighbours towards each other, less what discs take up.
    wedge = np.arctan((loss[:, 0] - loss[:, 2]) / depth)
    step += 0.7 * (_SUPERIOR_SHARE * wedge[1:] + (1 - _SUPERIOR_SHARE) * wedge[:-1])
    tilt = np.concatenate([[0.0], np.cumsum(step)])
    # The table keeps the trunk straight: on average over T4-L4 the spine points along the picture.
    return tilt - tilt[FIRST : LAST + 1].mean() + np.radians(rng.normal(0.0, 2.5))


def _chain(top: np.ndarray, bottom: np.ndarray, disc: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Centres (20, 2), each body below its upper neighbour's inferior endplate and disc."""

    def down(angle: np.ndarray, length: np.ndarray) -> np.ndarray:
        return np.stack([-np.sin(angle), np.cos(angle)], axis=-1) * length[..., None]

    # Endplates count by their walls' mean: a sunken middle does not draw the neighbour in.
    lower, upper = bottom[:, [0, 2]].mean(axis=1), -top[:, [0, 2]].mean(axis=1)
    between = (tilt[1:] + tilt[:-1]) / 2
    steps = down(tilt[:-1], lower[:-1]) + down(between, disc[:-1]) + down(tilt[1:], upper[1:])
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _place(
    rng: np.random.Generator,
    centre: np.ndarray,
    tilt: np.ndarray,
    depth: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    settings: SimulationSettings,
) -> Spine:
    """Choose magnification, picture height and position so that T4-L4 are in it, but for a few women."""
    part = slice(FIRST, LAST + 1)
    raw = Spine(centre, tilt, depth, top, bottom, 0, 1.0).keypoints()[part]
    upper, lower = raw[..., 1].min(), raw[..., 1].max()
    scale = float(min(rng.normal(3.05, 0.08), (PICTURE_HEIGHT[1] - 70) / (lower - upper)))
    above, below, low_share, cut, across = rng.random(5)
    length = scale * (lower - upper)
    margins = np.array([40 + 130 * above, 25 + 150 * below])
    height = int(4 * round(np.clip(length + margins.sum(), *PICTURE_HEIGHT) / 4))
    start = margins[0] * (height - length) / margins.sum()
    if low_share < settings.low_field_of_view:
        l4 = raw[-1, :, 1]
        start = height - length + scale * (l4.max() - l4.min()) * (0.1 + 1.1 * cut)
    left, right = scale * raw[..., 0].min(), scale * raw[..., 0].max()
    middle = PICTURE_WIDTH * (0.47 + 0.10 * across) - (left + right) / 2
    shift = np.clip(middle, 25 - left, PICTURE_WIDTH - 25 - right)
    return Spine(
        centre * scale + np.array([shift, start - scale * upper]),
        tilt,
        depth * scale,
        top * scale,
        bottom * scale,
        height,
        scale,
    )
