"""Clinical factors: their distribution by outcome, and what a Cox model made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from fracsurv.plots.style import COLOURS, GREY, name_rows, new_figure

BINS = 18
SHOWN_RATIOS = (0.05, 20.0)


def covariate_distributions(
    values: pd.DataFrame,
    event: NDArray,
    kinds: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    outcome: str = "any fracture",
    provenance: str = "",
) -> Figure:
    """How each covariate is distributed among patients with and without an event during follow-up.

    `values` (n, p) has a column for each covariate, in its own unit; NaN = missing, left out. `kinds` are
    'continuous', 'normalised' (histograms) or 'binary' (shares, all in one panel); `labels` name columns and units.
    """
    event = np.asarray(event, bool)
    binary = [name for name, kind in kinds.items() if kind == "binary"]
    smooth = [name for name in kinds if name not in binary]
    n_columns = min(3, max(1, len(smooth)))
    n_rows = -(-len(smooth) // n_columns)
    share_inches = 1.1 + 0.3 * len(binary) if binary else 0
    figure = new_figure(7.6, 2.2 * n_rows + share_inches + 0.3, provenance)
    both = [2.2 * n_rows] * bool(smooth) + [share_inches] * bool(binary)
    parts = iter(figure.subfigures(len(both), 1, height_ratios=both, squeeze=False)[:, 0])
    if smooth:
        panels = next(parts).subplots(n_rows, n_columns, squeeze=False)
        for axes, name in zip(panels.flat, smooth, strict=False):
            _histogram(axes, values[name].to_numpy(float), event, labels[name])
        for axes in panels.flat[len(smooth) :]:
            axes.set_visible(False)
        panels[0, 0].legend(title=None, loc="upper left", fontsize=7)
    if binary:
        _shares(next(parts).subplots(), values, event, {name: labels[name] for name in binary}, outcome)
    return figure


def _histogram(axes, values: NDArray, event: NDArray, label: str) -> None:
    known = np.isfinite(values)
    values, event = values[known], event[known]
    edges = np.histogram_bin_edges(values, bins=BINS)
    for chosen, colour, name in ((~event, GREY, "no event"), (event, COLOURS[3], "event")):
        if chosen.any():
            how = {"bins": edges, "weights": np.full(chosen.sum(), 100 / chosen.sum()), "color": colour}
            axes.hist(values[chosen], histtype="stepfilled", alpha=0.15, **how)
            axes.hist(values[chosen], histtype="step", linewidth=1.3, label=name, **how)
    axes.set(xlabel=label, ylabel="Patients, %", ylim=(0, axes.get_ylim()[1] * 1.25))


def _shares(axes, values: pd.DataFrame, event: NDArray, labels: Mapping[str, str], outcome: str) -> None:
    names = list(labels)
    without, have = (100 * values.loc[chosen, names].mean().to_numpy() for chosen in (~event, event))
    rows = np.arange(len(names))
    axes.hlines(rows, without, have, color=GREY, linewidth=1, alpha=0.6)
    axes.plot(without, rows, "o", color=GREY, label=f"without {outcome} in follow-up", markersize=5)
    axes.plot(have, rows, "D", color=COLOURS[3], label=f"with {outcome}", markersize=5)
    name_rows(axes, [labels[name] for name in names])
    axes.set(xlabel="Patients with the factor, %")
    axes.set_xlim(left=-0.02 * max(axes.get_xlim()[1], 1))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


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
