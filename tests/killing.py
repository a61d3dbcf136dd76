"""Processes and fits that are killed, and the files that they leave."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fracsurv.training import loop
from fracsurv.utils import files


class Killed(Exception):
    pass


def killed_in(monkeypatch: pytest.MonkeyPatch, epoch: int, what: Callable, *arguments: object, **options: object):
    """Run a fit that dies when it begins `epoch` (0, 1, …)."""
    whole = loop.train_epoch

    def dies(*given):
        if given[-1] == epoch:
            raise Killed
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_epoch", dies)
        with pytest.raises(Killed):
            what(*arguments, **options)


def left_by_the_dead(path: Path, suffix: str) -> Path:
    """The name of a temporary of `path` that a process which is no more would have left."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = files._temporary(path, path.stem, suffix)
    return mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
