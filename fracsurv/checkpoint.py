"""A fit's weights, and the state from which it resumes: safetensors with JSON in their header, whole files only."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fracsurv.errors import UserError
from fracsurv.files import atomic_path, read_json


def save_weights(model: nn.Module, path: Path, about: dict[str, Any] | None = None) -> None:
    """Write a model's parameters and buffers; `about` goes as JSON into the file's header."""
    _save(model.state_dict(), path, about or {})


def load_weights(model: nn.Module, path: Path) -> dict[str, Any]:
    """Load weights written by `save_weights` into `model` and return what was said about them.

    Raises
    ------
    UserError
        Where the file is missing, damaged, or belongs to another model.
    """
    tensors, about = _load(path)
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise UserError(f"{path.name}: holds weights that are no numbers; delete it and run again")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{path.name}: holds the weights of another model ({error.args[0].splitlines()[0]})"
        ) from None
    return about


def load_best(model: nn.Module, folder: Path) -> None:
    """Load a finished fit's best weights, if they are those that its record speaks of; else a UserError."""
    about, record = load_weights(model, folder / "best.safetensors"), read_json(folder / "fit.json")
    known = isinstance(record, dict) and {"key", "best_epoch"} <= record.keys()
    if not known or (about.get("key"), about.get("epoch")) != (record["key"], record["best_epoch"]):
        raise UserError(f"{folder / 'best.safetensors'}: not the weights that fit.json tells of; delete {folder}")


def read_about(path: Path) -> dict[str, Any]:
    """What `save_weights` was told about the weights in a file; errors as `load_weights`."""
    return _load(path)[1]


def save_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, about: dict[str, Any]) -> None:
    """Write model and optimiser so that training goes on from here exactly."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    _save(tensors, path, about)


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, key: str) -> dict[str, Any] | None:
    """Load what `save_state` wrote and return `about`; None, and nothing loaded, where its key is another."""
    tensors, about = _load(path)
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


def _save(tensors: dict[str, Tensor], path: Path, about: dict[str, Any]) -> None:
    # safetensors stores plain contiguous memory; channels_last weights are laid out anew when loaded
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"about": json.dumps(about)})
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None  # a full disk, say


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if not isinstance(about, dict):
                raise ValueError("no record")
            # cloned: the file may be replaced while its memory map would still be in use
            return {name: file.get_tensor(name).clone() for name in file.keys()}, about  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file") from None
    except (SafetensorError, ValueError, RecursionError, OSError):
        raise UserError(f"{path.name}: not a safetensors file, or damaged; delete it and run again") from None
