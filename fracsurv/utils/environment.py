"""The environment of a command and of all that it starts: UTF-8, caches of its own, none of the user's settings."""

from __future__ import annotations

import codecs
import getpass
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

SETTINGS = (
    "PYTHON", "IPY", "JUPYTER", "MPL", "MATPLOTLIB", "XDG_", "SNAKEMAKE_PROFILE", "BASH_ENV", "FORCE_COLOR",
    "CLICOLOR_FORCE",
)  # fmt: skip
"""How variables begin that change how the programs work that a run starts."""
KEPT = {
    "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONHASHSEED",
}  # fmt: skip
"""Those of them that say where Python and its libraries lie, and what changes no result."""
FOLDERS = (
    "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
)  # fmt: skip
PLAIN = {"−": "-", "–": "-", "±": "+/-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "α": "alpha", "…": "..."}
"""Signs of our messages, for an output that cannot show them."""


def isolated() -> dict[str, str]:
    """This process's environment for programs that it starts.

    Without the user's settings of Python, Jupyter, matplotlib and Snakemake; with caches in a folder of fracsurv's
    own; with a name and a home for a user without an account. The working directory holds no modules.
    """
    environment = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(SETTINGS)}
    # an empty entry would be the working directory, and the programs have another one
    path = [os.path.abspath(entry) for entry in environment.pop("PYTHONPATH", "").split(os.pathsep) if entry]
    environment |= {"PYTHONPATH": os.pathsep.join(path)} if path else {}
    own = _own_folder()
    environment |= {name: str(own / name.lower()) for name in FOLDERS}
    environment |= {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "MPLBACKEND": "Agg", "JUPYTER_NO_CONFIG": "1"}
    try:
        getpass.getuser()
    except (KeyError, OSError):
        environment["LOGNAME"] = f"user-{os.getuid()}"
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        environment["HOME"], caches = str(own), own
    for name, folder in (("TORCH_HOME", "torch"), ("HF_HOME", "huggingface")):  # weights that were fetched before
        if (caches / folder).is_dir():
            environment.setdefault(name, str(caches / folder))
    return environment


def _own_folder() -> Path:
    """A folder for caches, to which this user alone can write."""
    folder = Path(tempfile.gettempdir()) / f"fracsurv-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="fracsurv-"))  # somebody else took the name


@contextmanager
def isolation() -> Iterator[None]:
    """Give this process that environment for as long as the block runs."""
    before, new = dict(os.environ), isolated()
    os.environ.clear()
    os.environ.update(new)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode, as what it starts is, if the locale has another encoding."""
    if sys.getfilesystemencoding() != "utf-8":
        shown = {"PYTHONIOENCODING": sys.stdout.encoding} if sys.stdout else {}
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], {**os.environ, **shown})


def print_anything() -> None:
    """Let standard output and error take every text: signs that they cannot show become plainer ones."""
    codecs.register_error("plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what replaces them in a notebook
            stream.reconfigure(errors="plainer")


def _plainer(error: UnicodeEncodeError) -> tuple[str | bytes, int]:
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":  # of a file's name that is not text
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    plain = PLAIN.get(letter) or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or "?", error.start + 1
