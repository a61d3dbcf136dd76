"""Are the probabilities right, and is it of use to act on them: calibration and net benefit at a horizon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from fracsurv.metrics._checks import (
    check_finite,
    check_outcome,
    check_time,
    check_whole,
)
from fracsurv.metrics.censoring import censoring_survival, kaplan_meier
from fracsurv.metrics.competing import NORMAL_97_5, cumulative_incidence

_LEAST = 1e-9
"""Probabilities nearer to 0 or 1 than this count as that far away: the logit of 0 is no number."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration at a horizon.

    Attributes
    ----------
    n, predicted, observed, low, high : arrays, one value a group, by rising prediction
        Patients; mean predicted probability; 1 − Kaplan–Meier at the horizon (with competing events, the cumulative
        incidence), and its 95 % interval.
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
    remained uncensored until just before their event or the horizon (Kaplan–Meier of these patients' censoring). With
    these weights the share of events is exactly 1 − Kaplan–Meier, ties or not.

    Who is censored at `at` itself is known to be free of the event here, in the groups (Kaplan–Meier's convention)
    and in the regression; `cumulative_dynamic_auc` and `brier_score` count, as scikit-survival does, only those
    followed beyond it. Censoring weights come from the patients judged, not from a training fold: calibration is a
    statement about them alone.

    All of it takes censoring to be independent of the event, the regression also of the prediction: where those at
    high risk are followed for a shorter time, the slope is off though the groups are not. Where those who die are
    given as censored, "observed" is the risk if nobody died of anything else; it overstates the share who will have
    the event. Given as 2, a competing event, they are known to be free of it: "observed" is then
    `cumulative_incidence`, and they are in the regression.

    Parameters
    ----------
    event, time : arrays, shape (n,)
        True where the event was observed, 2 where a competing one was; time >= 0, in any one unit.
    probability : array, shape (n,)
        Predicted probability, in [0, 1], of the event by `at`. In the regression, probabilities nearer to 0 or 1 than
        1e-9 count as that far away.
    at : float
        The horizon, in the unit of `time`, above 0.
    n_groups : int, optional
        Groups of equal size by prediction, fewer where equal predictions do not allow it; by default one for every 20
        events by then, from 2 to 10.

    Returns
    -------
    Calibration
        Intervals are log–log Greenwood ones. Greenwood's variance is 0 where nobody, and undefined where everybody,
        has had the event; there the bounds are Clopper and Pearson's exact ones, for as many patients as are still at
        risk at the horizon, or as have had the event. Groups whose follow-up ends before the horizon with somebody
        free of the event have NaN in the place of `observed` and its bounds (one that ends with everybody's event has
        1, however far the horizon); `mean_observed` is NaN if that is so of all, intercept and slope unless some
        are known to have had the event by then and some to be free of it, slope also if all predictions are equal or
        separate the two.

    Raises
    ------
    ValueError
        For unequal lengths, negative times, values that are not finite, probabilities outside [0, 1].
    """
    event, time = check_outcome(event, time)
    probability, at = _check_probability(probability, len(time)), check_time(at, "at", above=0)
    if n_groups is None:
        n_groups = int(np.clip(((event == 1) & (time <= at)).sum() // 20, 2, 10))
    rows = []
    for group in _groups(probability, check_whole(n_groups, "n_groups", 1)):
        rows.append((len(group), probability[group].mean(), *_event_share(event[group], time[group], at)))
    columns = np.array(rows, float).reshape(-1, 5).T
    intercept, slope = _logistic(event, time, probability, at)
    return Calibration(
        columns[0].astype(int),
        *columns[1:],
        float(probability.mean()),
        _event_share(event, time, at)[0],
        intercept,
        slope,
    )


def net_benefit(
    event: ArrayLike, time: ArrayLike, probability: ArrayLike, at: float, thresholds: ArrayLike
) -> NDArray:
    """Net benefit of treating whoever's predicted probability reaches a threshold (Vickers and Elkin 2006).

    Treated patients with the event by `at` less treated ones without it, these weighted by the odds of the threshold,
    per patient. Who is censored at `at` counts as free of it, as in `calibration`. Both are told from the treated
    patients' own Kaplan–Meier estimate (Vickers et al. 2008), so that censoring is allowed for; with competing events
    (2), from their cumulative incidence.

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
        True positives a patient, after the price of the false ones. NaN where the follow-up of those treated ends
        before `at` with somebody free of the event; 0 where nobody is treated.

    Raises
    ------
    ValueError
        For unequal lengths, negative times, values that are not finite, probabilities outside [0, 1], thresholds
        outside (0, 1).

    Examples
    --------
    >>> net_benefit([1, 0, 0, 0], [1.0, 5.0, 5.0, 5.0], [0.9, 0.6, 0.2, 0.1], 3.0, [0.2, 0.8])
    array([0.125, 0.25 ])
    """
    event, time = check_outcome(event, time)
    precision = np.asarray(probability).dtype
    probability, at = _check_probability(probability, len(time)), check_time(at, "at", above=0)
    thresholds = np.atleast_1d(check_finite(thresholds, "thresholds"))
    if thresholds.ndim != 1 or ((thresholds <= 0) | (thresholds >= 1)).any():
        raise ValueError(f"thresholds must be a vector of probabilities in (0, 1), got {thresholds}")
    result = np.zeros(len(thresholds))
    for k, threshold in enumerate(thresholds):
        # a float32 probability of 0.7 reaches 0.7
        treated = probability >= (threshold.astype(precision) if precision.kind == "f" else threshold)
        if not treated.any():
            continue
        share = _event_share(event[treated], time[treated], at)[0]
        result[k] = treated.mean() * (share - (1 - share) * threshold / (1 - threshold))
    return result


def _groups(probability: NDArray, n_groups: int) -> list[NDArray]:
    """Rows by rising prediction in about equal groups; equal predictions stay together, whatever the rows' order."""
    order = np.argsort(probability, kind="stable")
    sorted_ = probability[order]
    wanted = np.round(np.arange(1, n_groups) * len(order) / n_groups).astype(int).clip(1)
    ends = np.unique(np.searchsorted(sorted_, sorted_[wanted - 1], side="right"))
    return [group for group in np.split(order, ends) if len(group)]


def _event_share(event: NDArray, time: NDArray, at: float) -> tuple[float, float, float]:
    """1 − Kaplan–Meier, or the cumulative incidence, at a time, and its 95 % interval.

    NaN beyond the follow-up of somebody without the event.
    """
    if (event == 2).any():
        found = cumulative_incidence(event, time, [at])
        return float(found.incidence[0]), float(found.low[0]), float(found.high[0])
    event = event == 1
    times, survival = kaplan_meier(event, time)
    if at > times[-1] and survival[-1] > 0:
        return np.nan, np.nan, np.nan
    n_until = np.searchsorted(times, at, side="right")
    alive = float(survival[n_until - 1]) if n_until else 1.0
    if alive == 1:
        return 0.0, 0.0, 1 - 0.025 ** (1 / np.count_nonzero(time >= at))
    if alive == 0:
        return 1.0, 0.025 ** (1 / np.count_nonzero(event & (time <= at))), 1.0
    at_risk = len(time) - np.searchsorted(np.sort(time), times[:n_until], side="left")
    n_events = np.bincount(np.searchsorted(times, time[event]), minlength=len(times))[:n_until]
    variance = np.sum(n_events / (at_risk * (at_risk - n_events))) / np.log(alive) ** 2
    width = NORMAL_97_5 * np.sqrt(variance)
    return 1 - alive, 1 - alive ** np.exp(-width), 1 - alive ** np.exp(width)


def _status_at(event: NDArray, time: NDArray, at: float) -> tuple[NDArray, NDArray, NDArray]:
    """Whether the event was by `at`, whether that is known, and the weight of those of whom it is, (n,) each.

    The weight is 1 / P(not censored before the event or the horizon). An event and a censoring at one time: the
    event comes first, so that its weight is 1 / G just before it; who is censored at the horizon is known to be free.
    """
    case = (event == 1) & (time <= at)
    known = (event > 0) | (time >= at)
    before = censoring_survival(event, time, np.minimum(time, at), just_before=True)
    return case, known, np.divide(known, before, out=np.zeros(len(time)), where=known)


def _logistic(event: NDArray, time: NDArray, probability: NDArray, at: float) -> tuple[float, float]:
    """Intercept at slope 1, and slope, by weighted maximum likelihood."""
    case, known, weight = _status_at(event, time, at)
    y, weight = case[known].astype(float), weight[known]
    x = probability[known].clip(_LEAST, 1 - _LEAST)
    x = np.log(x / (1 - x))
    if not (y.any() and (1 - y).any()):
        return np.nan, np.nan
    reach = np.abs(x).max() + 40.0  # beyond this every probability is 0 or 1
    intercept = brentq(lambda shift: weight @ (y - expit(x + shift)), -reach, reach, xtol=1e-13)
    events, free = x[y == 1], x[y == 0]
    separated = events.min() >= free.max() or events.max() <= free.min()
    slope = np.nan if separated else _slope(x - np.average(x, weights=weight), y, weight)
    return float(intercept), float(slope)


def _slope(x: NDArray, y: NDArray, weight: NDArray) -> float:
    """Slope of a weighted logistic regression by Newton's steps, none of them long; NaN where they do not arrive."""
    design, beta = np.stack([np.ones(len(x)), x], axis=1), np.zeros(2)
    scale = weight @ np.abs(design)
    for _ in range(500):
        p = expit(design @ beta)
        score = design.T @ (weight * (y - p))
        if (np.abs(score) <= 1e-12 * scale).all():
            return float(beta[1])
        information = design.T @ (design * (weight * p * (1 - p))[:, None])
        step = np.linalg.lstsq(information, score)[0]
        beta = beta + step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-300))
    return np.nan


def _check_probability(probability: ArrayLike, n: int) -> NDArray:
    probability = check_finite(probability, "probability")
    if probability.shape != (n,):
        raise ValueError(f"probability must have one value a patient: shape ({n},) wanted, got {probability.shape}")
    wrong = np.flatnonzero((probability < 0) | (probability > 1))
    if len(wrong):
        raise ValueError(f"probability must be in [0, 1], got probability[{wrong[0]}] = {probability[wrong[0]]}")
    return probability
