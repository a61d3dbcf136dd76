"""Clinical variables from a Gaussian copula with the protocol's marginals, and the latent bone quality."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from fracsurv.utils.errors import UserError

from .settings import BINARY, CONTINUOUS, COVARIATES, DEFAULT, SimulationSettings
from .streams import rows

#: Column 0 of the copula is bone quality; given one, the rest is drawn conditionally on it.
LATENT = ("q", *CONTINUOUS, *BINARY)


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
    DataFrame, n rows: the covariates of `settings.COVARIATES` in the protocol's order (age in years to
    0.01, BMI in kg/m², T-score; 0/1 for the rest) and `bone_quality` (SD 1).
    """
    z = rows(seed, n, "clinical", "standard_normal", len(LATENT))
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
    frame = pd.DataFrame({name: table[name] for name in COVARIATES})
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
