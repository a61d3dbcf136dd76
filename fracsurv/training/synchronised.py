"""Layers that look at a whole batch though a process has but a share of it: batch normalisation, dropout, means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fracsurv.models.masking import MaskedEncoder
from fracsurv.training.parallel import Team


def synchronise(model: nn.Module, team: Team) -> None:
    """Put such layers in the place of a model's own, in place; parameters and names stay.

    Raises
    ------
    ValueError
        For attention with dropout, which draws where it cannot be reached.
    """
    if isinstance(model, MaskedEncoder):
        model.team = team
    for name, layer in model.named_children():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(model, name, SynchronisedBatchNorm(layer, team))
        elif isinstance(layer, nn.Dropout):
            setattr(model, name, SynchronisedDropout(layer, team))
        elif isinstance(layer, nn.MultiheadAttention) and layer.dropout:
            raise ValueError(f"{name}: attention with dropout cannot be trained by several processes")
        else:
            synchronise(layer, team)


class SynchronisedDropout(nn.Module):
    """Drops what dropout of the whole batch would drop: every process draws for all rows, alike, and uses its own.

    The processes' global generators must agree.
    """

    def __init__(self, layer: nn.Dropout, team: Team) -> None:
        super().__init__()
        self.p, self.team = layer.p, team
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """(share, …) to the same."""
        if not self.training or self.p == 0:
            return x
        share = self.team.share
        return x * functional.dropout(x.new_ones(share.whole, *x.shape[1:]), self.p)[share.mine]


class SynchronisedBatchNorm(nn.Module):
    """Batch normalisation by mean and variance of all processes' rows; state and arithmetic as `nn.BatchNorm2d`'s.

    torch's own SyncBatchNorm needs GPUs; this one sums over the processes by whatever they are joined with.
    """

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, team: Team) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(layer, name))
        self.eps, self.momentum, self.team = layer.eps, layer.momentum, team
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """(share, channels, …) to the same."""
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        y, mean, variance, n = _Normalised.apply(x, self.weight, self.bias, self.eps, self.team)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
        return y


class _Normalised(torch.autograd.Function):
    """Normalised, scaled and shifted rows; mean and variance (divided by n) of all processes' values, and n."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, team: Team
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.to(weight.dtype)  # under autocast rows may be bfloat16; statistics are not
        channels, others = wide.shape[1], _others(wide)
        mine = wide.new_tensor([wide.numel() / channels])
        *sums, n = team.sum_(torch.cat([wide.sum(others), mine])).split([channels, 1])
        mean = sums[0] / n
        away = wide - _along(mean, wide)
        variance = team.sum_((away * away).sum(others)) / n
        inverse = torch.rsqrt(variance + eps)
        away *= _along(inverse, wide)
        ctx.save_for_backward(away, weight, inverse, n)
        ctx.team, ctx.dtype = team, x.dtype
        ctx.mark_non_differentiable(mean, variance, n)
        return torch.addcmul(_along(bias, wide), away, _along(weight, wide)).to(x.dtype), mean, variance, n

    @staticmethod
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        normal, weight, inverse, n = ctx.saved_tensors
        above = above.to(normal.dtype)
        others = _others(above)
        shift, scale = above.sum(others), (above * normal).sum(others)  # of this process's rows: summed with the rest
        whole_shift, whole_scale = ctx.team.sum_(torch.stack([shift, scale])) / n
        below = above - _along(whole_shift, above) - normal * _along(whole_scale, above)
        return (below * _along(weight * inverse, above)).to(ctx.dtype), scale, shift, None, None


def _others(x: Tensor) -> list[int]:
    """Every axis but that of the channels."""
    return [axis for axis in range(x.ndim) if axis != 1]


def _along(values: Tensor, x: Tensor) -> Tensor:
    """One value a channel, in the shape that meets `x`."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
