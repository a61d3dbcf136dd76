"""Cox negative log partial likelihood, with ties, strata and weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fracsurv._cox_log_space import log_space_loss

WIDEST = 600.0
"""Between log hazards (with their weights) no further apart than this, exp does not vanish in float64."""


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
        :math:`\eta`, log hazard, higher = riskier, finite. Sums are taken in float64 whatever its precision.
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
        A scalar in the precision of `risk`, at least float32. A batch without events gives exactly 0, with gradients
        of exactly 0.

    Raises
    ------
    ValueError
        For unequal lengths, an unknown option, a value that is not finite (its first index is named), or weights
        that require a gradient: the loss is differentiated by `risk` alone, and once.

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
    wanted = risk.requires_grad and torch.is_grad_enabled()
    return _CoxNLL.apply(risk, event, time, strata, weights, ties == "efron", reduction == "mean", wanted)


def _checked(
    event: Tensor, time: Tensor, risk: Tensor, strata: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Refuse what cannot be computed; event as bool, risk in at least float32, weights in float64."""
    if not torch.is_floating_point(risk):
        raise ValueError(f"risk must be a floating tensor, got {risk.dtype}")
    if risk.ndim == 2 and risk.shape[1] == 1:
        risk = risk[:, 0]
    if risk.ndim != 1:
        raise ValueError(f"risk must have one value a patient, shape (n,) or (n, 1), got shape {tuple(risk.shape)}")
    for name, tensor in (("event", event), ("time", time), ("risk", risk), ("strata", strata), ("weights", weights)):
        if tensor is None:
            continue
        if tensor.ndim != 1 or len(tensor) != len(risk):
            shape = tuple(tensor.shape)
            raise ValueError(f"{name} must have one value a patient: {len(risk)} wanted, got shape {shape}")
        if len(tensor) and torch.is_floating_point(tensor):
            low, high = (bound.item() for bound in tensor.detach().aminmax())  # NaN if any is
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"{name} must be finite, got {_first(name, tensor, ~torch.isfinite(tensor))}")
    if event.dtype != torch.bool:
        if (wrong := (event != 0) & (event != 1)).any():
            raise ValueError(f"event must be bool or 0/1, got {_first('event', event, wrong)}")
        event = event.bool()
    if risk.dtype in (torch.float16, torch.bfloat16):
        risk = risk.float()
    if weights is not None:
        if weights.requires_grad:
            raise ValueError("weights must not require a gradient: the loss is differentiated by risk alone")
        if (weights < 0).any():
            raise ValueError(f"weights must be >= 0, got {_first('weights', weights, weights < 0)}")
        weights = weights.double()
    return event, risk, weights


def _first(name: str, tensor: Tensor, wrong: Tensor) -> str:
    index = int(wrong.nonzero()[0])
    return f"{name}[{index}] = {tensor[index].item()}"


class _CoxNLL(torch.autograd.Function):
    """The loss, and its gradient in the same pass."""

    @staticmethod
    def forward(
        ctx: Any,
        risk: Tensor,
        event: Tensor,
        time: Tensor,
        strata: Tensor | None,
        weights: Tensor | None,
        efron: bool,
        mean: bool,
        wanted: bool,
    ) -> Tensor:
        time, order = _longest_first(time)
        if weights is not None:  # a weight of zero is an absent row
            present = weights[order] > 0
            time, order = time[present], order[present]
            weights = weights[order]
        event, log_hazard = event[order], risk.detach()[order].double()
        if len(order):
            log_hazard = log_hazard - log_hazard.max()
        weighted = log_hazard if weights is None else log_hazard + weights.log()
        if strata is None and (len(order) == 0 or weighted.max() - weighted.min() <= WIDEST):
            loss, slope = _plain_sums(event.double(), time, log_hazard, weights, efron, wanted)
        else:
            strata = None if strata is None else strata[order]
            loss, slope = _logarithms(event, time, log_hazard, strata, weights, efron, wanted)
        total = event.sum().double() if weights is None else weights[event].sum()
        scale = 1 / total if mean and total > 0 else 1.0
        if wanted:
            gradient = torch.zeros_like(risk)
            gradient[order] = (slope * scale).to(risk.dtype)
            ctx.save_for_backward(gradient)
        return (loss * scale).to(risk.dtype)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: the gradient would pass for a constant
            raise RuntimeError("cox_nll can be differentiated once; there is no second derivative")
        (gradient,) = ctx.saved_tensors
        return gradient * above, None, None, None, None, None, None, None


def _longest_first(time: Tensor) -> tuple[Tensor, Tensor]:
    """Times from the longest down, and the order of the rows; NumPy sorts several times as fast on a CPU."""
    if time.device.type != "cpu":
        return torch.sort(time, descending=True)
    order = torch.from_numpy(np.argsort(time.detach().numpy())[::-1].copy())
    return time[order], order


def _logarithms(
    event: Tensor,
    time: Tensor,
    log_hazard: Tensor,
    strata: Tensor | None,
    weights: Tensor | None,
    efron: bool,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """As `_plain_sums`, for strata and for risks however far apart."""
    with torch.enable_grad():
        leaf = log_hazard.requires_grad_(wanted)
        loss = log_space_loss(event, time, leaf, strata, weights, efron)
        slope = torch.autograd.grad(loss, leaf)[0] if wanted else None
    return loss.detach(), slope


def _plain_sums(
    event: Tensor, time: Tensor, log_hazard: Tensor, weights: Tensor | None, efron: bool, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Sum over events and its gradient (n,), by plain sums in float64 over rows from the longest time down.

    `log_hazard` is at most 0, everything is float64. Only positive terms are added, so nothing cancels but the share
    of tied events, which costs as many times the rounding error of float64 as there are events at one time.
    """
    if len(event) == 0:
        return event.sum(), event
    hazard = log_hazard.exp()
    own = event
    if weights is not None:
        hazard, own = hazard * weights, event * weights
    denominator, counted = hazard.cumsum(0), own
    new = time[1:] != time[:-1]
    tied = not bool(new.all())
    several = False
    if tied:
        group = torch.cat([new.new_zeros(1, dtype=torch.int64), new.cumsum(0)])
        end = new.nonzero()[:, 0]
        last = torch.cat([end, end.new_tensor([len(event) - 1])])
        # whoever has the same time is at risk: the sum at the last of them
        denominator = denominator[last][group]
        n_tied = event.new_zeros(len(last)).index_add(0, group, event)
        several = efron and bool((n_tied > 1).any())
    if several:
        # the l-th of d tied events sees those d by a share of 1 - l/d, l = 0 … d - 1
        n_before = event.cumsum(0)
        start = torch.cat([n_before.new_zeros(1), n_before[end]])
        share = event * (n_before - 1 - start[group]) / n_tied[group].clamp_min(1)
        sums = event.new_zeros(2, len(last)).index_add(1, group, torch.stack([event * hazard, own]))
        denominator = denominator - share * sums[0][group]
        counted = event * (sums[1] / n_tied.clamp_min(1))[group]
    loss = counted @ denominator.log() - own @ log_hazard
    if not wanted:
        return loss, None
    step = counted / denominator  # of the cumulative hazard, at each event
    later = step.flip(0).cumsum(0).flip(0)
    if tied:
        first = torch.cat([end.new_zeros(1), end + 1])
        later = later[first][group]
    if several:
        unseen = event.new_zeros(len(last)).index_add(0, group, step * share)
        later = later - event * unseen[group]
    return loss, hazard * later - own
