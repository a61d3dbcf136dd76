"""Expected against observed risk over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from lifelines import KaplanMeierFitter
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from fracsurv.plots.style import COLOURS, new_figure, time_axis


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

    Parameters
    ----------
    event, time : arrays, shape (n,)
        Bool, True = event; times in `time_unit`, > 0.
    times : array, shape (n_times,)
        Increasing; where `expected` is known.
    expected : mapping of str to array, shape (n_times,)
        Each model's mean probability of the event by then.
    labels : mapping
        Model to its name.
    """
    figure = new_figure(7.6, 3.9, provenance)
    axes = figure.subplots()
    divisor, called = time_axis(time_unit)
    fitted = KaplanMeierFitter().fit(np.asarray(time, float) / divisor, event)
    observed, band = 1 - fitted.survival_function_.iloc[:, 0], 1 - fitted.confidence_interval_
    end = float(times[-1]) / divisor
    axes.step(observed.index, observed, where="post", color="#000000", label="observed, Kaplan–Meier, 95 % band")
    axes.fill_between(
        band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color="#000000", alpha=0.14, linewidth=0
    )
    top = float(np.nanmax(band.to_numpy()[band.index <= end], initial=0.02))
    for (name, curve), colour in zip(expected.items(), COLOURS * len(expected), strict=False):
        axes.plot(np.asarray(times) / divisor, curve, color=colour, label=labels[name])
        top = max(top, float(np.max(curve)))
    axes.set(xlim=(0, end), ylim=(0, min(1.0, 1.06 * top)), xlabel=called, ylabel=f"With {outcome}, %")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes.legend(loc="upper left")
    return figure
