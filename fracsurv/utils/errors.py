"""A user's mistake: what is wrong, all of it at once, without a traceback."""

from __future__ import annotations

import difflib
import errno
import re
import reprlib
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fracsurv.utils.environment import isolation, print_anything, use_utf8

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""The system's numbers for a full disk, for all or for this user."""
MOST_SPANS = 40
LONGEST_SHOWN = 60
"""Characters of a user's value that a message quotes."""
MOST_LIKE = 3
"""Faults of one kind that are printed each by itself; more become one line."""
SLIP = 0.85
"""Likeness (difflib's ratio) of two names from which one is the other but for its writing, or a letter."""
_QUOTED = r"(?<!\w)'(?:[^'\\]|\\.)*'|\"[^\"]*\""
_VALUE = re.compile(rf"{_QUOTED}|\d[\d.,]*")
_WORD = re.compile(rf"(?:{_QUOTED})\S*|\S+")
_FILE = re.compile(r".*\.(png|jpe?g|tiff?|dcm|txt)( line \d+)?", re.IGNORECASE)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 2 * LONGEST_SHOWN


def shorten(value: object) -> str:
    """A value as a message quotes it: its `repr`, cut after `LONGEST_SHOWN` characters."""
    text = _SHORT.repr(value)  # a YAML file of a few lines can stand for a text that no memory holds
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def format_rows(rows: Sequence[int], most: int = MOST_SPANS) -> str:
    """Rows of a table as a spreadsheet numbers them, ascending, in words: 'row 4', 'rows 2 to 9, 12'.

    At most so many stretches of rows are named; the rows beyond are counted.
    """
    spans: list[list[int]] = []
    for row in rows:
        if spans and row == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], row]
        else:
            spans.append([row])
    shown = spans[:most]
    words = [f"{span[0]}" if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in shown]
    n_more = len(rows) - sum(span[-1] - span[0] + 1 for span in shown)
    return f"row{'s' * (len(rows) > 1)} {', '.join(words)}" + (f" and {n_more:,} more" if n_more else "")


class RowFault(str):
    """A fault of some rows of a file, as its line; it knows which rows, and what is wrong with them."""

    file: str
    rows: list[int]
    what: str


def row_faults(file: str, found: Iterable[tuple[int, str]]) -> list[str]:
    """Faults of a file from pairs of row and fault; rows with the same fault share a line."""
    rows: dict[str, list[int]] = {}
    for row, what in found:
        rows.setdefault(what, []).append(row)
    faults = []
    for what, these in rows.items():
        fault = RowFault(f"{file} {format_rows(these)}, {what}")
        fault.file, fault.rows, fault.what = file, these, what
        faults.append(fault)
    return faults


def fold(faults: Sequence[str]) -> list[str]:
    """The lines to print: of more than `MOST_LIKE` faults of a kind one, with their number, examples and rows.

    Faults of a kind differ only in quoted values, numbers, or the radiograph or label file that they begin with.
    """
    kinds: dict[str, list[str]] = {}
    for fault in dict.fromkeys(faults):
        kinds.setdefault(_kind(fault), []).append(fault)
    folded = {alike[0]: _folded(alike) for alike in kinds.values() if len(alike) > MOST_LIKE}
    hidden = {fault for alike in kinds.values() if len(alike) > MOST_LIKE for fault in alike[1:]}
    return [folded.get(fault, fault) for fault in dict.fromkeys(faults) if fault not in hidden]


def _kind(fault: str) -> str:
    if isinstance(fault, RowFault):
        return f"{fault.file}: {_VALUE.sub('…', fault.what)}"
    subject, _, reason = fault.partition(": ")
    return _VALUE.sub("…", reason if _FILE.fullmatch(subject) else fault)


def _folded(faults: Sequence[str]) -> str:
    """One line for faults of a kind: the first, and the words in which the next ones are different."""
    words = [_WORD.findall(fault.what if isinstance(fault, RowFault) else fault) for fault in faults]
    same = [len(set(place)) == 1 for place in zip(*words, strict=False)]
    start = same.index(False) if False in same else len(same)
    end = same.index(True, start) if True in same[start:] else None
    others = [" ".join(each[start:end]).rstrip(";:,")[:LONGEST_SHOWN] for each in words[1:MOST_LIKE]]
    rows = sorted({row for fault in faults if isinstance(fault, RowFault) for row in fault.rows})
    where = f"; all: {format_rows(rows)}" if rows else ""
    return f"{faults[0]} (and {len(faults) - 1:,} more like this: {', '.join(others)} …{where})"


def closest(name: str, known: Iterable[str], cutoff: float = 0.8) -> str:
    """' (is … meant?)' with the known name that is nearly this one (`nearest`), or ''."""
    found = nearest(name, known, cutoff)
    return f" (is {found} meant?)" if found else ""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.8) -> str:
    """The known name that is nearly this one, whatever its capitals and underscores, or ''."""
    plain = {_plain(each): each for each in known}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else ""


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


class UserError(Exception):
    """Faults in what the user gave; the command line prints them and ends with exit code 2.

    Parameters
    ----------
    faults : str or sequence of str
        One line a fault, each naming the thing, what was received and the fix.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows in the place of a traceback."""
        return [f"error: {fault}" for fault in fold(self.faults)]


def run_command(command: Callable[[], object]) -> None:
    """Run a command, isolated; a user's mistake or a full disk ends it with one line each and exit code 2."""
    use_utf8()
    print_anything()
    try:
        with isolation():
            command()
    except SystemExit as end:
        if end.code in (130, 143):  # Ctrl-C, and SIGTERM as `run` answers it
            program = sys.argv[:1] if Path(sys.argv[0]).name == "fracsurv" else [sys.executable, "-m", "fracsurv.cli"]
            call = shlex.join([*program, *sys.argv[1:]])
            print(f"\nstopped; called again, it goes on from what is finished: {call}", file=sys.stderr)
        raise
    except UserError as error:
        for fault in fold(error.faults):
            print(f"error: {fault}", file=sys.stderr)
        if len(error.faults) > 1:
            print(f"{len(error.faults)} faults", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno in FULL_DISK:
            place = f"{error.filename}: " if error.filename else ""
            fix = "make room, then call the same again: what is whole is kept"
            print(f"error: {place}the disk is full; {fix}", file=sys.stderr)
        else:
            print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
