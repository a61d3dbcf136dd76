"""Which patients meet in a batch, and whom a batch's risk sets hold besides them."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def batches(
    train: np.ndarray, event: np.ndarray, batch_size: int, seed: int, *, spread_events: bool = False
) -> list[np.ndarray]:
    """An epoch's batches of the rows `train` (int), in an order drawn from `seed`.

    A last batch of one patient is left out: a risk set of one teaches nothing, and BatchNorm cannot take it.

    Parameters
    ----------
    event : ndarray of bool
        Of all patients.
    spread_events : bool
        Deal those with and those without the event out evenly, so that batches have about as many events each: one
        without any teaches nothing. By default chance decides, as in the protocol.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(train)
    if spread_events:
        place = np.empty(len(order))
        for kind in (False, True):
            mine = np.flatnonzero(event[order] == kind)
            place[mine] = (np.arange(len(mine)) + rng.random(len(mine))) / max(1, len(mine))
        order = order[np.argsort(place, kind="stable")]
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [rows for rows in parts if len(rows) > 1]


class Share(NamedTuple):
    """Some rows of a batch of `whole` rows: those of one process, `mine`."""

    whole: int
    mine: slice

    @classmethod
    def all_of(cls, n: int) -> Share:
        """All of a batch of `n` rows."""
        return cls(n, slice(0, n))


class RiskBank:
    """The last batches of an epoch as further members of a batch's risk sets, and as further events.

    Their log hazards are those that the network gave them then, taken for constants: they cost no memory on the way
    back, and are a few steps old. With `n_batches` 0 a batch is alone, as in the protocol.
    """

    def __init__(self, n_batches: int) -> None:
        self._batches: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=n_batches)

    def joined(self, event: Tensor, time: Tensor, risk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A batch (n,) with the bank behind it; only `risk`'s own values have a gradient."""
        return tuple(torch.cat(parts) for parts in zip((event, time, risk), *self._batches, strict=True))

    def add(self, event: Tensor, time: Tensor, risk: Tensor) -> None:
        """Remember a batch; the oldest is forgotten."""
        self._batches.append((event, time, risk.detach()))
