"""Curves over the time of follow-up: Kaplan–Meier and incidence with numbers at risk, expected against observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fracsurv.metrics import cumulative_incidence
from fracsurv.metrics import kaplan_meier as kaplan_meier_steps
from fracsurv.plots.style import COLOURS, GREY, ink, new_figure, percent, time_axis
from fracsurv.utils.formatting import format_p


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
    log-rank test takes them for censored: it compares the hazards of the event, in the groups `tested` (all if not
    given; the others are grey). `labels` name the groups in the order to draw; patients of other groups are left out.
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
        _step(axes, curve, band, colour, f"{labels[key]} (n = {at.sum():,})")
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
    percent(axes.yaxis)
    times = [elapsed[group == key] for key in present]
    _risk_table(axes, table, times, [labels[key] for key in present], colours, called)
    return figure


def incidence(
    event: NDArray,
    time: NDArray,
    *,
    outcome: str = "any fracture",
    competing: str = "death",
    time_unit: str = "days",
    provenance: str = "",
) -> Figure:
    """Aalen–Johansen curves of both events with 95 % bands, 1 − Kaplan–Meier of the first, and numbers at risk."""
    event, time = np.asarray(event), np.asarray(time, float)
    figure = new_figure(6.4, 4.1, provenance)
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 0.56])
    divisor, called = time_axis(time_unit)
    elapsed = time / divisor
    times = np.unique(elapsed)
    for cause, name, colour in ((1, outcome, COLOURS[0]), (2, f"{competing} first", COLOURS[1])):
        found = cumulative_incidence(event, elapsed, times, cause=cause)
        curve = pd.Series(np.concatenate([[0.0], found.incidence]), [0.0, *times])
        band = pd.DataFrame({"low": found.low, "high": found.high}, times)[found.incidence > 0]
        _step(axes, curve, band, colour, f"{name} (n = {(event == cause).sum():,}), Aalen–Johansen with 95 % band")
    steps, survival = kaplan_meier_steps(event == 1, elapsed)
    axes.step(
        np.concatenate([[0.0], steps]), np.concatenate([[0.0], 1 - survival]), where="post", color=COLOURS[0],
        linestyle="--", linewidth=1.2, label=f"{outcome}, 1 − Kaplan–Meier, which takes {competing} for censoring",
    )  # fmt: skip
    axes.set(ylabel="Have had it, %", ylim=(0, None))
    percent(axes.yaxis, decimals=0 if axes.get_ylim()[1] > 0.1 else None)
    figure.legend(loc="outside upper left")
    _risk_table(axes, table, [elapsed], ["free of both"], ["black"], called)
    return figure


def expected_and_observed(
    event: NDArray,
    time: NDArray,
    times: NDArray,
    expected: Mapping[str, NDArray],
    labels: Mapping[str, str],
    *,
    outcome: str = "any fracture",
    time_unit: str = "days",
    provenance: str = "",
) -> Figure:
    """1 − Kaplan–Meier with its 95 % band (log–log Greenwood), and models' mean predicted probability over time.

    `expected` (n_times,) is each model's mean probability of the event by `times` (n_times,), which increase.
    """
    figure = new_figure(7.6, 3.9, provenance)
    axes = figure.subplots()
    divisor, called = time_axis(time_unit)
    curve, band = _without_event(np.asarray(event), np.asarray(time, float) / divisor, competing=False)
    end = float(times[-1]) / divisor
    _step(axes, 1 - curve, 1 - band, "#000000", "observed, Kaplan–Meier, 95 % band")
    top = float(np.nanmax(1 - band.to_numpy()[band.index <= end], initial=0.02))
    for (name, values), colour in zip(expected.items(), COLOURS * len(expected), strict=False):
        axes.plot(np.asarray(times) / divisor, values, color=colour, label=labels[name])
        top = max(top, float(np.max(values)))
    axes.set(xlim=(0, end), ylim=(0, min(1.0, 1.06 * top)), xlabel=called, ylabel=f"With {outcome}, %")
    percent(axes.yaxis)
    axes.legend(loc="upper left")
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


def _step(axes, curve: pd.Series, band: pd.DataFrame, colour: str, label: str) -> None:
    axes.step(curve.index, curve, where="post", color=colour, label=label)
    low, high = band.iloc[:, 0], band.iloc[:, 1]
    axes.fill_between(band.index, low, high, step="post", color=colour, alpha=0.18, linewidth=0)


def _risk_table(above, axes, times: list[NDArray], names: list[str], colours: Sequence[str], called: str) -> None:
    """Numbers at risk below the curves in `above`: a row for each group's times, at the curves' ticks."""
    longest = max(time.max() for time in times)
    ticks = [tick for tick in above.get_xticks() if 0 <= tick <= longest]
    above.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    above.set_xlim(-0.03 * longest, longest * 1.03)
    axes.set(ylim=(len(times) - 0.4, -0.9), xlabel=called, yticks=range(len(times)))
    axes.set_yticklabels([name if len(name) <= 26 else name[:25] + "…" for name in names])
    axes.tick_params(length=0)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)
    axes.set_title("Numbers at risk", fontsize=8)
    for row, (time, colour) in enumerate(zip(times, colours, strict=True)):
        axes.get_yticklabels()[row].set_color(ink(colour))
        for tick, number in zip(ticks, numbers_at_risk(time, ticks), strict=True):
            axes.text(tick, row, f"{number:,}", ha="center", va="center", fontsize=8)
