"""Calibration, decision curves and thirds of risk: what a run's report and a validation share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fracsurv import metrics, plots
from fracsurv.study.time_dependent import risk_tertiles
from fracsurv.utils.formatting import NOT_KNOWN, bracketed, format_p, number

THIRDS = {0: "lowest third of risk", 1: "middle third", 2: "highest third"}
N_THRESHOLDS = 60


def panel(
    event: NDArray, time: NDArray, probability: NDArray, horizon: float, bounds: tuple[float, float]
) -> tuple[plots.CalibrationPanel, str, str]:
    """Predicted against observed risk by `horizon`, and its words.

    Parameters
    ----------
    event, time, probability : arrays, shape (n,)
        As `metrics.calibration` takes them.
    bounds : (float, float)
        The slope's 95 % interval; NaN where there is none.

    Returns
    -------
    panel : CalibrationPanel
    slope : str
        '0.93 [0.71, 1.15]', or that it is not known, and why.
    gap : str
        The ICI in percentage points, '2.1', or that it is not known.
    """
    made = metrics.calibration(event, time, probability, horizon)
    smooth = metrics.smooth_calibration(event, time, probability, horizon)
    slope, gap = bracketed(made.slope, *bounds), number(100 * smooth.ici, ".1f")
    percent = " %" if np.isfinite(smooth.ici) else ""
    words = f"slope {slope}\nintercept {number(made.intercept, '.2f')}\nICI {gap}{percent}"
    why = "" if np.isfinite(made.slope) else f" ({no_slope(event, time, probability, horizon)})"
    return plots.CalibrationPanel(made, smooth.predicted, smooth.observed, words), slope + why, gap


def no_slope(event: NDArray, time: NDArray, probability: NDArray, horizon: float) -> str:
    """Why no slope can be fitted."""
    if np.ptp(probability) == 0:
        return "all are given the same risk"
    had = (event == 1) & (time <= horizon)
    if not had.any():
        return "nobody has had the event by then"
    if not (((event > 0) | (time >= horizon)) & ~had).any():
        return "nobody is known to be without the event by then"
    return "the predictions part those with the event from those without, too few to fit one"


def ratio_words(ratio: metrics.Estimate, n_events: int) -> str:
    """Observed over expected events over all follow-up, '1.02 [0.91, 1.14]', or what is not known of it, and why.

    Parameters
    ----------
    n_events : int
        Observed within the follow-up for which any were expected.
    """
    if np.isnan(ratio.value):
        return f"{NOT_KNOWN} (no event was expected)"
    return bracketed(*ratio) + (
        "" if n_events else " (nobody has had the event within the models' training follow-up)"
    )


def net_benefit_figure(
    event: NDArray,
    time: NDArray,
    probability: Mapping[str, NDArray],
    day: float,
    labels: Mapping[str, str],
    **words,
) -> tuple[Figure, float]:
    """Net benefit over thresholds up to the models' 99th percentile of risk, and the lowest value of any curve.

    Parameters
    ----------
    probability : mapping of str to array, shape (n,)
        Model to its predicted risks by `day`, a horizon.
    words
        `outcome`, `horizon` and `provenance` of `plots.decision_curve`.
    """
    top = min(0.99, max(float(np.quantile(each, 0.99)) for each in probability.values()))
    thresholds = np.linspace(0.01, max(0.02, top), N_THRESHOLDS)
    given = {**probability, "everyone": np.ones(len(time))}
    curves = {name: metrics.net_benefit(event, time, each, day, thresholds) for name, each in given.items()}
    lowest = min(float(np.nanmin(each)) for each in curves.values())
    return plots.decision_curve(thresholds, curves, curves.pop("everyone"), labels, **words), lowest


def thirds_figure(event: NDArray, time: NDArray, rank: NDArray, **words) -> tuple[Figure, NDArray, str]:
    """Kaplan–Meier by third of `rank` (n,), each patient's third (0, lowest risk, to 2), and the log-rank p."""
    third = risk_tertiles(rank)
    p = format_p(plots.log_rank_p(event == 1, time, third))
    return plots.kaplan_meier(event, time, third, THIRDS, **words), third, p
