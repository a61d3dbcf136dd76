"""Timings of several implementations that take turns, so that a busy machine slows them alike."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def medians(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each step over so many turns; a turn before them is not counted."""
    took = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                took[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in took.items()}
