"""Calibration and decision curves at a horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fracsurv.metrics import Calibration
from fracsurv.plots.style import COLOURS, GREY, STAMP_INCHES, broken, new_figure, percent
from fracsurv.utils.formatting import horizon_label


class CalibrationPanel(NamedTuple):
    """One model's calibration: its groups, a smooth curve (two arrays of probabilities), and words for the corner."""

    groups: Calibration
    smooth_predicted: NDArray
    smooth_observed: NDArray
    words: str


def calibration(
    panels: Mapping[str, CalibrationPanel],
    horizon: float,
    *,
    outcome: str = "any fracture",
    time_unit: str = "days",
    estimate: str = "Kaplan–Meier",
    provenance: str = "",
) -> Figure:
    """Predicted against observed probability of the event by `horizon` (in `time_unit`), a panel a model."""
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    n_lines = max(each.words.count("\n") + 1 for each in panels.values())
    legend = 0.42 if n_columns > 2 else 0.7  # inches above the panels, below the provenance
    width, height = max(3.9, 2.3 * n_columns + 0.4), (2.75 + 0.14 * n_lines) * n_rows + 0.4 + legend
    figure = new_figure(width, height, provenance)
    top = 1 - STAMP_INCHES / height
    figure.get_layout_engine().set(rect=(0, 0, 1, top - legend / height))
    drawn = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    tops = [[each.groups.predicted.max(), np.nanmax(each.groups.high)] for each in panels.values()]
    limit = min(1.0, 1.05 * max(0.1, float(np.max(tops))))
    for axes, (name, each) in zip(drawn.flat, panels.items(), strict=False):
        groups = each.groups
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        axes.plot(each.smooth_predicted, each.smooth_observed, color=COLOURS[1], linewidth=1.4)
        errors = np.clip([groups.observed - groups.low, groups.high - groups.observed], 0, None)
        axes.errorbar(
            groups.predicted, groups.observed, yerr=errors,
            fmt="o", markersize=4, linewidth=1, color=COLOURS[0], clip_on=False,  # points at 0 and 1 are seen whole
        )  # fmt: skip
        # above the axes, where no interval runs through the words
        axes.text(0, 1.02, each.words, transform=axes.transAxes, fontsize=7, va="bottom", linespacing=1.35)
        axes.set_title(broken(name, width / n_columns - 0.3, 8.5), fontsize=8.5, pad=5 + 9.8 * n_lines)
        axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
        percent(axes.xaxis, axes.yaxis)
    for axes in drawn.flat[len(panels) :]:
        axes.set_visible(False)
    words = f"Predicted probability of {outcome} within {horizon_label(horizon, time_unit)}, %"
    figure.supxlabel(broken(words, width - 0.3), fontsize=9)
    figure.supylabel("Observed probability, %", fontsize=9)
    handles = [
        Line2D([], [], color=COLOURS[0], marker="o", markersize=4, linewidth=1,
               label=f"groups by prediction, {estimate} with 95 % interval"),
        Line2D([], [], color=COLOURS[1], label="smooth"),
        Line2D([], [], color=GREY, linestyle=":", linewidth=1, label="perfect"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, top), ncols=3 if n_columns > 2 else 1)
    return figure


def decision_curve(
    thresholds: NDArray,
    curves: Mapping[str, NDArray],
    everyone: NDArray,
    labels: Mapping[str, str],
    *,
    outcome: str = "any fracture",
    horizon: str = "5 years",
    provenance: str = "",
) -> Figure:
    """Net benefit per 1,000 patients over the threshold probability, for each model, for acting on all, on nobody.

    `thresholds` (n,) are the probabilities from which on to act. `curves` (n,) give each model's net benefit a
    patient (NaN = unknown), and `everyone` (n,) that of acting on everyone.
    """
    figure = new_figure(7.6, 3.9, provenance)
    axes = figure.subplots()
    percent = 100 * np.asarray(thresholds)
    palette = iter([COLOURS[i] for i in (0, 2, 3, 4, 1, 5)])
    drawn = {name: (1000 * values, "#000000" if name == "true_risk" else next(palette), "-", labels[name])
             for name, values in curves.items()}  # fmt: skip
    drawn["everyone"] = (1000 * np.asarray(everyone), GREY, "--", "acting on everyone")
    known = np.concatenate([each[0][np.isfinite(each[0])] for each in drawn.values()])
    top, lowest = float(max(known, default=1.0)), float(min(known, default=0.0))
    for values, colour, line, _ in drawn.values():
        axes.plot(percent, values, line, color=colour, linewidth=1.5)
    axes.axhline(0, color=GREY, linewidth=1, linestyle=":")
    # where nobody has the event nothing lies above 0, and all that there is to see lies below
    axes.set(ylim=(-0.12 * top, 1.06 * top) if top > 0 else (1.06 * lowest, -0.06 * lowest), xlim=(0, percent[-1]))
    axes.set(xlabel=f"Threshold: act from this predicted risk of {outcome} by {horizon} on, %")
    axes.set_ylabel("Net benefit, true positives per 1,000 patients")
    handles = [Line2D([], [], color=colour, linestyle=line, label=text) for _, colour, line, text in drawn.values()]
    handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1, label="acting on nobody"))
    axes.legend(handles=handles, loc="upper right")
    return figure
