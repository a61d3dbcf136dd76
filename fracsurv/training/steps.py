"""Steps of a network's training: forward on the device, the loss on the host, backward; and compiling them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fracsurv.losses import cox_nll
from fracsurv.training.parallel import Team
from fracsurv.training.sampler import RiskBank
from fracsurv.training.stopwatch import Stopwatch

# (rows, generator) -> what the network is called with. A generator asks for augmentation, None for none. A
# slice as a third argument asks for some of the rows, as they would be among all of them: several processes train.
Inputs = Callable[..., tuple[Tensor, ...]]

STEPS_WORTH_COMPILING = 1000
"""At the protocol's size (one H200) compiling takes 28 to 47 s for a network's first fit and 5 s for each further
one, and saves 13 ms of a step or more: over three folds it pays from some 1,100 steps a fit on."""


def worth_compiling(wanted: str, device: torch.device, n_steps: int) -> bool:
    """Whether to compile a training of so many steps; on a GPU alone: always, never, or (auto) if it is long."""
    return device.type == "cuda" and (wanted == "always" or (wanted == "auto" and n_steps >= STEPS_WORTH_COMPILING))


def compiled(call: Callable[..., Any], batch_size: int, **options: Any) -> Callable[..., Any]:
    """`call`, compiled by torch for a first argument of `batch_size` rows; with other numbers of rows, `call` itself.

    An epoch's last batch is a smaller one: to compile for it as well would take longer than it saves.
    """
    fast = torch.compile(call, dynamic=False, **options)

    def either(first: Tensor, *others: Any, **named: Any) -> Any:
        if len(first) != batch_size:
            return call(first, *others, **named)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # where float32 is used it is meant
            return fast(first, *others, **named)

    return either


class Forward(NamedTuple):
    """Log hazards (n,), float32, on the host; there once `arrived` has happened on a GPU."""

    risk: Tensor
    arrived: Any


def forward(call: Callable[..., Tensor], batch: tuple[Tensor, ...], dtype: torch.dtype) -> Forward:
    """Begin a step: the network's log hazards, on their way to the host. A GPU is not waited for."""
    device = next(part.device for part in batch if part is not None)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        risk = call(*batch)
    risk = risk.float().to("cpu", non_blocking=True)
    arrived = None
    if device.type == "cuda":
        arrived = torch.cuda.Event()
        arrived.record()
    return Forward(risk, arrived)


def learn(
    begun: Forward,
    event: Tensor,
    time: Tensor,
    optimiser: torch.optim.Optimizer,
    *,
    ties: str = "efron",
    bank: RiskBank | None = None,
    team: Team | None = None,
) -> tuple[Tensor, Tensor]:
    """End a step on a batch of (event, time): the loss (scalar) and the log hazards (n,), detached, on the host.

    The loss is computed on the host also for a GPU: of a batch's few numbers it takes less time there than its many
    small operations would take to be launched. With a `bank` the loss is that of the batch and the bank together, and
    its gradient is scaled up by how many times the batch they are, as if the gradient of all of them had been taken.
    In a `team` a process has begun a share of the batch; event, time, loss and log hazards are those of the whole.

    Raises
    ------
    FloatingPointError
        Where a log hazard is not finite; no parameter has been changed then.
    """
    if begun.arrived is not None:
        begun.arrived.synchronize()
    team = team or Team()
    risk = team.gathered(begun.risk)
    if not torch.isfinite(risk).all():
        raise FloatingPointError("the network's output is no longer finite")
    several = (event, time, risk) if bank is None else bank.joined(event, time, risk)
    loss = cox_nll(*several, ties=ties)
    optimiser.zero_grad()
    (loss * (len(several[2]) / len(risk))).backward()
    team.sum_gradients(parameter for group in optimiser.param_groups for parameter in group["params"])
    optimiser.step()
    if bank is not None:
        bank.add(event, time, risk)
    return loss.detach(), risk.detach()


@dataclass(frozen=True)
class Steps:
    """What a fit's training steps need.

    Attributes
    ----------
    model, call, inputs
        As `training.fit` takes them; `call` may be compiled.
    event, time : Tensor (n,)
        Of all patients, on the host.
    team : Team
        The processes that have a share of every batch each.
    """

    model: nn.Module
    call: Callable[..., Tensor]
    inputs: Inputs
    event: Tensor
    time: Tensor
    optimiser: torch.optim.Optimizer
    dtype: torch.dtype
    watch: Stopwatch
    ties: str = "efron"
    team: Team = field(default_factory=Team)

    def epoch(
        self, parts: list[np.ndarray], generator: torch.Generator, bank: RiskBank | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """One optimiser step on each of `parts`, the rows of batches: their losses, and their log hazards.

        A GPU gets a batch's images ready while the host computes the loss of the batch before.
        """
        self.model.train()
        ahead = generator.device.type == "cuda"
        losses, risks, ready = [], [], None

        def prepared(number: int) -> tuple[Tensor, ...]:
            """A batch; where `inputs` has a method `expect`, it is told of the next one."""
            rows = parts[number]
            some = () if self.team.is_alone else (self.team.share_of(len(rows)).mine,)
            batch = self.inputs(rows, generator, *some)
            if number + 1 < len(parts) and hasattr(self.inputs, "expect"):
                rows = parts[number + 1]
                self.inputs.expect(rows[self.team.share_of(len(rows)).mine])
            return batch

        for number, rows in enumerate(parts):
            batch = ready or prepared(number)
            self.team.take(len(rows))
            with self.watch("model"):
                begun = forward(self.call, batch, self.dtype)
            ready = prepared(number + 1) if ahead and number + 1 < len(parts) else None
            index = torch.from_numpy(rows)
            with self.watch("model"):
                loss, risk = learn(
                    begun, self.event[index], self.time[index], self.optimiser,
                    ties=self.ties, bank=bank, team=self.team,
                )  # fmt: skip
            losses.append(loss)
            risks.append(risk)
        return losses, risks
