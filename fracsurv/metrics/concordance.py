"""Concordance of risk and time: Harrell's C, and Uno's with censoring weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check
from fracsurv.metrics.censoring import inverse_censoring_weights

_SMALL, _DENSE, _MANY_DRAWS = 512, 4096, 16
"""Up to `_SMALL` patients, or `_DENSE` with at least `_MANY_DRAWS` draws, a matrix of all pairs is the fastest."""
_CHUNK_ELEMENTS = 4_194_304  # 32 MiB an array


@dataclass(frozen=True)
class ConcordanceCounts:
    """Numbers of comparable pairs; the names are scikit-survival's.

    `tied_time` counts the pairs of an event and a censoring at one time; each is also in one of the other three.
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
    """Numbers of pairs behind `concordance_index`, which describes the arguments."""
    event, time = check.survival(event, time)
    risk = check.risk(risk, len(time))
    ones = np.ones((len(time), 1))
    comparable = comparable_counts(event, time, ones)[event].sum()
    concordant = lower_risk_counts(event, time, risk, ones)[event].sum()
    tied = tied_risk_counts(event, time, risk, ones)[event].sum()
    # at one time every event is compared with every censoring
    _, position = np.unique(time, return_inverse=True)
    n_events = np.bincount(position, weights=event)
    tied_time = (n_events * (np.bincount(position) - n_events)).sum()
    return ConcordanceCounts(int(concordant), int(comparable - concordant - tied), int(tied), int(tied_time))


def concordance_index(event: ArrayLike, time: ArrayLike, risk: ArrayLike) -> float:
    """Harrell's concordance index (Harrell et al. 1996), in O(n log n).

    A pair is comparable if the patient with the shorter time had the event, or if at equal times one had it and the
    other was censored. Two events at one time are not. It is concordant if the earlier event has the higher risk.
    Exactly equal risks count one half; scikit-survival takes a difference of 1e-8 for a tie. NaN where no pair is
    comparable (no events, one patient, all events at one time).

    >>> concordance_index([True, True, False], [1.0, 2.0, 3.0], [0.5, 0.9, 0.1])
    0.6666666666666666
    """
    return concordance_counts(event, time, risk).index


def concordance_sd_by_chance(event: ArrayLike, time: ArrayLike) -> float:
    """Standard deviation of Harrell's C over all orders of different risks among these patients.

    Such a C is 0.5 on average, so 0.5 ± 1.96 SD holds the C of a model that knows nothing in 95 of 100 cohorts with
    these outcomes. Exact: the chance that two comparable pairs are both concordant is 1/4 if they share nobody, 1/3
    if somebody is the earlier, or the later, in both, and 1/6 if somebody is the later in one and the earlier in the
    other. Equal risks, and the mean over several models, vary less. NaN without a comparable pair.

    >>> concordance_sd_by_chance([True, True], [1.0, 2.0])
    0.5
    """
    event, time = check.survival(event, time)
    earlier = np.where(event, comparable_counts(event, time, np.ones((len(time), 1)))[:, 0], 0.0)
    events = np.sort(time[event])
    later = np.where(event, np.searchsorted(events, time), np.searchsorted(events, time, "right")).astype(float)
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

    With competing events it is that of Wolbers et al. (2014): a patient with a competing event at s will never have
    the event, so the pair with a later event at t is comparable, weighted by 1 / (G(t) G(s)).

    Only events with ``time < tau`` count; without it, all for which G is known and above zero. An event after the
    training follow-up gets no weight; scikit-survival raises. NaN where no weighted pair is comparable.
    """
    event, time = check.outcome(event, time)
    risk = check.risk(risk, len(time))
    tau = None if tau is None else check.time(tau, "tau")
    weight = uno_weights(event_train, time_train, event == 1, time, tau)
    ones = np.ones((len(time), 1))
    own = inverse_censoring_weights(event_train, time_train, time)
    lower, comparable = uno_pair_counts(event, time, risk, own, ones)
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


def uno_pair_counts(event, time, risk, own, counts) -> tuple[NDArray, NDArray]:
    """`pair_counts`, and those of competing events (2), which need `own`, each patient's 1 / G, shape (n,)."""
    lower, comparable = pair_counts(event == 1, time, risk, counts)
    if (event == 2).any():
        further = _competing_pair_counts(event, time, risk, own, counts)
        lower, comparable = lower + further[0], comparable + further[1]
    return lower, comparable


# The functions below count pairs in bootstrap draws. `counts`, shape (n, n_draws), says how often each draw holds
# each patient (once, for a plain estimate). They return arrays of that shape, 0 in the rows of patients without the
# event. A patient drawn twice is not comparable with the own copy: two events at one time are not.


def pair_counts(event: NDArray, time: NDArray, risk: NDArray, counts: NDArray) -> tuple[NDArray, NDArray]:
    """Each event's concordant pairs plus half of those tied in risk, and its comparable pairs."""
    n, n_draws = counts.shape
    if n <= _SMALL or (n <= _DENSE and n_draws >= _MANY_DRAWS):
        lower = _lower_by_matrix(event, time, risk, counts)
    else:
        lower = lower_risk_counts(event, time, risk, counts)
        lower += 0.5 * tied_risk_counts(event, time, risk, counts)
    return lower, comparable_counts(event, time, counts)


