"""A report's tables as HTML, and as files: CSV to compute with, LaTeX to set in a paper."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from itertools import accumulate, groupby
from pathlib import Path

import pandas as pd

from fracsurv.utils.files import atomic_path, write_text

SYMBOLS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$",
    "α": r"$\alpha$", "✓": r"$\checkmark$", "–": "--",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "…": r"\dots{}", "→": r"$\to$",
    "·": r"$\cdot$",
    "“": "``", "”": "''", "’": "'", "²": "$^2$", "×": r"$\times$", "≤": r"$\leq$",
}  # fmt: skip

FORMULA = ("=", "+", "-", "@", "\t", "\r")
LONGEST_NUMBER = 40
"""Characters; a longer line in a cell is words, which may be broken."""
LINE = 95
"""Characters that fit beside one another in a paper."""
_NEXT_LINE = r" \\{} "
"""{}: what follows the end of a line in brackets would be taken for how far to skip."""
NUMBERS = re.compile(r"[-+]?\d+(\.\d+)?( \[[-+−]?[\d.]+,? ?(to )?[-+−]?[\d.]+\])?( p [=<] [\d.]+)?")
"""A number, with an interval and p behind it if need be: nothing that a spreadsheet would compute."""


def to_html(frame: pd.DataFrame, caption: str, *, css_class: str = "fs") -> str:
    """A plain HTML table: escaped, two header rows where the column groups have names, intervals in small type."""
    groups = _groups(frame)
    starts = list(accumulate((width for _, width in groups), initial=0))
    lines = [f'<table class="{css_class}">', f"<caption>{html.escape(caption)}</caption>", "<thead>"]
    if any(name for name, _ in groups):
        lines.append("<tr>")
        lines += [f'<th colspan="{n}" scope="colgroup">{html.escape(name)}</th>' for name, n in groups]
        lines.append("</tr>")
    lines.append("<tr>" + "".join(f'<th scope="col">{html.escape(name)}</th>' for _, name in frame.columns) + "</tr>")
    lines.append("</thead><tbody>")
    for row in frame.itertuples(index=False, name=None):
        cells = [f'<th scope="row">{_lines(row[0])}</th>']
        cells += [f"<td{_classes(i in starts, str(row[i]))}>{_lines(row[i])}</td>" for i in range(1, len(row))]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    lines.append("</tbody></table>")
    return "\n".join(lines)


def _groups(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Groups of columns that stand beside one another: their names, and how many columns each has."""
    return [(name, len(list(columns))) for name, columns in groupby(group for group, _ in frame.columns)]


def _classes(starts_group: bool, cell: str) -> str:
    """A line of this length is words, which may be broken; numbers may not."""
    prose = _longest([cell]) > LONGEST_NUMBER
    classes = ["start"] * starts_group + ["words"] * prose
    return f' class="{" ".join(classes)}"' if classes else ""


def _lines(cell: object) -> str:
    first, *rest = html.escape(str(cell)).split("\n")
    return first + "".join(f"<br><small>{line}</small>" for line in rest)


def write_table(frame: pd.DataFrame, caption: str, stem: Path) -> list[Path]:
    """Write a table as STEM.csv and STEM.tex, and return both; a cell's lines stay one cell.

    Parameters
    ----------
    frame : DataFrame
        Text; columns are pairs (group, name).
    """
    flat = frame.copy()
    flat.columns = [_spreadsheet(": ".join(part for part in column if part)) for column in frame.columns]
    files = [stem.with_suffix(".csv"), stem.with_suffix(".tex")]
    with atomic_path(files[0]) as temporary:
        flat.map(lambda cell: _spreadsheet(str(cell).replace("\n", " "))).to_csv(temporary, index=False)
    write_text(files[1], to_latex(frame, caption))
    return files


def _spreadsheet(cell: str) -> str:
    """No cell that a spreadsheet would take for a formula: text from a cohort may stand in one."""
    return f"'{cell}" if cell.startswith(FORMULA) and not NUMBERS.fullmatch(cell) else cell


def to_latex(frame: pd.DataFrame, caption: str) -> str:
    """A table, with a second header row where column groups have names; no wider than the text.

    Needs booktabs, amssymb, graphicx and longtable: numbers that are too wide are set smaller, words are broken, over
    pages if need be.
    """
    longest = [_longest([name, *frame.iloc[:, k]]) for k, (_, name) in enumerate(frame.columns)]
    if max(longest) > LONGEST_NUMBER:
        return _long_table(frame, caption, longest)
    rows = [*_head(frame), *_body(frame, lambda lines: rf"\shortstack[l]{{{_NEXT_LINE.join(lines)}}}")]
    tabular = [rf"\begin{{tabular}}{{{'l' * len(longest)}}}", *rows, r"\bottomrule", r"\end{tabular}"]
    if sum(longest) + 2 * len(longest) > LINE:
        tabular = [r"\resizebox{\linewidth}{!}{%", *tabular, "}"]
    return "\n".join([r"\begin{table}", rf"\caption{{{_escaped(caption)}}}", *tabular, r"\end{table}"]) + "\n"


def _long_table(frame: pd.DataFrame, caption: str, longest: list[int]) -> str:
    """Columns of numbers as wide as they are, the rest of the line shared among the columns of words."""
    wide = [min(n, 3 * LONGEST_NUMBER) + 5 for n in longest]
    widths = [0.92 * n / max(sum(wide), LINE) for n in wide]
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{width:.3f}\linewidth}}" for width in widths)
    lines = [r"{\footnotesize\setlength{\tabcolsep}{2pt}", rf"\begin{{longtable}}{{{columns}}}"]
    lines += [rf"\caption{{{_escaped(caption)}}}\\", *_head(frame), r"\endhead", r"\bottomrule", r"\endlastfoot"]
    return "\n".join([*lines, *_body(frame, r"\newline ".join), r"\end{longtable}", "}"]) + "\n"


def _head(frame: pd.DataFrame) -> list[str]:
    groups = _groups(frame)
    lines = [r"\toprule"]
    if any(name for name, _ in groups):
        cells = [rf"\multicolumn{{{n}}}{{l}}{{{_escaped(name)}}}" for name, n in groups]
        lines.append(" & ".join(cells) + r" \\")
    return [*lines, " & ".join(_escaped(name) for _, name in frame.columns) + r" \\", r"\midrule"]


def _body(frame: pd.DataFrame, joined: Callable[[list[str]], str]) -> list[str]:
    rows = ([_escaped(str(cell)).split("\n") for cell in row] for row in frame.itertuples(index=False, name=None))
    return [" & ".join(joined(lines) if len(lines) > 1 else lines[0] for lines in row) + r" \\" for row in rows]


def _longest(cells: Iterable[object]) -> int:
    return max(len(line) for cell in cells for line in str(cell).split("\n"))


def _escaped(text: str) -> str:
    return "".join(SYMBOLS.get(character, character) for character in text)
