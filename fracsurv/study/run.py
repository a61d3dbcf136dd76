"""A run: one cohort, one profile, one folder of results; where everything lies, and what may be computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort, read_cohort
from fracsurv.cohort.splits import make_splits
from fracsurv.config import (
    TRUE_RISK,
    Experiment,
    Profile,
    as_record,
    load_experiments,
    load_profile,
)
from fracsurv.detection.locate import locate_vertebrae
from fracsurv.images.store import (
    ImageStore,
    build_store,
    fingerprint_of,
    is_built,
)
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import (
    atomic_path,
    is_held,
    read_json,
    write_text,
)
from fracsurv.vertebrae.covariates import VERTEBRAL

if TYPE_CHECKING:
    import torch

RESULTS_VERSION = 3
"""Raised whenever the same cohort and settings would give other results."""
BUNDLE_VERSION = 4
"""Raised whenever `model.json` holds something else."""
IRRELEVANT = (
    "name", "note", "epochs", "encoders", "alphas", "bootstrap_draws", "simulate", "feeding", "tensorboard"
)  # fmt: skip
"""Entries of a profile on which no fit depends; epochs and encoders are the experiment's, once applied."""


PROFILE = "profile.txt"
"""In a run's folder: the name of the profile of its fits."""
RUN_LOCK = ".lock"
"""Held while `fracsurv run` is at work there."""
SAME_PATIENTS = 0.5
"""Share of patients with the same outcome under which a cohort is another one."""


@dataclass(frozen=True)
class Run:
    """A cohort under a profile. `open_run` makes it; nothing is written until something is asked for."""

    cohort: Cohort
    out: Path
    profile: Profile
    experiments: dict[str, Experiment]
    splits: pd.DataFrame
    _stores: dict[str, ImageStore] = field(default_factory=dict, repr=False)
    _pixels: dict[str, str] = field(default_factory=dict, repr=False)

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
        measured = self.cohort.has_keypoints
        names = [
            name
            for name, row in self.experiments.items()
            if possible[row.input] and (measured or not row.morphometry)
        ]
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
        return [
            *self.cohort.covariates,
            *self.cohort.indicators,
            *(VERTEBRAL if self.experiments[name].morphometry else ()),
        ]

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

    def store(self, kind: str) -> ImageStore:
        """The store of 'crops' or 'full' images, opened once; built if it is not there or its sources changed."""
        if kind not in self._stores:
            store = ImageStore.open(prepare_store(self, kind))
            if self._pixels.setdefault(kind, store.meta["fingerprint"]) != store.meta["fingerprint"]:
                raise UserError(f"{self.cohort.folder}: radiographs changed meanwhile; open the run again")
            self._stores[kind] = store
        return self._stores[kind]

    def pixels(self, kind: str) -> str:
        """Fingerprint of the store of 'crops' or 'full' images, whether it is built or not; looked up once."""
        if kind not in self._pixels:
            self._pixels[kind] = fingerprint_of(
                self.cohort, _store_folder(self, kind), scale=_store_scale(self, kind), inputs=(kind,)
            )
        return self._pixels[kind]

    def key(self, name: str, fold: int, alpha: float | None) -> str:
        """Fingerprint of all that a fit depends on, so that no result of another setting is taken for its own."""
        profile = as_record(self.profile)
        for irrelevant in IRRELEVANT:
            del profile[irrelevant]
        row = self.experiment(name) if name != TRUE_RISK else None
        parts = {
            "version": RESULTS_VERSION,
            "experiment": as_record(row) if row else name,
            "pretrained": {part: self.key(other, fold, None) for part, other in row.pretrained.items()}
            if row
            else {},
            "pixels": self.pixels(row.input) if row and row.needs_images else "",
            "profile": profile,
            "cohort": self.cohort.fingerprint(boxes=bool(row and row.morphometry)),  # crops: see pixels
            "splits": hashlib.sha256(self.splits.to_csv(index=False).encode()).hexdigest(),
            "fold": fold,
            "alpha": alpha,
        }
        if row and row.needs_images and self.cohort.masks:
            parts["masked"] = True
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def evaluation_key(self, name: str, fold: int, alpha: float | None = None) -> str:
        """Fingerprint of what predictions, metrics and `model.json` depend on beside the fit."""
        about = self.cohort.outcome, self.cohort.time_unit, self.cohort.competing_event
        parts = [self.key(name, fold, alpha), list(self.cohort.horizons), BUNDLE_VERSION, *about]
        if alpha is not None:
            parts.append(list(self.profile.alphas))
        if self.cohort.has_competing:
            parts.append("ranked by absolute risk")
        if name == TRUE_RISK:
            parts.append(hashlib.sha256((self.cohort.folder / "truth.parquet").read_bytes()).hexdigest())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def open_run(cohort: str | Path, out: str | Path, profile: str | Profile, *, progress: bool = False) -> Run:
    """Read the cohort and the settings; take boxes and splits from `out`, or find the one and draw the other.

    Parameters
    ----------
    progress : bool
        A progress bar while vertebrae are looked for; only the first run of a cohort without boxes takes long.

    Raises
    ------
    UserError
        For faults of the cohort, the profile or the experiments, or where the saved splits or results are another
        cohort's.
    """
    profile = load_profile(profile) if isinstance(profile, str) else profile
    checked = read_cohort(cohort)
    if profile.permute_outcomes:
        checked = permuted(checked, profile.seed)
    out = Path(out)
    _check_same_profile(profile, out)
    splits = make_splits(checked, n_folds=profile.n_folds, test_fraction=profile.test_fraction, seed=profile.seed)
    path = out / "splits.csv"
    if path.exists():
        types = {"patient_id": str, "split": str, "fold": int}
        saved = pd.read_csv(path, dtype=types, keep_default_na=False)  # a patient may be called NA
        if not saved.equals(splits.astype(saved.dtypes)):
            raise UserError(
                f"{path}: made from another cohort, profile or seed, or by another version of fracsurv; choose "
                f"another --out, or delete {out}"
            )
        _check_same_patients(checked, out)
    else:
        with atomic_path(path) as temporary:
            splits.to_csv(temporary, index=False)
    if _named_profile(out) != profile.name:
        write_text(out / PROFILE, f"{profile.name}\n")
    checked = locate_vertebrae(checked, out / "prepared", progress=progress)
    return Run(checked, out, profile, load_experiments(), splits)


