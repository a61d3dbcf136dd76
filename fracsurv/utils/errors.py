"""A user's mistake: what is wrong, all of it at once, without a traceback."""

from __future__ import annotations

import difflib
import errno
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


def row_faults(file: str, found: Iterable[tuple[int, str]]) -> list[str]:
    """Faults of a file from pairs of row and fault; rows with the same fault share a line."""
    rows: dict[str, list[int]] = {}
    for row, what in found:
        rows.setdefault(what, []).append(row)
    return [f"{file} {format_rows(these)}, {what}" for what, these in rows.items()]


def closest(name: str, known: Iterable[str]) -> str:
    """' (is … meant?)' with the known name that is nearly this one, whatever its capitals and underscores; or ''."""
    plain = {_plain(each): each for each in known}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.8)
    return f" (is {plain[found[0]]} meant?)" if found else ""


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
        return [f"error: {fault}" for fault in self.faults]


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
        for fault in error.faults:
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
