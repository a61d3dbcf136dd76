"""The radiographs that a store was made from: in what state they were, so that none is read again to open it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from fracsurv.images.store_rows import COUNTS, RANGES, Task
from fracsurv.utils.files import atomic_path, locked

FILE_COLUMNS = ["state", "sha256"]


def files_of(tasks: Sequence[Task], folder: Path) -> pd.DataFrame:
    """Every radiograph's state (its name, size and time of change) and SHA-256 ('' where it cannot be read).

    Those that the store there knows are not read: to open it, every job would read a whole cohort otherwise. The
    state is kept as a digest, since a hospital's file names may tell who the patient is.
    """
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):  # no store, or one that did not keep them
        there = pd.read_parquet(folder / "patients.parquet", columns=FILE_COLUMNS)
        known = dict(zip(there["state"], there["sha256"], strict=True))
    rows = []
    for task in tasks:
        try:
            with task.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                of = json.dumps([task.name, stat.st_size, stat.st_mtime_ns])
                state = hashlib.sha256(of.encode()).hexdigest()
                rows.append((state, known.get(state) or hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError:  # told, with all others, when it is read
            rows.append(("", ""))
    return pd.DataFrame(rows, columns=FILE_COLUMNS)


def remember(folder: Path, files: pd.DataFrame, is_current: Callable[[], bool]) -> None:
    """Keep what states the radiographs of a current store are in by now: a copied cohort has other dates."""
    path = folder / "patients.parquet"
    with suppress(OSError, ValueError):  # where one may not write, they are read again each time
        if _with_files(there := pd.read_parquet(path), files).equals(there):
            return
        with locked(lock_of(folder)):
            if is_current():  # another process may have built another store meanwhile
                now = _with_files(pd.read_parquet(path), files)
                with atomic_path(path) as temporary:
                    now.to_parquet(temporary, index=False)


def lock_of(folder: Path) -> Path:
    """The lock that a process holds while it writes a store."""
    return folder.with_name(f".{folder.name}.lock")


def _with_files(patients: pd.DataFrame, files: pd.DataFrame) -> pd.DataFrame:
    """A store's table of patients with these states in the place of what it says of its files."""
    kept = [name for name in patients if name in ("patient_id", *RANGES, *COUNTS)]
    return pd.concat([patients[kept], files], axis=1)
