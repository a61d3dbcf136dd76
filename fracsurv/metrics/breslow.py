"""From risk to probability: Breslow's baseline."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import check_finite, check_risk, check_survival, check_times

# exp of this is still finite and exp(-exp(·)) has long been 0.
_LARGEST_EXPONENT = 700.0


def breslow_survival(
    event_train: ArrayLike, time_train: ArrayLike, risk_train: ArrayLike, risk: ArrayLike, times: ArrayLike
) -> NDArray:
    r"""Survival probabilities of a proportional hazards model by Breslow's baseline (Breslow 1972).

    .. math:: S(t \mid \eta) = \exp(-H_0(t) e^\eta), \quad
              H_0(t) = \sum_{t_i \le t} \delta_i \Big/ \sum_{j : t_j \ge t_i} e^{\eta_j}

    Computed in logarithms: risks of ±1e4 neither overflow nor underflow, and a constant added to all risks
    changes nothing. Its denominators are Breslow's also for a model fitted with Efron's ties, as in scikit-survival;
    it knows neither strata nor weights.

    Parameters
    ----------
    event_train, time_train, risk_train : arrays, shape (n_train,)
        The whole training fold, with the model's log hazards in it, higher = riskier, not centred.
    risk : array, shape (n,)
        Log hazards to turn into probabilities, by the same model.
    times : array, shape (n_times,)
        Strictly increasing, in the unit of `time_train`.

    Returns
    -------
    array, shape (n, n_times)
        In [0, 1], never increasing along a row; 1 before the first event. NaN after the last training time,
        where nothing was observed (scikit-survival raises; R and lifelines may carry the last value on).

    Raises
    ------
    ValueError
        For unequal lengths, negative times, values that are not finite, times that do not increase.

    Examples
    --------
    >>> breslow_survival([1, 0], [1.0, 2.0], [0.0, 0.0], [0.0], [0.5, 1.0, 3.0]).round(4)
    array([[1.    , 0.6065,    nan]])
    """
    event_train, time_train = check_survival(event_train, time_train, "_train")
    risk_train = check_risk(risk_train, len(time_train), "risk_train")
    times = check_times(times)
    risk = check_finite(risk, "risk")
    if risk.ndim != 1:
        raise ValueError(f"risk must have one value a patient, got shape {risk.shape}")
    log_hazard = _log_cumulative_hazard(event_train, time_train, risk_train, times)
    exponent = np.minimum(log_hazard + risk[:, None], _LARGEST_EXPONENT)
    return np.where(times > time_train.max(), np.nan, np.exp(-np.exp(exponent)))


def _log_cumulative_hazard(event: NDArray, time: NDArray, risk: NDArray, times: NDArray) -> NDArray:
    """log H0 at each of `times`; log 0 before the first event."""
    order = np.argsort(time, kind="stable")
    event, time, risk = event[order], time[order], risk[order]
    log_at_risk = np.logaddexp.accumulate(risk[::-1])[::-1]
    # Whoever shares the event's time is at risk: the sum starts at the first row of that time.
    event_times = time[event]
    steps = -log_at_risk[np.searchsorted(time, event_times, side="left")]
    cumulative = np.concatenate([[-np.inf], np.logaddexp.accumulate(steps)])
    return cumulative[np.searchsorted(event_times, times, side="right")]
