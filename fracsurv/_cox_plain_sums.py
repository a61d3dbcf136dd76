"""The Cox loss in plain sums, for NumPy's and torch's arrays alike: patients sorted, ties grouped, one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

FEW = 1000
"""Fewer times than this are sorted fastest by comparing them."""
MANY = 8192
"""Fewer numbers than this BLAS multiplies in the thread that it is called from."""


class Rows(NamedTuple):
    """Patients from the longest time down, those of weight 0 left out; arrays of NumPy on a CPU, else of torch."""

    time: Any
    event: Any
    log_hazard: Any
    weights: Any


def sorted_rows(xp: Any, time: Any, event: Any, risk: Any, weights: Any) -> tuple[Any, Rows]:
    """The order of the rows, and the rows in it; `log_hazard` in float64."""
    order = longest_first(time) if xp is np else torch.argsort(time, descending=True)
    if weights is not None:  # a weight of zero is an absent row
        order = order[weights[order] > 0]
        weights = weights[order]
    log_hazard = xp.asarray(risk[order], dtype=xp.float64)  # indexed by an array: a copy, ours to change
    return order, Rows(time[order], event[order], log_hazard, weights)


def bounds_of(xp: Any, rows: Rows) -> tuple[float, float]:
    """Least and greatest log hazard of weighted rows, the weight's logarithm included; (0, 0) of no rows."""
    if len(rows.time) == 0:
        return 0.0, 0.0
    total = rows.log_hazard + xp.log(rows.weights)
    return float(total.min()), float(total.max())


def longest_first(time: NDArray) -> NDArray:
    """The order of falling times."""
    if len(time) < FEW or time.min() < 0:
        return np.argsort(time)[::-1]
    whole = time.astype(np.uint16) if time.max() < 2**16 else None
    if whole is not None and (whole == time).all():  # days of follow-up: one pass of a radix sort
        return np.argsort(whole, kind="stable")[::-1]
    # numbers from 0 up (+ 0: there is a -0.0) are ordered as their bits are: 16 of them at a time, in linear time
    bits, order = (time + time.dtype.type(0)).view(f"u{time.itemsize}"), None
    for shift in range(0, 8 * time.itemsize, 16):
        part = (bits >> bits.dtype.type(shift)).astype(np.uint16)
        step = np.argsort(part if order is None else part[order], kind="stable")
        order = step if order is None else order[step]
    return order[::-1]


def plain_sums(xp: Any, rows: Rows, highest: float, efron: bool, wanted: bool) -> tuple[Any, Any]:
    """Sum over events and its gradient (n,), by plain sums in float64; `rows.log_hazard` is written over.

    `highest` is the greatest log hazard (with its weight, see `bounds_of`): less it, no exponential overflows.

    Only positive terms are added, so nothing cancels but the share of tied events, which costs as many times the
    rounding error of float64 as there are events at one time. Written for both libraries' arrays (`xp`): for a batch,
    NumPy's calls cost a third of torch's. Arrays are written over where they are not needed again: in a large cohort,
    fetching new memory takes longer than the arithmetic.
    """
    event = xp.asarray(rows.event, dtype=xp.float64)
    if len(event) == 0:
        return event.sum(), event
    log_hazard, own = rows.log_hazard, event
    log_hazard -= highest
    if rows.weights is None:
        hazard = xp.exp(log_hazard)
    else:
        hazard, own = xp.exp(log_hazard + xp.log(rows.weights)), event * rows.weights
    denominator, counted = xp.cumsum(hazard, 0), own
    new = rows.time[1:] != rows.time[:-1]
    groups = None if bool(new.all()) else _Groups(new)
    several = False
    if groups:
        # whoever has the same time is at risk: the sum at the last of them
        denominator = groups.spread(denominator[groups.last])
        n_tied = groups.sums(event)
        several = efron and bool(n_tied.max() > 1)
    if several:
        # the l-th of d tied events sees those d by a share of 1 - l/d, l = 0 … d - 1
        before = xp.cumsum(event, 0) - event
        share = event * (before - groups.spread(before[groups.first])) / groups.spread(n_tied.clip(1))
        denominator -= share * groups.spread(groups.sums(event * hazard))
        counted = event * groups.spread(groups.sums(own) / n_tied.clip(1))
    loss = _dot(counted, xp.log(denominator)) - _dot(own, log_hazard)
    if not wanted:
        return loss, None
    step = xp.divide(counted, denominator, out=denominator)  # of the cumulative hazard, at each event
    later = _reversed(xp.cumsum(_reversed(step), 0))
    if groups:
        later = groups.spread(later[groups.first])
    if several:
        later -= event * groups.spread(groups.sums(step * share))
    hazard *= later
    hazard -= own
    return loss, hazard


def _reversed(values: Any) -> Any:
    return values[::-1] if isinstance(values, np.ndarray) else values.flip(0)


def _dot(a: Any, b: Any) -> Any:
    """Of many numbers not by BLAS, which has threads of its own: they get in the way of torch's."""
    if isinstance(a, np.ndarray) and len(a) >= MANY:
        return np.einsum("i,i->", a, b)
    return a @ b


class _Groups:
    """Runs of rows with equal times; `first` and `last` row of each."""

    def __init__(self, new: Any) -> None:
        """`new`, (n - 1,) bool: where a row's time is another than that of the row before."""
        self.xp = np if isinstance(new, np.ndarray) else torch
        end = np.flatnonzero(new) if self.xp is np else new.nonzero()[:, 0]
        zero = np.zeros(1, end.dtype) if self.xp is np else end.new_zeros(1)
        self.first = self.xp.concatenate([zero, end + 1])
        self.last = self.xp.concatenate([end, zero + len(new)])
        self.size = self.last - self.first + 1

    def sums(self, values: Any) -> Any:
        """Sum over each group."""
        if self.xp is np:
            return np.add.reduceat(values, self.first)
        return torch.segment_reduce(values, "sum", lengths=self.size)

    def spread(self, values: Any) -> Any:
        """Each group's value at each of its rows."""
        return np.repeat(values, self.size) if self.xp is np else values.repeat_interleave(self.size)
