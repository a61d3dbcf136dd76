"""A validation from beginning to end: who may be judged, the judging, and its folder, which appears whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from fracsurv.applying import read_application
from fracsurv.cohort import Cohort, read_cohort
from fracsurv.errors import UserError
from fracsurv.files import atomic_folder, atomic_path, check_outside, read_json, write_json
from fracsurv.overlap import met_by_id, met_by_row
from fracsurv.predicting import some_experiments, unlike_training
from fracsurv.recalibrating import METHODS
from fracsurv.validating import Validated, check_outcome, predictions_table, validate_experiment
from fracsurv.validation_page import write_page
from fracsurv.validation_words import Study, answer, cautions

VERSION = 1
WHAT = (
    "Recalibrations of a run's models to the patients of one cohort, made from all of them. They are corrections for "
    "patients like these, and no validated models: how well they do was estimated by cross-fitting (validation.csv), "
    "and has to be seen in further patients. Research only."
)


def write_validation(
    run: Path,
    folder: Path,
    out: Path,
    names: Sequence[str],
    *,
    overlap: str,
    n_draws: int,
    seed: int,
    workers: int = 1,
) -> list[str]:
    """Validate experiments of a run on a cohort, and write the folder `out`.

    It holds `index.html`, `validation.csv`, `recalibration.json`, `predictions.csv` and `tables/`.

    Parameters
    ----------
    run, folder : path
        The run's folder, and the cohort's.
    names : sequence of str
        Experiments; all of the run if empty.
    overlap : {'refuse', 'exclude', 'keep'}
        What to do with patients who have the id of a training patient; whoever has one's outcome and covariates too
        is refused, or with 'exclude' left out, but never kept.

    Returns
    -------
    list of str
        The answer, and what is to be known beside it.

    Raises
    ------
    UserError
        Where there is nothing to validate, or it would be no validation; see the module's functions.
    """
    check_outside(out, folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: is there already and not empty; give a new folder")
    cohort = read_cohort(folder)
    known = some_experiments(run)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--experiment {unknown[0]}: not of this run; it has {', '.join(known)}")
    names = list(dict.fromkeys(names)) or known
    applied = read_application(run / "experiments" / names[0] / "fold-0")
    check_outcome(applied, cohort)
    with atomic_folder(out) as temporary:
        work = temporary / "prepared"
        cohort, warnings = others_only(run, cohort, overlap)
        check_outcome(applied, cohort)
        validated = [
            validate_experiment(run, cohort, name, work, n_draws=n_draws, seed=seed, workers=workers)
            for name in names
        ]
        shutil.rmtree(work, ignore_errors=True)
        study = Study(run, cohort, validated, n_draws, seed, warnings)
        _write_tables(study, temporary)
        write_json(temporary / "recalibration.json", recalibration_record(run, cohort, validated))
        write_page(study, temporary)
    # values of single patients are named here alone, and not on the page
    odd = unlike_training(run, cohort, names[0])
    return [answer(study), *(f"warning: {line}" for line in [*cautions(study), *odd])]


def others_only(run: Path, cohort: Cohort, overlap: str) -> tuple[Cohort, list[str]]:
    """The cohort without patients met in training, and sentences for the page.

    Raises
    ------
    UserError
        Where there are any and `overlap` does not say what to do with them; where nobody is left.
    """
    with TemporaryDirectory() as work:
        same = met_by_row(run, cohort, Path(work))
    named = met_by_id(run, cohort)
    nobody = np.zeros(len(cohort), bool)
    row, by_id = (nobody if found is None else found for found in (same, named))
    n = f"of {len(cohort):,} patients"
    if row.any() and overlap != "exclude":
        raise UserError(
            f"{int(row.sum()):,} {n} have follow-up and covariates of patients whom the models were trained on "
            f"({int((row & by_id).sum()):,} their ids too): no validation; give other patients, or --overlap exclude"
        )
    if by_id.any() and overlap == "refuse":
        raise UserError(
            f"patient_id: {int(by_id.sum()):,} {n} have the id of a patient whom the models were trained on; "
            "--overlap exclude leaves them out, --overlap keep if they are other people, numbered alike"
        )
    out = row | by_id if overlap == "exclude" else nobody
    warnings = []
    if out.all():
        raise UserError("all patients were met in training: nobody is left to validate on")
    if out.any():
        warnings.append(f"{int(out.sum()):,} {n} were met in training and left out.")
    elif by_id.any():
        warnings.append(
            f"{int(by_id.sum()):,} {n} have the id of a training patient. They were kept as other people (--overlap "
            "keep); if they are not, this is no validation."
        )
    if named is None and same is None:
        warnings.append(
            "This run's folder does not say whom it was trained on: nobody checked that these are others."
        )
    return (cohort.of_rows(np.flatnonzero(~out)) if out.any() else cohort), warnings


def recalibration_record(run: Path, cohort: Cohort, validated: Sequence[Validated]) -> dict[str, Any]:
    """What `recalibration.json` holds: the corrections, what to do with them, whose they are."""
    about = validated[0].about
    return {
        "version": VERSION,
        "what": WHAT,
        "trained_on": {key: about[key] for key in ("provenance", "outcome", "time_unit")},
        "recalibrated_on": {
            "provenance": cohort.provenance,
            "outcome": cohort.outcome,
            "time_unit": cohort.time_unit,
            "fingerprint": cohort.fingerprint(),
            "patients": len(cohort),
            "events": int(cohort.table["event"].sum()),
        },
        "experiments": {
            each.name: {
                "fits": [
                    read_json(path)["key"] for path in sorted(run.glob(f"experiments/{each.name}/fold-*/fit.json"))
                ],
                "recalibrations": {m: each.fitted[m].as_record() for m in METHODS if m in each.fitted},
            }
            for each in validated
        },
    }


def _write_tables(study: Study, out: Path) -> None:
    every = pd.concat([each.table for each in study.validated], ignore_index=True)
    trained, judged = study.provenances
    every = every.assign(trained_on=trained, judged_on=judged)
    predictions = pd.concat([predictions_table(study.cohort, each) for each in study.validated], ignore_index=True)
    for name, frame in (("validation", every), ("predictions", predictions)):
        with atomic_path(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
