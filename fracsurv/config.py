"""Experiments and profiles as data: what `configs/*.yaml` hold, checked by pydantic."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from fracsurv.utils.errors import UserError, closest
from fracsurv.utils.yaml_files import read_yaml, validation_faults

_PACKAGE = Path(__file__).resolve().parent
INSTALLED = (_PACKAGE / "_data").is_dir()
"""Whether this is fracsurv from a wheel, which carries configurations, notebooks and Snakefile."""
ROOT = _PACKAGE / "_data" if INSTALLED else _PACKAGE.parent
CONFIGS = ROOT / "configs"
WORKPLACE = Path() if INSTALLED else ROOT
"""Where `data/` and `reports/` lie unless a path is given."""
TRUE_RISK = "true_risk"
OWN_FOLDERS: list[Path] = []
"""Folders of the profiles read so far, the last one first: there lie modules and files that their own rows name."""
RESNETS = ("resnet50", "resnet18")
VITS = ("vit_b_32", "vit_tiny")
ENCODERS = (*RESNETS, *VITS)


def _folder_name(name: str) -> str:
    if name == TRUE_RISK or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"must consist of letters, digits, _ and -, and not be {TRUE_RISK}")
    return name


def _encoder_name(name: str) -> str:
    if name not in ("none", *ENCODERS) and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        raise ValueError(f"must be none, {', '.join(ENCODERS)}, or a class of your own as module.Class")
    return name


def _distinct_weights(alphas: tuple[float, ...]) -> tuple[float, ...]:
    # folders are named by six digits of α
    sound = all(0 <= alpha <= 1 and float(f"{alpha:g}") == alpha for alpha in alphas)
    if not alphas or not sound or len(set(alphas)) < len(alphas):
        raise ValueError("must be distinct numbers from 0 to 1, of at most six digits")
    return alphas


def _same_family(encoders: dict[str, str]) -> dict[str, str]:
    for old, new in encoders.items():
        if not any({old, new} <= set(family) for family in (RESNETS, VITS)):
            raise ValueError(f"must map among {', '.join(RESNETS)}, or among {', '.join(VITS)}")
    return encoders


Positive = Annotated[int, Field(ge=1)]
Scale = Annotated[float, Field(gt=0, le=1)]
_CHECKED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=_CHECKED)
class Experiment:
    """A row of the ablation: what goes in, what is trained and how (`configs/experiments.yaml`).

    With `morphometry`, vertebral fractures graded from keypoints join the clinical factors. An `encoder` may be a
    class of one's own, 'module.Class'. A model 'predictions' is one from elsewhere, whose risks stand in `file`.
    """

    name: Annotated[str, AfterValidator(_folder_name)]
    title: str
    input: Literal["none", "full", "crops"] = "none"
    encoder: Annotated[str, AfterValidator(_encoder_name)] = "none"
    fusion: Literal["none", "intermediate", "late", "alpha"] = "none"
    model: Literal["network", "cox_ph", "predictions"] = "network"
    file: str = ""
    pretrained: dict[str, str] = field(default_factory=dict)
    morphometry: bool = False
    lr: float = 0.0
    scheduler: Literal["none", "cosine"] = "none"
    epochs: int = 0
    batch_size: int = 0

    @property
    def image_alone(self) -> bool:
        """Whether a model of this row takes no clinical factor."""
        return self.needs_images and self.fusion == "none"

    @property
    def is_cut(self) -> bool:
        """Whether a profile that lists epochs lists this row: it trains on images, which takes long."""
        return self.needs_images and self.fusion != "late"

    @property
    def needs_boxes(self) -> bool:
        """Whether a model of this row is given vertebrae: their crops, or how they are fractured."""
        return self.input == "crops" or self.morphometry

    @property
    def needs_images(self) -> bool:
        """Whether the experiment cannot run on a cohort of tables alone."""
        return self.input != "none"


@dataclass(frozen=True, config=_CHECKED)
class Profile:
    """Size and effort of a run, never what an experiment is (`configs/{tiny,demo,paper}.yaml`).

    Attributes
    ----------
    scale, full_scale : float
        Stored pixels per protocol pixel, of crops and of full images.
    normalise : {'fold', 'patient'}
        Pixel range: minimum and maximum over the training part of a fold (the protocol), or a patient's
        own, which removes differences in exposure.
    precision : {'auto', 'float32', 'bfloat16'}
        'auto' is bfloat16 autocast where the device computes in it, float32 elsewhere.
    feeding : {'auto', 'resident', 'streamed'}
        Where pixels lie while training; see `training.data.Pixels`. It changes no result.
    compile : {'auto', 'always', 'never'}
        Whether torch compiles a network's training on a GPU; 'auto': if it is a long one.
    tensorboard : bool
        Write learning curves for TensorBoard under `OUT/tensorboard`, while the fits are running.
    permute_outcomes : bool
        Permute the pairs of time and event among all patients, so that nothing can be learnt.
    experiments : dict
        Rows of one's own, besides those of `configs/experiments.yaml`.
    """

    name: str
    note: str
    scale: Scale
    full_scale: Scale
    epochs: dict[str, Positive]
    encoders: Annotated[dict[str, str], AfterValidator(_same_family)]
    n_folds: Annotated[int, Field(ge=2)]
    alphas: Annotated[tuple[float, ...], Field(strict=False), AfterValidator(_distinct_weights)]
    bootstrap_draws: Annotated[int, Field(ge=20)]
    simulate: dict[Literal["patients", "external", "seed"], Annotated[int, Field(ge=0)]] = field(default_factory=dict)
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validate_every: Positive = 2
    normalise: Literal["fold", "patient"] = "fold"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    feeding: Literal["auto", "resident", "streamed"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"
    tensorboard: bool = False
    permute_outcomes: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def apply(self, experiment: Experiment) -> Experiment:
        """The experiment at this profile's size: epochs and encoder put in."""
        return replace(
            experiment,
            epochs=self.epochs.get(experiment.name, experiment.epochs),
            encoder=self.encoders.get(experiment.encoder, experiment.encoder),
        )


