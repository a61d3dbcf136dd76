"""Whether patients to validate on were met in training: by their ids, and by what the run keeps of its patients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import poisson

from fracsurv.cohort.cohort import Cohort
from fracsurv.predict.predict import apply_models, experiments_of
from fracsurv.study.model_bundle import read_bundle

ALIKE = 1e-6
"""Log hazards of one Cox model that differ by less are of the same covariates."""
SELDOM = 0.001
"""The chance below which patients alike are no longer taken for strangers."""
TENTH = 10
MOST_OTHERS = 50
"""On either side, the others whose follow-up a patient is given: a tenth of all, at most 100."""


def seen_in_training(run: Path, cohort: Cohort) -> NDArray | None:
    """Which patients (n,) have the id of one whom the models were fitted or chosen on; None if it is not known."""
    known: set[str] = set()
    if (run / "splits.csv").exists():
        # a patient may be called NA
        splits = pd.read_csv(run / "splits.csv", dtype={"patient_id": str, "split": str}, keep_default_na=False)
        known = set(splits.loc[splits["split"] == "train", "patient_id"])
    for path in sorted(run.glob("experiments/*/fold-0/predictions.parquet"))[:1] if not known else ():
        known = set(_trained(pd.read_parquet(path))["patient_id"])
    return cohort.table["patient_id"].isin(known).to_numpy() if known else None


@dataclass(frozen=True)
class Alike:
    """Patients whose follow-up and covariates are also those of a training patient.

    Attributes
    ----------
    rows : array, shape (n,)
        Bool.
    by_chance : float
        How many strangers would be alike, at most: see `alike`.
    """

    rows: NDArray
    by_chance: float

    @property
    def beyond_chance(self) -> bool:
        """Whether chance gives as many in one of a thousand cohorts at most (Poisson's distribution)."""
        return bool(poisson.sf(int(self.rows.sum()) - 1, self.by_chance) <= SELDOM)


def met_by_row(run: Path, cohort: Cohort, work: Path) -> Alike | None:
    """Which patients have a training patient's time, event and covariates, under whatever id; None if not known.

    A run keeps no covariates, but what its models made of them: in every fold the log hazard by Cox regression.
    """
    name = next((name for name in experiments_of(run) if _is_cox(run, name)), None)
    paths = sorted((run / "experiments" / str(name)).glob("fold-*/predictions.parquet"))
    if not paths:
        return None
    models = apply_models(run, cohort, name, work, progress=False)
    if len(paths) != len(models.risks):
        return None
    kept = [pd.read_parquet(path).set_index("patient_id") for path in paths]
    trained = _trained(kept[0].reset_index())
    theirs = np.column_stack([each.loc[trained["patient_id"], "risk"] for each in kept])
    followed = [table[["time", "event"]].to_numpy(float) for table in (cohort.table, trained)]
    return alike(models.risks.T, followed[0], theirs, followed[1])


def alike(risks: NDArray, followed: NDArray, their_risks: NDArray, their_followed: NDArray) -> Alike:
    """Who has a training patient's follow-up and log hazards, and how many would if all were strangers.

    Strangers are alike too where covariates are few and binary, or times are whole years. How many is seen when each
    patient is given the follow-up of others with nearly the same risk: theirs is as likely hers, but no one's own.

    Parameters
    ----------
    risks, their_risks : arrays, shape (n, n_models) and (n_training, n_models)
        Log hazards of the same models.
    followed, their_followed : arrays, shape (n, 2) and (n_training, 2)
        Time and event.
    """
    n = len(risks)
    risk = np.stack([_codes(np.concatenate(each)) for each in zip(risks.T, their_risks.T, strict=True)], axis=1)
    risk = np.unique(risk, axis=0, return_inverse=True)[1].ravel()
    times, of = np.unique(np.concatenate([followed, their_followed]), axis=0, return_inverse=True)
    of = of.ravel()
    known = np.unique(risk[n:] * len(times) + of[n:])
    order = np.argsort(risks.mean(axis=1), kind="stable")
    ranked, own = risk[:n][order] * len(times), of[:n][order]
    reach = int(np.clip(n // (2 * TENTH), 1, MOST_OTHERS))
    shifts = [shift for shift in range(-reach, reach + 1) if shift]
    strangers = sum(int(np.isin(ranked + np.roll(own, shift), known).sum()) for shift in shifts)
    # one more than were seen: none among few others does not mean that there can be none
    return Alike(np.isin(risk[:n] * len(times) + of[:n], known), (strangers + 1) / len(shifts))


def _codes(values: NDArray) -> NDArray:
    """A number for each distinct value (n,): those that differ by less than `ALIKE` from the next are one."""
    order = np.argsort(values)
    codes = np.empty(len(values), int)
    codes[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) >= ALIKE)])
    return codes


def _trained(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["split"].isin(["train", "validation"])]


def _is_cox(run: Path, name: str) -> bool:
    row = read_bundle(run / "experiments" / name / "fold-0").experiment
    return row.model == "cox_ph" and not row.morphometry
