"""Times to fracture (Weibull), censoring and death (Gompertz), with the true log hazard of a fracture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from fracsurv.simulate.settings import DEFAULT, SimulationSettings, draw_rows
from fracsurv.utils.errors import UserError

DAYS_A_YEAR = 365.25


def clinical_log_hazard(clinical: pd.DataFrame, settings: SimulationSettings = DEFAULT) -> np.ndarray:
    """The covariates' part of the log hazard, float64 (n,), higher = riskier, zero for a woman of average
    age, BMI and T-score without any of the seven conditions."""
    centre = {"age": settings.age_mean, "bmi": settings.bmi_mean, "t_score": settings.t_score_mean}
    parts = [
        effect * (clinical[name].to_numpy(dtype=np.float64) - centre.get(name, 0.0))
        for name, effect in settings.log_hazard.items()
    ]
    return sum(parts)


def image_log_hazard(
    bone_quality: np.ndarray, grade_sum: np.ndarray, settings: SimulationSettings = DEFAULT
) -> np.ndarray:
    """The image's part of the log hazard, float64 (n,), higher = riskier.

    With b = `settings.image_balance`, s = `settings.image_strength` and the burden f = log(1 + sum of
    grades) standardised to mean 0 and SD 1: s (-sqrt(b) q + sqrt(1 - b) f) / c, where c makes the SD of the
    whole s whatever the balance.
    """
    b = settings.image_balance
    if not 0 <= b <= 1:
        raise UserError(f"settings.image_balance: expected a share from 0 to 1, got {b}")
    burden = (np.log1p(np.asarray(grade_sum)) - settings.burden_mean) / settings.burden_sd
    signal = -np.sqrt(b) * np.asarray(bone_quality) + np.sqrt(1 - b) * burden
    return settings.image_strength * signal / np.sqrt(1 + 2 * np.sqrt(b * (1 - b)) * settings.burden_correlation)


def simulate_outcome(
    clinical: pd.DataFrame,
    image_log_hazard: np.ndarray,
    seed: int = 0,
    settings: SimulationSettings = DEFAULT,
) -> pd.DataFrame:
    """Draw time to fracture or censoring.

    Parameters
    ----------
    clinical : DataFrame
        The covariates (see `simulate_clinical`); row i is patient i of the seed.
    image_log_hazard : array of float, shape (n,)
        The image's part of the log hazard, higher = riskier: that of `image_log_hazard`, or any score
        measured in real radiographs (SD about 1 and mean about 0 keep the event share; see
        `calibrated_scale` otherwise).
    seed, settings

    Returns
    -------
    DataFrame, row-aligned: `time_days` (int ≥ 1; whole days, so there are ties), `event` (int, 1 =
    fracture), `log_hazard` (float, true log hazard up to a constant).
    """
    eta = clinical_log_hazard(clinical, settings) + _checked(image_log_hazard, len(clinical))
    draws = draw_rows(seed, len(clinical), "outcome", "random", 3)
    fracture = settings.weibull_scale * (-np.log1p(-draws[:, 0]) * np.exp(-eta)) ** (1 / settings.weibull_shape)
    low, high = settings.administrative_censoring
    censored = np.minimum(low + (high - low) * draws[:, 1], -settings.drop_out_mean * np.log1p(-draws[:, 2]))
    return pd.DataFrame(
        {
            # Rounded up: nobody breaks a bone on day 0.
            "time_days": np.maximum(np.ceil(np.minimum(fracture, censored)), 1).astype(np.int64),
            "event": (fracture <= censored).astype(np.int64),
            "log_hazard": eta,
        }
    )


def calibrated_scale(
    log_hazard: np.ndarray, event_share: float = 0.358, settings: SimulationSettings = DEFAULT
) -> SimulationSettings:
    """`settings` with the Weibull scale that makes `event_share` of the given women expect a fracture.

    Needed where the log hazard (float (n,), higher = riskier, clinical and image parts added) is not
    distributed as the defaults make it: another `image_balance`, or real images' scores. Follow-up is taken
    at its administrative mean, thinned by drop-out. Refuses a share not strictly between 0 and 1.
    """
    if not 0 < event_share < 1:
        raise UserError(f"event_share: expected a share between 0 and 1, got {event_share}")
    grid = np.linspace(0, np.mean(settings.administrative_censoring), 400)
    staying = np.exp(-grid / settings.drop_out_mean)
    eta = np.quantile(_checked(log_hazard, len(log_hazard)), (np.arange(2_000) + 0.5) / 2_000)

    def share(log_scale: float) -> float:
        cumulative = (grid / np.exp(log_scale)) ** settings.weibull_shape
        surviving = np.exp(-np.outer(np.exp(eta), cumulative)).mean(axis=0)
        return float(np.sum(-np.diff(surviving) * (staying[1:] + staying[:-1]) / 2))

    scale = np.exp(brentq(lambda x: share(x) - event_share, np.log(1.0), np.log(1e8)))
    return replace(settings, weibull_scale=float(scale))


def _checked(log_hazard: np.ndarray, n: int) -> np.ndarray:
    eta = np.asarray(log_hazard, dtype=np.float64)
    if eta.shape != (n,) or not np.isfinite(eta).all():
        raise UserError(f"log hazard: expected {n} finite numbers, got shape {eta.shape} or non-finite ones")
    return eta


@dataclass(frozen=True)
class DeathSettings:
    """Gompertz mortality by attained age; chosen by hand to be of the order of old women's, estimated from no data.

    `rate` is the deaths a year at age `at_age`, `per_year` how much the log of it rises with each year of age,
    `log_hazard` the log hazard ratios of risk factors, of which two also lead to fractures.
    """

    rate: float = 0.03
    at_age: float = 78.0
    per_year: float = 0.11
    log_hazard: dict[str, float] = field(default_factory=lambda: {"smoker": 0.7, "glucocorticoids": 0.4})


def death_times(clinical: pd.DataFrame, seed: int = 0, settings: DeathSettings = DeathSettings()) -> np.ndarray:
    """Days from the radiograph to death, float64 (n,), of these women; row i is patient i of the seed."""
    factors = sum(effect * clinical[name].to_numpy(float) for name, effect in settings.log_hazard.items())
    age = clinical["age"].to_numpy(float) - settings.at_age
    hazard = settings.rate * np.exp(settings.per_year * age + factors)
    exponential = -np.log1p(-draw_rows(seed, len(clinical), "death", "random", 1)[:, 0])
    years = np.log1p(settings.per_year * exponential / hazard) / settings.per_year
    return years * DAYS_A_YEAR


def with_death(
    table: pd.DataFrame, clinical: pd.DataFrame, seed: int = 0, settings: DeathSettings = DeathSettings()
) -> pd.DataFrame:
    """`table` (`time_days`, `event`) with event 2 where death comes first; of one day, a fracture comes before it."""
    died = np.maximum(np.ceil(death_times(clinical, seed, settings)), 1).astype(np.int64)
    time, event = table["time_days"].to_numpy(), table["event"].to_numpy()
    first = (died < time) | ((died == time) & (event == 0))
    return table.assign(time_days=np.where(first, died, time), event=np.where(first, 2, event))
