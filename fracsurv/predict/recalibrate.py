"""Recalibration to a cohort: how a model's probabilities would be corrected for it, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from fracsurv.metrics import Baseline, breslow_baseline, cox_slope, events_ratio

PARTS = 10
"""Parts of the cross-fitting: a patient's recalibrated prediction comes from the patients of the nine other parts."""
LEAST_EVENTS = 2 * PARTS
"""Fewer events give no recalibration."""
METHODS = ("intercept", "baseline", "slope")
NAMES = {
    "intercept": "recalibrated: intercept",
    "baseline": "recalibrated: baseline",
    "slope": "recalibrated: slope and baseline",
}
HOW = {
    "intercept": "probability of the event by t = 1 - (1 - p) ** factor, p the probability of `fracsurv predict`",
    "baseline": "probability of the event by t = 1 - exp(-H(t) * exp(risk)), risk the column of `fracsurv predict`, "
    "H(t) the cumulative hazard of the last time that is not after t (0 before the first)",
    "slope": "probability of the event by t = 1 - exp(-H(t) * exp(slope * risk)), risk and H(t) as for the baseline",
}


@dataclass(frozen=True)
class Prediction:
    """What a model says of n patients.

    Attributes
    ----------
    risk : array, shape (n,)
        Log hazard, higher = riskier.
    surv : array, shape (n, n_times)
        Probabilities of no event by some times.
    hazard : array, shape (n,)
        Cumulative hazard until the end of each patient's own follow-up.
    """

    risk: NDArray
    surv: NDArray
    hazard: NDArray

    def of(self, rows: NDArray) -> Prediction:
        """These patients' predictions."""
        return Prediction(self.risk[rows], self.surv[rows], self.hazard[rows])


@dataclass(frozen=True)
class Recalibration:
    """A correction: `factor` on the cumulative hazard, or a new baseline under the log hazard times `slope`."""

    method: str
    factor: float = 1.0
    slope: float = 1.0
    baseline: Baseline | None = None

    def __call__(self, given: Prediction, time: NDArray, times: NDArray) -> Prediction:
        """Corrected predictions; NaN beyond the last time of the patients that the correction was made from."""
        if self.baseline is None:
            return Prediction(given.risk, given.surv**self.factor, self.factor * given.hazard)
        risk = self.slope * given.risk
        surv = self.baseline.survival(risk, times) if len(times) else given.surv
        # nothing happens after the last time known: whoever is followed for longer adds no expected event
        return Prediction(risk, surv, self.baseline.own_hazard(risk, np.minimum(time, self.baseline.last)))

    def as_record(self) -> dict[str, Any]:
        """Plain numbers, for a JSON file."""
        record: dict[str, Any] = {"how": HOW[self.method]}
        if self.baseline is None:
            return record | {"factor": self.factor}
        hazard = {"time": self.baseline.time.tolist(), "hazard": np.exp(self.baseline.log_hazard).tolist()}
        return record | {"slope": self.slope, "cumulative_hazard": hazard, "last": self.baseline.last}


def recalibrate(method: str, event: NDArray, time: NDArray, given: Prediction) -> Recalibration | None:
    """The correction estimated from these patients; None where it cannot be estimated.

    Parameters
    ----------
    method : str
        'intercept': all cumulative hazards times the ratio of observed to expected events. 'baseline': Breslow's
        baseline of these patients under the log hazard as it is. 'slope': the same under the log hazard times the
        calibration slope; None unless that is above 0, since it would turn ranks around.
    event, time : arrays, shape (n,)
    given : Prediction
    """
    if method == "intercept":
        factor = events_ratio(event, given.hazard).value
        return Recalibration(method, factor=factor) if factor > 0 else None
    slope = cox_slope(event, time, given.risk).value if method == "slope" else 1.0
    if not slope > 0:
        return None
    return Recalibration(method, slope=slope, baseline=breslow_baseline(event, time, slope * given.risk))


def cross_fitted(
    method: str, event: NDArray, time: NDArray, given: Prediction, times: NDArray, seed: int
) -> Prediction | None:
    """Recalibrated predictions in which no patient's own outcome had a part: each from the nine other tenths.

    None where it cannot be estimated from any nine tenths, or where these do not reach the last of `times`.
    """
    result = Prediction(*(np.full_like(each, np.nan, dtype=float) for each in (given.risk, given.surv, given.hazard)))
    parts = StratifiedKFold(PARTS, shuffle=True, random_state=seed % 2**32).split(event, event)
    for others, these in parts:
        fitted = recalibrate(method, event[others], time[others], given.of(others))
        if fitted is None:
            return None
        found = fitted(given.of(these), time[these], times)
        result.risk[these], result.surv[these], result.hazard[these] = found.risk, found.surv, found.hazard
    return result if np.isfinite(result.surv).all() else None
