"""Functions called in several processes that are joined as torchrun joins them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from fracsurv.training.parallel import Team


def on_ranks(size: int, what: Callable[..., Any], *arguments: object) -> list[Any]:
    """What `what(team, *arguments)` returns in each of `size` processes; one of them is this process alone."""
    if size == 1:
        return [what(Team(), *arguments)]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, (size, Path(folder), what, arguments), nprocs=size)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _rank(rank: int, size: int, folder: Path, what: Callable[..., Any], arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    torch.save(what(Team(rank, size), *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()
