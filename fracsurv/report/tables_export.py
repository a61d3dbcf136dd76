"""A report's tables as HTML, CSV and LaTeX, the first and the last by pandas' Styler."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from fracsurv.utils.files import atomic_path, write_text
from fracsurv.utils.formatting import MISSING, number

LONGEST_NUMBER = 40
"""Characters; a longer line in a cell is words, which may be broken."""
LINE = 95
"""Characters that fit beside one another in a paper."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
NUMBERS = re.compile(r"[-+]?\d+(\.\d+)?( \[[-+−]?[\d.]+,? ?(to )?[-+−]?[\d.]+\])?( p [=<] [\d.]+)?")
"""A number, with an interval and p behind it if need be: nothing that a spreadsheet would compute."""
SYMBOLS = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$",
    "α": r"$\alpha$", "✓": r"$\checkmark$", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "…": r"\dots{}", "→": r"$\to$", "·": r"$\cdot$", "“": "``", "”": "''", "’": "'",
    "²": "$^2$", "×": r"$\times$", "≤": r"$\leq$",
})  # fmt: skip


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of numbers and text as a table of text whose first column heads the rows.

    Counts get commas, other numbers three decimals (none from 1,000 on), missing values a dash. An index with a name
    becomes the first column. Columns are pairs (group, name), or names.
    """
    if frame.index.name is not None:
        frame = frame.reset_index(col_level=-1)
    shown = frame.apply(lambda column: column.map(_cell_text))
    if shown.columns.nlevels == 1:
        shown.columns = pd.MultiIndex.from_product([[""], shown.columns.astype(str)])
    return shown


def _cell_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return number(int(value), ",d")
    return number(float(value), ",.0f" if abs(value) >= 1000 else ".3f")


def to_html(frame: pd.DataFrame, caption: str) -> str:
    """A table of the class `fs`: escaped, a row of group names where there are any, further lines in small type.

    Parameters
    ----------
    frame : DataFrame
        Text; columns are pairs (group, name). The first column heads the rows.
    """
    styler = _styler(frame, _html_cell)
    starts = ["start" * (before != group) for before, group in pairwise(frame.columns.get_level_values(0))]
    classes = styler.data.map(lambda cell: " words" * (_longest([cell]) > LONGEST_NUMBER))
    styler.set_td_classes(starts + classes).set_caption(html.escape(caption)).set_uuid("")
    text = styler.to_html(table_attributes='class="fs"').replace(' id="T_"', "")
    return text[text.index("<table") :]  # without the empty style sheet before it


def to_latex(frame: pd.DataFrame, caption: str) -> str:
    """A table no wider than the text; a row of group names where there are any.

    Needs booktabs, amssymb, graphicx and longtable: numbers that are too wide are set smaller, words are broken, over
    pages if need be.
    """
    longest = [_longest([name, *frame.iloc[:, k]]) for k, (_, name) in enumerate(frame.columns)]
    title = caption.translate(SYMBOLS)
    if max(longest) > LONGEST_NUMBER:
        wide = [min(n, 3 * LONGEST_NUMBER) + 5 for n in longest]
        widths = [0.92 * n / max(sum(wide), LINE) for n in wide]
        columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{width:.3f}\linewidth}}" for width in widths)
        styler = _styler(frame, lambda text: text.translate(SYMBOLS).replace("\n", r"\newline "))
        made = styler.to_latex(
            environment="longtable", column_format=columns, hrules=True, multicol_align="l", caption=title
        )
        return f"{{\\footnotesize\\setlength{{\\tabcolsep}}{{2pt}}\n{made}}}\n"
    made = _styler(frame, _stacked).to_latex(column_format="l" * len(longest), hrules=True, multicol_align="l")
    if sum(longest) + 2 * len(longest) > LINE:
        made = f"\\resizebox{{\\linewidth}}{{!}}{{%\n{made}}}\n"
    return f"\\begin{{table}}\n\\caption{{{title}}}\n{made}\\end{{table}}\n"


def _html_cell(text: str) -> str:
    first, *rest = html.escape(text).split("\n")
    return first + "".join(f"<br><small>{line}</small>" for line in rest)


def _stacked(text: str) -> str:
    """A LaTeX cell of several lines; {}: else a bracket after the end of a line would be taken for a length."""
    lines = text.translate(SYMBOLS)
    return rf"\shortstack[l]{{{lines}}}".replace("\n", r" \\{} ") if "\n" in lines else lines


def _styler(frame: pd.DataFrame, cell: Callable[[str], str]) -> Styler:
    """A table whose rows are headed by its first column; `cell` escapes a text and joins its lines."""
    frame, groups, corner = frame.astype(str), frame.columns.get_level_values(0), frame.columns[0][1]
    shown = frame.iloc[:, 1:].copy()
    # the hidden number of the row keeps heads that occur twice apart
    shown.index = pd.MultiIndex.from_arrays([range(len(frame)), frame.iloc[:, 0]])
    if any(groups):
        shown.columns = pd.MultiIndex.from_tuples(list(frame.columns[1:]), names=["", cell(corner)])
    else:
        shown.columns = pd.Index([name for _, name in frame.columns[1:]], name=cell(corner))
    styler = Styler(shown, cell_ids=False, formatter=cell).hide(level=0).hide(names=True)
    styler.format_index(cell, level=1)
    for level in range(shown.columns.nlevels):
        styler.format_index(cell, axis="columns", level=level)
    return styler


def write_table(frame: pd.DataFrame, text: pd.DataFrame, caption: str, stem: Path) -> list[Path]:
    """Write a table's values as STEM.csv and its text as STEM.tex, and return both; a cell's lines stay one cell."""
    flat = frame.reset_index() if frame.index.name is not None else frame.copy()
    pairs = flat.columns if flat.columns.nlevels > 1 else [(str(name),) for name in flat.columns]
    flat.columns = [_spreadsheet(": ".join(str(part) for part in pair if part)) for pair in pairs]
    files = [stem.with_suffix(".csv"), stem.with_suffix(".tex")]
    with atomic_path(files[0]) as temporary:
        flat.map(_csv_cell).to_csv(temporary, index=False)
    write_text(files[1], to_latex(text, caption))
    return files


def _csv_cell(value: object) -> object:
    return _spreadsheet(value.replace("\n", " ")) if isinstance(value, str) else value


def _spreadsheet(cell: str) -> str:
    """No cell that a spreadsheet would take for a formula: text from a cohort may stand in one."""
    return f"'{cell}" if cell.startswith(FORMULA) and not NUMBERS.fullmatch(cell) else cell


def _longest(cells: Iterable[object]) -> int:
    return max(len(line) for cell in cells for line in str(cell).split("\n"))
