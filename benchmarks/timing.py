"""Timings of several implementations that take turns, so that a busy machine slows them alike.

Their order changes from turn to turn, so that none of them always comes after the same one: what ran before has
filled the caches with its own code and data.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def device_name() -> str:
    """What the figures were measured on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


@contextmanager
def clocked(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Put the seconds that the block takes into `seconds[what]`."""
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


def print_growth(title: str, rows: list[dict], width: int, since: int) -> None:
    """A table of what grows with the cohort: seconds of each part by size, and peak memory.

    `rows` have `n`, `seconds` and `peak_mib`; the exponent is that of the time between `rows[since]` and the last.
    """
    print(f"{title:<42}" + "".join(f"{row['n']:>{width},}" for row in rows) + "   exponent")
    for what in rows[0]["seconds"]:
        took = [row["seconds"][what] for row in rows]
        exponent = np.log(took[-1] / took[since]) / np.log(rows[-1]["n"] / rows[since]["n"])
        print(f"{what:<42}" + "".join(f"{each:{width}.2f}" for each in took) + f"{exponent:11.2f}")
    print(f"{'peak memory, MiB':<42}" + "".join(f"{row['peak_mib']:{width},.0f}" for row in rows))


def measured_apart(module: str, *arguments: str) -> dict:
    """What `python -m module arguments` prints as JSON in its last line: a process has a peak memory of its own."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


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
