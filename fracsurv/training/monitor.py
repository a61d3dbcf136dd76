"""Watching a fit: seconds of its parts, and learning curves for TensorBoard while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fracsurv.utils.errors import UserError


class Stopwatch:
    """Seconds spent in named parts; a part within another counts to the outer one.

    On a GPU nothing waits for a part to end: `lap` reads its events together.

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
        """Time the block."""
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


class Board:
    """Writes a fit's epochs as TensorBoard's event files into `folder`; a resumed fit replaces what it repeats.

    Raises
    ------
    UserError
        Where the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard: true, and the package tensorboard is not installed; `pip install tensorboard`, or set "
                "it to false"
            ) from None
        self._make, self._folder, self._writer = SummaryWriter, folder, None

    def __call__(self, row: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Write an epoch's rows of `history.csv` and `timing.csv`, each under its own heading."""
        epoch = int(row["epoch"])
        if self._writer is None:
            self._writer: Any = self._make(str(self._folder), purge_step=epoch)
        for heading, values in (("history", row), ("timing", timing)):
            for name, value in values.items():
                if name != "epoch":
                    self._writer.add_scalar(f"{heading}/{name}", value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """End the writer's thread."""
        if self._writer is not None:
            self._writer.close()