def load_experiments(path: Path | None = None, own: Mapping[str, Any] | None = None) -> dict[str, Experiment]:
    """The experiments of a file, in its order, and then `own` rows, as a profile may hold them.

    Raises
    ------
    UserError
        With every fault of the file.
    """
    path = path or CONFIGS / "experiments.yaml"
    faults: list[str] = []
    experiments = {}
    rows, own = _read(path, faults), own or {}
    faults += [f"experiments, {name}: is a row of {path.name} already" for name in own if name in rows]
    for name, row in {**rows, **own}.items():
        where = f"{path.name}, {name}"
        if not isinstance(row, dict):
            faults.append(f"{where}: must hold `name: value` pairs")
        elif experiment := _checked(Experiment, {"title": str(name), **row, "name": name}, where, faults):
            experiments[experiment.name] = experiment
    for name, experiment in experiments.items():
        faults += [f"{path.name}, {name}: {fault}" for fault in _broken_rules(experiment, experiments)]
    if faults:
        raise UserError(faults)
    return experiments


def load_profile(name: str) -> Profile:
    """A profile by its name in `configs/`, or by a YAML file's path.

    Raises
    ------
    UserError
        Where there is none of that name, or with every fault of the file.
    """
    given = name.endswith((".yaml", ".yml"))
    path = Path(name) if given else CONFIGS / f"{name}.yaml"
    if not path.exists() or path.name == "experiments.yaml":
        known = sorted(p.stem for p in CONFIGS.glob("*.yaml") if "note" in _read(p, []))
        there = [str(each) for each in path.parent.glob("*.y*ml")] if given else known
        raise UserError(
            f"profile {name!r}: unknown{closest(name, there)}; choose {', '.join(known)}, or give a YAML file's path"
        )
    faults: list[str] = []
    row = _read(path, faults)
    if "base" in row:
        base = str(row.pop("base"))
        if not (CONFIGS / f"{base}.yaml").exists() or base == "experiments":
            raise UserError(f"{path.name}, base: {base!r} is no profile of {CONFIGS}")
        under = _read(CONFIGS / f"{base}.yaml", faults)
        row = {**under, **row, "epochs": {**under.get("epochs", {}), **row.get("epochs", {})}}
    defaults = {"note": "", "full_scale": 1.0, "epochs": {}, "encoders": {}}
    profile = _checked(Profile, {**defaults, **row, "name": path.stem}, path.name, faults)
    if profile and given:
        OWN_FOLDERS[:] = [path.resolve().parent, *(each for each in OWN_FOLDERS if each != path.resolve().parent)]
    if profile and (profile.epochs or profile.experiments):
        known = load_experiments(own=profile.experiments)
        cuts = any(known[name].is_cut for name in profile.epochs if name in known)
        faults += [
            f"{path.name}, epochs: no experiment {name!r}{closest(name, known)}"
            for name in profile.epochs if name not in known
        ] + [
            f"{path.name}, epochs: has no {name!r}, whose {known[name].epochs} epochs would stand beside rows that "
            f"this profile cuts; give it a number, `epochs: {{{name}: …}}`"
            for name in known
            if cuts and known[name].is_cut and name not in profile.epochs
        ]  # fmt: skip
    if faults:
        raise UserError(faults)
    return profile if "full_scale" in row else replace(profile, full_scale=profile.scale)


