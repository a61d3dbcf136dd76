"""Radiographs, boxes, slots, keypoints, crops, and what augmentation does to them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Rectangle
from numpy.typing import NDArray

from fracsurv.cohort.boxes import CHI2_90, LEVELS
from fracsurv.plots.style import COLOURS, GREY, new_figure

NINETY = CHI2_90**0.5
"""Half-axes of a two-dimensional normal's 90 % ellipse, in standard deviations."""
STATES = {"used": COLOURS[2], "too tall": COLOURS[3], "topmost, dropped": COLOURS[1], "empty slot": COLOURS[9]}


def radiograph_with_slots(
    images: Sequence[NDArray],
    boxes: Sequence[NDArray],
    index: Sequence[NDArray],
    max_height: float,
    titles: Sequence[str],
    *,
    scores: Sequence[NDArray] | None = None,
    provenance: str = "",
) -> Figure:
    """Radiographs (h, w) with their boxes (n, 4): used (with slot), too tall, dropped at the top; the empty slots.

    `index` (13,) is each slot's box, −1 = empty (`vertebrae.SlotResult.index`). `scores` (n,) are written beside the
    levels; NaN and 1 (a given box) are not.
    """
    scores = scores if scores is not None else [np.ones(len(box)) for box in boxes]
    figure, panels = _radiographs(images, titles, provenance)
    for axes, image, box, slot, score in zip(panels, images, boxes, index, scores, strict=True):
        _draw_boxes(axes, np.asarray(box, float).reshape(-1, 4), np.asarray(slot), max_height, score)
        axes.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linewidth=1.5) for colour in STATES.values()]
    figure.legend(handles, list(STATES), loc="outside lower left", ncols=4, fontsize=8)
    return figure


def _radiographs(images: Sequence[NDArray], titles: Sequence[str], provenance: str) -> tuple[Figure, NDArray]:
    """A figure of radiographs beside each other, and its panels."""
    width = min(7.6, 2.5 * len(images))
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    figure = new_figure(width, width / len(images) * min(tallest, 2.6) + 0.75, provenance)
    panels = figure.subplots(1, len(images), squeeze=False)[0]
    for axes, image, title in zip(panels, images, titles, strict=True):
        low, high = np.percentile(image, [1, 99.5])
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
        axes.set_axis_off()
        axes.set_title(shortened(title), fontsize=8)
    return figure, panels


def shortened(name: str) -> str:
    """A patient's id as it fits over a picture: both ends of it if it is longer than 20 characters."""
    return name if len(name) <= 20 else f"{name[:10]}…{name[-9:]}"


def _draw_boxes(axes, boxes: NDArray, index: NDArray, max_height: float, score: NDArray) -> None:
    slot_of = {int(box): slot for slot, box in enumerate(index) if box >= 0}
    for number, (_, y_min, x_max, y_max) in enumerate(boxes):
        state = "used" if number in slot_of else "too tall" if y_max - y_min > max_height else "topmost, dropped"
        _draw_box(axes, boxes[number], STATES[state])
        if number in slot_of:
            text = f" {LEVELS[slot_of[number]]}" + (f"  {score[number]:.2f}" if score[number] < 1 else "")
            axes.text(x_max, (y_min + y_max) / 2, text, color="white", fontsize=6, va="center")
    for slot, box in _between(boxes, index).items():
        colour = STATES["empty slot"]
        _draw_box(axes, box, colour, "--")
        axes.text(box[2], (box[1] + box[3]) / 2, f" {LEVELS[slot]}", color=colour, fontsize=6, va="center")


def _draw_box(axes, box: NDArray, colour: str, line: str = "-") -> None:
    size = {"width": box[2] - box[0], "height": box[3] - box[1]}
    axes.add_patch(Rectangle(box[:2], **size, fill=False, edgecolor=colour, linestyle=line, linewidth=1))


def _between(boxes: NDArray, index: NDArray) -> dict[int, NDArray]:
    """Where to draw the empty slots that lie between two filled ones: spaced evenly between these."""
    filled = np.flatnonzero(index >= 0)
    places = {}
    for above, below in pairwise(filled):
        for slot in range(above + 1, below):
            share = (slot - above) / (below - above)
            places[slot] = (1 - share) * boxes[index[above]] + share * boxes[index[below]]
    return places


def crop_montage(crops: NDArray, titles: Sequence[str], *, provenance: str = "") -> Figure:
    """Stacks (patients, 13, H, W) that a network sees: a row a patient, a column a slot, T4 at the left."""
    n, n_slots, height, width = crops.shape
    figure = new_figure(10.5, n * (10.5 - 1.4) / n_slots * height / width + 0.75, provenance)
    panels = figure.subplots(n, n_slots, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.05})
    for row, patient in enumerate(crops):
        inside = patient[patient > 0]
        low, high = np.percentile(inside, [1, 99.5]) if inside.size else (0, 1)
        for column, crop in enumerate(patient):
            axes = panels[row, column]
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if crop.any():
                axes.imshow(crop, cmap="gray", vmin=min(0, low), vmax=high)
            else:
                axes.set_facecolor("#e8e8e8")
                axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
                axes.text(width / 2, height / 2, "empty", ha="center", va="center", fontsize=6.5, color=GREY)
            if row == 0:
                axes.set_title(LEVELS[column], fontsize=8, loc="center")
        panels[row, 0].set_ylabel(shortened(titles[row]), rotation=0, ha="right", va="center", fontsize=8)
    return figure


def augmentation_samples(
    original: NDArray, augmented: Sequence[NDArray], name: str, *, provenance: str = ""
) -> Figure:
    """One image as it is and as training sees it, drawn anew each time; all on one grey scale, 0 to 1.

    `original` and each of `augmented` are (h, w).
    """
    pictures = [original, *augmented]
    ratio = original.shape[0] / original.shape[1]
    width = 7.6
    figure = new_figure(width, width / len(pictures) * ratio + 0.6, provenance)
    for i, (axes, picture) in enumerate(zip(figure.subplots(1, len(pictures)), pictures, strict=True)):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=max(1e-6, float(np.percentile(original, 99.8))))
        axes.set_title(f"{name}, as it is" if i == 0 else f"draw {i}", fontsize=8, loc="center")
        axes.set_axis_off()
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
    styles = {"before": (COLOURS[1], "--"), "corrected": (COLOURS[2], "-")}
    figure, panels = _radiographs(images, titles, provenance)
    for axes, old, new in zip(panels, before, after, strict=True):
        for boxes, (colour, line) in zip((old, new), styles.values(), strict=True):
            for box in np.asarray(boxes, float).reshape(-1, 4):
                _draw_box(axes, box, colour, line)
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

    In pixels of the image (h, w): `boxes` (n, 4); `points`, `scales` and `truth` (n, 6, 2), NaN points are left out.
    Where most ellipses would be smaller than a 25th of a vertebra, all are drawn five times as large, and the legend
    says so.
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
    label = "found, with its 90 % ellipse" + (f", drawn {larger} times as large" if larger > 1 else "")
    handles = [Line2D([], [], color=COLOURS[1], marker="o", markersize=3, label=label)]
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