def _lower_by_matrix(event: NDArray, time: NDArray, risk: NDArray, counts: NDArray) -> NDArray:
    """Number of comparable patients of lower risk, and half of those of equal risk."""
    result = np.zeros_like(counts, dtype=float)  # float32 below: whole and half numbers under 2^23 are exact in it
    at = np.flatnonzero(event)
    own_time, own_risk = time[at, None], risk[at, None]
    comparable = (time > own_time) | ((time == own_time) & ~event)
    pairs = (risk < own_risk).astype(np.float32)
    pairs += np.float32(0.5) * (risk == own_risk)
    pairs *= comparable
    result[at] = pairs @ counts.astype(np.float32)
    return result


def comparable_counts(event: NDArray, time: NDArray, counts: NDArray) -> NDArray:
    """Number of patients with a longer time, or censored at the same time."""
    order = np.lexsort((~event, time))
    run_end = _run_ends(time[order], event[order])
    below = _padded_cumsum(counts[order])
    result = np.empty_like(counts)
    result[order] = below[-1] - below[run_end]
    result[~event] = 0.0
    return result


def tied_risk_counts(event: NDArray, time: NDArray, risk: NDArray, counts: NDArray) -> NDArray:
    """Number of comparable patients of exactly the same risk."""
    order = np.lexsort((~event, time, risk))
    result = np.zeros_like(counts)
    risk_end = _run_ends(risk[order])
    if risk_end[-1] == len(risk) and (np.diff(risk_end) > 0).all():
        return result
    run_end = _run_ends(risk[order], time[order], event[order])
    below = _padded_cumsum(counts[order])
    result[order] = below[risk_end] - below[run_end]
    result[~event] = 0.0
    return result


def lower_risk_counts(event: NDArray, time: NDArray, risk: NDArray, counts: NDArray) -> NDArray:
    """Number of comparable patients of strictly lower risk.

    Rows are sorted so that "comparable and lower" means "later and lower". Two rows differ first in some bit of the
    rank of their risk. At that bit's turn, among rows that agree in all higher bits, each row with the bit set counts
    the rows after it without it. So log2(n) passes count every pair once.
    """
    # events of one time are in ascending risk, so that none of them counts another
    order = np.lexsort((np.where(event, risk, 0.0), ~event, time))
    _, rank = np.unique(risk, return_inverse=True)
    rank, counted = rank[order], event[order]
    result = np.zeros_like(counts)
    rows = np.arange(len(risk))
    for bit in reversed(range(int(rank.max()).bit_length())):
        group_end = _run_ends(rank[rows] >> (bit + 1))
        unset = (rank[rows] >> bit) & 1 == 0
        n_unset = np.concatenate([[0], np.cumsum(unset)])
        counting = np.flatnonzero(~unset & counted[rows])
        below = _padded_cumsum(counts[order[rows[unset]]])
        result[order[rows[counting]]] += below[n_unset[group_end[counting]]] - below[n_unset[counting]]
        rows = np.concatenate([rows[unset], rows[~unset]])  # rows that agree in all higher bits stay together
    return result


def _run_ends(*keys: NDArray) -> NDArray:
    """One past the end of the run of equal keys that each of the sorted rows is in."""
    new = np.zeros(len(keys[0]) - 1, dtype=bool)
    for key in keys:
        new |= key[1:] != key[:-1]
    ends = np.concatenate([np.flatnonzero(new) + 1, [len(keys[0])]])
    return np.repeat(ends, np.diff(ends, prepend=0))


def _padded_cumsum(values: NDArray) -> NDArray:
    """Sum of the first k rows, k = 0 … n."""
    result = np.empty((len(values) + 1, values.shape[1]))
    result[0] = 0.0
    np.cumsum(values, axis=0, out=result[1:])
    return result


def _competing_pair_counts(event, time, risk, own, counts) -> tuple[NDArray, NDArray]:
    """As `pair_counts`, each event's pairs with those who had a competing event before it.

    They will never have the event, so they stay comparable (Wolbers et al. 2009, 2014). Each counts by its `own` 1 /
    G, shape (n,), over that of the event; times 1 / G² of the event, that is the weight of the pair.
    """
    lower, comparable = np.zeros(counts.shape), np.zeros(counts.shape)
    rival = np.flatnonzero(event == 2)
    rows = np.flatnonzero((event == 1) & (own > 0))
    there = own[rival, None] * counts[rival]
    size = max(1, _CHUNK_ELEMENTS // max(1, len(rival)))
    for start in range(0, len(rows), size):
        at = rows[start : start + size]
        earlier = time[rival] < time[at, None]
        higher = (risk[rival] < risk[at, None]) + 0.5 * (risk[rival] == risk[at, None])
        comparable[at] = earlier @ there / own[at, None]
        lower[at] = (earlier * higher) @ there / own[at, None]
    return lower, comparable