def as_record(item: Experiment | Profile) -> dict[str, Any]:
    """A plain dictionary, for fingerprints and provenance; without what only own rows have, where there is none."""
    return {name: value for name, value in asdict(item).items() if name not in ("file", "experiments") or value}


def _read(path: Path, faults: list[str]) -> dict[Any, Any]:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    content = read_yaml(path, faults)
    if content is None:
        raise UserError(faults)
    return content


def _checked(of: type, row: Mapping[Any, Any], where: str, faults: list[str]) -> Any:
    """An object of the class `of`, or None; faults are appended to `faults`."""
    try:
        return of(**{str(key): value for key, value in row.items()})
    except ValidationError as error:
        faults += validation_faults(error, where, [each.name for each in fields(of)])
    return None


def _broken_rules(row: Experiment, others: Mapping[str, Experiment]) -> list[str]:
    """What is wrong with an experiment whose entries are sound by themselves."""
    image, no_network = row.input != "none", row.model != "network"
    rules = [
        (image == (row.encoder != "none"), "an image input needs an encoder, and an encoder an image input"),
        (not (row.input == "full" and row.encoder in VITS), "a vision transformer takes crops alone"),
        (not (row.morphometry and row.image_alone), "an image model without fusion takes no `morphometry`"),
        (not (no_network and image), f"{row.model} takes no image"),
        ((row.model == "predictions") == bool(row.file), "`model: predictions` needs `file`, and only it takes one"),
        (image or row.fusion == "none", "fusion needs an image input"),
        (no_network or (row.lr > 0 and row.epochs > 0 and row.batch_size > 1),
         "a network needs lr > 0, epochs > 0 and batch_size > 1"),
        (row.fusion != "late" or set(row.pretrained) == {"image", "tabular"},
         "late fusion needs `pretrained: {image: …, tabular: …}`"),
        (row.fusion in ("late", "alpha") or not row.pretrained, "only late and alpha fusion take pretrained parts"),
        (row.fusion != "alpha" or set(row.pretrained) <= {"tabular"},
         "alpha fusion takes a pretrained tabular part alone; its image part trains"),
    ]  # fmt: skip
    return [fault for kept, fault in rules if not kept] + _pretrained_faults(row, others)


def _pretrained_faults(row: Experiment, others: Mapping[str, Experiment]) -> list[str]:
    """What is wrong with the models that an experiment takes over."""
    faults = [
        f"pretrained {part}: no experiment {other!r}{closest(other, others)}"
        for part, other in row.pretrained.items() if other not in others
    ]  # fmt: skip
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


def derive_seed(*parts: object) -> int:
    """A seed from (run seed, experiment, fold, α), the same on every machine; 63 bits."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
