"""What a fit costs: seconds of its parts, on a CPU by the clock, on a GPU by its own events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Adds up the seconds spent in named parts; a part within another counts as the outer one's.

    On a GPU nothing waits for a part to end: its events are read together, by `lap`.

        watch = Stopwatch(device)
        with watch("model"):
            ...
        watch.lap()  # {"model": 0.012}
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any, Any]] = []
        self._inside = False

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time what is done within."""
        if self._inside:
            yield
            return
        self._inside, start = True, self._now()
        try:
            yield
        finally:
            self._inside = False
            self._marks.append((part, start, self._now()))

    def lap(self) -> dict[str, float]:
        """Seconds of each part since the last lap."""
        if self._cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for part, start, end in self._marks:
            took = start.elapsed_time(end) / 1000 if self._cuda else end - start
            seconds[part] = seconds.get(part, 0.0) + took
        self._marks.clear()
        return seconds

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
