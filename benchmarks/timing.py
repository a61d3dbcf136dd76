"""Timings of several implementations that take turns, so that a busy machine slows them alike.

Their order changes from turn to turn, so that none of them always comes after the same one: what ran before has
filled the caches with its own code and data.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def medians(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each step over so many turns; a turn before them is not counted."""
    took, rng = {name: [] for name in steps}, np.random.default_rng(0)
    for turn in range(repeats + 1):
        for name in rng.permutation(list(steps)):
            step = steps[name]
            start = time.perf_counter()
            step()
            if turn:
                took[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in took.items()}
