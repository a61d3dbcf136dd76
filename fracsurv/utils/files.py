"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fracsurv.utils.errors import UserError

_HERE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"^\..+\.fracsurv-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}(\.[^.]+)?$")
LONGEST_WRITING_S = 86_400.0


def _temporary(path: Path, name: str, suffix: str) -> Path:
    """A temporary name beside `path`, with this machine and process in it."""
    return path.with_name(f".{name}.fracsurv-{_HERE}-{os.getpid()}-{secrets.token_hex(4)}{suffix}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The temporary name keeps the suffix, since many writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, path.stem, path.suffix)
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # some writers do not say for which file there was no room
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Flush a file, or a folder's names, to disk: after a loss of power no name may stand without its content."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some file systems sync no folders
            raise
    finally:
        os.close(number)


@contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it on failure.

    An empty folder at `path` gives way; one that holds something only with `replace`, else an OSError is raised.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = (_temporary(path, path.name, "") for _ in range(2))
    temporary.mkdir()
    try:
        yield temporary
        for inside in (*temporary.rglob("*"), temporary):
            _to_disk(inside)
        if replace and path.exists():
            path.rename(aside)  # so that no moment shows half a folder under this name
        os.replace(temporary, path)
        _to_disk(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def leftovers(folder: Path, *, below: bool = False) -> list[Path]:
    """Temporaries in `folder` (and `below` it) of processes that were killed.

    Another machine's process is taken for dead when it wrote nothing for a day.
    """
    inside = folder.rglob("*") if below else folder.glob("*")
    found = [(path, name) for path in inside if (name := _TEMPORARY.match(path.name))]
    return [
        path for path, name in found
        if (not is_alive(int(name["process"])) if name["host"] == _HERE else _age_s(path) > LONGEST_WRITING_S)
    ]  # fmt: skip


def _age_s(path: Path) -> float:
    """Seconds since anything in a file or folder was written."""
    try:
        return time.time() - max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:  # just finished
        return 0.0


def remove_leftovers(folder: Path, *, below: bool = False) -> None:
    """Remove `leftovers`; files of living processes stay."""
    for path in leftovers(folder, below=below):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock at `path`, then hold it; the system frees it when this one ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at `path`."""
    try:
        lock = open(path)  # noqa: SIM115, within the next lines
    except FileNotFoundError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_outside(out: Path, cohort: Path) -> None:
    """Refuse to write results into a cohort's folder."""
    if out.resolve().is_relative_to(cohort.resolve()):
        raise UserError(f"--out {out}: lies in the cohort's folder, into which nothing is written; choose another")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, as a link where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
