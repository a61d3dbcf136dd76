"""Kaplan-Meier, the censoring distribution behind every weight, and the horizons it reaches."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check


def kaplan_meier(event: ArrayLike, time: ArrayLike, *, censoring: bool = False) -> tuple[NDArray, NDArray]:
    """Distinct times, increasing, and the Kaplan-Meier estimate of P(T > t) at each (Kaplan and Meier 1958).

    With `censoring`, it is the distribution of the censoring time instead. Of an event and a censoring at one time
    the event comes first, as in scikit-survival.

    >>> kaplan_meier([1, 0, 1], [1.0, 2.0, 3.0])[1].round(2)
    array([0.67, 0.67, 0.  ])
    """
    event, time = check.survival(event, time)
    times, position = np.unique(time, return_inverse=True)
    n_events = np.bincount(position, weights=event, minlength=len(times))
    n_all = np.bincount(position, minlength=len(times)).astype(float)
    return times, np.cumprod(1.0 - hazard_steps(n_events[:, None], n_all[:, None], censoring)[:, 0])


def hazard_steps(n_events: NDArray, n_all: NDArray, censoring: bool = False) -> NDArray:
    """Kaplan-Meier hazard of each distinct time (rows), from the (weighted) numbers that left then."""
    at_risk = np.cumsum(n_all[::-1], axis=0)[::-1]
    at_risk, leaving = (at_risk - n_events, n_all - n_events) if censoring else (at_risk, n_events)
    return np.divide(leaving, at_risk, out=np.zeros_like(at_risk), where=leaving > 0)


def survival_of_draws(event: NDArray, time: NDArray, times: NDArray, counts: NDArray) -> NDArray:
    """Kaplan-Meier P(T > t), or 1 − cumulative incidence, of each of `times` and each draw, (n_times, n_draws)."""
    order = np.argsort(time, kind="stable")
    starts = np.flatnonzero(np.diff(time[order], prepend=-1.0))
    n_all = np.add.reduceat(counts[order], starts, axis=0)
    n_events = np.add.reduceat(counts[order] * (event[order, None] == 1), starts, axis=0)
    survival = np.ones((len(starts) + 1, counts.shape[1]))
    if (event == 2).any():
        n_either = np.add.reduceat(counts[order] * (event[order, None] > 0), starts, axis=0)
        free = np.cumprod(1.0 - hazard_steps(n_either, n_all), axis=0)
        survival[1:] -= np.cumsum(np.vstack([survival[:1], free[:-1]]) * hazard_steps(n_events, n_all), axis=0)
    else:
        np.cumprod(1.0 - hazard_steps(n_events, n_all), axis=0, out=survival[1:])
    return survival[np.searchsorted(time[order][starts], times, side="right")]


def censoring_survival(
    event_train: ArrayLike, time_train: ArrayLike, at: ArrayLike, *, just_before: bool = False
) -> NDArray:
    """G(t) = P(censoring after t) at the times `at` of any shape, by Kaplan-Meier in the training fold.

    Nobody is censored by a competing event (2). `just_before` gives the limit from the left. G is as in
    scikit-survival; after the last training time, where it is unknown and scikit-survival raises, it is 0: such a
    patient gets no weight, and a horizon there the value NaN.
    """
    event_train, time_train = check.outcome(event_train, time_train, "_train")
    at = check.finite(at, "at")
    times, survival = kaplan_meier(event_train != 0, time_train, censoring=True)
    order = np.argsort(at, axis=None)  # many times are found faster in their order
    index = np.searchsorted(times, at.ravel()[order], side="left" if just_before else "right")
    g = np.empty(at.shape)
    g.ravel()[order] = np.concatenate([[1.0], survival])[index]
    return np.where(at > times[-1], 0.0, g)


def inverse_censoring_weights(event_train: NDArray, time_train: NDArray, at: NDArray) -> NDArray:
    """1 / G(t), and 0 where G is zero or unknown."""
    g = censoring_survival(event_train, time_train, at)
    return np.divide(1.0, g, out=np.zeros_like(g), where=g > 0)


def mean_weight(event: ArrayLike, time: ArrayLike, at: float) -> float:
    """Mean inverse-censoring weight of patients by their own censoring distribution, at the horizon `at`.

    It is 1 unless events and censorings share times, as with times in whole years. Weights by G(t),
    scikit-survival's, are then too large, and so are weighted metrics. NaN beyond the follow-up.
    """
    event, time = check.outcome(event, time)
    by = np.where(time <= at, time, at)
    if not reaches(event, time, time, np.array([at]))[0]:
        return float("nan")
    counted = (time > at) | (event != 0)
    return float((inverse_censoring_weights(event, time, by) * counted).mean())


def usable_horizons(
    event_train: ArrayLike, time_train: ArrayLike, time_test: ArrayLike, horizons: ArrayLike
) -> NDArray:
    """The horizons that both follow-ups reach, perhaps none; at any other the weighted metrics are NaN.

    There the training fold's censoring distribution is known and above zero, and somebody to evaluate on is followed
    further.

    >>> usable_horizons([1, 0, 1, 0], [1.0, 2.0, 4.0, 6.0], [3.0, 5.0], [1.0, 4.5, 5.5, 6.5])
    array([1. , 4.5])
    """
    horizons = check.times(horizons, "horizons")
    time_test = check.finite(time_test, "time_test")
    return horizons[reaches(event_train, time_train, time_test, horizons)]


def reaches(event_train: ArrayLike, time_train: ArrayLike, time_test: NDArray, times: NDArray) -> NDArray:
    """Whether both follow-ups reach each of `times`, bool (n_times,)."""
    return (censoring_survival(event_train, time_train, times) > 0) & (times < time_test.max())
