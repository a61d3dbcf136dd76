"""A run: one cohort, one profile, one folder of results; where everything lies, and what may be computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort, read_cohort
from fracsurv.cohort.splits import make_splits
from fracsurv.config import TRUE_RISK, Experiment, Profile, as_record, load_experiments, load_profile
from fracsurv.detection.locate import read_located
from fracsurv.images.radiographs import radiograph_heights
from fracsurv.images.store import ImageStore, store_fingerprint, stored_fingerprint
from fracsurv.study.own_models import own_fingerprint
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import is_held
from fracsurv.vertebrae.covariates import VERTEBRAL
from fracsurv.vertebrae.slots import read_slots

if TYPE_CHECKING:
    import torch

FIT_VERSION = 4
"""Raised whenever the same cohort and settings would give other fits."""
EVALUATION_VERSION = 4
"""Raised whenever the same fits would give other predictions, metrics, `model.json` or explanations."""
IRRELEVANT = (
    "name", "note", "epochs", "encoders", "alphas", "bootstrap_draws", "simulate", "feeding", "tensorboard",
    "experiments",
)  # fmt: skip
"""Entries of a profile on which no fit depends; epochs and encoders are the experiment's, once applied."""
SPLITS = "splits.csv"
"""In a run's folder: each patient's split and fold."""
PROFILE = "profile.txt"
"""In a run's folder: the name of the profile of its fits."""
RUN_LOCK = ".lock"
"""Held while `fracsurv run` is at work there."""
SAME_PATIENTS = 0.5
"""Share of patients with the same outcome under which a cohort is another one."""


