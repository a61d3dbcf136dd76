"""A fit's weights, and the state from which it resumes: safetensors with JSON in their header, whole files only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fracsurv.utils.errors import UserError
from fracsurv.utils.files import read_json
from fracsurv.utils.weights import load_weights, read_tensors, save_tensors


def load_best(model: nn.Module, folder: Path) -> None:
    """Load a finished fit's best weights, if they are those that its record speaks of; else a UserError."""
    about, record = load_weights(model, folder / "best.safetensors"), read_json(folder / "fit.json")
    known = isinstance(record, dict) and {"key", "best_epoch"} <= record.keys()
    if not known or (about.get("key"), about.get("epoch")) != (record["key"], record["best_epoch"]):
        raise UserError(f"{folder / 'best.safetensors'}: not the weights that fit.json tells of; delete {folder}")


def save_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, about: dict[str, Any]) -> None:
    """Write model and optimiser so that training goes on from here exactly."""
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
