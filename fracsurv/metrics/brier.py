"""Brier score at a time and integrated, weighted for censoring."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import check_outcome, check_surv, check_times
from fracsurv.metrics.censoring import inverse_censoring_weights, reaches


def brier_score(
    event_train: ArrayLike,
    time_train: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    surv: ArrayLike,
    times: ArrayLike,
) -> NDArray:
    """Brier score with inverse-probability-of-censoring weights (Graf et al. 1999).

    At time t an event by then contributes surv² / G(own time), a patient followed beyond t contributes (1 - surv)² /
    G(t), and one censored before contributes nothing; the sum is divided by n. G is taken at the event's time, as in
    scikit-survival, not just before it: where many events and censorings share a time, late events weigh too much.

    A patient with a competing event by t will never have the event and contributes (1 - surv)² / G(own time), as in
    R's `riskRegression::Score(cause = 1)`; `surv` is then 1 − the probability of the event by t (`absolute_risk`).

    Parameters
    ----------
    event_train, time_train : arrays, shape (n_train,)
        Training fold, from which the censoring distribution G is estimated.
    event, time : arrays, shape (n,)
        Test fold, True where the event was observed, in either fold 2 where a competing one was; time >= 0.
    surv : array, shape (n, n_times), or (n,) for one time
        Predicted probability, in [0, 1], of no event by each of `times`.
    times : array, shape (n_times,)
        Strictly increasing, in the unit of `time`.

    Returns
    -------
    array, shape (n_times,)
        0 = perfect, 0.25 = a coin. NaN where `usable_horizons` would drop the time; scikit-survival raises.

    Raises
    ------
    ValueError
        For probabilities outside [0, 1] or missing at a usable time, besides what every metric refuses.
    """
    event, time = check_outcome(event, time)
    times = check_times(times)
    usable = reaches(event_train, time_train, time, times)
    surv = check_surv(surv, len(time), usable)
    return np.where(usable, brier_terms(event_train, time_train, event, time, surv, times).mean(axis=0), np.nan)


def integrated_brier_score(
    event_train: ArrayLike,
    time_train: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    surv: ArrayLike,
    times: ArrayLike,
) -> float:
    """Mean of `brier_score` from the first to the last of `times`, by the trapezoidal rule.

    The arguments are those of `brier_score`; at least two times. NaN if the score is NaN at any of them: cap the
    times first (`usable_horizons`).
    """
    times = check_times(times)
    if len(times) < 2:
        raise ValueError(f"times must be at least two to integrate over, got {times}")
    score = brier_score(event_train, time_train, event, time, surv, times)
    return float(integrate(score[:, None], times)[0])


def brier_terms(
    event_train: ArrayLike,
    time_train: ArrayLike,
    event: NDArray,
    time: NDArray,
    surv: NDArray,
    times: NDArray,
) -> NDArray:
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
