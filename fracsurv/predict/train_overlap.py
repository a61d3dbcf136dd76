"""Patients to predict or validate on who have the id of a training patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.cohort import Cohort
from fracsurv.utils.errors import UserError
from fracsurv.utils.formatting import counted
from fracsurv.utils.names import canonical


def seen_in_training(run: Path, cohort: Cohort) -> NDArray | None:
    """Which patients (n,) have the id of one whom the models were fitted or chosen on; None if it is not known.

    Capitals, accents' composition, blanks, dashes and invisible characters make no other id.
    """
    known: set[str] = set()
    if (run / "splits.csv").exists():
        # a patient may be called NA
        splits = pd.read_csv(run / "splits.csv", dtype={"patient_id": str, "split": str}, keep_default_na=False)
        known = set(splits.loc[splits["split"] == "train", "patient_id"])
    for path in sorted(run.glob("experiments/*/fold-0/predictions.parquet"))[:1] if not known else ():
        predictions = pd.read_parquet(path)
        known = set(predictions.loc[predictions["split"].isin(["train", "validation"]), "patient_id"])
    alike = {canonical(name) for name in known}
    return cohort.table["patient_id"].map(canonical).isin(alike).to_numpy() if known else None


def id_fault(seen: NDArray) -> str:
    """The fault of a cohort with patients `seen` (n,) in training, and what to do."""
    return (
        f"patient_id: {_share(seen)}; --overlap exclude leaves them out, --overlap keep if they are other people, "
        "numbered alike"
    )


def without_training_patients(run: Path, cohort: Cohort, overlap: str) -> tuple[Cohort, list[str]]:
    """The cohort, with 'exclude' without those who have a training patient's id, and sentences for the page.

    Raises
    ------
    UserError
        Where there are such patients and `overlap` is 'refuse'; where nobody is left.
    """
    seen = seen_in_training(run, cohort)
    if seen is None:
        unchecked = "This run's folder does not say whom it was trained on: nobody checked that these are others."
        return cohort, [unchecked]
    if not seen.any():
        return cohort, []
    if overlap == "refuse":
        raise UserError(id_fault(seen))
    if overlap == "keep":
        kept = "They were kept as other people (--overlap keep); if they are not, this is no validation."
        return cohort, [f"{_share(seen)}. {kept}"]
    if seen.all():
        raise UserError(f"patient_id: {_share(seen)}: nobody is left to validate on")
    return cohort.of_rows(np.flatnonzero(~seen)), [f"{_share(seen)}. Left out: {int(seen.sum()):,}."]


def _share(seen: NDArray) -> str:
    return f"{int(seen.sum()):,} of {counted(len(seen), 'patient')} with the id of a patient in the models' training"
