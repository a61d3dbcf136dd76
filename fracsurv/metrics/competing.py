"""Competing events: cumulative incidence, and predicted probability from two cause-specific hazards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from fracsurv.metrics import _checks as check
from fracsurv.metrics.breslow import Baseline, breslow_baseline, breslow_survival
from fracsurv.metrics.censoring import kaplan_meier

NORMAL_97_5 = float(norm.ppf(0.975))
_CHUNK_ELEMENTS = 4_194_304  # 32 MiB an array


@dataclass(frozen=True, eq=False)
class CumulativeIncidence:
    """Share with the event by each time, its variance and 95 % interval, all of shape (n_times,)."""

    incidence: NDArray
    variance: NDArray
    low: NDArray
    high: NDArray


def cumulative_incidence(
    event: ArrayLike, time: ArrayLike, times: ArrayLike, *, cause: int = 1
) -> CumulativeIncidence:
    r"""Aalen and Johansen's estimate of the probability of the event by a time, before any competing event (1978).

    .. math:: F_1(t) = \sum_{s \le t} S(s-) \, d_1(s) / r(s), \quad
              S(t) = \prod_{s \le t} (1 - (d_1(s) + d_2(s)) / r(s))

    At each distinct time s, :math:`d_k` had event k and r were at risk, those censored at s among them. The two
    incidences and S add up to 1. Without competing events it is 1 − Kaplan–Meier. With them, 1 − Kaplan–Meier
    overstates it, since it treats those who had the competing event as still at risk. `cause` 2 gives the competing
    event's incidence.

    The variance is that of R's `cmprsk::cuminc` (Aalen 1978, with Gray's correction for ties). The interval is the
    log–log one, :math:`F^{\exp(\pm 1.96 \sqrt{V} / (F \log F))}`. Where F is 0, the upper bound is Clopper and
    Pearson's for as many as are still at risk (or, if nobody is, as had the other event). Where F is 1, the lower
    bound is theirs for as many as had the event. NaN after the last time, unless nobody was then free of both.

    >>> cumulative_incidence([1, 2, 0, 1], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0]).incidence
    array([0.25, 0.25, 0.75])
    """
    event, time = check.outcome(event, time)
    times = check.times(times)
    if cause not in (1, 2):
        raise ValueError(f"cause must be 1 or 2, got {cause!r}")
    distinct, position = np.unique(time, return_inverse=True)
    had = (event == cause, (event > 0) & (event != cause))
    d1, d2 = (np.bincount(position, weights=which, minlength=len(distinct)) for which in had)
    at_risk = len(time) - np.searchsorted(np.sort(time), distinct, side="left").astype(float)
    free = np.cumprod(1 - (d1 + d2) / at_risk)
    before = np.concatenate([[1.0], free[:-1]])
    curve = np.cumsum(before * d1 / at_risk)
    until = np.searchsorted(distinct, times, side="right")
    known = (times <= distinct[-1]) | (free[-1] == 0)
    incidence = np.concatenate([[0.0], curve])[until]
    incidence[incidence > 1 - 1e-12] = 1.0  # but for rounding errors
    variance = _variance(curve, free, before, d1, d2, at_risk, until)
    low, high = _interval(incidence, variance)
    for k in np.flatnonzero(known & (incidence == 0)):
        followed = np.count_nonzero(time >= times[k]) or np.count_nonzero(had[1])
        high[k] = 1 - 0.025 ** (1 / followed)
    for k in np.flatnonzero(known & (incidence == 1)):
        low[k] = 0.025 ** (1 / np.count_nonzero(had[0] & (time <= times[k])))
    return CumulativeIncidence(*(np.where(known, column, np.nan) for column in (incidence, variance, low, high)))


def _variance(curve, free, before, d1, d2, at_risk, until) -> NDArray:
    """Sums over s ≤ t of w1 (1 + (F(s) − F(t)) / S(s))² + w2 ((F(s) − F(t)) / S(s))², with the squares expanded.

    w = S(s−)² d / r² · (r − d) / (r − 1). Where S(s) is 0 nothing follows, and F(s) = F(t).
    """
    inverse = np.divide(1.0, free, out=np.zeros_like(free), where=free > 0)
    total = [np.zeros(len(curve) + 1) for _ in range(3)]
    for d, shift in ((d1, 1.0), (d2, 0.0)):
        correction = np.divide(at_risk - d, at_risk - 1, out=np.ones_like(d), where=d > 1)
        weight = before**2 * d / at_risk**2 * correction * (free > 0 if shift == 0 else 1.0)
        own = shift + curve * inverse
        for power, values in enumerate((own**2, own * inverse, inverse**2)):
            total[power][1:] += np.cumsum(weight * values)
    reached = np.concatenate([[0.0], curve])[until]
    square, mixed, plain = (each[until] for each in total)
    return np.maximum(square - 2 * reached * mixed + reached**2 * plain, 0.0)


def _interval(incidence: NDArray, variance: NDArray) -> tuple[NDArray, NDArray]:
    inside = (incidence > 0) & (incidence < 1)
    f = np.where(inside, incidence, 0.5)
    width = NORMAL_97_5 * np.sqrt(variance) / (f * -np.log(f))
    return (np.where(inside, f ** np.exp(sign * width), incidence) for sign in (1, -1))


def absolute_risk(
    baseline: Baseline, risk: ArrayLike, other: Baseline, other_risk: ArrayLike | None, times: ArrayLike
) -> NDArray:
    r"""Probability of the event by each time, (n, n_times), from two cause-specific hazards (Benichou and Gail 1990).

    .. math:: F_1(t \mid \eta) = \int_0^t S(s- \mid \eta) \, dH_1(s \mid \eta), \quad S = \exp(-H_1 - H_2)

    The ratio of the two hazards is constant within each step, so that :math:`F_1 + F_2 + S = 1` exactly and, without
    competing events, :math:`F_1 = 1 - \exp(-H_1)`, as in `breslow_survival`. R's `riskRegression::CSC` takes
    :math:`S(s-) dH_1`, which is larger by terms of the order of one step of the hazard.

    `baseline` and `other` are `breslow_baseline`s of the event and of the competing event in the same training fold,
    `risk` and `other_risk` (n,) the log hazards of the two; without `other_risk`, that of the competing event is the
    same for all. NaN after the last training time.
    """
    times, risk = check.times(times), check.finite(risk, "risk")
    risk = check.risk(risk, len(np.atleast_1d(risk)))
    other_risk = np.zeros(len(risk)) if other_risk is None else check.risk(other_risk, len(risk), "other_risk")
    steps = np.union1d(baseline.time, other.time)
    until = np.searchsorted(steps, times, side="right")
    result = np.zeros((len(risk), len(times)))
    size = max(1, _CHUNK_ELEMENTS // max(1, len(steps)))
    for start in range(0, len(risk), size):
        part = slice(start, start + size)
        own, rival = (b.hazard(r[part], steps) for b, r in ((baseline, risk), (other, other_risk)))
        own_step, rival_step = (np.diff(h, axis=1, prepend=0.0) for h in (own, rival))
        both = own_step + rival_step
        share = np.divide(own_step, both, out=np.zeros_like(both), where=both > 0)
        before = np.exp(-np.concatenate([np.zeros((len(own), 1)), (own + rival)[:, :-1]], axis=1))
        curve = np.cumsum(before * -np.expm1(-both) * share, axis=1)
        result[part] = np.concatenate([np.zeros((len(own), 1)), curve], axis=1)[:, until]
    last = min(baseline.last, other.last)
    return np.where(times > last, np.nan, result.clip(0.0, 1.0))


def predicted_survival(
    event_train: NDArray,
    time_train: NDArray,
    risk_train: NDArray,
    risk: NDArray,
    times: NDArray,
    other_risk: tuple[ArrayLike, ArrayLike] | None = None,
) -> NDArray:
    """Predicted probability of no event by each of `times`, shape (n, n_times).

    `breslow_survival`, or, where the training fold holds competing events, 1 − `absolute_risk`. `other_risk` are log
    hazards of the competing event in the two groups, shapes (n_train,) and (n,); the same for all if not given.
    """
    event_train, time_train = check.outcome(event_train, time_train, "_train")
    if not (event_train == 2).any():
        return breslow_survival(event_train == 1, time_train, risk_train, risk, times)
    theirs, ours = (np.zeros(len(time_train)), None) if other_risk is None else other_risk
    own = breslow_baseline(event_train == 1, time_train, risk_train)
    rival = breslow_baseline(event_train == 2, time_train, theirs)
    return 1 - absolute_risk(own, risk, rival, ours, times)


def ranking_by_time(surv: NDArray, risk: NDArray) -> NDArray:
    """Score of having the event by each time, shape (n, n_times), higher = sooner: the probability 1 − `surv`.

    Where it is 0 for all, since the training fold had no event until then, `risk` (n,), their order just after.
    """
    ranking = 1 - surv
    return np.where((ranking == 0).all(axis=0), risk[:, None], ranking)


def ranking_by_last(surv: NDArray, risk: NDArray) -> NDArray:
    """`ranking_by_time` at the last time at which `surv` is known, shape (n,); `risk` if it is known at none."""
    known = np.flatnonzero(np.isfinite(surv).all(axis=0))
    return ranking_by_time(surv[:, known[-1:]], risk)[:, 0] if len(known) else risk


def event_share(event: NDArray, time: NDArray, at: float) -> tuple[float, float, float]:
    """1 − Kaplan–Meier, or with competing events the cumulative incidence, at a time, and its 95 % interval.

    NaN beyond the last time, unless everybody has had an event.
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
