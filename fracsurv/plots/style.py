"""One style for all figures: colours, fonts, the provenance stamp, labels that do not overlap."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fracsurv.utils.formatting import DAYS_A_YEAR

COLOURS = tuple(sns.color_palette("colorblind").as_hex())
"""Wong's palette, told apart by people with any of the common colour deficiencies."""
GREY = "#6b6b6b"
STAMP_INCHES = 0.24
CHARACTER = 0.56
"""Mean width of DejaVu's characters in running English, as a share of the font's size."""
LINE = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
"""From a label to its point."""


def ink(colour: str) -> str:
    """A colour as dark as small print on white must be: a contrast ratio of 4.5 (WCAG)."""
    share = np.array(to_rgb(colour))
    while 1.05 / (_luminance(share) + 0.05) < 4.5:
        share = share * 0.97
    return to_hex(share)


def _luminance(share: np.ndarray) -> float:
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def set_style() -> None:
    """Set the one style of all figures, for this process: DejaVu (comes with matplotlib), no top or right spine."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.labelsize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            "lines.linewidth": 1.6,
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "text.parse_math": False,  # a cohort may have a dollar sign in its labels
            "svg.fonttype": "path",
            "svg.hashsalt": "fracsurv",  # the same figure gives the same file
        },
    )
    mpl.set_loglevel("warning")


def new_figure(width: float, height: float, provenance: str) -> Figure:
    """An empty figure in inches with the provenance at its upper right, kept clear of the axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    band = STAMP_INCHES / height
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - band), w_pad=0.06, h_pad=0.05)
    if provenance:
        figure.text(1 - 0.08 / width, 1 - 0.06 / height, provenance, ha="right", va="top", fontsize=7, color=GREY)
    return figure


def broken(text: str, width: float, size: float = 9) -> str:
    """Text broken into lines that fit into a width in inches at a font size in points."""
    return textwrap.fill(text, max(12, int(width / (CHARACTER * size / 72))), break_on_hyphens=False)


def time_axis(unit: str) -> tuple[float, str]:
    """By what to divide times for an axis, and what the axis is called: days are drawn as years."""
    divisor, name = (DAYS_A_YEAR, "years") if unit == "days" else (1.0, unit)
    return divisor, f"Time since start of follow-up, {name}"


def spread(wanted: Sequence[float], gap: float) -> np.ndarray:
    """Positions as near to `wanted` as may be, in the same order, at least `gap` apart."""
    wanted = np.asarray(wanted, float)
    order = np.argsort(wanted, kind="stable")
    # Pool adjacent violators: what remains after taking the gaps away must not decrease.
    values = wanted[order] - gap * np.arange(len(wanted))
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2], blocks.pop()
            blocks[-1] = [(a * n + b * m) / (n + m), n + m]
    level = np.concatenate([[value] * int(n) for value, n in blocks]) if blocks else np.empty(0)
    placed = np.empty(len(wanted))
    placed[order] = level + gap * np.arange(len(wanted))
    return placed


def percent(*sides: Axis, decimals: int | None = None) -> None:
    """Show shares from 0 to 1 in percent, without the sign, on these sides of a panel."""
    for side in sides:
        side.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol=""))


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Give a panel a row for each name, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def label_ends(
    axes: Axes, x: Sequence[float], y: Sequence[float], texts: Sequence[str], colours: Sequence[str], *, gap: float
) -> None:
    """Write labels right of the axes, each joined to its point by a thin line, `gap` of the axes' height apart."""
    low, high = axes.get_ylim()
    shares = (np.asarray(y, float) - low) / (high - low)
    placed = spread(shares, gap)
    # Kept within the axes' height where they fit there.
    placed = placed - max(0.0, placed.max() - 1) if len(placed) else placed
    placed = placed + max(0.0, -placed.min()) if len(placed) else placed
    for x_end, y_end, share, text, colour in zip(x, y, placed, texts, colours, strict=True):
        axes.annotate(
            text, xy=(x_end, y_end), xytext=(1.04, share), textcoords="axes fraction", va="center", fontsize=8,
            color=ink(colour), annotation_clip=False, arrowprops=LINE | {"color": colour},
        )  # fmt: skip


def as_png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG."""
    return _saved(figure, "png", dpi=dpi, metadata={"Software": None})


def as_svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure; pictures in it have 150 dots an inch."""
    return _saved(figure, "svg", dpi=150, metadata={"Date": None})


def _saved(figure: Figure, kind: str, **options) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
