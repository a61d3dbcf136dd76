"""Cox negative log partial likelihood, with ties, strata and weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fracsurv._cox_log_space import log_space_loss
from fracsurv._cox_plain_sums import (
    Rows,
    bounds_of,
    plain_sums,
    sorted_rows,
)

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
        that require a gradient: the loss is differentiated by `risk` alone, once, and not by `torch.func`.

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
    event, risk, weights, bounds = _checked(event, time, risk, strata, weights)
    if time.dtype in (torch.float16, torch.bfloat16):  # NumPy has no bfloat16, and float16 ends below 2^16
        time = time.float()
    wanted = risk.requires_grad and torch.is_grad_enabled()
    values = (event, time, risk.detach(), strata, weights)
    loss, gradient = _loss_and_gradient(*values, ties == "efron", reduction == "mean", wanted, bounds)
    return _Known.apply(risk, loss, gradient) if wanted else loss


def _checked(
    event: Tensor, time: Tensor, risk: Tensor, strata: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, tuple[float, float]]:
    """Refuse what cannot be computed; event as bool, risk in at least float32 and its bounds, weights in float64."""
    if not isinstance(risk, Tensor):
        raise ValueError(f"risk must be a torch.Tensor, got {type(risk).__name__}")
    if not risk.is_floating_point():
        raise ValueError(f"risk must be a floating tensor, got {risk.dtype}")
    if risk.ndim == 2 and risk.shape[1] == 1:
        risk = risk[:, 0]
    if risk.ndim != 1:
        raise ValueError(f"risk must have one value a patient, shape (n,) or (n, 1), got shape {tuple(risk.shape)}")
    bounds = (0.0, 0.0)
    for name, tensor in (("event", event), ("time", time), ("risk", risk), ("strata", strata), ("weights", weights)):
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.ndim != 1 or len(tensor) != len(risk):
            shape = tuple(tensor.shape)
            raise ValueError(f"{name} must have one value a patient: {len(risk)} wanted, got shape {shape}")
        if len(tensor) and tensor.is_floating_point():
            low, high = (bound.item() for bound in tensor.detach().aminmax())  # NaN if any is
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"{name} must be finite, got {_first(name, tensor, ~torch.isfinite(tensor))}")
            if name == "risk":
                bounds = (low, high)
    if strata is not None and (strata.is_floating_point() or strata.is_complex()):
        raise ValueError(f"strata must be whole numbers or bool, got {strata.dtype}")
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
    return event, risk, weights, bounds


def _first(name: str, tensor: Tensor, wrong: Tensor) -> str:
    index = int(wrong.nonzero()[0])
    return f"{name}[{index}] = {tensor[index].item()}"


class _Known(torch.autograd.Function):
    """A value whose gradient by `risk` is known already: it comes from the same pass."""

    @staticmethod
    def forward(ctx: Any, risk: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # create_graph=True: the gradient would pass for a constant
            raise RuntimeError("cox_nll can be differentiated once; there is no second derivative")
        return ctx.saved_tensors[0] * above, None, None


def _loss_and_gradient(
    event: Tensor,
    time: Tensor,
    risk: Tensor,
    strata: Tensor | None,
    weights: Tensor | None,
    efron: bool,
    mean: bool,
    wanted: bool,
    bounds: tuple[float, float],
) -> tuple[Tensor, Tensor | None]:
    """The loss in the precision of `risk`, and its gradient if wanted."""
    on_cpu = _is_on_cpu(risk)
    xp = np if on_cpu else torch
    values = [time.detach(), event, risk, weights]
    if on_cpu:
        values = [None if each is None else each.numpy() for each in values]
    order, rows = sorted_rows(xp, *values)
    lowest, highest = bounds if weights is None else bounds_of(xp, rows)
    if strata is None and highest - lowest <= WIDEST:
        loss, slope = plain_sums(xp, rows, highest, efron, wanted)
    else:
        if strata is not None:
            strata = strata[torch.from_numpy(order.copy()) if on_cpu else order]
        loss, slope = _logarithms(rows, strata, efron, wanted)
    share = 1.0
    if mean:
        share = float(xp.count_nonzero(rows.event) if weights is None else rows.weights[rows.event].sum()) or 1.0
    loss = (
        torch.tensor(float(loss) / share, dtype=risk.dtype, device="cpu") if on_cpu else (loss / share).to(risk.dtype)
    )
    if not wanted:
        return loss, None
    if share != 1:
        slope /= share
    if not on_cpu:
        gradient = torch.zeros_like(risk)
        gradient[order] = slope.to(risk.dtype)
        return loss, gradient
    gradient = np.zeros(len(risk), values[2].dtype)  # torch's own scattering takes ten times as long for a batch
    gradient[order] = slope
    return loss, torch.from_numpy(gradient)


def _is_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _logarithms(rows: Rows, strata: Tensor | None, efron: bool, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """As `plain_sums`, for strata and for risks however far apart."""
    time, event, log_hazard, weights = (None if each is None else torch.as_tensor(each) for each in rows)
    with torch.enable_grad():
        leaf = log_hazard.requires_grad_(wanted)
        loss = log_space_loss(event, time, leaf, strata, weights, efron)
        slope = torch.autograd.grad(loss, leaf)[0] if wanted else None
    return loss.detach(), slope