@dataclass(frozen=True, eq=False)
class Run:
    """A cohort, with boxes and slots, under a profile; `prepare` makes it, `open_run` finds it again."""

    cohort: Cohort
    out: Path
    profile: Profile
    experiments: dict[str, Experiment]
    splits: pd.DataFrame
    _stores: dict[str, ImageStore] = field(default_factory=dict, repr=False)
    _fingerprints: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """The GPU where there is one. To open a run, or report it, does not ask, and so does not import torch."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def rows(self, fold: int) -> dict[str, np.ndarray]:
        """Row numbers of fold `fold` by split: 'train', 'validation', 'test', 'external' (if any)."""
        split, of = self.splits["split"].to_numpy(), self.splits["fold"].to_numpy()
        rows = {
            "train": np.flatnonzero((split == "train") & (of != fold)),
            "validation": np.flatnonzero(of == fold),
            "test": np.flatnonzero(split == "test"),
            "external": np.flatnonzero(split == "external"),
        }
        return {name: found for name, found in rows.items() if len(found)}

    def experiment(self, name: str) -> Experiment:
        """The experiment at this run's size."""
        if name not in self.experiments:
            raise UserError(f"experiment {name!r}: unknown; choose {', '.join(self.runnable())}")
        return self.profile.apply(self.experiments[name])

    def runnable(self) -> list[str]:
        """Names of the experiments that this cohort has the inputs for; `true_risk` first if the truth is known."""
        possible = {
            "none": True,
            "full": self.cohort.has_images,
            "crops": self.cohort.has_images and self.cohort.vertebrae is not None,
        }
        rows, measured = self.experiments.items(), self.cohort.has_keypoints
        names = [name for name, row in rows if possible[row.input] and (measured or not row.morphometry)]
        return [TRUE_RISK, *names] if (self.cohort.folder / "truth.parquet").exists() else names

    def with_parts(self, names: Iterable[str]) -> list[str]:
        """These experiments and those whose models they take over, in the file's order."""
        wanted = list(names)
        for name in wanted:  # grows meanwhile
            parts = () if name == TRUE_RISK else self.experiments[name].pretrained.values()
            wanted += [other for other in parts if other not in wanted]
        return [name for name in self.runnable() if name in wanted]

    def tabular(self) -> list[str]:
        """The runnable experiments that look at no picture, in the file's order."""
        return [name for name in self.runnable() if name != TRUE_RISK and not self.experiments[name].needs_images]

    def trained_on(self) -> list[np.ndarray]:
        """Each fold's training patients, row numbers of the cohort."""
        return [self.rows(fold)["train"] for fold in range(self.profile.n_folds)]

    def covariates(self, name: str) -> list[str]:
        """Names of an experiment's covariates, in the order in which its model takes them."""
        vertebral = VERTEBRAL if self.experiments[name].morphometry else ()
        return [*self.cohort.covariates, *self.cohort.indicators, *vertebral]

    def alphas(self, name: str) -> tuple[float | None, ...]:
        """The values of α that an experiment sweeps; (None,) where it has no α."""
        swept = name != TRUE_RISK and self.experiment(name).fusion == "alpha"
        return self.profile.alphas if swept else (None,)

    def folder(self, name: str, fold: int | None = None, alpha: float | None = None) -> Path:
        """Where an experiment's, an α's, or a fold's files lie."""
        path = self.out / "experiments" / name
        if alpha is not None:
            path /= f"alpha-{alpha:g}"
        return path if fold is None else path / f"fold-{fold}"

    def scale(self, kind: str) -> float:
        """Scale of the stored 'full' images, or of 'crops'."""
        return self.profile.full_scale if kind == "full" else self.profile.scale

    def store_folder(self, kind: str) -> Path:
        """Where the store of 'crops' or 'full' images lies."""
        return self.out / "prepared" / kind

    def has_store(self, kind: str) -> bool:
        """Whether that store is there, of the cohort as it is."""
        return stored_fingerprint(self.store_folder(kind)) == self._store_fingerprint(kind)

    def store(self, kind: str) -> ImageStore:
        """The store of 'crops' or 'full' images, opened once; a UserError where `prepare` has not built it."""
        folder = self.store_folder(kind)
        if kind in self._stores:
            return self._stores[kind]
        if not self.has_store(kind):
            raise UserError(
                f"{folder}: no images of {self.cohort.folder} as it is; `fracsurv prepare {self.cohort.folder} "
                f"--profile {self.profile.name} --out {self.out} --kind {kind}`, or `fracsurv run`, makes them"
            )
        self._stores[kind] = ImageStore.open(folder)
        return self._stores[kind]

    def _store_fingerprint(self, kind: str) -> str:
        """What the fingerprint of the store is, whether it is built or not; looked up once."""
        if kind not in self._fingerprints:
            folder, scale = self.store_folder(kind), self.scale(kind)
            self._fingerprints[kind] = store_fingerprint(self.cohort, folder, scale=scale, inputs=(kind,))
        return self._fingerprints[kind]

    def key(self, name: str, fold: int, alpha: float | None = None) -> str:
        """Fingerprint of all that a fit depends on, so that no result of another setting is taken for its own."""
        row = None if name == TRUE_RISK else self.experiment(name)
        has_images, morphometry = (row.needs_images, row.morphometry) if row else (False, False)
        parents = row.pretrained if row else {}
        parts = {
            "version": FIT_VERSION,
            "experiment": as_record(row) if row else name,
            "pretrained": {part: self.key(other, fold) for part, other in parents.items()},
            "pixels": self._store_fingerprint(row.input) if has_images else "",
            "profile": {entry: value for entry, value in as_record(self.profile).items() if entry not in IRRELEVANT},
            "cohort": self.cohort.fingerprint(boxes=morphometry),  # crops: see pixels
            "splits": hashlib.sha256(self.splits.to_csv(index=False).encode()).hexdigest(),
            "fold": fold,
            "alpha": alpha,
        }
        if has_images and self.cohort.masks:
            parts["masked"] = True
        if row and (own := own_fingerprint(row, self.cohort)):
            parts["own"] = own
        if morphometry:
            parts["slots"] = hashlib.sha256(self.cohort.slot_index.tobytes()).hexdigest()
        return _short_hash(json.dumps(parts, sort_keys=True))

    def evaluation_key(self, name: str, fold: int, alpha: float | None = None) -> str:
        """Fingerprint of what predictions, metrics and `model.json` depend on beside the fit."""
        about = self.cohort.outcome, self.cohort.time_unit, self.cohort.competing_event
        parts = [self.key(name, fold, alpha), list(self.cohort.horizons), EVALUATION_VERSION, *about]
        if alpha is not None:
            parts.append(list(self.profile.alphas))
        if self.cohort.has_competing:
            parts.append("ranked by absolute risk")
        if name == TRUE_RISK:
            parts.append(hashlib.sha256((self.cohort.folder / "truth.parquet").read_bytes()).hexdigest())
        return _short_hash(json.dumps(parts))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_run(cohort: str | Path, out: str | Path, profile: str | Profile) -> Run:
    """A run that `prepare` has prepared: it is read, nothing is written and nothing is looked for.

    Raises
    ------
    UserError
        For faults of the cohort, the profile or the experiments; where the saved splits or results are another
        cohort's; and where splits, found vertebrae or slots are missing, or of another state of the cohort.
    """
    out, named = Path(out), profile if isinstance(profile, str) else profile.name
    cohort, profile, splits = read_inputs(cohort, profile)
    check_folder(cohort, profile, splits, out)
    located = read_located(cohort, out / "prepared") if (out / SPLITS).exists() else None
    slots = None
    if located is not None and located.vertebrae is not None:
        slots = read_slots(located, out / "prepared", radiograph_heights)
    if located is None or (located.vertebrae is not None and slots is None):
        raise UserError(
            f"{out}: not prepared for {cohort.folder} as it is; `fracsurv prepare {cohort.folder} --profile {named} "
            f"--out {out}` does it, and so does `fracsurv run`"
        )
    return Run(replace(located, slots=slots), out, profile, load_experiments(own=profile.experiments), splits)


