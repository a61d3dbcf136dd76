"""Net benefit of acting on a predicted probability, the ordinate of a decision curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check
from fracsurv.metrics.censoring import survival_of_draws
from fracsurv.metrics.competing import event_share


def net_benefit(
    event: ArrayLike, time: ArrayLike, probability: ArrayLike, at: float, thresholds: ArrayLike
) -> NDArray:
    """Net benefit of treating the patients whose predicted probability reaches a threshold (Vickers and Elkin 2006).

    Treated patients with the event by `at`, less treated ones without it times the odds of the threshold, per
    patient. The two shares are taken from the treated patients' own Kaplan–Meier estimate (Vickers et al. 2008), with
    competing events (2) from their cumulative incidence. A patient censored at `at` counts as free of the event. A
    probability of 1 for everyone gives the net benefit of treating all; of treating none it is 0.

    `thresholds` (n_thresholds,) lie in (0, 1). NaN where the follow-up of the treated ends before `at` with somebody
    free of the event; 0 where nobody is treated.

    >>> net_benefit([1, 0, 0, 0], [1.0, 5.0, 5.0, 5.0], [0.9, 0.6, 0.2, 0.1], 3.0, [0.2, 0.8])
    array([0.125, 0.25 ])
    """
    event, time = check.outcome(event, time)
    precision = np.asarray(probability).dtype
    probability, at = check.probability(probability, len(time)), check.time(at, "at", above=0)
    thresholds = np.atleast_1d(check.finite(thresholds, "thresholds"))
    if thresholds.ndim != 1 or ((thresholds <= 0) | (thresholds >= 1)).any():
        raise ValueError(f"thresholds must be a vector of probabilities in (0, 1), got {thresholds}")
    result = np.zeros(len(thresholds))
    for k, threshold in enumerate(thresholds):
        # a float32 probability of 0.7 reaches 0.7
        treated = probability >= (threshold.astype(precision) if precision.kind == "f" else threshold)
        if not treated.any():
            continue
        share = event_share(event[treated], time[treated], at)[0]
        result[k] = treated.mean() * (share - (1 - share) * threshold / (1 - threshold))
    return result


def exact_benefit(
    event: NDArray, time: NDArray, probability: NDArray, at: float, threshold: float
) -> tuple[float, float]:
    """Bounds of `net_benefit` where none, or all, of the treated had the event, as in every draw; NaN elsewhere."""
    treated = probability >= threshold
    share, *bounds = event_share(event[treated], time[treated], at) if treated.any() else [np.nan] * 3
    if share not in (0, 1):
        return np.nan, np.nan
    low, high = (treated.mean() * (each - (1 - each) * threshold / (1 - threshold)) for each in bounds)
    return float(low), float(high)


def benefit_of_draws(
    event: NDArray, time: NDArray, probability: NDArray, at: float, threshold: float, counts: NDArray
) -> NDArray:
    """`net_benefit` at one threshold in each bootstrap draw, shape (n_draws,), without competing events."""
    treated = probability >= threshold
    if not treated.any():
        return np.zeros(counts.shape[1])
    time, drawn = time[treated], counts[treated]
    alive = survival_of_draws(event[treated], time, np.array([at]), drawn)[0]
    share = drawn.sum(axis=0) / counts.sum(axis=0)
    value = share * (1 - alive - alive * threshold / (1 - threshold))
    followed = drawn[time >= at].sum(axis=0) > 0
    value[~followed & (alive > 0)] = np.nan
    return np.where(share > 0, value, 0.0)
