"""The Cox loss in logarithms: strata kept apart, and risks as far apart as floating numbers go.

Slower than the plain sums of `fracsurv.losses`, and without their limits. Differentiable by autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_space_loss(
    event: Tensor, time: Tensor, risk: Tensor, strata: Tensor | None, weights: Tensor | None, efron: bool
) -> Tensor:
    """Sum over events; see `fracsurv.losses.cox_nll`. Arguments as checked there, `event` bool, weights above 0."""
    order = _order(event, time, strata)
    event, time, risk = event[order], time[order], risk[order]
    strata = None if strata is None else strata[order]
    weights = None if weights is None else weights[order]

    log_hazard = risk if weights is None else risk + weights.log()
    weights = torch.ones_like(risk) if weights is None else weights
    group, starts = _groups(time, strata)
    cumulative = _log_cumulative(log_hazard, strata)
    logs, shares = _breslow(event, weights, cumulative, group, starts)
    if efron and (torch.bincount(group[event]) > 1).any():
        logs, shares = _efron(event, weights, log_hazard, _shifted(cumulative, strata), group, starts)
    return (shares * logs).sum() - (weights * risk)[event].sum()


def _order(event: Tensor, time: Tensor, strata: Tensor | None) -> Tensor:
    """Rows by stratum, then longest time first, then censored before event."""
    order = torch.argsort(event.to(torch.uint8), stable=True)
    order = order[torch.argsort(time[order], descending=True, stable=True)]
    return order if strata is None else order[torch.argsort(strata[order], stable=True)]


def _groups(time: Tensor, strata: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of sorted rows: the number of each row's group of tied times, and where groups start (and the end)."""
    new = torch.ones_like(time, dtype=torch.bool)
    new[1:] = time[1:] != time[:-1]
    if strata is not None:
        new[1:] |= strata[1:] != strata[:-1]
    end = torch.tensor([len(time)], device=time.device)
    return new.cumsum(0) - 1, torch.cat([new.nonzero()[:, 0], end])


def _log_cumulative(values: Tensor, strata: Tensor | None) -> Tensor:
    """Cumulative log-sum-exp, begun anew in each stratum.

    The strata are kept apart by doubling steps (Hillis and Steele 1986) rather than by subtracting one
    stratum's total from the next: that difference loses all digits where risks are far apart.
    """
    if strata is None:
        return torch.logcumsumexp(values, 0)
    step = 1
    while step < len(values):
        same = strata[step:] == strata[:-step]
        joined = torch.where(same, torch.logaddexp(values[step:], values[:-step]), values[step:])
        values = torch.cat([values[:step], joined])
        step *= 2
    return values


def _shifted(cumulative: Tensor, strata: Tensor | None) -> Tensor:
    """The cumulative sum before each row, in its stratum: log 0 for the first."""
    nothing = torch.full_like(cumulative[:1], -torch.inf)
    before = torch.cat([nothing, cumulative[:-1]])
    if strata is None:
        return before
    same = torch.cat([strata.new_zeros(1, dtype=torch.bool), strata[1:] == strata[:-1]])
    return torch.where(same, before, nothing)


def _breslow(event, weights, cumulative, group, starts):
    """Log denominator of each event, and how often it counts."""
    last = starts[group[event] + 1] - 1
    return cumulative[last], weights[event]


def _efron(event, weights, log_hazard, before, group, starts):
    """As `_breslow`, but the l-th of d tied events sees those d by a share of 1 - l/d, l = 0 … d - 1.

    The denominator is the others' sum plus that share, not the whole less a part: nothing cancels.
    """
    member = group[event]
    n_groups = len(starts) - 1
    n_tied = torch.bincount(member, minlength=n_groups)
    # Events stand last in their group, so what comes before the first of them is everyone else at risk.
    first = starts[1:] - n_tied
    turn = event.nonzero()[:, 0] - first[member]
    share = 1 - turn.to(weights.dtype) / n_tied[member]
    tied = _log_sum_by_group(log_hazard[event], member, n_groups)
    weight = weights.new_zeros(n_groups).index_add(0, member, weights[event])
    logs = torch.logaddexp(before[first[member]], tied[member] + share.log())
    return logs, weight[member] / n_tied[member]


def _log_sum_by_group(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Log-sum-exp of each group that occurs; log 0 where none does."""
    top = values.detach().new_zeros(n_groups)
    top = top.scatter_reduce(0, group, values.detach(), "amax", include_self=False)
    total = values.new_zeros(n_groups).index_add(0, group, (values - top[group]).exp())
    return top + total.log()
