"""How far a run is: which fits are done, and about how long the others will take."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from fracsurv.config import TRUE_RISK
from fracsurv.experiments import alphas
from fracsurv.files import read_json
from fracsurv.run import Run

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
        Experiments.
    at_once : int
        How many fits run side by side.
    """

    def __init__(self, run: Run, names: Iterable[str], at_once: int) -> None:
        self._run, self._at_once = run, at_once
        folds = range(run.profile.n_folds)
        self._open = [(name, fold, alpha) for name in names for alpha in alphas(run, name) for fold in folds]
        self._seconds: dict[str, list[float]] = {}
        self.total = len(self._open)

    def update(self) -> int:
        """Look what is there by now; returns how many fits are done."""
        for fit in list(self._open):
            folder = self._run.folder(*fit)
            if (folder / ("metrics.json" if fit[2] is None else "fit.json")).exists():
                self._open.remove(fit)
                if (folder / "fit.json").exists():
                    seconds = read_json(folder / "fit.json").get("seconds")
                    self._seconds.setdefault(fit[0], []).extend([] if seconds is None else [seconds])
        return self.total - len(self._open)

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

    def _work(self, name: str) -> float:
        """A fit's arithmetic, in any one unit."""
        if name == TRUE_RISK:
            return 0.0
        row, profile = self._run.experiment(name), self._run.profile
        if not row.needs_images or row.fusion == "late":
            return 0.0
        scale = profile.scale if row.input == "crops" else profile.full_scale
        return row.epochs * GFLOP[row.input, row.encoder] * scale**2


def in_words(seconds: float | None) -> str:
    """A time that is left, as coarse as it is known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return "about a minute of fitting left" if seconds > 0 else "fits done, writing the report"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min of fitting left"
    return f"about {seconds / 3600:.1f} h of fitting left"
