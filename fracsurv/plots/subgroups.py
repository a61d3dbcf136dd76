"""Groups of patients beside each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fracsurv.plots.style import COLOURS, GREY, new_figure

FAINT = "#949494"
RATIO_TICKS = (1.0, 0.5, 2.0, 0.2, 5.0, 0.1, 10.0, 0.05, 20.0, 0.33, 3.0, 0.67, 1.5, 0.8, 1.25)
"""By how much they are wanted where there is not room for all."""
APART = 0.11
"""Least distance between two of them as a share of the axis: a label of four characters at 8 points fits."""


def subgroups(
    table: pd.DataFrame, labels: Mapping[str, str], ratio_title: str, *, small: str = "small", provenance: str = ""
) -> Figure:
    """C-index and observed over expected risk, a row a group, a colour a model; small groups in grey.

    Parameters
    ----------
    table : DataFrame
        `label` (of the group), `small`, `experiment`, `c_index, ci_low, ci_high`, `ratio, ratio_low, ratio_high`
        (NaN where not known; there is no second panel where none is).
    labels : mapping
        Experiment to its name, in the order to draw.
    small : str
        What the small groups are, for the legend.
    """
    groups = list(dict.fromkeys(table["label"]))
    panels = [("c_index", "ci_low", "ci_high", "C-index", 0.5)]
    if "ratio" in table and table["ratio"].notna().any():
        panels.append(("ratio", "ratio_low", "ratio_high", ratio_title, 1.0))
    figure = new_figure(3.1 + 2.9 * len(panels), 1.1 + 0.42 * len(groups), provenance)
    drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    colours = dict(zip(labels, (COLOURS[0], COLOURS[2], COLOURS[3]), strict=False))
    offsets = dict(zip(labels, np.linspace(-0.16, 0.16, len(labels)) if len(labels) > 1 else [0.0], strict=True))
    for axes, (value, low, high, title, line) in zip(drawn, panels, strict=True):
        axes.axvline(line, color=GREY, linewidth=1, linestyle=":")
        for row in table.to_dict("records"):
            colour = FAINT if row["small"] else colours[row["experiment"]]
            y = groups.index(row["label"]) + offsets[row["experiment"]]
            axes.hlines(y, row[low], row[high], color=colour, linewidth=1.4)
            axes.plot(
                row[value], y, "D" if row["experiment"] == next(iter(labels)) else "o", color=colour, markersize=4
            )
        axes.set(xlabel=title, ylim=(len(groups) - 0.5, -0.5))
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    if len(drawn) > 1:
        drawn[1].set_xscale("log")
        ticks = ratio_ticks(*drawn[1].get_xlim())
        drawn[1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        drawn[1].minorticks_off()
    drawn[0].set_yticks(range(len(groups)), groups)
    handles = [
        Line2D([], [], color=colours[name], marker="D" if i == 0 else "o", markersize=4, label=labels[name])
        for i, name in enumerate(labels)
    ]
    if table["small"].any():
        handles.append(Line2D([], [], color=FAINT, label=small))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def ratio_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis, as many of `RATIO_TICKS` as there is room for."""
    least, chosen = APART * np.log(high / low), []
    for tick in RATIO_TICKS:
        if low <= tick <= high and all(abs(np.log(tick / other)) >= least for other in chosen):
            chosen.append(tick)
    return sorted(chosen)
