"""When and how a training is compiled by torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MIN_STEPS = 1000
"""At the protocol's size (one H200) compiling takes 28 to 47 s for a network's first fit, 5 s for each further one,
and saves at least 13 ms per step. Over three folds it pays off from about 1,100 steps per fit."""


def worth_compiling(wanted: str, device: torch.device, n_steps: int) -> bool:
    """Whether to compile a training of `n_steps`, on a GPU only; `wanted`: 'always', 'never' or 'auto' (if long)."""
    return device.type == "cuda" and (wanted == "always" or (wanted == "auto" and n_steps >= MIN_STEPS))


def compiled(call: Callable[..., Any], batch_size: int, **options: Any) -> Callable[..., Any]:
    """`call`, compiled by torch for a first argument of `batch_size` rows; with other numbers of rows, `call` itself.

    An epoch's last batch is smaller: to compile for it as well would take longer than it saves.
    """
    fast = torch.compile(call, dynamic=False, **options)

    def either(first: Tensor, *others: Any, **named: Any) -> Any:
        if len(first) != batch_size:
            return call(first, *others, **named)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # float32 is chosen on purpose
            return fast(first, *others, **named)

    return either
