"""The files of a fit: its best and last weights, its tables, and the state from which it resumes exactly.

All are safetensors with JSON in their header, or CSV, and appear whole or not at all.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, read_json, remove_leftovers
from fracsurv.utils.weights import load_weights, read_tensors, save_tensors, save_weights

SECONDS_BETWEEN_CHECKPOINTS = 60.0

Rows = list[dict[str, float]]
"""A table by epoch."""


def best_epoch(history: Rows) -> int:
    """The epoch with the highest validation C-index, the earlier one of equals; 0 before the first validation.

    The last one where no two validation patients can be ranked, so that C is NaN.
    """
    known = [(row["epoch"], row["validation_c_index"]) for row in history if "validation_c_index" in row]
    if all(math.isnan(c_index) for _, c_index in known):
        return known[-1][0] if known else 0
    return max(known, key=lambda each: (each[1], -each[0]))[0]


class Checkpoint:
    """Saves a fit while it runs, and resumes it.

    Parameters
    ----------
    key : str
        What the fit depends on; saved with its weights.
    arithmetic : str
        Device, precision and compiling. A state of another key or arithmetic is not resumed from.
    """

    def __init__(
        self, folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, *, key: str, arithmetic: str
    ) -> None:
        self._folder, self._model, self._optimiser = folder, model, optimiser
        self._key, self._state_key = key, f"{key} {arithmetic}"
        self._state, self._last_saved = folder / "resume.safetensors", time.monotonic()

    def resume(self) -> tuple[Rows, Rows]:
        """History and timing of the epochs that are done; their state is loaded into model and optimiser."""
        remove_leftovers(self._folder)
        about = None
        if self._state.exists():
            about = load_state(self._state, self._model, self._optimiser, self._state_key)
        if about is None:
            return [], []
        history = about["history"]
        if history and best_epoch(history) == len(history):  # the fit may have ended between the two files
            self._save_weights("best", len(history))
        return history, about["timing"]

    def save(self, history: Rows, timing: Rows) -> None:
        """Save the state if the last epoch is the best or a minute has passed, then the weights if it is the best.

        Never the best weights without their state: on another machine a repeated epoch may differ.
        """
        improved = best_epoch(history) == len(history)
        if improved or time.monotonic() - self._last_saved > SECONDS_BETWEEN_CHECKPOINTS:
            about = {"key": self._state_key, "history": history, "timing": timing}
            save_state(self._state, self._model, self._optimiser, about)
            self._last_saved = time.monotonic()
        if improved:
            self._save_weights("best", len(history))

    def finish(self, history: pd.DataFrame, timing: pd.DataFrame) -> None:
        """Write the last weights, `history.csv` and `timing.csv`, and remove the state."""
        self._save_weights("last", len(history))
        for name, table in (("history", history), ("timing", timing)):
            with atomic_path(self._folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
        self._state.unlink(missing_ok=True)

    def _save_weights(self, name: str, epoch: int) -> None:
        save_weights(self._model, self._folder / f"{name}.safetensors", {"key": self._key, "epoch": epoch})


def load_best(model: nn.Module, folder: Path) -> None:
    """Load a finished fit's best weights; a UserError where they are not those of its `fit.json`."""
    about, record = load_weights(model, folder / "best.safetensors"), read_json(folder / "fit.json")
    known = isinstance(record, dict) and {"key", "best_epoch"} <= record.keys()
    if not known or (about.get("key"), about.get("epoch")) != (record["key"], record["best_epoch"]):
        raise UserError(f"{folder / 'best.safetensors'}: not the weights of fit.json; delete {folder}")


def save_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, about: dict[str, Any]) -> None:
    """Write model and optimiser, from which training continues exactly."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    save_tensors(tensors, path, about)


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, key: str) -> dict[str, Any] | None:
    """Load what `save_state` wrote and return `about`; None, and nothing loaded, where its key is another."""
    tensors, about = read_tensors(path)
    if about.get("key") != key:
        return None
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, moment = name.split(".")
            state.setdefault(int(number), {})[moment] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                # fused Adam walks raw memory: the moments must lie as the weights do (channels_last)
                moments[name] = torch.empty_like(parameter).copy_(value)
    return about
