"""The explanations of an experiment's fold models as files: written whole, beside its results, and read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fracsurv.cohort.boxes import LEVELS
from fracsurv.config import TRUE_RISK
from fracsurv.study.results import finished
from fracsurv.study.run import Run
from fracsurv.utils.files import atomic_path, read_json, write_json

VERSION = 4
"""Raised whenever the same models would be explained otherwise."""
PATIENTS, FACTOR_PATIENTS = 100, 500
"""Whose images are looked at if nothing else is asked for: each passes the networks 16 times. Whose factors are
permuted, of all models, so that these can be compared."""
PREFERRED = ("intermediate", "none", "alpha")
"""Of the rows that share an input and an encoder, the one to explain: the first of these fusions."""


@dataclass(frozen=True)
class Explanation:
    """What was found of an experiment's fold models.

    Attributes
    ----------
    split : str
        Whose patients were looked at.
    patients : list of str
        The sample of them whose images were.
    n_factors : int
        Of how many of them the factors were permuted.
    contributions : ndarray (n_folds, n, 13) or None
        See `vertebra_contributions`; None without an image.
    places : ndarray (H, W) or None
        Grad-CAM or rollout, the mean over the sample, each fold's scaled to mean 1, then over the folds.
    factors : DataFrame or None
        `fold, factor, loss`, and of the mean over the folds a 95 % interval over patients, `ci_low, ci_high`; None
        for a model without clinical factors.
    """

    split: str
    patients: list[str]
    n_factors: int
    contributions: np.ndarray | None
    places: np.ndarray | None
    factors: pd.DataFrame | None


def explainable(run: Run) -> list[str]:
    """The finished rows to explain: the two clinical models, and one for each input and encoder."""
    done = [name for name in finished(run) if name != TRUE_RISK]
    chosen = [name for name in ("cox_ph", "deepsurv") if name in done]
    for fusion in PREFERRED:
        for name in done:
            row, others = run.experiments[name], [run.experiments[other] for other in chosen]
            new = (row.input, row.encoder) not in [(other.input, other.encoder) for other in others]
            if row.needs_images and row.fusion == fusion and new:
                chosen.append(name)
    return [name for name in done if name in chosen]


def folder_of(run: Run, name: str) -> Path:
    """Where an experiment's explanation lies."""
    return run.out / "explanations" / name


def read_explanation(run: Run, name: str) -> Explanation | None:
    """What `explain` wrote of the models as they are now; None where it did not, or of other ones."""
    folder = folder_of(run, name)
    if not (folder / "explanation.json").exists():
        return None
    about = read_json(folder / "explanation.json")
    if about["key"] != explanation_key(run, name, about["split"], about["asked"]):
        return None
    arrays = {
        what: np.load(path) if (path := folder / f"{what}.npy").exists() else None
        for what in ("contributions", "places")
    }
    factors = pd.read_csv(folder / "factors.csv") if about["factors"] else None
    return Explanation(about["split"], about["patients"], about["n_factors"], **arrays, factors=factors)


def read_explanations(run: Run, names: Sequence[str]) -> dict[str, Explanation]:
    """Those of these experiments that are explained as they are now."""
    found = {name: read_explanation(run, name) for name in names}
    return {name: each for name, each in found.items() if each is not None}


def write_explanation(run: Run, folder: Path, found: Explanation, key: str, asked: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "explanation.json").unlink(missing_ok=True)
    for what in ("contributions", "places"):
        array, path = getattr(found, what), folder / f"{what}.npy"
        path.unlink(missing_ok=True)
        if array is not None:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, array.astype(np.float32))
    if found.factors is not None:
        with atomic_path(folder / "factors.csv") as temporary:
            found.factors.to_csv(temporary, index=False)
    about = {"key": key, "split": found.split, "asked": asked, "levels": LEVELS, "patients": found.patients}
    about |= {"n_factors": found.n_factors, "factors": found.factors is not None}
    write_json(folder / "explanation.json", about)


def explanation_key(run: Run, name: str, split: str, asked: int) -> str:
    folds = range(run.profile.n_folds)
    # boxes too: a vertebra of a full radiograph is taken away by its box, though no fit on full ones depends on it
    made_from = [VERSION, asked, FACTOR_PATIENTS, split, run.cohort.fingerprint(boxes=True)]
    made_from += [read_json(run.folder(name, k) / "metrics.json")["key"] for k in folds]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
