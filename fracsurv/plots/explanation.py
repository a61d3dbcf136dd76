"""What moves a model's risk: vertebrae, places in the picture, clinical factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fracsurv.plots.style import COLOURS, GREY, broken, name_rows, new_figure


def contributions(
    values: Sequence[NDArray], levels: Sequence[str], titles: Sequence[str], *, provenance: str = ""
) -> Figure:
    """How far each vertebra moves the log hazard: median and middle half of the patients, a panel a model.

    `values` holds each model's contributions (n, 13), NaN where a slot is empty.
    """
    width = max(3.9, 1.2 + 2.5 * len(titles))
    figure = new_figure(width, 4.0, provenance)
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    rows = np.arange(len(levels))
    for axes, each, title in zip(panels, values, titles, strict=True):
        low, middle, high = np.nanpercentile(each, [25, 50, 75], axis=0)
        axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
        axes.hlines(rows, low, high, color=COLOURS[0], linewidth=1.6)
        axes.plot(middle, rows, "o", color=COLOURS[0], markersize=4)
        name_rows(axes, levels)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.set_title(title, fontsize=9)
    words = "Log hazard with the vertebra less that without it: median and middle half of the patients"
    figure.supxlabel(broken(words, width - 0.3), fontsize=9)
    return figure


def heat_maps(
    pictures: Sequence[NDArray], maps: Sequence[NDArray], titles: Sequence[str], *, provenance: str = ""
) -> Figure:
    """Maps (h, w) over the pictures (h, w) that they belong to, all on one scale: 1 = the mean place."""
    figure = new_figure(1.0 + 2.4 * len(maps), 3.6, provenance)
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    top = max(2.0, max(float(np.percentile(each, 99)) for each in maps))
    drawn = None
    for axes, picture, each, title in zip(panels, pictures, maps, titles, strict=True):
        axes.imshow(picture, cmap="gray", interpolation="bilinear")
        drawn = axes.imshow(each, cmap="inferno", vmin=0, vmax=top, alpha=0.55, interpolation="bilinear")
        axes.set_axis_off()
        axes.set_title(title, fontsize=8)
    figure.colorbar(drawn, ax=list(panels), label="against the mean place", shrink=0.8)
    return figure
