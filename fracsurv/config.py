"""Experiments and profiles as data: what `configs/*.yaml` say, checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from fracsurv.config_checks import type_fault, type_faults
from fracsurv.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
TRUE_RISK = "true_risk"
RESNETS = ("resnet50", "resnet18")
VITS = ("vit_b_32", "vit_tiny")
ENCODERS = (*RESNETS, *VITS)
PLACES = ("auto", "resident", "streamed")
"""Where pixels lie while training."""
COMPILING = ("auto", "always", "never")
"""When torch compiles a network."""


@dataclass(frozen=True)
class Experiment:
    """A row of the ablation: what goes in, what is trained and how (`configs/experiments.yaml`).

    With `morphometry`, vertebral fractures graded from keypoints (`vertebral.VERTEBRAL`) join the clinical factors.
    """

    name: str
    title: str
    input: str = "none"
    encoder: str = "none"
    fusion: str = "none"
    model: str = "network"
    pretrained: dict[str, str] = field(default_factory=dict)
    morphometry: bool = False
    lr: float = 0.0
    scheduler: str = "none"
    epochs: int = 0
    batch_size: int = 0

    @property
    def image_alone(self) -> bool:
        """Whether a model of this row takes no clinical factor."""
        return self.needs_images and self.fusion == "none"

    @property
    def needs_boxes(self) -> bool:
        """Whether a model of this row is given vertebrae: their crops, or how they are fractured."""
        return self.input == "crops" or self.morphometry

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
    feeding : {'auto', 'resident', 'streamed'}
        Where pixels lie while training; see `pixels.Pixels`. It changes no result.
    compile : {'auto', 'always', 'never'}
        Whether a network's training is compiled by torch on a GPU; 'auto': if it is a long one.
    tensorboard : bool
        Write learning curves for TensorBoard under `OUT/tensorboard`, while the fits are running.
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
    feeding: str = "auto"
    compile: str = "auto"
    tensorboard: bool = False
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
    faults: list[str] = []
    experiments = {}
    for name, row in _read(path).items():
        found = [] if _is_name(name) else [f"must be called by letters, digits, _ and -, and not {TRUE_RISK}"]
        found += type_faults(row, Experiment) if isinstance(row, dict) else ["must hold `name: value` pairs"]
        faults += [f"{path.name}, {name}: {fault}" for fault in found]
        if not found:
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
    missing = [name for name in ("scale", "n_folds", "alphas", "bootstrap_draws") if name not in row]
    kinds = {f.name: f.type for f in fields(Profile)}
    sound = {name: value for name, value in row.items() if name in kinds and not type_fault(name, value, kinds[name])}
    faults = [f"missing {', '.join(missing)}"] if missing else []
    if faults := faults + type_faults(row, Profile) + _profile_faults(sound):
        raise UserError([f"{path.name}: {fault}" for fault in faults])
    row = {"note": "", "epochs": {}, "encoders": {}, "full_scale": row["scale"], **row, "name": path.stem}
    return Profile(**{**row, "alphas": tuple(row["alphas"])})


def as_record(item: Experiment | Profile) -> dict[str, Any]:
    """A plain dictionary, for fingerprints and provenance."""
    return asdict(item)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: not there; fracsurv runs from its repository, installed with `make setup`")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    if row.input == "full" and row.encoder in VITS:
        faults.append("a vision transformer takes crops alone, as in the protocol")
    if row.morphometry and row.input != "none" and row.fusion == "none":
        faults.append("an image model without fusion takes no covariates, so no `morphometry`")
    if row.model == "cox_ph" and row.input != "none":
        faults.append("cox_ph takes no image")
    if row.input == "none" and row.fusion != "none":
        faults.append("fusion needs an image input")
    if row.model == "network" and not (row.lr > 0 and row.epochs > 0 and row.batch_size > 1):
        faults.append("a network needs lr > 0, epochs > 0 and batch_size > 1")
    if row.fusion == "late" and set(row.pretrained) != {"image", "tabular"}:
        faults.append("late fusion needs `pretrained: {image: …, tabular: …}`")
    if row.fusion in ("none", "intermediate") and row.pretrained:
        faults.append("only late and alpha fusion take pretrained parts")
    if row.fusion == "alpha" and not set(row.pretrained) <= {"tabular"}:
        faults.append("alpha fusion takes a pretrained tabular part alone; its image part trains")
    return faults + _pretrained_faults(row, others)


def _pretrained_faults(row: Experiment, others: Mapping[str, Experiment]) -> list[str]:
    """What is wrong with the models that an experiment takes over."""
    faults = [
        f"pretrained {part}: no experiment {other!r}" for part, other in row.pretrained.items() if other not in others
    ]
    image, tabular = (others.get(row.pretrained.get(part, "")) for part in ("image", "tabular"))
    if image and (image.input, image.encoder, image.fusion) != (row.input, row.encoder, "none"):
        faults.append(f"pretrained image model {image.name!r} has another input or encoder, or is a fusion")
    if tabular and tabular.morphometry != row.morphometry:
        faults.append(f"pretrained tabular model {tabular.name!r} has other covariates; let `morphometry` agree")
    if tabular and (tabular.input, tabular.model) != ("none", "network"):
        faults.append(f"pretrained tabular model {tabular.name!r} is not a network of clinical factors alone")
    paths = [[row.name]]
    while paths:
        path = paths.pop()
        onward = others[path[-1]].pretrained.values() if path[-1] in others else ()
        if row.name in onward:
            return [*faults, f"{' → '.join([*path, row.name])}: pretrained goes in a circle"]
        paths += [[*path, other] for other in onward if other not in path]
    return faults


def _profile_faults(row: Mapping[str, Any]) -> list[str]:
    """Broken rules of a profile's entries, whose types are right."""
    families = (RESNETS, VITS)
    rules = {
        "scale": (lambda v: 0 < v <= 1, "must be above 0 and at most 1"),
        "full_scale": (lambda v: 0 < v <= 1, "must be above 0 and at most 1"),
        "n_folds": (lambda v: v >= 2, "must be at least 2"),
        # folders are called by six digits of α
        "alphas": (
            lambda v: v and all(0 <= a <= 1 and float(f"{a:g}") == a for a in v) and len(set(v)) == len(v),
            "must be distinct numbers from 0 to 1, of at most six digits",
        ),
        "normalise": (lambda v: v in ("fold", "patient"), "must be fold or patient"),
        "precision": (lambda v: v in ("auto", "float32", "bfloat16"), "must be auto, float32 or bfloat16"),
        "feeding": (lambda v: v in PLACES, f"must be one of {', '.join(PLACES)}"),
        "compile": (lambda v: v in COMPILING, f"must be one of {', '.join(COMPILING)}"),
        "encoders": (
            lambda v: all(any({old, new} <= set(names) for names in families) for old, new in v.items()),
            "must map among " + ", or among ".join(", ".join(names) for names in families),
        ),
        "epochs": (lambda v: all(n >= 1 for n in v.values()), "must be at least 1"),
        "simulate": (
            lambda v: set(v) <= {"patients", "external", "seed"} and min(v.values(), default=0) >= 0,
            "takes patients, external and seed, none below 0",
        ),
        "bootstrap_draws": (lambda v: v >= 20, "must be at least 20"),
        "validate_every": (lambda v: v >= 1, "must be at least 1"),
        "test_fraction": (lambda v: 0 < v < 1, "must be between 0 and 1"),
        "seed": (lambda v: v >= 0, "must be at least 0"),
    }
    faults = [f"{name}: {row[name]!r}; {rule}" for name, (keeps, rule) in rules.items()
              if name in row and not keeps(row[name])]  # fmt: skip
    if row.get("epochs"):
        known = load_experiments()
        faults += [f"epochs: no experiment {name!r}" for name in row["epochs"] if name not in known]
    return faults


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name != TRUE_RISK and re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None


def derive_seed(*parts: object) -> int:
    """A seed from (run seed, experiment, fold, α), the same on every machine; 63 bits."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