def read_inputs(cohort: str | Path, profile: str | Profile) -> tuple[Cohort, Profile, pd.DataFrame]:
    """The checked cohort as the profile takes it, the profile, and the splits: one row a patient."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    checked = read_cohort(cohort)
    if profile.permute_outcomes:
        checked = permuted(checked, profile.seed)
    splits = make_splits(checked, n_folds=profile.n_folds, test_fraction=profile.test_fraction, seed=profile.seed)
    return checked, profile, splits


def check_folder(cohort: Cohort, profile: Profile, splits: pd.DataFrame, out: Path) -> None:
    """Refuse a folder of results of another profile or cohort, or with other splits."""
    _check_profile(profile, out)
    path = out / SPLITS
    if not path.exists():
        return
    types = {"patient_id": str, "split": str, "fold": int}
    saved = pd.read_csv(path, dtype=types, keep_default_na=False)  # a patient may be called NA
    if not saved.equals(splits.astype(saved.dtypes)):
        raise UserError(
            f"{path}: made from another cohort, profile or seed, or by another version of fracsurv; choose "
            f"another --out, or delete {out}"
        )
    predictions = next(out.glob("experiments/*/fold-*/predictions.parquet"), None)
    if predictions is not None and not _same_outcomes(cohort, predictions):
        raise UserError(f"{out}: holds results of another cohort; choose another --out, or delete {out}")


def _check_profile(profile: Profile, out: Path) -> None:
    """Refuse a folder of another profile's fits, or in which one is at work: this one's would replace them."""
    known = named_profile(out)
    if known not in ("", profile.name) and is_held(out / RUN_LOCK):
        raise UserError(f"{out}: profile {known} is being run there; wait for it, or choose another --out")
    if next(out.glob("experiments/*/**/fold-*/*"), None) is None:
        return
    if not known:
        raise UserError(
            f"{out}: holds fits, but {PROFILE}, which names their profile, is missing; write it again, or choose "
            "another --out"
        )
    if known != profile.name:
        raise UserError(
            f"{out}: holds the results of profile {known}, not {profile.name}; give --profile {known}, or choose "
            "another --out"
        )


def named_profile(out: Path) -> str:
    """Name of the profile of a folder's fits, as the folder says; '' where it does not."""
    return (out / PROFILE).read_text(encoding="utf-8").strip() if (out / PROFILE).exists() else ""


def _same_outcomes(cohort: Cohort, predictions: Path) -> bool:
    """Whether most patients have the outcome that is written beside their predictions.

    A cohort in which single values were corrected is the same one, and its fits are made anew.
    """
    here = cohort.table.set_index("patient_id")[["time", "event"]]
    there = pd.read_parquet(predictions, columns=["patient_id", "time", "event"]).set_index("patient_id")
    there = there.reindex(here.index)
    return ((there["time"] == here["time"]) & (there["event"] == here["event"])).mean() >= SAME_PATIENTS


def permuted(cohort: Cohort, seed: int) -> Cohort:
    """The cohort with (time, event) permuted: covariates and images then say nothing about the outcome."""
    table = cohort.table.copy()
    order = np.random.default_rng(seed).permutation(len(table))
    for column in ("time", "event", *(["competing"] if cohort.has_competing else [])):
        table[column] = table[column].to_numpy()[order]
    return replace(cohort, table=table)
