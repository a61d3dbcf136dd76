"""Weights of a network as a file: safetensors with JSON in its header, whole files only."""

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

from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path


def save_weights(model: nn.Module, path: Path, about: dict[str, Any] | None = None) -> None:
    """Write a model's parameters and buffers; `about` goes as JSON into the file's header."""
    save_tensors(model.state_dict(), path, about or {})


def load_weights(model: nn.Module, path: Path) -> dict[str, Any]:
    """Load weights written by `save_weights` into `model` and return their `about`.

    Raises
    ------
    UserError
        Where the file is missing, damaged, or belongs to another model.
    """
    tensors, about = read_tensors(path)
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise UserError(f"{path.name}: holds NaN or infinite weights; delete it and run again")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{path.name}: holds the weights of another model ({error.args[0].splitlines()[0]})"
        ) from None
    return about


def save_tensors(tensors: dict[str, Tensor], path: Path, about: dict[str, Any]) -> None:
    """Write tensors by name; `about` goes as JSON into the file's header."""
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


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name and the `about` of `save_tensors`; errors as `load_weights`."""
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
