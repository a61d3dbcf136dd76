"""Learning curves for TensorBoard, while a fit is running."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fracsurv.utils.errors import UserError


class Board:
    """Writes a fit's epochs as TensorBoard's event files into `folder`; what a resumed fit repeats is replaced.

    Raises
    ------
    UserError
        Where the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard: true, and the package tensorboard is not installed; `pip install tensorboard`, or set "
                "it to false"
            ) from None
        self._make, self._folder, self._writer = SummaryWriter, folder, None

    def __call__(self, row: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Write an epoch: rows of `history.csv` and of `timing.csv`, each under its own heading."""
        epoch = int(row["epoch"])
        if self._writer is None:
            self._writer: Any = self._make(str(self._folder), purge_step=epoch)
        for heading, values in (("history", row), ("timing", timing)):
            for name, value in values.items():
                if name != "epoch":
                    self._writer.add_scalar(f"{heading}/{name}", value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """End the writer's thread."""
        if self._writer is not None:
            self._writer.close()
