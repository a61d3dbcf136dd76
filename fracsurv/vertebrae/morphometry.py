"""Six keypoints a vertebra to heights, their ratios, and Genant's grade and type, with the chance of each grade.

Everything is differentiable in the keypoints but the hard grade. Heights: ha anterior, hm middle, hp posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

GENANT_TOLERANCES = (0.20, 0.25, 0.40)
"""Loss of height from which a vertebra has grade 1, 2 and 3 (Genant et al., J Bone Miner Res 1993;8:1137)."""
THESIS_TOLERANCES = (0.15, 0.25, 0.40)
"""The thesis counts a difference of 15 % as a fracture; it gives no other bounds, so grades 2 and 3 keep Genant's."""
TYPES = ("normal", "wedge", "biconcave", "crush")
FEWEST_FOR_LINE = 5
SOFTNESS = 0.02
"""Width of the soft grade's steps: a loss this far beyond a tolerance counts as 73 % beyond it."""


class Morphometry(NamedTuple):
    """Of n vertebrae: heights (keypoints' unit), ratios, loss of height by type, grade and type.

    `apr` = ha/hp, `mpr` = hm/hp, `mar` = hm/ha; `hpr` = hp over what the spine's other vertebrae let expect there
    (`expected_height`), NaN where nothing does.
    `losses` (n, 3): of wedge, biconcave, crush; NaN keypoints give NaN. `grade` (n,) int64 from 0 to 3 and `type`
    (n,) int64, a number into `TYPES`; both 0 where the keypoints are NaN.
    """

    ha: Tensor
    hm: Tensor
    hp: Tensor
    apr: Tensor
    mpr: Tensor
    mar: Tensor
    hpr: Tensor
    losses: Tensor
    grade: Tensor
    type: Tensor


def morphometry(
    keypoints: Tensor | np.ndarray,
    *,
    tolerances: tuple[float, float, float] = GENANT_TOLERANCES,
    ordered: bool = False,
) -> Morphometry:
    """Measure vertebrae by Genant's rule.

    Parameters
    ----------
    keypoints : (n, 6, 2), or (..., n, 6, 2)
        x, y of the upper endplate's anterior, middle and posterior point, then of the lower one's, in any unit. NaN =
        unknown.
    tolerances : three increasing floats
        Loss from which the grade is 1, 2 and 3.
    ordered : bool
        Whether the n vertebrae are one spine's, top to bottom, without gaps (a missing one being NaN). Only then is
        there an `hpr`, and only then is a vertebra seen that lost the same height all over.

    Notes
    -----
    The loss is that of the most reduced height against the vertebra's own others, and for the posterior height also
    against the other vertebrae's: wedge 1 − apr; biconcave 1 − min(mpr, mar); crush 1 − min(1/apr, hpr). The greatest
    of the three gives grade and type. Genant's reader holds every height against normal neighbours; here anterior and
    middle height are held against the own posterior one alone, so that a body that lost some of all three heights may
    get a lower grade than a reader gives it.
    """
    points = torch.as_tensor(keypoints)
    if points.ndim < 3 or tuple(points.shape[-2:]) != (6, 2):
        raise ValueError(f"keypoints must be (..., n, 6, 2), got {tuple(points.shape)}")
    ha, hm, hp = (points[..., :3, :] - points[..., 3:, :]).norm(dim=-1).unbind(-1)
    apr, mpr, mar = ha / hp, hm / hp, hm / ha
    hpr = hp / expected_height(hp) if ordered else torch.full_like(hp, torch.nan)
    crush = torch.fmin(hp / ha, hpr)
    losses = 1 - torch.stack([apr, torch.minimum(mpr, mar), crush], dim=-1)
    worst, kind = torch.nan_to_num(losses.detach(), nan=-1.0, posinf=-1.0, neginf=-1.0).max(dim=-1)
    # 1 − 0.8 is a little below 0.2 in floating point; a loss of exactly the tolerance has the grade
    grade = sum((worst + 1e-6 >= tolerance).long() for tolerance in tolerances)
    return Morphometry(ha, hm, hp, apr, mpr, mar, hpr, losses, grade, torch.where(grade > 0, kind + 1, 0))


def grade_probabilities(
    mean: Tensor,
    scale: Tensor,
    *,
    tolerances: tuple[float, float, float] = GENANT_TOLERANCES,
    ordered: bool = False,
    n_draws: int = 256,
    seed: int = 0,
) -> Tensor:
    """Chance of each grade, (n, 4), from keypoints that are known up to a normal error.

    Parameters
    ----------
    mean, scale : (n, 6, 2)
        Keypoints and the standard deviations of their coordinates, taken as independent.
    n_draws, seed : int
        Drawn with a generator of its own: the same input gives the same chances. The standard error of a chance p is
        √(p (1 − p) / n_draws), at most 0.03 with 256 draws.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((n_draws, *mean.shape), generator=generator, dtype=mean.dtype)
    drawn = morphometry(mean + scale * noise.to(mean.device), tolerances=tolerances, ordered=ordered).grade
    chances = torch.stack([(drawn == grade).double().mean(dim=0) for grade in range(4)], dim=-1)
    known = (torch.isfinite(mean) & torch.isfinite(scale)).all(dim=(-1, -2))
    return torch.where(known[..., None], chances, torch.nan)


def expected_height(heights: Tensor) -> Tensor:
    """What a spine's vertebrae let expect of each one's height, (..., n) of (..., n), NaN = unknown.

    With five or more known: a straight line through them that does not heed fractured ones (Theil–Sen; up to three in
    ten may be), for heights grow down the spine. With fewer: the mean of the vertebra above and the one below, NaN
    where neither is known.
    """
    n = heights.shape[-1]
    edge = torch.full_like(heights[..., :1], torch.nan)
    beside = torch.stack(
        [torch.cat([edge, heights[..., :-1]], dim=-1), torch.cat([heights[..., 1:], edge], dim=-1)]
    ).nanmean(dim=0)
    if n < FEWEST_FOR_LINE:
        return beside
    place = torch.arange(n, dtype=heights.dtype, device=heights.device)
    i, j = torch.triu_indices(n, n, 1, device=heights.device)
    slope = _nanmedian((heights[..., j] - heights[..., i]) / (place[j] - place[i]))
    line = slope * place + _nanmedian(heights - slope * place)
    return torch.where(heights.isfinite().sum(dim=-1, keepdim=True) >= FEWEST_FOR_LINE, line, beside)


def _nanmedian(values: Tensor) -> Tensor:
    """Median of the last dimension, kept, over what is not NaN; of two middle ones their mean."""
    ordered = values.sort(dim=-1).values  # NaN comes last
    n = (~values.isnan()).sum(dim=-1, keepdim=True)
    low, high = ((n - 1) // 2).clamp_min(0), (n // 2).clamp_max(values.shape[-1] - 1)
    return (ordered.gather(-1, low) + ordered.gather(-1, high)) / 2
