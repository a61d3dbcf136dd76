"""One style for all figures: colours, fonts, the provenance stamp, labels that do not overlap."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fracsurv.utils.formatting import DAYS_A_YEAR

COLOURS = tuple(sns.color_palette("colorblind").as_hex())
"""Wong's palette, told apart by people with any of the common colour deficiencies."""
GREY = "#6b6b6b"
STAMP_INCHES = 0.24
CHARACTER = 0.56
"""Mean width of DejaVu's characters in running English, as a share of the font's size."""


def set_style() -> None:
    """Set the one style of all figures, for this process: DejaVu (comes with matplotlib), no top or right spine."""
    mpl.rcdefaults()  # a matplotlibrc of the user's has no say
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


def percent(*sides: Axis, decimals: int | None = None) -> None:
    """Show shares from 0 to 1 in percent, without the sign, on these sides of a panel."""
    for side in sides:
        side.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol=""))


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Give a panel a row for each name, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


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
