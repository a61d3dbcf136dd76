"""What the vertebra finder saw: boxes a patient, corrections, keypoints with ellipses, grades against the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Rectangle
from numpy.typing import NDArray

from fracsurv.cohort.boxes import CHI2_90, N_SLOTS
from fracsurv.plots.images import shortened
from fracsurv.plots.style import COLOURS, GREY, new_figure

NINETY = CHI2_90**0.5
"""Half-axes of a two-dimensional normal's 90 % ellipse, in standard deviations."""
BEFORE, AFTER = COLOURS[1], COLOURS[2]


def boxes_per_patient(counts: NDArray, *, provenance: str = "") -> Figure:
    """How many patients have how many boxes, with the 13 that a network sees marked."""
    figure = new_figure(6.2, 2.7, provenance)
    axes = figure.subplots()
    values, patients = np.unique(counts, return_counts=True)
    axes.bar(values, patients, color=[COLOURS[2] if v == N_SLOTS else COLOURS[0] for v in values], width=0.8)
    for value, n in zip(values, patients, strict=True):
        axes.text(value, n, f"{n:,}", ha="center", va="bottom", fontsize=7, color=GREY)
    axes.set(xlabel=f"Boxes in a radiograph ({N_SLOTS}, T4 to L4: green)", ylabel="Patients")
    axes.set(xticks=np.arange(min(values.min(), N_SLOTS) - 1, max(values.max(), N_SLOTS) + 2), ylim=(0, None))
    axes.margins(y=0.12)
    return figure


def corrections(
    images: Sequence[NDArray],
    before: Sequence[NDArray],
    after: Sequence[NDArray],
    titles: Sequence[str],
    *,
    provenance: str = "",
) -> Figure:
    """Radiographs (h, w) with their boxes (n, 4) as they were, and as they were corrected by hand."""
    width = min(7.6, 2.5 * len(images))
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    figure = new_figure(width, width / len(images) * min(tallest, 2.6) + 0.75, provenance)
    styles = {"before": (BEFORE, "--"), "corrected": (AFTER, "-")}
    panels = figure.subplots(1, len(images), squeeze=False)[0]
    for axes, image, old, new, title in zip(panels, images, before, after, titles, strict=True):
        low, high = np.percentile(image, [1, 99.5])
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
        axes.set_axis_off()
        axes.set_title(shortened(title), fontsize=8)
        for boxes, (colour, line) in zip((old, new), styles.values(), strict=True):
            for x_min, y_min, x_max, y_max in np.asarray(boxes, float).reshape(-1, 4):
                place = (x_min, y_min), x_max - x_min, y_max - y_min
                axes.add_patch(Rectangle(*place, fill=False, edgecolor=colour, linestyle=line, linewidth=1))
    handles = [Line2D([], [], color=colour, linestyle=line) for colour, line in styles.values()]
    figure.legend(handles, list(styles), loc="outside lower left", ncols=2, fontsize=8)
    return figure


def keypoints(
    image: NDArray,
    boxes: NDArray,
    points: NDArray,
    scales: NDArray,
    titles: Sequence[str],
    *,
    truth: NDArray | None = None,
    provenance: str = "",
) -> Figure:
    """A patient's vertebrae with six keypoints each, their 90 % ellipses and, where known, the true points.

    Parameters
    ----------
    image : array (h, w)
    boxes : array (n, 4)
    points, scales, truth : arrays (n, 6, 2)
        In the image's pixels; NaN points are left out. Where most ellipses would be smaller than a 25th of a
        vertebra, all are drawn five times as large, and the legend says so.
    titles : sequence of n str
    """
    columns = min(5, len(boxes))
    rows = -(-len(boxes) // columns)
    figure = new_figure(7.6, 1.35 * rows + 0.8, provenance)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    low, high = np.percentile(image, [1, 99.8])
    side = np.median(boxes[:, 3] - boxes[:, 1])
    larger = 5 if NINETY * np.nanmedian(scales) < side / 25 else 1
    for axes in panels:
        axes.set_axis_off()
    for number, (axes, box, title) in enumerate(zip(panels[: len(boxes)], boxes, titles, strict=True)):
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
        border = 0.12 * (box[2:] - box[:2])
        axes.set(xlim=(box[0] - border[0], box[2] + border[0]), ylim=(box[3] + border[1], box[1] - border[1]))
        axes.set_title(title, fontsize=8)
        for (x, y), (sx, sy) in zip(points[number], scales[number], strict=True):
            # pixel i covers i to i + 1, and matplotlib draws its centre at i
            axes.add_patch(
                Ellipse(
                    (x - 0.5, y - 0.5), 2 * larger * NINETY * sx, 2 * larger * NINETY * sy,
                    fill=False, edgecolor=COLOURS[1],
                )
            )  # fmt: skip
            axes.plot(x - 0.5, y - 0.5, ".", color=COLOURS[1], markersize=3)
        if truth is not None:
            axes.plot(*(truth[number].T - 0.5), "+", color=COLOURS[9], markersize=5, markeredgewidth=0.8)
    said = "found, with its 90 % ellipse" + (f", drawn {larger} times as large" if larger > 1 else "")
    handles = [Line2D([], [], color=COLOURS[1], marker="o", markersize=3, label=said)]
    if truth is not None:
        handles.append(Line2D([], [], color=COLOURS[9], marker="+", linestyle="", label="true (simulator)"))
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=8)
    return figure


def grade_matrix(true: NDArray, found: NDArray, *, provenance: str = "") -> Figure:
    """Vertebrae by true (rows) and found (columns) Genant grade, both ints 0 to 3; −1 found = vertebra not found."""
    counts = np.zeros((4, 5), int)
    np.add.at(counts, (true, np.where(found < 0, 4, found)), 1)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = new_figure(4.6, 3.1, provenance)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for (row, column), n in np.ndenumerate(counts):
        text = f"{n:,}\n{100 * share[row, column]:.0f} %"
        dark = share[row, column] > 0.7
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_xticks(range(5), ["0", "1", "2", "3", "not found"])
    axes.set_yticks(range(4), [f"{grade} (n = {n:,})" for grade, n in enumerate(counts.sum(axis=1))])
    axes.set(xlabel="Grade found", ylabel="True grade")
    axes.tick_params(length=0)
    return figure
