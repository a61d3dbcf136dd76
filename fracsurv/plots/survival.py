"""Kaplan–Meier and incidence curves with numbers at risk; calibration and decision curves at a horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from fracsurv.metrics import Calibration, cumulative_incidence
from fracsurv.plots.style import (
    COLOURS,
    GREY,
    STAMP_INCHES,
    broken,
    ink,
    new_figure,
    time_axis,
)
from fracsurv.utils.formatting import format_p, horizon_label


def numbers_at_risk(time: NDArray, at: Sequence[float]) -> list[int]:
    """How many are still followed just before each of `at` (the unit of `time`): those with time ≥ it."""
    return [int((np.asarray(time) >= t).sum()) for t in at]


def log_rank_p(event: NDArray, time: NDArray, group: NDArray) -> float:
    """p of the log-rank test that all groups have one survival curve (lifelines); NaN for fewer than two groups."""
    if len(np.unique(group)) < 2:
        return float("nan")
    return float(multivariate_logrank_test(time, group, event).p_value)


def kaplan_meier(
    event: NDArray,
    time: NDArray,
    group: NDArray,
    labels: Mapping[object, str],
    *,
    tested: Sequence[object] | None = None,
    outcome: str = "any fracture",
    title: str = "",
    time_unit: str = "days",
    provenance: str = "",
) -> Figure:
    """Kaplan–Meier curves by group with 95 % bands (log–log Greenwood), numbers at risk and the log-rank p.

    With competing events the curves are 1 − cumulative incidence: who died is for ever without the event. The
    log-rank test takes them for censored: it compares the hazards of the event.

    Parameters
    ----------
    event, time : arrays, shape (n,)
        Bool, True = event, or 0, 1 and 2 (a competing event); times in `time_unit`, > 0.
    group : array, shape (n,)
        Each patient's group, a key of `labels`. Patients of other groups are left out.
    labels : mapping
        Group to its name, in the order to draw (as the thesis's Figure 2.3: those without the factor first).
    tested : sequence, optional
        The groups that the log-rank test compares, all if not given; the others are grey.
    """
    event, time, group = np.asarray(event), np.asarray(time, float), np.asarray(group)
    competing = bool((event == 2).any())
    present = [key for key in labels if (group == key).any()]
    compared = [key for key in present if tested is None or key in tested]
    palette = iter(COLOURS)
    colours = [next(palette) if key in compared else GREY for key in present]
    figure = new_figure(6.4, 3.7 + 0.4 * len(present), provenance)
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 0.3 + 0.26 * len(present)])
    divisor, called = time_axis(time_unit)
    elapsed = time / divisor
    lowest = 1.0
    for key, colour in zip(present, colours, strict=True):
        at = group == key
        curve, band = _without_event(event[at], elapsed[at], competing)
        axes.step(curve.index, curve, where="post", color=colour, label=f"{labels[key]} (n = {at.sum():,})")
        axes.fill_between(
            band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color=colour, alpha=0.18, linewidth=0
        )
        lowest = min(lowest, float(np.nanmin(band.to_numpy())))
    kept = np.isin(group, compared)
    p = log_rank_p(event[kept] == 1, elapsed[kept], group[kept])
    words = f"log-rank {format_p(p)}\n" if len(compared) > 1 else ""
    what = "cumulative incidence, bands: 95 % interval" if competing else "bands: 95 % interval"
    # above the axes, where they cover no curve
    axes.text(1, 1.02, f"{words}{what}", transform=axes.transAxes, fontsize=8, ha="right", va="bottom")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    axes.set_title(title, pad=8 + 13 * len(present))
    axes.set(ylabel=f"Without {outcome}, %", ylim=(max(0.0, np.floor(lowest * 10 - 0.5) / 10), 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= elapsed.max()]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(-0.03 * elapsed.max(), elapsed.max() * 1.03)
    times = [elapsed[group == key] for key in present]
    risk_table(table, times, [labels[key] for key in present], colours, ticks, called)
    return figure


def _without_event(event: NDArray, time: NDArray, competing: bool) -> tuple[pd.Series, pd.DataFrame]:
    """Share without the event over time, from 1 at time 0, and its 95 % band."""
    if not competing:
        fitted = KaplanMeierFitter().fit(time, event == 1)
        return fitted.survival_function_.iloc[:, 0], fitted.confidence_interval_
    times = np.unique(time)
    found = cumulative_incidence(event, time, times)
    columns = {"share": 1 - found.incidence, "low": 1 - found.high, "high": 1 - found.low}
    # before the first event there is no band, as lifelines draws none for Kaplan–Meier
    columns |= {name: np.where(found.incidence > 0, columns[name], 1.0) for name in ("low", "high")}
    frame = pd.DataFrame({name: np.concatenate([[1.0], values]) for name, values in columns.items()}, [0.0, *times])
    return frame["share"], frame[["low", "high"]]


def risk_table(
    axes, times: list[NDArray], names: list[str], colours: Sequence[str], ticks: Sequence[float], called: str
) -> None:
    """Numbers at risk below a figure's curves: a row for each group's times, at the figure's ticks."""
    axes.set(ylim=(len(times) - 0.4, -0.9), xlabel=called, yticks=range(len(times)))
    axes.set_yticklabels([name if len(name) <= 26 else name[:25] + "…" for name in names])
    axes.tick_params(axis="y", length=0)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_title("Numbers at risk", fontsize=8)
    for row, (time, colour) in enumerate(zip(times, colours, strict=True)):
        axes.get_yticklabels()[row].set_color(ink(colour))
        for tick, number in zip(ticks, numbers_at_risk(time, ticks), strict=True):
            axes.text(tick, row, f"{number:,}", ha="center", va="center", fontsize=8)


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
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
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

    Parameters
    ----------
    thresholds : array, shape (n,)
        Probabilities from which on to act.
    curves : mapping of str to array, shape (n,)
        Net benefit a patient of each model; NaN where it is not known.
    everyone : array, shape (n,)
        Net benefit of acting on everyone.
    labels : mapping
        Model to its name.
    """
    figure = new_figure(7.6, 3.9, provenance)
    axes = figure.subplots()
    percent = 100 * np.asarray(thresholds)
    palette = iter([COLOURS[i] for i in (0, 2, 3, 4, 1, 5)])
    drawn = {name: (1000 * values, "#000000" if name == "true_risk" else next(palette), "-", labels[name])
             for name, values in curves.items()}  # fmt: skip
    drawn["everyone"] = (1000 * np.asarray(everyone), GREY, "--", "acting on everyone")
    top = max(float(np.nanmax(each[0])) for each in drawn.values())
    lowest = min(float(np.nanmin(each[0])) for each in drawn.values())
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
