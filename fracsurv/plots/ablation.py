"""All experiments beside each other: forest plot, groups of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fracsurv.metrics.names import METRIC_NAMES
from fracsurv.plots.style import COLOURS, GREY, name_rows, new_figure

INPUT_COLOURS = {"truth": "#000000", "none": COLOURS[0], "full": COLOURS[1], "crops": COLOURS[2]}
INPUT_NAMES = {"truth": "true risk", "none": "clinical only", "full": "full image", "crops": "vertebra crops"}
CHANCE_COLOUR = "#e3e3e3"
FAINT = "#949494"
RATIO_TICKS = (1.0, 0.5, 2.0, 0.2, 5.0, 0.1, 10.0, 0.05, 20.0, 0.33, 3.0, 0.67, 1.5, 0.8, 1.25)
"""The most wanted first."""
APART = 0.11
"""Least distance between two of them as a share of the axis: a label of four characters at 8 points fits."""


def forest(
    table: pd.DataFrame,
    labels: Mapping[str, str],
    splits: Sequence[str],
    *,
    reference: str = "cox_ph",
    chance: Mapping[str, tuple[float, float]] | None = None,
    provenance: str = "",
) -> Figure:
    """C-index of every experiment with its 95 % interval, a panel a split, a line at the reference.

    `table` has `experiment, input, split, mean, ci_low, ci_high, n_patients` of the C-index, experiments in order.
    `chance` gives a split's range in which a model that knows nothing falls in 95 of 100 cohorts: a grey band.
    """
    names = list(dict.fromkeys(table["experiment"]))
    figure = new_figure(2.6 + 2.5 * len(splits), 1.15 + 0.3 * len(names), provenance)
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        rows = table[table["split"] == split].set_index("experiment")
        if chance and split in chance:
            axes.axvspan(*chance[split], color=CHANCE_COLOUR, linewidth=0, zorder=0)
        if reference in rows.index:
            axes.axvline(rows.loc[reference, "mean"], color=COLOURS[0], linewidth=1, linestyle=":")
        for position, name in enumerate(names):
            if name in rows.index:
                row = rows.loc[name]
                colour = INPUT_COLOURS[row["input"]]
                axes.hlines(position, row["ci_low"], row["ci_high"], color=colour, linewidth=1.6)
                axes.plot(row["mean"], position, "D", color=colour, markersize=5)
        n = f" (n = {rows['n_patients'].iloc[0]:,})" if len(rows) else ""
        axes.set(title=f"{split}{n}", xlabel=METRIC_NAMES["c_index"])
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        name_rows(axes, [labels[name] for name in names])
    present = [key for key in INPUT_COLOURS if key in set(table["input"])]
    handles = [Line2D([], [], color=INPUT_COLOURS[key], marker="D", label=INPUT_NAMES[key]) for key in present]
    if reference in names:
        handles.append(Line2D([], [], color=COLOURS[0], linestyle=":", linewidth=1, label=labels[reference]))
    if chance:
        handles.append(Patch(color=CHANCE_COLOUR, label="by chance alone (95 %)"))
    columns = len(handles) if len(handles) < 5 else -(-len(handles) // 2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


def subgroups(
    table: pd.DataFrame, labels: Mapping[str, str], ratio_title: str, *, small: str = "small", provenance: str = ""
) -> Figure:
    """C-index and observed over expected risk, a row a group, a colour a model; small groups in grey.

    `table` has `label` (of the group), `small`, `experiment`, `c_index, ci_low, ci_high`, `ratio, ratio_low,
    ratio_high` (NaN = unknown; no second panel if all are). `small` says in the legend what the small groups are.
    """
    groups = list(dict.fromkeys(table["label"]))
    panels = [("c_index", "ci_low", "ci_high", "C-index", 0.5)]
    if "ratio" in table and table["ratio"].notna().any():
        panels.append(("ratio", "ratio_low", "ratio_high", ratio_title, 1.0))
    figure = new_figure(3.1 + 2.9 * len(panels), 1.1 + 0.42 * len(groups), provenance)
    drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    colours = dict(zip(labels, (COLOURS[0], COLOURS[3], COLOURS[2]), strict=False))
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
        axes.set(xlabel=title)
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        name_rows(axes, groups)
    if len(drawn) > 1:
        drawn[1].set_xscale("log")
        ticks = ratio_ticks(*drawn[1].get_xlim())
        drawn[1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        drawn[1].minorticks_off()
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
