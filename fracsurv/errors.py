"""A user's mistake: what is wrong, all of it at once, without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


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
