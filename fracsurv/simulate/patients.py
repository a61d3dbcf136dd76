"""Each woman's clinical variables, latent bone quality and prevalent vertebral fractures.

Clinical variables come from a Gaussian copula with the protocol's marginals.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from fracsurv.cohort.boxes import LEVELS
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.simulate.settings import BINARY, CONTINUOUS, DEFAULT, SimulationSettings, draw_rows
from fracsurv.utils.errors import UserError

#: Column 0 of the copula is bone quality; given one, the rest is drawn conditionally on it.
LATENT = ("q", *CONTINUOUS, *BINARY)

TYPES = ("wedge", "biconcave", "crush")

# Where fractures occur: peaks at T7-T8 and at the thoracolumbar junction.
_LEVEL_WEIGHT = np.array([2, 3, 6, 9, 9, 6, 6, 10, 15, 14, 8, 6, 6], dtype=float)
_LEVEL_WEIGHT /= _LEVEL_WEIGHT.sum()

# Wedges dominate in the thoracic spine, biconcave ("fish") vertebrae become common in the lumbar one.
_TYPE_SHARE = {"T": (0.72, 0.20, 0.08), "L": (0.45, 0.42, 0.13)}


def copula_factor(settings: SimulationSettings = DEFAULT) -> np.ndarray:
    """Lower Cholesky factor of the latent correlation matrix, float64 (11, 11), in the order of `LATENT`."""
    matrix = np.eye(len(LATENT))
    for (a, b), value in settings.correlation.items():
        i, j = LATENT.index(a), LATENT.index(b)
        matrix[i, j] = matrix[j, i] = value
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise UserError("settings.correlation: not positive definite; make the correlations smaller") from None


def simulate_clinical(
    n: int,
    seed: int = 0,
    settings: SimulationSettings = DEFAULT,
    *,
    bone_quality: np.ndarray | None = None,
) -> pd.DataFrame:
    """Draw the ten covariates and the latent bone quality of `n` women.

    Parameters
    ----------
    n : int
        Women; the first k rows of a draw of n are a draw of k.
    seed : int
        Non-negative.
    settings : SimulationSettings
    bone_quality : array of float, shape (n,), optional
        Standard-normal scores, higher = stronger bone, to condition on in place of simulated ones: the
        image-derived scores of real radiographs, say. Must be finite.

    Returns
    -------
    DataFrame, n rows: the covariates in the protocol's order (age in years to
    0.01, BMI in kg/m², T-score; 0/1 for the rest) and `bone_quality` (SD 1).
    """
    z = draw_rows(seed, n, "clinical", "standard_normal", len(LATENT))
    if bone_quality is not None:
        z[:, 0] = _checked_quality(bone_quality, n)
    factor = copula_factor(settings)
    # Summed column by column, not `z @ factor.T`: BLAS may round a row differently for another n.
    latent = {
        name: sum(factor[k, j] * z[:, j] for j in range(k + 1) if factor[k, j] != 0) for k, name in enumerate(LATENT)
    }
    table = _continuous(latent, settings)
    for name in BINARY:
        table[name] = (latent[name] > -ndtri(settings.prevalence[name])).astype(np.int64)
    frame = pd.DataFrame({name: table[name] for name in PROTOCOL_COVARIATES})
    frame["bone_quality"] = latent["q"]
    return frame


def _continuous(latent: dict[str, np.ndarray], settings: SimulationSettings) -> dict[str, np.ndarray]:
    half_range = np.sqrt(3) * settings.age_sd
    log_variance = np.log1p((settings.bmi_sd / settings.bmi_mean) ** 2)
    bmi = np.exp(np.log(settings.bmi_mean) - log_variance / 2 + np.sqrt(log_variance) * latent["bmi"])
    # Rounded before anything is computed from them, so that the truth belongs to what the file says.
    return {
        "age": (settings.age_mean + half_range * (2 * ndtr(latent["age"]) - 1)).round(2),
        "bmi": bmi.round(2),
        "t_score": (settings.t_score_mean + settings.t_score_sd * latent["t_score"]).round(2),
    }


def _checked_quality(bone_quality: np.ndarray, n: int) -> np.ndarray:
    quality = np.asarray(bone_quality, dtype=np.float64)
    if quality.shape != (n,) or not np.isfinite(quality).all():
        raise UserError(f"bone_quality: expected {n} finite numbers, got shape {quality.shape} or non-finite ones")
    return quality


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
    draws = draw_rows(seed, n, "fractures", "random", 1 + 3 * k)
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
