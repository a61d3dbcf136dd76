"""For every event, how many patients are comparable with it, and how many of those lower or equal in risk.

Every function takes `counts`, shape (n, n_draws): how often each patient is there in each bootstrap draw (all
ones for a plain estimate), and returns an array of that shape, of use in the rows of events only (the others
are 0). A patient drawn twice is never comparable with their own copy: two events at one time are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALL = 512
_DENSE, _MANY_DRAWS = 4096, 16
"""Up to so many patients, a matrix of pairs (float32, 24 MiB for a third with events) times the draws is the fastest;
its sums are whole or half numbers below 2^23, so float32 holds them exactly."""


def pair_counts(event: NDArray, time: NDArray, risk: NDArray, counts: NDArray) -> tuple[NDArray, NDArray]:
    """Of each event, its concordant pairs plus half of those tied in risk, and its comparable pairs."""
    n, n_draws = counts.shape
    if n <= _SMALL or (n <= _DENSE and n_draws >= _MANY_DRAWS):
        lower = _lower_by_matrix(event, time, risk, counts)
    else:
        lower = lower_risk_counts(event, time, risk, counts)
        lower += 0.5 * tied_risk_counts(event, time, risk, counts)
    return lower, comparable_counts(event, time, counts)


def _lower_by_matrix(event: NDArray, time: NDArray, risk: NDArray, counts: NDArray) -> NDArray:
    """Weighted number of comparable patients of lower risk, half of those of equal risk."""
    result = np.zeros_like(counts, dtype=float)
    at = np.flatnonzero(event)
    own_time, own_risk = time[at, None], risk[at, None]
    comparable = (time > own_time) | ((time == own_time) & ~event)
    pairs = (risk < own_risk).astype(np.float32)
    pairs += np.float32(0.5) * (risk == own_risk)
    pairs *= comparable
    result[at] = pairs @ counts.astype(np.float32)
    return result


def comparable_counts(event: NDArray, time: NDArray, counts: NDArray) -> NDArray:
    """Weighted number of patients with a longer time, or censored at the same time."""
    order = np.lexsort((~event, time))
    run_end = _run_ends(time[order], event[order])
    below = _padded_cumsum(counts[order])
    result = np.empty_like(counts)
    result[order] = below[-1] - below[run_end]
    result[~event] = 0.0
    return result


def tied_risk_counts(event: NDArray, time: NDArray, risk: NDArray, counts: NDArray) -> NDArray:
    """Weighted number of comparable patients of exactly the same risk."""
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
    """Weighted number of comparable patients of strictly lower risk.

    Rows are put in an order in which "comparable and lower" means "later and lower". Two rows differ first in
    some bit of the rank of their risk; at that bit's turn, among rows that agree in all higher bits, each row
    with the bit set counts the rows after it without it. So log2(n) passes count every pair once.
    """
    # Events of one time stand in ascending risk, so that none of them counts another.
    order = np.lexsort((np.where(event, risk, 0.0), ~event, time))
    _, rank = np.unique(risk, return_inverse=True)
    rank, counted = rank[order], event[order]
    result = np.zeros_like(counts)
    rows = np.arange(len(risk))
    for bit in reversed(range(int(rank.max()).bit_length())):
        group_end = _run_ends(rank[rows] >> (bit + 1))
        unset = (rank[rows] >> bit) & 1 == 0
        n_unset = np.concatenate([[0], np.cumsum(unset)])
        asks = np.flatnonzero(~unset & counted[rows])
        below = _padded_cumsum(counts[order[rows[unset]]])
        result[order[rows[asks]]] += below[n_unset[group_end[asks]]] - below[n_unset[asks]]
        rows = rows[_partition(unset, n_unset, group_end)]
    return result


def _partition(unset: NDArray, n_unset: NDArray, group_end: NDArray) -> NDArray:
    """Within each group, rows without the bit first, otherwise in the order they had."""
    n = len(unset)
    sizes = np.diff(np.concatenate([[0], np.unique(group_end)]))
    start = np.repeat(np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    before = n_unset[:-1] - n_unset[start]
    target = np.where(unset, start + before, np.arange(n) - before + n_unset[group_end] - n_unset[start])
    source = np.empty(n, dtype=np.intp)
    source[target] = np.arange(n)
    return source


def _run_ends(*keys: NDArray) -> NDArray:
    """Of sorted rows, one past the end of the run of equal keys that each row is in."""
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
