"""Survival probability from a log hazard, by Breslow's baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check

_LARGEST_EXPONENT = 700.0  # its exp is still finite, and exp(-exp(·)) has long been 0


def breslow_survival(
    event_train: ArrayLike, time_train: ArrayLike, risk_train: ArrayLike, risk: ArrayLike, times: ArrayLike
) -> NDArray:
    r"""Survival probabilities, shape (n, n_times), of a proportional hazards model by Breslow's baseline (1972).

    .. math:: S(t \mid \eta) = \exp(-H_0(t) e^\eta), \quad
              H_0(t) = \sum_{t_i \le t} \delta_i \Big/ \sum_{j : t_j \ge t_i} e^{\eta_j}

    `risk_train` and `risk` are log hazards by the same model, not centred. Computed in logarithms: risks of ±1e4
    neither overflow nor underflow, and a constant added to all risks changes nothing. The denominators are Breslow's
    also for a model fitted with Efron's ties, as in scikit-survival. NaN after the last training time, where nothing
    was observed (scikit-survival raises; R and lifelines may carry the last value on).

    >>> breslow_survival([1, 0], [1.0, 2.0], [0.0, 0.0], [0.0], [0.5, 1.0, 3.0]).round(4)
    array([[1.    , 0.6065,    nan]])
    """
    return breslow_baseline(event_train, time_train, risk_train).survival(risk, times)


@dataclass(frozen=True)
class Baseline:
    """Breslow's baseline of a training fold."""

    time: NDArray  # (n_events,), of the events, increasing
    log_hazard: NDArray  # (n_events,), logarithm of the cumulative hazard after each, at log hazard 0
    last: float  # the last training time, of an event or a censoring

    def survival(self, risk: ArrayLike, times: ArrayLike) -> NDArray:
        """Probabilities of no event by `times`, shape (n, n_times), as `breslow_survival` gives them."""
        times, risk = check.times(times), check.finite(risk, "risk")
        if risk.ndim != 1:
            raise ValueError(f"risk must have one value a patient, got shape {risk.shape}")
        return np.where(times > self.last, np.nan, np.exp(-self.hazard(risk, times)))

    def hazard(self, risk: NDArray, times: NDArray) -> NDArray:
        """Cumulative hazard of each patient until each of `times`, shape (n, n_times); beyond `last` as at `last`."""
        return np.exp(np.minimum(self._log_hazard(times) + risk[:, None], _LARGEST_EXPONENT))

    def own_hazard(self, risk: ArrayLike, time: ArrayLike) -> NDArray:
        """Cumulative hazard of each patient until the own `time`, all of shape (n,); NaN beyond `last`."""
        time = check.finite(time, "time")
        risk = check.risk(risk, len(time))
        exponent = np.minimum(self._log_hazard(time) + risk, _LARGEST_EXPONENT)
        return np.where(time > self.last, np.nan, np.exp(exponent))

    def _log_hazard(self, times: NDArray) -> NDArray:
        known = np.concatenate([[-np.inf], self.log_hazard])  # log 0 before the first event
        return known[np.searchsorted(self.time, times, side="right")]


def breslow_baseline(event: ArrayLike, time: ArrayLike, risk: ArrayLike) -> Baseline:
    """Breslow's baseline of a training fold of n patients, to apply to others; see `breslow_survival`."""
    event, time = check.survival(event, time, "_train")
    risk = check.risk(risk, len(time), "risk_train")
    order = np.argsort(time, kind="stable")
    event, time, risk = event[order], time[order], risk[order]
    log_at_risk = np.logaddexp.accumulate(risk[::-1])[::-1]
    # who shares the event's time is at risk, so the sum starts at the first row of that time
    steps = -log_at_risk[np.searchsorted(time, time[event], side="left")]
    return Baseline(time[event], np.logaddexp.accumulate(steps), float(time.max()))
