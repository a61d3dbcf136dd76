"""Files of a cohort folder whose names are nearly right: without a word they would be as if not there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from fracsurv.utils.names import canonical

OTHERS = ("cohort.yaml", "vertebrae.csv", "vertebrae_corrections.csv", "truth.parquet", "truth_vertebrae.csv")
"""Files of a cohort besides its table."""
SETTINGS = ("yaml", "yml")
USUAL = ("csv", "tsv", "xls", "xlsx", "xlsm", "parquet")
SUFFIXES = (*USUAL, "", "txt", "tab", "dat", "ods", "xlsb", "gz", "zip", "sav", "dta", "sas7bdat", "rds")
"""Of tables: those that people use, and all that may be one."""
NEAR = 0.8
"""Likeness (difflib's ratio) from which a name is taken for a slip of the pen."""
_COPY = re.compile(r"^(copy of|kopie von) |( -)? (copy|kopie)$| ?\(\d+\)$")


def misnamed_files(folder: Path, tables: Sequence[str]) -> list[str]:
    """One fault for each file whose name is nearly that of a cohort's table (`tables`) or of another of its files.

    Nearly: other capitals, blanks, invisible characters or another suffix; or, where the right file is not there, a
    slip of the pen or a copy's name. Where there is no table at all, `tables_there` names what may be it.
    """
    faults = []
    for path in _visible(folder):
        meant, exactly = _meant(path.name, tables)
        right = [name for name in (tables if meant in tables else [meant]) if meant and (folder / name).exists()]
        if not meant or path.name in (*tables, *OTHERS) or any(path.samefile(folder / name) for name in right):
            continue
        if right and exactly and canonical(path.suffix)[1:] in (*USUAL, *SETTINGS, "txt"):
            faults.append(f"{path.name}: lies beside {right[0]}, which would be read; keep one")
        elif not right and meant not in tables:
            faults.append(f"{path.name}: not read under this name; {_advice(path.name, meant)}, or take it away")
    return faults


def tables_there(folder: Path, tables: Sequence[str]) -> str:
    """What lies in a folder without a table and may be it, with what to do; '' where nothing does."""
    meant = {path.name: _meant(path.name, tables)[0] for path in _visible(folder) if path.suffix}
    found = [name for name in meant if _parts(name)[1] in SUFFIXES and meant[name] in (*tables, "")]
    near = [name for name in found if meant[name]]
    names = near or [name for name in found if _parts(name)[1] in USUAL] or found
    if len(names) == 1:
        return f"; {names[0]} lies there: {_advice(names[0], meant[names[0]] or tables[0])}"
    if names:
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        return f"; {', '.join(names[:3])}{more} lie there: call the one with the patients {tables[0]}"
    inner = [path for path in sorted(folder.iterdir()) if any((path / name).is_file() for name in tables)]
    return f"; is {inner[0]} meant?" if inner else ""


def _visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] not in ".~"]


def _parts(name: str) -> tuple[str, str]:
    """A file's stem and suffix in small letters; of `cohort.csv.txt` csv is the suffix."""
    stem, *suffixes = (part.strip() for part in canonical(name).split("."))
    known = [suffix for suffix in suffixes if suffix in (*USUAL, *SETTINGS)]
    return stem, known[0] if known else ".".join(suffixes)


def _meant(name: str, tables: Sequence[str]) -> tuple[str, bool]:
    """Which file of a cohort a file is nearly called ('': none), and whether the stems are the same."""
    stem, suffix = _parts(name)
    of_settings = suffix in SETTINGS
    if not of_settings and suffix not in SUFFIXES:
        return "", False
    known = {each.split(".")[0]: each for each in OTHERS if each.endswith(".yaml") == of_settings}
    if not of_settings:
        known["cohort"] = f"cohort.{suffix}" if f"cohort.{suffix}" in tables else tables[0]
    exact, bare = (re.sub(r"[ -]+", "_", text) for text in (stem, _COPY.sub("", stem).strip()))
    near = difflib.get_close_matches(bare, known, n=1, cutoff=NEAR)
    return (known[near[0]], exact == near[0]) if near else ("", False)


def _advice(name: str, meant: str) -> str:
    suffix = Path(meant).suffix[1:]
    same = canonical(name).endswith(f".{suffix}") or suffix in SETTINGS
    return f"{'rename it to' if same else 'save it as'} {meant}"
