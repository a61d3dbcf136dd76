"""Prevalent vertebral fractures: Genant grade and type of each of the thirteen levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtri

from fracsurv.cohort.boxes import LEVELS

from .settings import DEFAULT, SimulationSettings
from .streams import rows

TYPES = ("wedge", "biconcave", "crush")

# Where fractures occur: peaks at T7-T8 and at the thoracolumbar junction.
_LEVEL_WEIGHT = np.array([2, 3, 6, 9, 9, 6, 6, 10, 15, 14, 8, 6, 6], dtype=float)
_LEVEL_WEIGHT /= _LEVEL_WEIGHT.sum()

# Wedges dominate in the thoracic spine, biconcave ("fish") vertebrae become common in the lumbar one.
_TYPE_SHARE = {"T": (0.72, 0.20, 0.08), "L": (0.45, 0.42, 0.13)}


def simulate_fractures(clinical: pd.DataFrame, seed: int = 0, settings: SimulationSettings = DEFAULT) -> pd.DataFrame:
    """Draw Genant grades and types for the women of `simulate_clinical` (same order, same seed).

    Weak bone, age, an earlier fracture and a frailty shared by a woman's vertebrae raise the chance of each
    vertebra to be broken and, if broken, its severity.

    Returns
    -------
    DataFrame, row-aligned: `grade_sum`, `grade_T4` … `grade_L4` (int, 0 to 3) and `type_T4` … `type_L4`
    ("normal", "wedge", "biconcave", "crush").
    """
    n, k = len(clinical), len(LEVELS)
    draws = rows(seed, n, "fractures", "random", 1 + 3 * k)
    frailty = ndtri(draws[:, 0])
    occurs, severity, kind = draws[:, 1 : 1 + k], draws[:, 1 + k : 1 + 2 * k], draws[:, 1 + 2 * k :]
    excess = (
        settings.vertebral_per_bone_quality * clinical["bone_quality"].to_numpy()
        + settings.vertebral_per_year * (clinical["age"].to_numpy() - settings.age_mean)
        + settings.vertebral_per_prior_fracture * clinical["prior_fracture"].to_numpy()
        + settings.vertebral_frailty_sd * frailty
    )
    rate = np.exp(settings.vertebral_intercept + excess)
    broken = occurs < -np.expm1(-rate[:, None] * _LEVEL_WEIGHT)
    grade = np.where(broken, _grade(severity, excess, settings), 0)

    table = {"grade_sum": grade.sum(axis=1)}
    table |= {f"grade_{level}": grade[:, i] for i, level in enumerate(LEVELS)}
    names = np.array(TYPES)
    for i, level in enumerate(LEVELS):
        chosen = names[np.searchsorted(np.cumsum(_TYPE_SHARE[level[0]])[:2], kind[:, i])]
        table[f"type_{level}"] = np.where(grade[:, i] > 0, chosen, "normal")
    return pd.DataFrame(table)


def _grade(severity: np.ndarray, excess: np.ndarray, settings: SimulationSettings) -> np.ndarray:
    rho = settings.severity_correlation
    # Centred on 1, about the mean excess of the women who have a fracture.
    latent = rho * (excess[:, None] - 1.0) + np.sqrt(1 - rho**2) * ndtri(severity)
    return 1 + np.searchsorted(ndtri(settings.severity_thresholds), latent)
