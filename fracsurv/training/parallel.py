"""Several processes that fit one model together: each has a share of every batch, all take the same step.

`torchrun` starts them. Nothing here averages: the loss is that of the whole batch, since a risk set holds patients of
every share, and each process's gradients are its part of that loss's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fracsurv.training.sampler import Share
from fracsurv.utils.errors import UserError

Made = TypeVar("Made")

WAITS_AT_MOST = timedelta(days=1)
"""For one process that does something first; torchrun itself looks for those that are dead."""


TELLING_TAKES_AT_MOST = timedelta(seconds=5)


class Stopped(UserError):
    """The fit ends before its end: another process is gone, or torchrun says so."""

    def __init__(self, met: RuntimeError | None = None) -> None:
        cause = f" (met: {str(met).strip().splitlines()[0]})" if met is not None and str(met).strip() else ""
        super().__init__(
            f"this fit was told to end, or one of its processes ended, so all of them do{cause}; "
            "the same command goes on from the last checkpoint"
        )


class Team:
    """The processes of a fit: this one's `rank`, from 0 on, and how many they are; alone by default.

    Attributes
    ----------
    share : Share
        Of the batch that is being worked on; `take` sets it, and the layers of `synchronised` look at it.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.share = Share(0, slice(0, 0))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def share_of(self, n: int) -> Share:
        """This process's part of `n` rows, in one piece; sizes differ by one at most, some are 0 if n < size."""
        return Share(n, slice(n * self.rank // self.size, n * (self.rank + 1) // self.size))

    def take(self, n: int) -> Share:
        """As `share_of`, and remember it as that of the batch at work."""
        self.share = self.share_of(n)
        return self.share

    def gathered(self, mine: Tensor) -> Tensor:
        """Log hazards of the whole batch, (whole,), from those of this process's share; differentiable by the latter.

        For a loss that every process computes whole: a process's gradient is then that by its own rows, and the
        processes' gradients by a parameter sum up to the whole one.
        """
        return mine if self.is_alone else _Gathered.apply(mine, self)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Put the sum over the processes into `tensor`, the same bits in each; returns it."""
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            raise Stopped(error) from None
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum each parameter's gradient over the processes."""
        if self.is_alone:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        summed = self.sum_(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, part in zip(gradients, summed.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def leaders(self, value: Made) -> Made:
        """The first process's `value`, whatever this one's is."""
        if self.is_alone:
            return value
        values = [value]
        try:
            dist.broadcast_object_list(values)
        except RuntimeError as error:
            raise Stopped(error) from None
        return values[0]

    def in_turn(self, do: Callable[[], Made]) -> Made:
        """Have the first process do something, and the others after it: they find the files that it has written."""
        done = do() if self.leads else None
        self.leaders(None)
        return done if self.leads else do()

    def give_weights(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers: processors of two kinds may differ in a bit."""
        if self.is_alone:
            return
        with torch.no_grad():
            for tensor in model.state_dict().values():
                whole = tensor if self.leads else torch.zeros_like(tensor)
                tensor.copy_(self.sum_(whole.contiguous()))


class _Gathered(torch.autograd.Function):
    """Rows of every process behind one another; backwards, this process's rows of the gradient."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, team: Team) -> Tensor:
        ctx.mine = team.share.mine
        whole = mine.new_zeros(team.share.whole)
        whole[ctx.mine] = mine
        return team.sum_(whole)  # to which the others add zeros: exact, whatever the sizes of the shares

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        return above[ctx.mine], None


@contextmanager
def team() -> Iterator[Team]:
    """The processes that torchrun has started, with a GPU each if there are any; without torchrun this one alone.

    A UserError leaves the block in the first process that meets one; what befalls the others then ends them silently.

    Raises
    ------
    UserError
        Where a machine has fewer GPUs than processes, and what is raised within.
    """
    if not dist.is_torchelastic_launched():
        yield Team()
        return

    def stopped(*_: object) -> None:
        raise Stopped

    signal.signal(signal.SIGTERM, stopped)
    try:
        dist.init_process_group(_joined_by(), timeout=WAITS_AT_MOST)
        yield Team(dist.get_rank(), dist.get_world_size())
    except UserError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is to be told is told
        if not _is_first_to_tell():
            sys.exit(2)
        raise
    dist.destroy_process_group()


def _joined_by() -> str:
    """How tensors go from process to process; on a GPU, this process is given one."""
    if not torch.cuda.is_available():
        return "gloo"
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise UserError(f"--nproc-per-node: each process needs a GPU of its own, and this machine has {there}")
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


def _is_first_to_tell() -> bool:
    """Whether no other process of this fit has told yet why it ends; torchrun's own store counts."""
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = dist.TCPStore(*where, is_master=False, timeout=TELLING_TAKES_AT_MOST)
        return store.add("fracsurv told", 1) == 1
    except RuntimeError:  # torchrun is gone
        return True
