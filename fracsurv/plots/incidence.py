"""Cumulative incidences of two competing events over time, beside what Kaplan–Meier would say of the one."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from fracsurv.metrics import cumulative_incidence, kaplan_meier
from fracsurv.plots.style import COLOURS, new_figure, time_axis
from fracsurv.plots.survival import risk_table


def incidence(
    event: NDArray,
    time: NDArray,
    *,
    outcome: str = "any fracture",
    competing: str = "death",
    time_unit: str = "days",
    provenance: str = "",
) -> Figure:
    """Aalen–Johansen curves of both events with 95 % bands, 1 − Kaplan–Meier of the first, and numbers at risk.

    Parameters
    ----------
    event, time : arrays, shape (n,)
        0 censored, 1 the event, 2 the competing one; times in `time_unit`, > 0.
    outcome, competing : str
        What the two are called.
    """
    event, time = np.asarray(event), np.asarray(time, float)
    figure = new_figure(6.4, 4.1, provenance)
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 0.56])
    divisor, called = time_axis(time_unit)
    elapsed = time / divisor
    times = np.unique(elapsed)
    handles = []
    for cause, name, colour in ((1, outcome, COLOURS[0]), (2, f"{competing} first", COLOURS[1])):
        found = cumulative_incidence(event, elapsed, times, cause=cause)
        steps = np.concatenate([[0.0], times])
        axes.step(steps, np.concatenate([[0.0], found.incidence]), where="post", color=colour)
        had = found.incidence > 0
        axes.fill_between(
            times[had], found.low[had], found.high[had], step="post", color=colour, alpha=0.18, linewidth=0
        )
        label = f"{name} (n = {(event == cause).sum():,}), Aalen–Johansen with 95 % band"
        handles.append(Line2D([], [], color=colour, label=label))
    steps, survival = kaplan_meier(event == 1, elapsed)
    curve = np.concatenate([[0.0], 1 - survival])
    axes.step(np.concatenate([[0.0], steps]), curve, where="post", color=COLOURS[0], linestyle="--", linewidth=1.2)
    label = f"{outcome}, 1 − Kaplan–Meier, which takes {competing} for censoring"
    handles.append(Line2D([], [], color=COLOURS[0], linestyle="--", linewidth=1.2, label=label))
    axes.set(ylabel="Have had it, %", ylim=(0, None))
    whole = axes.get_ylim()[1] > 0.1
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if whole else None, symbol=""))
    figure.legend(handles=handles, loc="outside upper left")
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= elapsed.max()]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(-0.03 * elapsed.max(), elapsed.max() * 1.03)
    risk_table(table, [elapsed], ["free of both"], ["black"], ticks, called)
    return figure
