"""Are the probabilities right, and is it of use to act on them: calibration and net benefit at a horizon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from fracsurv.metrics._checks import check_finite, check_survival
from fracsurv.metrics.censoring import inverse_censoring_weights, kaplan_meier

_LEAST = 1e-9
"""Probabilities nearer to 0 or 1 than this count as that far away: the logit of 0 is no number."""
_NORMAL_97_5 = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Calibration:
    """Calibration at a horizon.

    Attributes
    ----------
    n, predicted, observed, low, high : arrays, one value a group, by rising prediction
        Patients; mean predicted probability; 1 − Kaplan–Meier at the horizon, and its 95 % interval.
    mean_predicted, mean_observed : float
        Over all patients; their ratio (observed to expected) is 1 for a model that is right on average.
    intercept : float
        Calibration in the large: log odds to be added to every prediction; 0 = right, above 0 = too low.
    slope : float
        By how much the predictions' log odds are to be multiplied; 1 = right, below 1 = too extreme (over-fitted).
    """

    n: NDArray
    predicted: NDArray
    observed: NDArray
    low: NDArray
    high: NDArray
    mean_predicted: float
    mean_observed: float
    intercept: float
    slope: float


def calibration(
    event: ArrayLike, time: ArrayLike, probability: ArrayLike, at: float, *, n_groups: int | None = None
) -> Calibration:
    """Predicted against observed probability of the event by a time, censoring taken into account.

    Intercept and slope are those of a logistic regression of "event by `at`" on the log odds of the prediction (for
    the intercept, as an offset) among those whose answer is known, weighted by the inverse probability of having
    remained uncensored (Graf's weights, as in `brier_score`, from these patients' own censoring).

    Parameters
    ----------
    event, time : arrays, shape (n,)
        True where the event was observed; time >= 0, in any one unit.
    probability : array, shape (n,)
        Predicted probability, in [0, 1], of the event by `at`.
    at : float
        The horizon, in the unit of `time`.
    n_groups : int, optional
        Groups of equal size by prediction; by default one for every 20 events by then, from 2 to 10.

    Returns
    -------
    Calibration
        Intervals are log–log Greenwood ones. Greenwood's variance is 0 where nobody, and undefined where everybody,
        has had the event; there the bounds are Clopper and Pearson's exact ones for as many patients as are still at
        risk at the horizon. Groups in which nobody is followed until the horizon are left out; `mean_observed` is NaN
        if that is so of all, intercept and slope if there is no event by then or nobody is followed beyond it, slope
        also if all predictions are equal or separate the events from the others.

    Raises
    ------
    ValueError
        For unequal lengths, negative times, values that are not finite, probabilities outside [0, 1].
    """
    event, time = check_survival(event, time)
    probability, at = _check_probability(probability, len(time)), float(check_finite(at, "at"))
    if n_groups is None:
        n_groups = int(np.clip((event & (time <= at)).sum() // 20, 2, 10))
    order = np.argsort(probability, kind="stable")
    rows = []
    for group in np.array_split(order, n_groups):
        if len(group) and time[group].max() >= at:
            observed, low, high = _event_share(event[group], time[group], at)
            rows.append((len(group), probability[group].mean(), observed, low, high))
    columns = np.array(rows, float).reshape(-1, 5).T
    everyone = _event_share(event, time, at)[0] if time.max() >= at else np.nan
    intercept, slope = _logistic(event, time, probability, at)
    return Calibration(columns[0].astype(int), *columns[1:], float(probability.mean()), everyone, intercept, slope)


def net_benefit(
    event: ArrayLike, time: ArrayLike, probability: ArrayLike, at: float, thresholds: ArrayLike
) -> NDArray:
    """Net benefit of treating whoever's predicted probability reaches a threshold (Vickers and Elkin 2006).

    Treated patients with the event by `at` less treated ones without it, these weighted by the odds of the threshold,
    per patient. Both are told from the treated patients' own Kaplan–Meier estimate (Vickers et al. 2008), so that
    censoring is allowed for.

    Parameters
    ----------
    event, time, probability, at
        As for `calibration`. A probability of 1 for everyone gives the net benefit of treating all; of treating none
        it is 0.
    thresholds : array, shape (n_thresholds,)
        Probabilities in (0, 1) from which on to treat.

    Returns
    -------
    array, shape (n_thresholds,)
        True positives a patient, after the price of the false ones. NaN where nobody of those treated is followed
        until `at`; 0 where nobody is treated.

    Raises
    ------
    ValueError
        For unequal lengths, negative times, values that are not finite, probabilities outside [0, 1], thresholds
        outside (0, 1).

    Examples
    --------
    >>> net_benefit([1, 0, 0, 0], [1.0, 5.0, 5.0, 5.0], [0.9, 0.6, 0.2, 0.1], 3.0, [0.5])
    array([0.])
    """
    event, time = check_survival(event, time)
    probability, at = _check_probability(probability, len(time)), float(check_finite(at, "at"))
    thresholds = np.atleast_1d(check_finite(thresholds, "thresholds"))
    if thresholds.ndim != 1 or ((thresholds <= 0) | (thresholds >= 1)).any():
        raise ValueError(f"thresholds must be a vector of probabilities in (0, 1), got {thresholds}")
    result = np.zeros(len(thresholds))
    for k, threshold in enumerate(thresholds):
        treated = probability >= threshold
        if not treated.any():
            continue
        share = _event_share(event[treated], time[treated], at)[0] if time[treated].max() >= at else np.nan
        result[k] = treated.mean() * (share - (1 - share) * threshold / (1 - threshold))
    return result


def _event_share(event: NDArray, time: NDArray, at: float) -> tuple[float, float, float]:
    """1 − Kaplan–Meier at a time that follow-up reaches, and its 95 % interval."""
    times, survival = kaplan_meier(event, time)
    n_until = np.searchsorted(times, at, side="right")
    alive = float(survival[n_until - 1]) if n_until else 1.0
    if not 0 < alive < 1:
        exact = 0.025 ** (1 / max(1, np.count_nonzero(time >= at)))
        return (0.0, 0.0, 1 - exact) if alive == 1 else (1.0, exact, 1.0)
    at_risk = len(time) - np.searchsorted(np.sort(time), times[:n_until], side="left")
    n_events = np.bincount(np.searchsorted(times, time[event]), minlength=len(times))[:n_until]
    variance = np.sum(n_events / (at_risk * (at_risk - n_events))) / np.log(alive) ** 2
    width = _NORMAL_97_5 * np.sqrt(variance)
    return 1 - alive, 1 - alive ** np.exp(-width), 1 - alive ** np.exp(width)


def _logistic(event: NDArray, time: NDArray, probability: NDArray, at: float) -> tuple[float, float]:
    """Intercept at slope 1, and slope, by weighted maximum likelihood."""
    case, control = event & (time <= at), time > at
    known = case | control
    weight = inverse_censoring_weights(event, time, np.where(case, time, at))[known]
    x = probability[known].clip(_LEAST, 1 - _LEAST)
    x, y = np.log(x / (1 - x)), case[known].astype(float)
    counts = weight > 0
    if not (y[counts].any() and (1 - y[counts]).any()):
        return np.nan, np.nan
    intercept = _maximum_likelihood(np.ones((len(x), 1)), x, y, weight)[0]
    apart = x[case[known] & counts].min() >= x[~case[known] & counts].max()
    wrong_way = x[case[known] & counts].max() <= x[~case[known] & counts].min()
    if apart or wrong_way or np.ptp(x[counts]) == 0:
        return float(intercept), np.nan
    centre = np.average(x, weights=weight)
    slope = _maximum_likelihood(np.stack([np.ones(len(x)), x - centre], axis=1), np.zeros(len(x)), y, weight)[1]
    return float(intercept), float(slope)


def _maximum_likelihood(design: NDArray, offset: NDArray, y: NDArray, weight: NDArray) -> NDArray:
    """Coefficients of a weighted logistic regression, by Newton's steps, halved while they make it worse."""

    def log_likelihood(beta: NDArray) -> float:
        eta = offset + design @ beta
        return float(weight @ (y * eta - np.logaddexp(0, eta)))

    beta = np.zeros(design.shape[1])
    best = log_likelihood(beta)
    for _ in range(100):
        eta = offset + design @ beta
        p = np.exp(-np.logaddexp(0, -eta))
        gradient = design.T @ (weight * (y - p))
        step = np.linalg.lstsq(design.T @ (design * (weight * p * (1 - p))[:, None]), gradient)[0]
        if np.abs(step).max() <= 1e-12 * (1 + np.abs(beta).max()):
            break
        # near the top, rounding alone makes a step look a little worse
        while (value := log_likelihood(beta + step)) < best - 1e-9 * abs(best):
            step /= 2
        beta, best = beta + step, max(best, value)
    return beta


def _check_probability(probability: ArrayLike, n: int) -> NDArray:
    probability = check_finite(probability, "probability")
    if probability.shape != (n,):
        raise ValueError(f"probability must have one value a patient: shape ({n},) wanted, got {probability.shape}")
    wrong = np.flatnonzero((probability < 0) | (probability > 1))
    if len(wrong):
        raise ValueError(f"probability must be in [0, 1], got probability[{wrong[0]}] = {probability[wrong[0]]}")
    return probability
