"""Cox negative log partial likelihood, with ties, strata and weights.

`_log_likelihood` is its definition, in logarithms, differentiated by autograd. `_plain_sums` computes the same
without strata for risks that are not far apart, and its gradient in the same pass; training always takes this way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WIDEST = 600.0  # between log hazards (with their weights) no further apart, exp does not vanish in float64
FEW = 1000  # fewer times than this are sorted fastest by comparing them
MANY = 8192  # fewer numbers than this BLAS multiplies in the thread that it is called from


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

    With risk set :math:`R_i = \{j : t_j \ge t_i\}`, which holds everyone with the same time, and no ties,

    .. math:: -\sum_{i : \delta_i = 1} \Big(\eta_i - \log \sum_{j \in R_i} e^{\eta_j}\Big).

    Parameters
    ----------
    event : Tensor, shape (n,), bool or 0/1
        :math:`\delta`, True where the event was observed.
    time : Tensor, shape (n,), real
        :math:`t`, time of event or of censoring, in any one unit.
    risk : Tensor, shape (n,) or (n, 1), floating
        :math:`\eta`, log hazard, higher = riskier. Sums are taken in float64 whatever its precision.
    ties : {"efron", "breslow"}
        How tied event times share a denominator (Efron 1977; Breslow 1974), as in R's ``survival::coxph``.
    strata : Tensor, shape (n,), integer or bool, optional
        Risk sets stay within a stratum.
    weights : Tensor, shape (n,), real, optional
        Case weights, >= 0, as in R's ``coxph(weights=)``; a row of weight zero is absent.
    reduction : {"mean", "sum"}
        "mean" divides by the number of events (by their summed weights, where weights are given).

    Returns
    -------
    Tensor
        A scalar in the precision of `risk`, at least float32. A batch without events gives exactly 0, with gradients
        of exactly 0.

    Raises
    ------
    ValueError
        For unequal lengths, an unknown option, a value that is not finite (the first index is named), or weights that
        require a gradient: the loss is differentiated by `risk` alone, once, and not by `torch.func`.

    Examples
    --------
    >>> event, time = torch.tensor([True, True, False]), torch.tensor([1.0, 2.0, 3.0])
    >>> round(cox_nll(event, time, torch.zeros(3)).item(), 4)  # (log 3 + log 2) / 2
    0.8959
    """
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties must be 'efron' or 'breslow', got {ties!r}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    event, time, risk, weights, bounds = _checked(event, time, risk, strata, weights)
    differentiate = risk.requires_grad and torch.is_grad_enabled()
    values, how = (event, time.detach(), risk.detach(), strata, weights), (ties == "efron", reduction == "mean")
    loss, gradient = _loss_and_gradient(*values, bounds, *how, differentiate)
    return _WithGradient.apply(risk, loss, gradient) if differentiate else loss


def _checked(event, time, risk, strata, weights):
    """Event as bool, time and risk in at least float32, weights in float64, and the bounds of risk."""
    named = {"risk": risk, "event": event, "time": time, "strata": strata, "weights": weights}
    named = {name: tensor for name, tensor in named.items() if tensor is not None}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if not risk.is_floating_point():
        raise ValueError(f"risk must be a floating tensor, got {risk.dtype}")
    if risk.ndim == 2 and risk.shape[1] == 1:
        named["risk"] = risk = risk[:, 0]
    if risk.ndim != 1:
        raise ValueError(f"risk must have one value a patient, shape (n,) or (n, 1), got shape {tuple(risk.shape)}")
    bounds = (0.0, 0.0)
    for name, tensor in named.items():
        if tensor.shape != risk.shape:
            wanted, shape = len(risk), tuple(tensor.shape)
            raise ValueError(f"{name} must have one value a patient: {wanted} wanted, got shape {shape}")
        if len(tensor) and tensor.is_floating_point():
            low, high = (bound.item() for bound in tensor.detach().aminmax())  # NaN if any is
            if not (math.isfinite(low) and math.isfinite(high)):
                _refuse(name, tensor, ~torch.isfinite(tensor), "finite")
            if name == "risk":
                bounds = (low, high)
    if strata is not None and (strata.is_floating_point() or strata.is_complex()):
        raise ValueError(f"strata must be whole numbers or bool, got {strata.dtype}")
    if event.dtype != torch.bool:
        if (wrong := (event != 0) & (event != 1)).any():
            _refuse("event", event, wrong, "bool or 0/1")
        event = event.bool()
    # NumPy has no bfloat16, and float16 ends below 2^16
    time, risk = (each.float() if each.dtype in (torch.float16, torch.bfloat16) else each for each in (time, risk))
    if weights is not None:
        if weights.requires_grad:
            raise ValueError("weights must not require a gradient: the loss is differentiated by risk alone")
        if (weights < 0).any():
            _refuse("weights", weights, weights < 0, ">= 0")
        weights = weights.double()
    return event, time, risk, weights, bounds


