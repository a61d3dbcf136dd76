"""Brier score at a time and integrated, weighted for censoring."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check
from fracsurv.metrics.censoring import inverse_censoring_weights, reaches


def brier_score(
    event_train: ArrayLike,
    time_train: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    surv: ArrayLike,
    times: ArrayLike,
) -> NDArray:
    """Weighted Brier score at each of `times` (Graf et al. 1999): 0 = perfect, 0.25 = a coin.

    At time t an event by then contributes surv² / G(own time), a patient followed beyond t contributes (1 - surv)² /
    G(t), and one censored before contributes nothing; the sum is divided by n. G is taken at the event's time, as in
    `cumulative_dynamic_auc`. A patient with a competing event by t contributes (1 - surv)² / G(own time), as in R's
    `riskRegression::Score(cause = 1)`; `surv` is then 1 − the probability of the event by t (`absolute_risk`).

    `surv` may be (n,) for one time. NaN where `usable_horizons` would drop the time (scikit-survival raises); there
    `surv` may be missing.
    """
    event, time = check.outcome(event, time)
    times = check.times(times)
    usable = reaches(event_train, time_train, time, times)
    surv = check.surv(surv, len(time), usable)
    return np.where(usable, brier_terms(event_train, time_train, event, time, surv, times).mean(axis=0), np.nan)


def integrated_brier_score(
    event_train: ArrayLike,
    time_train: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    surv: ArrayLike,
    times: ArrayLike,
) -> float:
    """Mean of `brier_score` from the first to the last of `times` (at least two), by the trapezoidal rule.

    NaN if the score is NaN at any of them: cap the times first (`usable_horizons`).
    """
    times = check.times(times)
    if len(times) < 2:
        raise ValueError(f"times must be at least two to integrate over, got {times}")
    score = brier_score(event_train, time_train, event, time, surv, times)
    return float(integrate(score[:, None], times)[0])


def brier_terms(event_train, time_train, event, time, surv, times) -> NDArray:
    """Each patient's contribution at each time, shape (n, n_times); the score is the mean over patients."""
    own, common = (inverse_censoring_weights(event_train, time_train, at) for at in (time, times))
    beyond = time[:, None] > times
    terms = surv - (beyond | (event == 2)[:, None])
    terms *= terms
    terms *= np.where(beyond, common, (own * (event > 0))[:, None])  # who was censored by then has no weight
    return terms


def brier_of_draws(terms: NDArray, time: NDArray, times: NDArray, usable: NDArray, counts: NDArray) -> NDArray:
    """Brier score of each time and draw, shape (n_times, n_draws), from `brier_terms`.

    NaN at times that are not `usable` (n_times,), and in draws in which nobody is followed beyond the time.
    """
    score = (terms.T @ counts) / counts.sum(axis=0)
    followed = (time[:, None] > times).T.astype(float) @ counts
    score[~usable[:, None] | (followed == 0)] = np.nan
    return score


def integrate(score: NDArray, times: NDArray) -> NDArray:
    """Mean over time of each draw's score, shape (n_times, n_draws); NaN for a single time."""
    if len(times) < 2:
        return np.full(score.shape[1], np.nan)
    return np.trapezoid(score, times, axis=0) / (times[-1] - times[0])
