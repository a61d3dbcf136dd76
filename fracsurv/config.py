"""Experiments and profiles as data: what `configs/*.yaml` say, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from fracsurv.errors import UserError
from fracsurv.models import ENCODERS

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
HORIZONS_YEARS = (1, 3, 5, 8)
DAYS_A_YEAR = 365.25
TRUE_RISK = "true_risk"


@dataclass(frozen=True)
class Experiment:
    """A row of the ablation: what goes in, what is trained and how (`configs/experiments.yaml`)."""

    name: str
    title: str
    input: str = "none"
    encoder: str = "none"
    fusion: str = "none"
    model: str = "network"
    pretrained: dict[str, str] = field(default_factory=dict)
    lr: float = 0.0
    scheduler: str = "none"
    epochs: int = 0
    batch_size: int = 0

    @property
    def needs_images(self) -> bool:
        """Whether the experiment cannot run on a cohort of tables alone."""
        return self.input != "none"


@dataclass(frozen=True)
class Profile:
    """Size and effort of a run, never what an experiment is (`configs/{tiny,demo,paper}.yaml`).

    Attributes
    ----------
    scale, full_scale : float
        Stored pixels per protocol pixel, of crops and of full images.
    normalise : {'fold', 'patient'}
        Pixel range: least and greatest value over the training part of a fold (the protocol), or a patient's
        own, which removes differences in exposure.
    precision : {'auto', 'float32', 'bfloat16'}
        'auto' is bfloat16 autocast where the device computes in it, float32 elsewhere.
    permute_outcomes : bool
        Deal the pairs of time and event out at random among all patients, so that nothing can be learnt.
    """

    name: str
    note: str
    scale: float
    full_scale: float
    epochs: dict[str, int]
    encoders: dict[str, str]
    n_folds: int
    alphas: tuple[float, ...]
    bootstrap_draws: int
    simulate: dict[str, int] = field(default_factory=dict)
    test_fraction: float = 0.1
    validate_every: int = 2
    normalise: str = "fold"
    precision: str = "auto"
    permute_outcomes: bool = False
    seed: int = 0

    def apply(self, experiment: Experiment) -> Experiment:
        """The experiment at this profile's size: epochs and encoder put in."""
        return replace(
            experiment,
            epochs=self.epochs.get(experiment.name, experiment.epochs),
            encoder=self.encoders.get(experiment.encoder, experiment.encoder),
        )


def load_experiments(path: Path | None = None) -> dict[str, Experiment]:
    """Read and check the experiments, in the file's order.

    Raises
    ------
    UserError
        With every fault of the file.
    """
    path = path or CONFIGS / "experiments.yaml"
    rows = _read(path)
    known = {f.name for f in fields(Experiment)} - {"name"}
    faults: list[str] = []
    experiments = {}
    for name, row in rows.items():
        unknown = set(row) - known
        if unknown:
            faults.append(f"{path.name}, {name}: unknown {', '.join(sorted(unknown))}")
            continue
        experiments[name] = Experiment(name=name, **{"title": name, **row})
    for experiment in experiments.values():
        faults += [f"{path.name}, {experiment.name}: {fault}" for fault in _faults(experiment, experiments)]
    if faults:
        raise UserError(faults)
    return experiments


def load_profile(name: str) -> Profile:
    """Read a profile by its name in `configs/`, or from a YAML file's path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
    if not path.exists() or path.name == "experiments.yaml":
        known = sorted(p.stem for p in CONFIGS.glob("*.yaml") if "note" in _read(p))
        raise UserError(f"profile {name!r}: unknown; choose {', '.join(known)}, or give a YAML file's path")
    row = _read(path)
    missing = {f for f in ("scale", "n_folds", "alphas", "bootstrap_draws") if f not in row}
    unknown = set(row) - {f.name for f in fields(Profile)}
    faults = [f"{path.name}: {what} {', '.join(sorted(names))}" for what, names in
              (("unknown", unknown), ("missing", missing)) if names]  # fmt: skip
    if faults:
        raise UserError(faults)
    row = {"note": "", "epochs": {}, "encoders": {}, "full_scale": row["scale"], **row, "name": path.stem}
    profile = Profile(**{**row, "alphas": tuple(row["alphas"])})
    faults = _profile_faults(profile)
    if faults:
        raise UserError([f"{path.name}: {fault}" for fault in faults])
    return profile


def as_record(item: Experiment | Profile) -> dict[str, Any]:
    """A plain dictionary, for fingerprints and provenance."""
    return asdict(item)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: not there; fracsurv runs from its repository, installed with `make setup`")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path.name}: not readable as YAML") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name}: must hold `name: value` lines")
    return content


def _faults(row: Experiment, others: Mapping[str, Experiment]) -> list[str]:
    allowed = {
        "input": ("none", "full", "crops"),
        "encoder": ("none", *ENCODERS),
        "fusion": ("none", "intermediate", "late", "alpha"),
        "scheduler": ("none", "cosine"),
        "model": ("network", "cox_ph"),
    }
    faults = [
        f"{key}: {getattr(row, key)!r}; must be one of {', '.join(values)}"
        for key, values in allowed.items()
        if getattr(row, key) not in values
    ]
    if (row.input == "none") != (row.encoder == "none"):
        faults.append("an image input needs an encoder, and an encoder an image input")
    if row.input == "none" and row.fusion != "none":
        faults.append("fusion needs an image input")
    if row.model == "network" and not (row.lr > 0 and row.epochs > 0 and row.batch_size > 1):
        faults.append("a network needs lr > 0, epochs > 0 and batch_size > 1")
    if row.fusion == "late" and set(row.pretrained) != {"image", "tabular"}:
        faults.append("late fusion needs `pretrained: {image: …, tabular: …}`")
    if row.fusion in ("none", "intermediate") and row.pretrained:
        faults.append("only late and alpha fusion take pretrained parts")
    faults += [
        f"pretrained {part}: no experiment {other!r}" for part, other in row.pretrained.items() if other not in others
    ]
    source = others.get(row.pretrained.get("image", ""))
    if source and (source.input, source.encoder) != (row.input, row.encoder):
        faults.append(f"pretrained image model {source.name!r} has another input or encoder")
    return faults


def _profile_faults(profile: Profile) -> list[str]:
    rules = {
        "scale: must be above 0 and at most 1": 0 < profile.scale <= 1 and 0 < profile.full_scale <= 1,
        "n_folds: must be at least 2": profile.n_folds >= 2,
        "alphas: must be numbers from 0 to 1": bool(profile.alphas) and all(0 <= a <= 1 for a in profile.alphas),
        "normalise: must be fold or patient": profile.normalise in ("fold", "patient"),
        "precision: must be auto, float32 or bfloat16": profile.precision in ("auto", "float32", "bfloat16"),
        f"encoders: must be among {', '.join(ENCODERS)}": all(e in ENCODERS for e in profile.encoders.values()),
        "bootstrap_draws: must be at least 20": profile.bootstrap_draws >= 20,
    }
    return [rule for rule, kept in rules.items() if not kept]
