"""Rows of one's own: an encoder that is anybody's class, and the risks of a model from elsewhere."""

from __future__ import annotations

import hashlib
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.cohort import Cohort
from fracsurv.config import ENCODERS, OWN_FOLDERS, Experiment
from fracsurv.utils.errors import UserError

MOST_NAMED = 5
"""Patients that a fault names."""
_registered: dict[str, type] = {}


def register_encoder(name: str, encoder: type) -> None:
    """Let rows name a class that lies in no module, such as one of a notebook's cell.

    Parameters
    ----------
    name : str
        As rows name it; it must hold a dot, as 'notebook.MyEncoder'.
    encoder : class of torch.nn.Module
        See `encoder_class`.
    """
    _registered[name] = encoder


def is_own(encoder: str) -> bool:
    """Whether a row's encoder is a class of one's own."""
    return encoder not in ("none", *ENCODERS)


def encoder_class(name: str) -> type:
    """The class that 'module.Class' names: registered, in a file beside the profile, or in an importable module.

    It is called with the number of channels (1 for full images, 13 for crops), maps (n, channels, height, width)
    float32 images to (n, n_features), and has the attribute `n_features`.

    Raises
    ------
    UserError
        Where there is no such module or class.
    """
    if name in _registered:
        return _registered[name]
    module, _, wanted = name.rpartition(".")
    path = _module_file(module)
    try:
        if path is not None and path.parent in OWN_FOLDERS:
            spec = spec_from_file_location(f"fracsurv_own_{module}", path)  # no module of this name may be hidden
            loaded = sys.modules[spec.name] = module_from_spec(spec)
            spec.loader.exec_module(loaded)
        else:
            loaded = import_module(module)
        return getattr(loaded, wanted)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(
            f"encoder {name}: {error}; its module must lie beside the profile's file, or be importable (PYTHONPATH)"
        ) from None


def own_fingerprint(row: Experiment, cohort: Cohort) -> str:
    """Digest of what a row takes from elsewhere: its encoder's source file, its file of risks; '' for other rows."""
    if row.encoder in _registered:
        functions = [each for each in vars(_registered[row.encoder]).values() if hasattr(each, "__code__")]
        content = repr([_code(each.__code__) for each in functions]).encode()
    elif row.file or is_own(row.encoder):
        path = risk_file(row, cohort) if row.file else _module_file(row.encoder.rpartition(".")[0])
        content = path.read_bytes() if path is not None and path.is_file() else b"missing"
    else:
        return ""
    return hashlib.sha256(content).hexdigest()


def _code(code: CodeType) -> tuple:
    """What a function does, the same in every process: its code, the names that it uses, its constants."""
    constants = [_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, code.co_names, constants


def risk_file(row: Experiment, cohort: Cohort) -> Path:
    """Where the risks of a model from elsewhere stand: beside the profile's YAML file, or in the cohort's folder."""
    places = [folder / row.file for folder in (*OWN_FOLDERS, cohort.folder)]
    return next((path for path in places if path.is_file()), places[-1])


def read_risks(row: Experiment, cohort: Cohort, fold: int) -> NDArray:
    """Log hazards (n,) of all patients by a model from elsewhere, in the cohort's order, higher = riskier.

    On whom it was trained is not known here.

    The file is a CSV with `patient_id`, `risk` and, where each fold has a model of its own, `fold` (1, 2, …).

    Raises
    ------
    UserError
        With every fault of the file.
    """
    path = risk_file(row, cohort)
    if not path.is_file():
        raise UserError(f"{path}: not there; the row {row.name} takes its risks from it")
    table = pd.read_csv(path, dtype={"patient_id": str})
    if missing := {"patient_id", "risk"} - set(table):
        raise UserError(f"{path}: has no column {', '.join(sorted(missing))}")
    if "fold" in table:
        table = table[table["fold"] == fold + 1]
    ids, wanted = table["patient_id"], cohort.table["patient_id"].astype(str)
    risk = pd.to_numeric(table["risk"], errors="coerce")
    problems = {
        "no risk for": wanted[~wanted.isin(ids)],
        "unknown": ids[~ids.isin(wanted)],
        "twice": ids[ids.duplicated()],
        "risk is no finite number": ids[~np.isfinite(risk)],
    }
    faults = [
        f"{path}, fold {fold + 1}: {what}: {', '.join(found[:MOST_NAMED])}" + " …" * (len(found) > MOST_NAMED)
        for what, found in problems.items()
        if len(found)
    ]
    if faults:
        raise UserError(faults)
    return risk.set_axis(ids).loc[wanted].to_numpy(float)


def _module_file(module: str) -> Path | None:
    """The file of a module, beside a profile or importable; None where there is none."""
    for folder in OWN_FOLDERS:
        if (path := folder / f"{module.replace('.', '/')}.py").is_file():
            return path
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None
