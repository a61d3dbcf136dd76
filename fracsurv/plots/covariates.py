"""Clinical factors: the curves of their groups, and what a Cox model made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fracsurv.plots.style import COLOURS, GREY, name_rows, new_figure

if TYPE_CHECKING:
    from lifelines import KaplanMeierFitter

SHOWN_RATIOS = (0.05, 20.0)


def coefficient_forest(ratios: pd.DataFrame, labels: Mapping[str, str], *, provenance: str = "") -> Figure:
    """Hazard ratios of a Cox model with their intervals, a colour a fold.

    `ratios` has `covariate, fold, ratio, low, high`, covariates in order. A row that is not there was left out of
    that fold's model; `low` and `high` may be missing. `labels` say what a ratio is per ('per SD', 'yes against no').
    The axis ends at 0.05 and 20; a ratio beyond (of a factor that nearly nobody has) is an arrow at that edge, so
    that it does not press all others together.
    """
    names = list(dict.fromkeys(ratios["covariate"]))
    folds = list(dict.fromkeys(ratios["fold"]))
    figure = new_figure(7.4, 1.6 + 0.34 * len(names), provenance)
    axes = figure.subplots()
    axes.axvline(1, color=GREY, linewidth=1, linestyle=":")
    low, high = SHOWN_RATIOS
    for k, fold in enumerate(folds):
        rows = ratios[ratios["fold"] == fold]
        at = rows["covariate"].map(names.index).to_numpy() + 0.5 * ((k + 0.5) / len(folds) - 0.5)
        style = {"color": COLOURS[k % len(COLOURS)], "markersize": 4}
        axes.hlines(at, rows["low"].clip(low, high), rows["high"].clip(low, high), color=style["color"], linewidth=1)
        inside = rows["ratio"].between(low, high).to_numpy()
        axes.plot(rows["ratio"][inside], at[inside], "o", label=f"fold {fold + 1}", **style)
        for edge, arrow, beyond in ((low, "<", rows["ratio"] < low), (high, ">", rows["ratio"] > high)):
            if beyond.any():  # nothing drawn outside the axes has no size, on which the layout breaks down
                axes.plot(np.full(beyond.sum(), edge), at[beyond], arrow, clip_on=False, **style)
    name_rows(axes, [labels[name] for name in names])
    axes.set(xscale="log", xlim=SHOWN_RATIOS, xlabel="Hazard ratio with 95 % interval (log scale; arrows: beyond)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=6)
    return figure


def exact_band(fitter: KaplanMeierFitter) -> KaplanMeierFitter:
    """The same Kaplan–Meier estimate, its 95 % band as wide as it should be where nobody or everybody had the event.

    lifelines' band has no width there. The bounds are those of `metrics.calibration`: Clopper and Pearson's, for as
    many as are still at risk, or as have had the event.
    """
    alive, band = fitter.survival_function_.iloc[:, 0].to_numpy(), fitter.confidence_interval_.to_numpy(copy=True)
    band[alive == 1, 0] = 0.025 ** (1 / fitter.event_table["at_risk"].to_numpy()[alive == 1])
    band[alive == 0, 1] = 1 - 0.025 ** (1 / max(1, fitter.event_table["observed"].sum()))
    fitter.confidence_interval_.iloc[:, :] = band
    fitter.confidence_interval_survival_function_ = fitter.confidence_interval_
    fitter.confidence_interval_cumulative_density_.iloc[:, :] = 1 - band[:, ::-1]
    return fitter
