"""Whether patients to validate on were met in training: by their ids, and by what the run keeps of its patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.applying import read_application
from fracsurv.cohort import Cohort
from fracsurv.predicting import apply_models, experiments_of

ALIKE = 1e-6
"""Log hazards of one Cox model that differ by less are of the same covariates."""


def met_by_id(run: Path, cohort: Cohort) -> NDArray | None:
    """Which patients (n,) have the id of one whom the models were fitted or chosen on; None if it is not known."""
    known: set[str] = set()
    if (run / "splits.csv").exists():
        # a patient may be called NA
        splits = pd.read_csv(run / "splits.csv", dtype={"patient_id": str, "split": str}, keep_default_na=False)
        known = set(splits.loc[splits["split"] == "train", "patient_id"])
    for path in sorted(run.glob("experiments/*/fold-0/predictions.parquet"))[:1] if not known else ():
        known = set(_trained(pd.read_parquet(path))["patient_id"])
    return cohort.table["patient_id"].isin(known).to_numpy() if known else None


def met_by_row(run: Path, cohort: Cohort, work: Path) -> NDArray | None:
    """Which patients (n,) have such a one's time, event and covariates, under whatever id; None if it cannot be told.

    A run keeps no covariates, but what its models made of them: whoever has the same time, the same event and in
    every fold the same log hazard by Cox regression is taken for the same patient.
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
    here = cohort.table[["time", "event"]].assign(row=np.arange(len(cohort)))
    pairs = here.merge(trained[["time", "event"]].assign(other=np.arange(len(trained))), on=["time", "event"])
    gap = np.abs(models.risks.T[pairs["row"]] - theirs[pairs["other"]]).max(axis=1)
    return np.isin(here["row"], pairs["row"][gap < ALIKE])


def _trained(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["split"].isin(["train", "validation"])]


def _is_cox(run: Path, name: str) -> bool:
    row = read_application(run / "experiments" / name / "fold-0").experiment
    return row.model == "cox_ph" and not row.morphometry
