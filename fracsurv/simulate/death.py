"""Death as a competing event: whoever dies before a fracture or the end of follow-up is not seen to have one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .streams import rows

DAYS_A_YEAR = 365.25


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
    exponential = -np.log1p(-rows(seed, len(clinical), "death", "random", 1)[:, 0])
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
