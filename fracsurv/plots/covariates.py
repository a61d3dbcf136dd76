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
SHOWN_RATIOS = (0.1, 10.0)


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


def coefficient_forest(coefficients: pd.DataFrame, labels: Mapping[str, str], *, provenance: str = "") -> Figure:
    """Hazard ratios of a Cox model: a small point for each fold's model, a large one for their geometric mean.

    Ratios below 0.1 or above 10 (a factor that nearly nobody has) are drawn as an arrow at that edge, so that they do
    not press all others together. `coefficients` has `fold, covariate, log_hazard_ratio`, covariates in order;
    `labels` say what the ratio is per ('per SD', 'yes against no').
    """
    names = list(dict.fromkeys(coefficients["covariate"]))
    figure = new_figure(6.6, 0.9 + 0.3 * len(names), provenance)
    axes = figure.subplots()
    axes.axvline(1, color=GREY, linewidth=1, linestyle=":")
    clipped = False
    for row, name in enumerate(names):
        log_ratios = coefficients.loc[coefficients["covariate"] == name, "log_hazard_ratio"].to_numpy()
        with np.errstate(over="ignore"):  # exp of a coefficient that ran away is infinite, and clipped
            ratios, mean = np.exp(log_ratios), np.exp(log_ratios.mean())
        axes.hlines(
            row, *np.clip([ratios.min(), ratios.max()], *SHOWN_RATIOS), color=COLOURS[0], linewidth=1, alpha=0.6
        )
        clipped |= _points(axes, row, ratios, marker="o", markersize=3.5, alpha=0.6)
        clipped |= _points(axes, row, np.array([mean]), marker="D", markersize=6)
    axes.set_xscale("log")
    name_rows(axes, [labels[name] for name in names])
    beyond = "; arrows: beyond 0.1 to 10" if clipped else ""
    axes.set(xlabel=f"Hazard ratio (log scale); diamonds: mean over the folds{beyond}")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def _points(axes, row: int, ratios: NDArray, *, marker: str, **style) -> bool:
    """Draw ratios on a row, those beyond the edges as arrows; whether there were such."""
    low, high = SHOWN_RATIOS
    inside = ratios[(ratios >= low) & (ratios <= high)]
    if len(inside):
        axes.plot(inside, [row] * len(inside), marker, color=COLOURS[0], **style)
    for edge, arrow, beyond in ((low, "<", ratios < low), (high, ">", ratios > high)):
        if beyond.any():
            axes.plot([edge], [row], arrow, color=COLOURS[3], markersize=7)
    return len(inside) < len(ratios)
