"""Cox negative log partial likelihood, with ties, strata and weights."""

from __future__ import annotations

import torch
from torch import Tensor


def cox_nll(
    event: Tensor,
    time: Tensor,
    risk: Tensor,
    *,
    ties: str = "efron",
    strata: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Negative Cox log partial likelihood of a batch.

    With risk set :math:`R_i = \{j : t_j \ge t_i\}` and no ties,

    .. math:: -\sum_{i : \delta_i = 1} \Big(\eta_i - \log \sum_{j \in R_i} e^{\eta_j}\Big).

    Risk sets hold everyone with the same time, whatever the order of the rows.

    Parameters
    ----------
    event : Tensor, shape (n,), bool or 0/1
        :math:`\delta`, True where the event was observed.
    time : Tensor, shape (n,), real
        :math:`t`, time of event or of censoring, in any one unit, finite.
    risk : Tensor, shape (n,) or (n, 1), floating
        :math:`\eta`, log hazard, higher = riskier, finite. float16 and bfloat16 are computed in float32.
    ties : {"efron", "breslow"}
        How tied event times share a denominator (Efron 1977; Breslow 1974), as R's ``survival::coxph``.
    strata : Tensor, shape (n,), integer or bool, optional
        Risk sets stay within a stratum.
    weights : Tensor, shape (n,), real, optional
        Case weights, >= 0, used as ``coxph(weights=)`` uses them; a weight of zero is an absent row.
    reduction : {"mean", "sum"}
        "mean" divides by the number of events (by their summed weights, where weights are given).

    Returns
    -------
    Tensor
        A scalar. A batch without events gives exactly 0, with gradients of exactly 0.

    Raises
    ------
    ValueError
        For unequal lengths, an unknown option, or a value that is not finite (its first index is named).

    Examples
    --------
    >>> event = torch.tensor([True, True, False])
    >>> time = torch.tensor([1.0, 2.0, 3.0])
    >>> round(cox_nll(event, time, torch.zeros(3)).item(), 4)  # (log 3 + log 2) / 2
    0.8959
    """
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties must be 'efron' or 'breslow', got {ties!r}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    event, risk, weights = _checked(event, time, risk, strata, weights)

    order = _order(event, time, strata, weights)
    event, time, risk = event[order], time[order], risk[order]
    strata = None if strata is None else strata[order]
    weights = None if weights is None else weights[order]

    log_hazard = risk if weights is None else risk + weights.log()
    weights = torch.ones_like(risk) if weights is None else weights
    group, starts = _groups(time, strata)
    cumulative = _log_cumulative(log_hazard, strata)
    logs, shares = _breslow(event, weights, cumulative, group, starts)
    if ties == "efron" and (torch.bincount(group[event]) > 1).any():
        logs, shares = _efron(event, weights, log_hazard, _shifted(cumulative, strata), group, starts)
    loss = (shares * logs).sum() - (weights * risk)[event].sum()
    if reduction == "mean":
        total = weights[event].sum()
        loss = loss / torch.where(total > 0, total, torch.ones_like(total))
    return loss


def _checked(event, time, risk, strata, weights):
    """Refuse what cannot be computed; return event as bool, risk and weights in the computing precision."""
    if not torch.is_floating_point(risk):
        raise ValueError(f"risk must be a floating tensor, got {risk.dtype}")
    if risk.ndim == 2 and risk.shape[1] == 1:
        risk = risk[:, 0]
    named = {"event": event, "time": time, "risk": risk, "strata": strata, "weights": weights}
    for name, tensor in named.items():
        if tensor is None:
            continue
        if tensor.ndim != 1 or len(tensor) != len(risk):
            shape = tuple(tensor.shape)
            raise ValueError(f"{name} must have one value a patient: {len(risk)} wanted, got shape {shape}")
        if torch.is_floating_point(tensor) and not (finite := torch.isfinite(tensor)).all():
            index = int((~finite).nonzero()[0])
            raise ValueError(f"{name} must be finite, got {name}[{index}] = {tensor[index].item()}")
    if event.dtype != torch.bool:
        if not (binary := (event == 0) | (event == 1)).all():
            index = int((~binary).nonzero()[0])
            raise ValueError(f"event must be bool or 0/1, got event[{index}] = {event[index].item()}")
        event = event.bool()
    if risk.dtype in (torch.float16, torch.bfloat16):
        risk = risk.float()
    if weights is not None:
        if (weights < 0).any():
            index = int((weights < 0).nonzero()[0])
            raise ValueError(f"weights must be >= 0, got weights[{index}] = {weights[index].item()}")
        weights = weights.to(risk.dtype)
    return event, risk, weights


def _order(event: Tensor, time: Tensor, strata: Tensor | None, weights: Tensor | None) -> Tensor:
    """Rows by stratum, then longest time first, then censored before event; rows of weight 0 left out."""
    order = torch.argsort(event.to(torch.uint8), stable=True)
    order = order[torch.argsort(time[order], descending=True, stable=True)]
    if strata is not None:
        order = order[torch.argsort(strata[order], stable=True)]
    return order if weights is None else order[weights[order] > 0]


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