def _refuse(name: str, tensor: Tensor, wrong: Tensor, rule: str) -> None:
    index = int(wrong.nonzero()[0])
    raise ValueError(f"{name} must be {rule}, got {name}[{index}] = {tensor[index].item()}")


class _WithGradient(torch.autograd.Function):
    """A value whose gradient by `risk` is known already, since it comes from the same pass."""

    @staticmethod
    def forward(ctx: Any, risk: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # create_graph=True: the gradient would pass for a constant
            raise RuntimeError("cox_nll can be differentiated once; there is no second derivative")
        return ctx.saved_tensors[0] * above, None, None


def _loss_and_gradient(event, time, risk, strata, weights, bounds, efron, mean, differentiate):
    """The loss in the precision of `risk`, and its gradient if wanted."""
    on_cpu = _is_on_cpu(risk)
    xp = np if on_cpu else torch  # for a batch, NumPy's calls cost a third of torch's
    given = (time, event, risk, weights, strata)
    if on_cpu:
        given = tuple(None if each is None else each.numpy() for each in given)
    order = _longest_first(given[0]) if on_cpu else torch.argsort(time, descending=True)
    if weights is not None:  # a weight of zero is an absent row
        order = order[given[3][order] > 0]
    times, events, hazards, own, strata = (None if each is None else each[order] for each in given)
    log_hazard = xp.asarray(hazards, dtype=xp.float64)  # indexed by an array: a copy, ours to change
    lowest, highest = bounds
    if own is not None:
        total = log_hazard + xp.log(own)
        lowest, highest = (float(total.min()), float(total.max())) if len(times) else (0.0, 0.0)
    if strata is None and highest - lowest <= WIDEST:
        loss, slope = _plain_sums(xp, times, events, log_hazard, own, highest, efron, differentiate)
    else:
        rows = (None if each is None else torch.as_tensor(each) for each in (events, times, own, strata))
        with torch.enable_grad():
            leaf = torch.as_tensor(log_hazard).requires_grad_(differentiate)
            loss = _log_likelihood(leaf, *rows, efron)
            slope = torch.autograd.grad(loss, leaf)[0] if differentiate else None
        loss = loss.detach()
    total = xp.count_nonzero(events) if own is None else own[events].sum()
    share = (float(total) or 1.0) if mean else 1.0
    loss = torch.as_tensor(loss / share, dtype=risk.dtype, device=risk.device)
    if not differentiate:
        return loss, None
    if share != 1:
        slope /= share
    gradient = xp.zeros_like(given[2])  # of NumPy: torch's own scattering takes ten times as long for a batch
    gradient[order] = xp.asarray(slope, dtype=gradient.dtype)
    return loss, torch.as_tensor(gradient)


def _is_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _log_likelihood(risk, event, time, weights, strata, efron) -> Tensor:
    """Negative log partial likelihood, the sum over events; weights are above 0.

    The l-th of d tied events, l = 0 … d - 1, has the denominator of those at risk without the d, plus the share 1 -
    l/d (Efron) or 1 (Breslow) of the d. Each counts by the mean weight of the d. No sum is less another: nothing
    cancels.
    """
    # by stratum, then longest time first, then censored before event
    order = torch.argsort(event.to(torch.uint8), stable=True)
    order = order[torch.argsort(time[order], descending=True, stable=True)]
    order = order if strata is None else order[torch.argsort(strata[order], stable=True)]
    event, time, risk = event[order], time[order], risk[order]
    strata = None if strata is None else strata[order]
    weights = torch.ones_like(risk) if weights is None else weights[order]
    log_hazard = risk + weights.log()

    new = torch.ones_like(event)  # whether a row begins a group of tied times
    new[1:] = time[1:] != time[:-1]
    if strata is not None:
        new[1:] |= strata[1:] != strata[:-1]
    group, n_groups = new.cumsum(0) - 1, int(new.sum())
    member = group[event]
    n_tied = torch.bincount(member, minlength=n_groups)
    # events are last in their group, so the rows before the first of them are everyone else at risk
    first = torch.bincount(group, minlength=n_groups).cumsum(0) - n_tied
    others = _log_sums_before(log_hazard, strata)[first[member]]
    values = log_hazard[event]
    top = risk.new_zeros(n_groups)
    top = top.scatter_reduce(0, member, values.detach(), "amax", include_self=False)
    tied = risk.new_zeros(n_groups).index_add(0, member, (values - top[member]).exp())
    tied = (top + tied.log())[member]
    turn = (event.nonzero()[:, 0] - first[member]) * efron
    share = 1 - turn.to(risk.dtype) / n_tied[member]
    mean_weight = weights.new_zeros(n_groups).index_add(0, member, weights[event])[member] / n_tied[member]
    return (mean_weight * torch.logaddexp(others, tied + share.log())).sum() - (weights * risk)[event].sum()


def _log_sums_before(values: Tensor, strata: Tensor | None) -> Tensor:
    """Log-sum-exp of the rows before each row, in its stratum; log 0 for the first.

    Strata are kept apart by doubling steps (Hillis and Steele 1986), not by subtracting one stratum's total from the
    next: that difference loses all digits where risks are far apart.
    """
    nothing = values.new_full((1,), -torch.inf)
    if strata is None:
        return torch.cat([nothing, torch.logcumsumexp(values, 0)[:-1]])
    step = 1
    while step < len(values):
        same = strata[step:] == strata[:-step]
        joined = torch.where(same, torch.logaddexp(values[step:], values[:-step]), values[step:])
        values = torch.cat([values[:step], joined])
        step *= 2
    same = torch.cat([strata.new_zeros(1, dtype=torch.bool), strata[1:] == strata[:-1]])
    return torch.where(same, torch.cat([nothing, values[:-1]]), nothing)


def _longest_first(time: NDArray) -> NDArray:
    """The order of rows by falling time."""
    if len(time) < FEW or time.min() < 0:
        return np.argsort(time)[::-1]
    whole = time.astype(np.uint16) if time.max() < 2**16 else None
    if whole is not None and (whole == time).all():  # days of follow-up: one pass of a radix sort
        return np.argsort(whole, kind="stable")[::-1]
    # numbers >= 0 (+ 0, since there is a -0.0) are ordered as their bits are: 16 of them at a time, in linear time
    bits, order = (time + time.dtype.type(0)).view(f"u{time.itemsize}"), None
    for shift in range(0, 8 * time.itemsize, 16):
        part = (bits >> bits.dtype.type(shift)).astype(np.uint16)
        step = np.argsort(part if order is None else part[order], kind="stable")
        order = step if order is None else order[step]
    return order[::-1]


def _plain_sums(xp, time, event, log_hazard, weights, highest, efron, differentiate):
    """Sum over events and its gradient (n,), by plain sums in float64; rows by falling time.

    `xp` is NumPy or torch. `highest` is the maximum log hazard, with its weight: less it, no exponential overflows.
    `log_hazard` is written over, as are all arrays that are not needed again: in a large cohort, fetching new memory
    takes longer than the arithmetic. Only positive terms are added. Nothing cancels but the share of tied events,
    which costs as many times the rounding error of float64 as there are events at one time.
    """
    own = event = xp.asarray(event, dtype=xp.float64)
    if len(event) == 0:
        return event.sum(), event
    log_hazard -= highest
    if weights is None:
        hazard = xp.exp(log_hazard)
    else:
        hazard, own = xp.exp(log_hazard + xp.log(weights)), event * weights
    denominator, counted = xp.cumsum(hazard, 0), own
    new = time[1:] != time[:-1]
    groups = None if bool(new.all()) else _Groups(new)
    several = False
    if groups:
        # who has the same time is at risk: the sum at the last of them
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
    if not differentiate:
        return loss, None
    step = xp.divide(counted, denominator, out=denominator)  # of the cumulative hazard, at each event
    later = xp.flip(xp.cumsum(xp.flip(step, (0,)), 0), (0,))
    if groups:
        later = groups.spread(later[groups.first])
    if several:
        later -= event * groups.spread(groups.sums(step * share))
    hazard *= later
    hazard -= own
    return loss, hazard


def _dot(a: Any, b: Any) -> Any:
    """The dot product; of many numbers not by BLAS, whose own threads get in the way of torch's."""
    if isinstance(a, np.ndarray) and len(a) >= MANY:
        return np.einsum("i,i->", a, b)
    return a @ b


class _Groups:
    """Runs of rows with equal times, from where a row's time differs from that of the row before, bool (n - 1,)."""

    def __init__(self, new: Any) -> None:
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
