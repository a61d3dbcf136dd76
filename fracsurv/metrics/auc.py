"""Time-dependent area under the ROC curve: cumulative cases, dynamic controls."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check
from fracsurv.metrics.censoring import inverse_censoring_weights, reaches, survival_of_draws


def cumulative_dynamic_auc(
    event_train: ArrayLike,
    time_train: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    risk: ArrayLike,
    times: ArrayLike,
) -> tuple[NDArray, float]:
    """Weighted AUC(t) at each of `times` (Uno et al. 2007), and its mean over them.

    At time t a case is an event by t, weighted by 1 / G of its own time; a control is anyone followed beyond t.
    Exactly equal risks count one half. G is taken at the event's time, as in scikit-survival, not just before it:
    where many events and censorings share a time, late events weigh too much. A patient with a competing event by t
    is a control too, weighted by 1 / G of the own time, those followed beyond t by 1 / G(t): definition ii of Blanche
    et al. (2013), as in R's `riskRegression::Score(cause = 1)`.

    `risk` may be (n, n_times), a score for each time, such as the probability of the event by then, which ranks
    otherwise than the hazard where there are competing events. A column of NaN makes that time's AUC NaN, as do no
    case, no control and a time that follow-up does not reach (`usable_horizons`); scikit-survival raises.

    The mean is weighted by the fall of the evaluated patients' Kaplan–Meier curve between times (Lambert and Chevret
    2016), with competing events by the rise of the cumulative incidence. A NaN makes it NaN, except before the first
    event.
    """
    event, time = check.outcome(event, time)
    times = check.times(times)
    risk = check.risk_by_time(risk, len(time), len(times))
    weight = inverse_censoring_weights(event_train, time_train, time)
    common = inverse_censoring_weights(event_train, time_train, times)
    usable = reaches(event_train, time_train, time, times)
    ones = np.ones((len(time), 1))
    auc = auc_of_draws(event, time, risk, times, weight, usable, ones, common)
    return auc[:, 0], float(mean_auc_of_draws(auc, survival_of_draws(event, time, times, ones))[0])


def auc_censored_as_nonevent(event: ArrayLike, time: ArrayLike, risk: ArrayLike, at: float) -> float:
    """AUC at a time without weights, as the reference study describes it (Blomqvist 2025, section 2.6.2).

    A case is an event by `at`, a control is followed beyond it, and a patient censored by then is in no pair. Later
    events weigh too little, since censoring removes them first; `cumulative_dynamic_auc` corrects for that. NaN
    without a case or a control.
    """
    event, time = check.survival(event, time)
    risk = check.risk(risk, len(time))
    ones, at = np.ones((len(time), 1)), np.array([check.time(at, "at")])
    return float(auc_of_draws(event, time, risk, at, ones[:, 0], np.array([True]), ones)[0, 0])


def auc_of_draws(event, time, risk, times, weight, usable, counts, common=None) -> NDArray:
    """AUC of each time and draw, shape (n_times, n_draws).

    `risk` is (n,), or (n, n_times). `weight` (n,) is that of a case, `usable` (n_times,) says which times to compute,
    `counts` (n, n_draws) how often each draw holds each patient. `common` (n_times,) is the weight of those followed
    beyond a time, needed with competing events (2): such a control counts once, one with a competing event in
    proportion. In order of risk, one running sum over the controls gives every case the number of controls below.
    """
    if risk.ndim == 2:
        usable = usable & np.isfinite(risk).all(axis=0)
        each = np.full((len(times), counts.shape[1]), np.nan)
        for k in np.flatnonzero(usable):
            at, mine = slice(k, k + 1), common if common is None else common[k : k + 1]
            each[at] = auc_of_draws(event, time, risk[:, k], times[at], weight, usable[at], counts, mine)
        return each
    order = np.argsort(risk, kind="stable")
    event, time, risk, weight, counts = (each[order] for each in (event, time, risk, weight, counts))
    weighted = weight[:, None] * counts
    first, last = np.searchsorted(risk, risk, side="left"), np.searchsorted(risk, risk, side="right")
    auc = np.full((len(times), counts.shape[1]), np.nan)
    for k in np.flatnonzero(usable):
        by_then, control = time <= times[k], time > times[k]
        case, counted = np.flatnonzero((event == 1) & by_then), counts
        if common is not None and (rival := (event == 2) & by_then).any():
            control = control | rival
            counted = counts * np.where(rival, weight / common[k], 1.0)[:, None]
        below = np.zeros((np.count_nonzero(control) + 1, counts.shape[1]))
        np.cumsum(counted[control], axis=0, out=below[1:])
        n_before = np.concatenate([[0], np.cumsum(control)])
        lower = below[n_before[first[case]]] + below[n_before[last[case]]]
        pairs = 2.0 * weighted[case].sum(axis=0) * below[-1]
        np.divide(np.einsum("ij,ij->j", weighted[case], lower), pairs, out=auc[k], where=pairs > 0)
    return auc


def mean_auc_of_draws(auc: NDArray, survival: NDArray) -> NDArray:
    """Mean AUC of each draw, from AUC and Kaplan-Meier survival, both of shape (n_times, n_draws)."""
    fall = -np.diff(survival, axis=0, prepend=1.0)
    total = fall.sum(axis=0)
    weighted = np.where(fall > 0, auc * fall, 0.0).sum(axis=0)
    return np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0)
