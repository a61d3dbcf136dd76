"""Worker processes, spawned and ended with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from fracsurv.utils.errors import UserError

SECONDS_BETWEEN_LOOKS = 1.0
Result = TypeVar("Result")


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of processes; they end by themselves within seconds if this one is killed.

    Started afresh rather than forked: a fork copies the locks of torch's and Arrow's threads.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with, initargs=(os.getpid(),))


def mapped(
    workers: int, function: Callable[..., Result], *sequences: Sequence, chunksize: int = 1
) -> Iterator[Result]:
    """`map(function, *sequences)` in that many processes, results in order; with one worker in this process."""
    workers = min(workers, len(sequences[0]))
    if workers <= 1:
        yield from map(function, *sequences)
        return
    try:
        with process_pool(workers) as pool:
            yield from pool.map(function, *sequences, chunksize=chunksize)
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} worker processes was ended by the system (for memory, perhaps); call again with fewer"
        ) from None


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
