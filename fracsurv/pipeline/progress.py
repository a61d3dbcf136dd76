"""How far a run is: which fits are done, and about how long the others will take."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median

from fracsurv.config import TRUE_RISK
from fracsurv.study.results import is_done
from fracsurv.study.run import Run
from fracsurv.utils.files import read_json

CLOCKS_APART_S = 2.0
"""How far the clocks of this machine and of the file system may disagree."""

GFLOP = {
    ("crops", "resnet50"): 35.1,
    ("crops", "vit_b_32"): 37.5,
    ("full", "resnet50"): 416.0,
    ("crops", "resnet18"): 20.0,
    ("crops", "vit_tiny"): 4.4,
    ("full", "resnet18"): 200.0,
}
"""Of a patient's training step at the protocol's resolution, as `benchmarks.training` counts them."""


class Progress:
    """A run's fits: (experiment, fold, α) each.

    Parameters
    ----------
    names : iterable of str
        Experiments; those whose models they take over are fitted too.
    at_once : int
        How many fits run side by side.
    """

    def __init__(self, run: Run, names: Iterable[str], at_once: int) -> None:
        self._run, self._at_once, self._began = run, at_once, time.time()
        folds = range(run.profile.n_folds)
        self._open = [
            (name, fold, alpha) for name in run.with_parts(names) for alpha in run.alphas(name) for fold in folds
        ]
        self._seconds: dict[str, list[float]] = {}
        self.total = len(self._open)
        self._current = {fit for fit in self._open if self._is_current(*fit)}

    def update(self) -> int:
        """Look what is there by now; returns how many fits are done.

        Done is what was there when this began, if made under the run's settings, and whatever was written since.
        """
        for fit in list(self._open):
            path = self._path(*fit)
            with suppress(FileNotFoundError):  # not there, or just making way for another: seen at the next look
                changed = path.stat().st_mtime
                if fit in self._current or changed > self._began - CLOCKS_APART_S:
                    self._open.remove(fit)
                    seconds = read_json(path.parent / "fit.json").get("seconds")  # the true risk was not fitted
                    self._seconds.setdefault(fit[0], []).extend([] if seconds is None else [seconds])
        return self.total - len(self._open)

    @property
    def is_complete(self) -> bool:
        """Whether no fit is open."""
        return not self._open

    def seconds_left(self) -> float | None:
        """About how long the open fits will take; None while no network has been fitted.

        A fit takes what other fits of its experiment took or, if there are none, as much longer or shorter than the
        fits that are done as its arithmetic is more or less.
        """
        done = sum(sum(seconds) for seconds in self._seconds.values())
        work = sum(len(seconds) * self._work(name) for name, seconds in self._seconds.items())
        if not work:
            return None
        each = {
            name: median(self._seconds[name]) if self._seconds.get(name) else self._work(name) * done / work
            for name, _, _ in self._open
        }
        return sum(each[name] for name, _, _ in self._open) / self._at_once

    def _path(self, name: str, fold: int, alpha: float | None) -> Path:
        return self._run.folder(name, fold, alpha) / ("metrics.json" if alpha is None else "fit.json")

    def _is_current(self, name: str, fold: int, alpha: float | None) -> bool:
        path = self._path(name, fold, alpha)
        if not path.exists():
            return False
        key = self._run.evaluation_key(name, fold) if alpha is None else self._run.key(name, fold, alpha)
        return is_done(path, key)

    def _work(self, name: str) -> float:
        """A fit's arithmetic, in any one unit."""
        if name == TRUE_RISK:
            return 0.0
        row, profile = self._run.experiment(name), self._run.profile
        if not row.needs_images or row.fusion == "late":
            return 0.0
        scale = profile.scale if row.input == "crops" else profile.full_scale
        return row.epochs * GFLOP[row.input, row.encoder] * scale**2


def outdated(run: Run) -> list[str]:
    """Experiments some of whose fits lie there, made of another cohort, under other settings or by a former version.

    Also such as are not asked for now: the ablation and the report would lose them.
    """
    folds = range(run.profile.n_folds)
    return [
        name
        for name in run.runnable()
        if any(
            (path := run.folder(name, fold, alpha) / "fit.json").exists()
            and not is_done(path, run.key(name, fold, alpha))
            for alpha in run.alphas(name)
            for fold in folds
        )
    ]


def in_words(progress: Progress) -> str:
    """About how long the fits will take, as coarse as it is known."""
    seconds = progress.seconds_left()
    if progress.is_complete:
        return "fits done, writing the report"
    if seconds is None:
        return ""
    if seconds < 90:
        return "about a minute of fitting left"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min of fitting left"
    return f"about {seconds / 3600:.1f} h of fitting left"
