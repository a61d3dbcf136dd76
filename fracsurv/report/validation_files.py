"""A validation from beginning to end: who may be judged, the judging, and its folder, which appears whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort, read_cohort
from fracsurv.predict.predict import other_than_training, some_experiments
from fracsurv.predict.recalibrate import METHODS
from fracsurv.predict.shift import found_boxes, other_greys, unlike_training
from fracsurv.predict.train_overlap import met_by_row, seen_in_training
from fracsurv.predict.validate import (
    Validated,
    outcome_faults,
    predictions_table,
    validate_experiment,
)
from fracsurv.report.validation_page import write_page
from fracsurv.report.validation_words import Study, answer, cautions
from fracsurv.study.model_bundle import read_bundle
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import (
    atomic_folder,
    atomic_path,
    check_outside,
    read_json,
    write_json,
)
from fracsurv.utils.formatting import counted, have, was

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
        What to do with patients who have the id of a training patient. Where more than chance gives have one's
        outcome and covariates, the cohort is refused, but with 'keep'.

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
    cohort = read_cohort(folder, learnt=False)
    known = some_experiments(run)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--experiment {unknown[0]}: not of this run; it has {', '.join(known)}")
    names = list(dict.fromkeys(names)) or known
    applied = read_bundle(run / "experiments" / names[0] / "fold-0")
    faults, met = outcome_faults(applied, cohort), seen_in_training(run, cohort)
    leaves_out = overlap == "exclude" and met is not None and not met.all()
    others = cohort.of_rows(np.flatnonzero(~met)) if leaves_out else cohort
    for name in names:
        faults += [fault for fault in other_than_training(run, others, name) if fault not in faults]
    if faults:
        named = overlap == "refuse" and met is not None and met.any()
        raise UserError([*faults, _named_alike(met, len(cohort))] if named else faults)
    with atomic_folder(out) as temporary:
        work = temporary / "prepared"
        n_given = len(cohort)
        cohort, warnings = others_only(run, cohort, overlap)
        if faults := outcome_faults(applied, cohort, n_given - len(cohort)):
            raise UserError(faults)
        validated = [
            validate_experiment(run, cohort, name, work, n_draws=n_draws, seed=seed, workers=workers)
            for name in names
        ]
        warnings += dict.fromkeys(line for name in names for line in found_boxes(run, cohort, name, work))
        warnings += dict.fromkeys(line for name in names for line in other_greys(run, name, work))
        shutil.rmtree(work, ignore_errors=True)
        study = Study(run, cohort, validated, n_draws, seed, warnings)
        _write_tables(study, temporary)
        write_json(temporary / "recalibration.json", recalibration_record(run, cohort, validated))
        write_page(study, temporary)
    # values of single patients are named here alone, and not on the page
    odd = unlike_training(run, cohort, names[0], singled=True)
    return [answer(study), *(f"warning: {line}" for line in [*cautions(study), *odd])]


def _named_alike(named: np.ndarray, n_patients: int) -> str:
    return (
        f"patient_id: {_has_ids(named, n_patients)}; --overlap exclude leaves them out, --overlap keep if they are "
        "other people, numbered alike"
    )


def _has_ids(named: np.ndarray, n_patients: int) -> str:
    n = int(named.sum())
    return f"{n:,} of {counted(n_patients, 'patient')} {have(n)} the id of a patient whom the models were trained on"


def others_only(run: Path, cohort: Cohort, overlap: str) -> tuple[Cohort, list[str]]:
    """The cohort, with 'exclude' without those who have a training patient's id, and sentences for the page.

    Nobody is left out for her row: a choice by outcome would change what is observed.

    Raises
    ------
    UserError
        Where patients were met in training, by id or clearly by row, and `overlap` does not say what to do with
        them; where nobody is left.
    """
    by_id = seen_in_training(run, cohort)
    named = np.zeros(len(cohort), bool) if by_id is None else by_id
    has = _has_ids(named, len(cohort))
    faults, warnings = [], []
    if named.any() and overlap == "refuse":
        faults.append(_named_alike(named, len(cohort)))
    elif named.any() and overlap == "keep":
        warnings.append(
            f"{has}. They were kept as other people (--overlap keep); if they are not, this is no validation."
        )
    elif named.all():
        raise UserError(f"patient_id: {has}: nobody is left to validate on")
    elif named.any():
        warnings.append(f"{has}, and {was(int(named.sum()))} left out.")
        cohort, named = cohort.of_rows(np.flatnonzero(~named)), named[~named]
    with TemporaryDirectory() as work:
        by_row = met_by_row(run, cohort, Path(work))
    if by_row is not None and by_row.beyond_chance:
        alike = int(by_row.rows.sum())
        has = (
            f"{alike:,} of {counted(len(cohort), 'patient')} {have(alike)} the time, the event and the log hazard "
            f"(by Cox regression) of a patient whom the models were trained on "
            f"({int((by_row.rows & named).sum()):,} the id too); among strangers about {by_row.by_chance:.1f} would"
        )
        if overlap == "keep":
            warnings.append(f"{has}. They were kept (--overlap keep); if they are the same, this is no validation.")
        else:
            faults.append(
                f"time, event: {has}. Give other patients, or --overlap keep if you know that they are others; "
                "nobody is left out for an outcome"
            )
    if faults:
        raise UserError(faults)
    if by_id is None and by_row is None:
        warnings.append(
            "This run's folder does not say whom it was trained on: nobody checked that these are others."
        )
    return cohort, warnings


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
