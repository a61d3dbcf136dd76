"""A report's tables as files: CSV to compute with, LaTeX to set in a paper."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from fracsurv.files import atomic_path, write_text

SYMBOLS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$",
    "α": r"$\alpha$", "✓": r"$\checkmark$", "–": "--",
    "“": "``", "”": "''", "’": "'", "²": "$^2$", "×": r"$\times$", "≤": r"$\leq$",
}  # fmt: skip


FORMULA = ("=", "+", "-", "@", "\t", "\r")
NUMBERS = re.compile(r"[-+]?\d+(\.\d+)?( \[[-+−]?[\d.]+,? ?(to )?[-+−]?[\d.]+\])?( p [=<] [\d.]+)?")
"""A number, with an interval and p behind it if need be: nothing that a spreadsheet would compute."""


def write_table(frame: pd.DataFrame, caption: str, stem: Path) -> None:
    """Write a table of `fracsurv.tables` as STEM.csv and STEM.tex; a cell's lines stay one cell.

    Parameters
    ----------
    frame : DataFrame
        Text; columns are pairs (group, name).
    """
    flat = frame.copy()
    flat.columns = [_spreadsheet(": ".join(part for part in column if part)) for column in frame.columns]
    with atomic_path(stem.with_suffix(".csv")) as temporary:
        flat.map(lambda cell: _spreadsheet(str(cell).replace("\n", " "))).to_csv(temporary, index=False)
    write_text(stem.with_suffix(".tex"), to_latex(frame, caption))


def _spreadsheet(cell: str) -> str:
    """No cell that a spreadsheet would take for a formula: text from a cohort may stand in one."""
    return f"'{cell}" if cell.startswith(FORMULA) and not NUMBERS.fullmatch(cell) else cell


def to_latex(frame: pd.DataFrame, caption: str) -> str:
    """A `table` environment (needs booktabs and amssymb), a second header row where column groups have names."""
    groups = [group for group, _ in frame.columns]
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    lines = [r"\begin{table}", rf"\caption{{{_escaped(caption)}}}", rf"\begin{{tabular}}{{{'l' * len(groups)}}}"]
    lines.append(r"\toprule")
    if any(groups):
        spans = zip(starts, [*starts[1:], len(groups)], strict=True)
        cells = [rf"\multicolumn{{{end - start}}}{{l}}{{{_escaped(groups[start])}}}" for start, end in spans]
        lines.append(" & ".join(cells) + r" \\")
    lines.append(" & ".join(_escaped(name) for _, name in frame.columns) + r" \\")
    lines.append(r"\midrule")
    lines += [
        " & ".join(_cell(str(cell)) for cell in row) + r" \\" for row in frame.itertuples(index=False, name=None)
    ]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    lines = [_escaped(line) for line in text.split("\n")]
    # {}: what follows the end of a line in brackets would be taken for how far to skip
    return lines[0] if len(lines) == 1 else r"\shortstack[l]{" + r" \\{} ".join(lines) + "}"


def _escaped(text: str) -> str:
    return "".join(SYMBOLS.get(character, character) for character in text)
