"""Which fits of a run are done, and about how long the others will take."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from statistics import median

from fracsurv.config import TRUE_RISK
from fracsurv.study.protocol import CLINICAL
from fracsurv.study.results import evaluated_alpha, finished, is_evaluated, is_fitted
from fracsurv.study.run import Run
from fracsurv.utils.files import read_json

Fit = tuple[str, int, float | None]
"""Experiment, fold, α."""
CLOCKS_APART_S = 2.0
"""How much the clocks of this machine and of the file system may differ."""


class Progress:
    """How many of a run's fits are done.

    Parameters
    ----------
    names : iterable of str
        Experiments; those whose models they take over are fitted too.
    at_once : int
        How many fits run side by side.
    """

    def __init__(self, run: Run, names: Iterable[str], at_once: int) -> None:
        self._run, self._at_once, self._began = run, at_once, time.time()
        self._names = run.with_parts(names)
        self._open = [fit for name in self._names for fit in _fits(run, name)]
        self._seconds: dict[str, list[float]] = {}
        self.total = len(self._open)
        self._current = set(self._open) - set(self.missing())

    def update(self) -> int:
        """Number of fits that are done.

        A fit is done if it was there at the start, under the run's settings, or was written since.
        """
        for fit in list(self._open):
            path = self._run.folder(*fit) / ("metrics.json" if fit[2] is None else "fit.json")
            with suppress(FileNotFoundError):  # missing, or just being replaced: seen next time
                changed = path.stat().st_mtime
                if fit in self._current or changed > self._began - CLOCKS_APART_S:
                    self._open.remove(fit)
                    seconds = read_json(path.parent / "fit.json").get("seconds")  # the true risk was not fitted
                    self._seconds.setdefault(fit[0], []).extend([] if seconds is None else [seconds])
        return self.total - len(self._open)

    def missing(self) -> list[Fit]:
        """What is not there, or not under the run's settings: fits, and of α-models the evaluation of a fold too."""
        run, folds = self._run, range(self._run.profile.n_folds)
        fits = [fit for name in self._names for fit in _fits(run, name) if not self._is_current(*fit)]
        swept = [name for name in self._names if run.alphas(name) != (None,)]
        evaluations = [(name, fold, None) for name in swept for fold in folds
                       if not is_evaluated(run, name, fold, evaluated_alpha(run, name, fold))]  # fmt: skip
        return fits + evaluations

    @property
    def is_complete(self) -> bool:
        """Whether no fit is open."""
        return not self._open

    def seconds_left(self) -> float | None:
        """Estimated seconds until the open fits are done; None while no network with images has been fitted.

        A fit takes the median of its experiment's finished fits. Without any, it takes the median seconds per epoch
        of the other experiments with images; fits without images, or of late fusion, then count as 0.
        """
        found = {name: median(seconds) for name, seconds in self._seconds.items() if seconds}
        per_epoch = [seconds / epochs for name, seconds in found.items() if (epochs := self._image_epochs(name))]
        if not per_epoch:
            return None
        left = (found.get(name, self._image_epochs(name) * median(per_epoch)) for name, _, _ in self._open)
        return sum(left) / self._at_once

    def _is_current(self, name: str, fold: int, alpha: float | None) -> bool:
        return is_evaluated(self._run, name, fold) if alpha is None else is_fitted(self._run, name, fold, alpha)

    def _image_epochs(self, name: str) -> int:
        """Epochs in which an experiment trains on images."""
        if name == TRUE_RISK:
            return 0
        row = self._run.experiment(name)
        return row.epochs if row.needs_images and row.fusion != "late" else 0


def notebook_of(run: Run, name: str) -> str:
    """The notebook that fits, or shows, an experiment; relative to the run's folder."""
    return f"notebooks/{'03_baselines' if name in run.tabular() else f'04_fusion_training_{name}'}.ipynb"


def fitted_besides(run: Run, asked: Iterable[str]) -> list[str]:
    """The rows that will be fitted though nobody asked for them, and why, one line each."""
    asked, why = list(asked), {}
    names = run.with_parts(asked)
    networks = [name for name in names if name not in (TRUE_RISK, *run.tabular())]
    for name in networks:
        why |= dict.fromkeys(run.experiments[name].pretrained.values(), f"{name} takes it over")
    if set(names) & set(run.tabular()):
        told = "notebook 03 compares all rows without an image"
        why = dict.fromkeys((TRUE_RISK, *run.tabular()), told) | why
    if networks:
        why = dict.fromkeys((TRUE_RISK, *CLINICAL), f"notebook 04 compares {networks[0]} with it") | why
    new = set(run.runnable()) - set(asked) - set(finished(run))
    return [f"{name} is fitted too: {reason}" for name, reason in why.items() if name in new]


def outdated(run: Run) -> list[str]:
    """Experiments with fits of another cohort, under other settings or by a former version.

    Includes those not to be run now: the ablation and the report would lose them.
    """
    return [name for name in run.runnable() if any(_is_outdated(run, *fit) for fit in _fits(run, name))]


def _is_outdated(run: Run, name: str, fold: int, alpha: float | None) -> bool:
    return (run.folder(name, fold, alpha) / "fit.json").exists() and not is_fitted(run, name, fold, alpha)


def _fits(run: Run, name: str) -> list[Fit]:
    """An experiment's fits."""
    return [(name, fold, alpha) for alpha in run.alphas(name) for fold in range(run.profile.n_folds)]


def time_left_text(progress: Progress) -> str:
    """About how long the fits will take, rounded; empty if unknown."""
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
