"""Concordance of risk and time: Harrell's C, and Uno's with censoring weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import (
    check_outcome,
    check_risk,
    check_survival,
    check_time,
)
from fracsurv.metrics._pairs import (
    comparable_counts,
    lower_risk_counts,
    pair_counts,
    tied_risk_counts,
)
from fracsurv.metrics.censoring import inverse_censoring_weights
from fracsurv.metrics.competing import competing_pair_counts


@dataclass(frozen=True)
class ConcordanceCounts:
    """Comparable pairs, counted; the names are scikit-survival's.

    `tied_time` are the comparable pairs (an event and a censoring) that share a time; each is also counted
    under one of the other three.
    """

    concordant: int
    discordant: int
    tied_risk: int
    tied_time: int

    @property
    def index(self) -> float:
        """Harrell's C; NaN without a comparable pair."""
        comparable = self.concordant + self.discordant + self.tied_risk
        return (self.concordant + 0.5 * self.tied_risk) / comparable if comparable else float("nan")


def concordance_counts(event: ArrayLike, time: ArrayLike, risk: ArrayLike) -> ConcordanceCounts:
    """Count the pairs behind `concordance_index`, which describes the arguments."""
    event, time = check_survival(event, time)
    risk = check_risk(risk, len(time))
    ones = np.ones((len(time), 1))
    comparable = comparable_counts(event, time, ones)[event].sum()
    concordant = lower_risk_counts(event, time, risk, ones)[event].sum()
    tied = tied_risk_counts(event, time, risk, ones)[event].sum()
    # Of a time's rows, every event is compared with every censoring.
    _, position = np.unique(time, return_inverse=True)
    n_events = np.bincount(position, weights=event)
    tied_time = (n_events * (np.bincount(position) - n_events)).sum()
    return ConcordanceCounts(int(concordant), int(comparable - concordant - tied), int(tied), int(tied_time))


def concordance_index(event: ArrayLike, time: ArrayLike, risk: ArrayLike) -> float:
    """Harrell's concordance index (Harrell et al. 1996), in O(n log n).

    A pair is comparable if the patient with the shorter time had the event, or if at equal times one had it
    and the other was censored; two events at one time are not. It is concordant if the earlier event has the
    higher risk. Equal risks count one half: exactly equal ones, where scikit-survival takes a difference of
    1e-8 for a tie.

    Parameters
    ----------
    event : array, shape (n,), bool or 0/1
        True where the event was observed.
    time : array, shape (n,), float
        Time of event or of censoring, >= 0, in any one unit.
    risk : array, shape (n,), float
        Log hazard or any score, higher = riskier.

    Returns
    -------
    float
        In [0, 1]; NaN where no pair is comparable (no events, one patient, all events at one time).

    Raises
    ------
    ValueError
        For unequal lengths, negative times, or values that are not finite.

    Examples
    --------
    >>> concordance_index([True, True, False], [1.0, 2.0, 3.0], [0.5, 0.9, 0.1])
    0.6666666666666666
    """
    return concordance_counts(event, time, risk).index


def concordance_sd_by_chance(event: ArrayLike, time: ArrayLike) -> float:
    """SD of Harrell's C over all orders in which risks, all different, could be dealt out to these patients.

    Such a C is 0.5 on average, so 0.5 ± 1.96 SD is about where a model that knows nothing of the patients falls in 95
    of 100 cohorts with these outcomes. Exact: of two comparable pairs, the chance that both are concordant is 1/4 if
    they share nobody, 1/3 if somebody is the earlier, or the later, in both, and 1/6 if somebody is the later in one
    and the earlier in the other. Equal risks, and the mean over several models, vary less.

    Returns
    -------
    float
        NaN without a comparable pair. Arguments as for `concordance_index`.

    Examples
    --------
    >>> concordance_sd_by_chance([True, True], [1.0, 2.0])
    0.5
    """
    event, time = check_survival(event, time)
    earlier = np.where(event, comparable_counts(event, time, np.ones((len(time), 1)))[:, 0], 0.0)
    events = np.sort(time[event])
    later = np.where(event, np.searchsorted(events, time, "left"), np.searchsorted(events, time, "right")).astype(
        float
    )
    pairs = earlier.sum()
    if not pairs:
        return float("nan")
    shared = earlier @ (earlier - 1) + later @ (later - 1) - 2 * (earlier @ later)
    return float(np.sqrt(pairs / 4 + shared / 12) / pairs)


def concordance_index_ipcw(
    event_train: ArrayLike,
    time_train: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    risk: ArrayLike,
    tau: float | None = None,
) -> float:
    """Uno's concordance index (Uno et al. 2011): pairs weighted by 1 / G(t)² of the earlier event.

    With competing events it is that of Wolbers et al. (2014): who had one before another's event will never have the
    event, so that the two are comparable, weighted by 1 / (G(t) G(s)) for the event at t and the competing one at s.

    Parameters
    ----------
    event_train, time_train : arrays, shape (n_train,)
        Training fold, from which the censoring distribution G is estimated.
    event, time, risk : arrays, shape (n,)
        As for `concordance_index`; in `event` and `event_train` 2 is a competing event.
    tau : float, optional
        Only events before it count (``time < tau``). Without it, all do for which G is known and above zero:
        scikit-survival raises if a test event lies after the training follow-up, here it gets no weight.

    Returns
    -------
    float
        In [0, 1]; NaN where no weighted pair is comparable.
    """
    event, time = check_outcome(event, time)
    risk = check_risk(risk, len(time))
    tau = None if tau is None else check_time(tau, "tau")
    weight = uno_weights(event_train, time_train, event == 1, time, tau)
    ones = np.ones((len(time), 1))
    lower, comparable = pair_counts(event == 1, time, risk, ones)
    if (event == 2).any():
        own = inverse_censoring_weights(event_train, time_train, time)
        further = competing_pair_counts(event, time, risk, own, ones)
        lower, comparable = lower + further[0], comparable + further[1]
    total = weight @ comparable[:, 0]
    return float(weight @ lower[:, 0] / total) if total > 0 else float("nan")


def uno_weights(
    event_train: ArrayLike, time_train: ArrayLike, event: NDArray, time: NDArray, tau: float | None = None
) -> NDArray:
    """Weight of each patient as the earlier one of a pair: 1 / G² for events before `tau`, 0 for the rest."""
    counted = event if tau is None else event & (time < tau)
    return np.where(counted, inverse_censoring_weights(event_train, time_train, time), 0.0) ** 2


def concordance_of_draws(weight: NDArray, counts: NDArray, lower: NDArray, comparable: NDArray) -> NDArray:
    """Concordance of each draw, (n_draws,), from `pair_counts` and each patient's weight as the earlier of a pair."""
    weighted = weight[:, None] * counts
    total = np.einsum("ij,ij->j", weighted, comparable)
    found = np.einsum("ij,ij->j", weighted, lower)
    return np.divide(found, total, out=np.full(counts.shape[1], np.nan), where=total > 0)
