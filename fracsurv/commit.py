"""Which state of the repository is running."""

from __future__ import annotations

import subprocess
from functools import cache

from fracsurv.config import ROOT


@cache
def commit() -> str | None:
    """The repository's commit, with '+changes' if files differ from it; None without git or repository."""
    try:
        found, changed = (
            subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.strip() + ("+changes" if changed.strip() else "")