def _check_same_profile(profile: Profile, out: Path) -> None:
    """Refuse a folder of another profile's fits: each would make way for this one's, days of work perhaps.

    Also one in which another profile is at work, and may not have fitted anything yet.
    """
    known = _named_profile(out)
    if known not in ("", profile.name) and is_held(out / RUN_LOCK):
        raise UserError(f"{out}: profile {known} is being run there; wait for it, or choose another --out")
    if next(out.glob("experiments/*/**/fold-*/*"), None) is None:
        return
    if not known and (out / "provenance.json").exists():
        with suppress(ValueError, KeyError, TypeError):  # damaged
            known = read_json(out / "provenance.json")["profile"]["name"]
    if not known:
        raise UserError(
            f"{out}: holds fits, and it is not known of which profile; write its name into {out / PROFILE}, or "
            "choose another --out"
        )
    if known != profile.name:
        raise UserError(
            f"{out}: holds the results of profile {known}, not {profile.name}; give --profile {known}, or choose "
            "another --out"
        )


def _named_profile(out: Path) -> str:
    """Whose results a folder holds, or is to hold, as it says itself; '' where it does not."""
    return (out / PROFILE).read_text(encoding="utf-8").strip() if (out / PROFILE).exists() else ""


def _check_same_patients(cohort: Cohort, out: Path) -> None:
    """Refuse a folder with another cohort's results: one with other outcomes for most patients, whatever their ids.

    A cohort in which single values were corrected is the same one, and its fits are made anew.
    """
    path = next(out.glob("experiments/*/fold-*/predictions.parquet"), None)
    if path is None:
        return
    there = pd.read_parquet(path, columns=["patient_id", "time", "event"]).set_index("patient_id")
    here = cohort.table.set_index("patient_id")[["time", "event"]]
    there = there.reindex(here.index)
    if ((there["time"] == here["time"]) & (there["event"] == here["event"])).mean() < SAME_PATIENTS:
        raise UserError(f"{out}: holds results of another cohort; choose another --out, or delete {out}")


def permuted(cohort: Cohort, seed: int) -> Cohort:
    """The cohort with (time, event) dealt out at random: covariates and images then say nothing about them."""
    table = cohort.table.copy()
    order = np.random.default_rng(seed).permutation(len(table))
    for column in ("time", "event", *(["competing"] if cohort.has_competing else [])):
        table[column] = table[column].to_numpy()[order]
    return replace(cohort, table=table)


def prepare_store(run: Run, kind: str, *, workers: int = 1, progress: bool = False) -> Path:
    """Build the store of 'crops' or 'full' images under the run's folder, or find it there unchanged."""
    return build_store(
        run.cohort, _store_folder(run, kind), scale=_store_scale(run, kind), inputs=(kind,), workers=workers,
        progress=progress,
    )  # fmt: skip


def has_store(run: Run, kind: str) -> bool:
    """Whether that store is there, of the cohort as it is."""
    return is_built(run.cohort, _store_folder(run, kind), scale=_store_scale(run, kind), inputs=(kind,))


def _store_folder(run: Run, kind: str) -> Path:
    return run.out / "prepared" / kind


def _store_scale(run: Run, kind: str) -> float:
    return run.profile.scale if kind == "crops" else run.profile.full_scale
