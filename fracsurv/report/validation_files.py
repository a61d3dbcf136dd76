"""A validation from beginning to end: who may be judged, the judging, and its folder, which appears whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort, read_cohort
from fracsurv.predict.predict import experiments_of, read_models, training_mismatches
from fracsurv.predict.recalibrate import METHODS
from fracsurv.predict.shift import finder_warnings, grey_scale_warnings, values_beyond_training
from fracsurv.predict.train_overlap import id_fault, seen_in_training, without_training_patients
from fracsurv.predict.validate import (
    Validated,
    outcome_faults,
    predictions_table,
    validate_experiment,
)
from fracsurv.report.validation_page import write_page
from fracsurv.report.validation_words import Study, cautions, validation_answer
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import (
    atomic_folder,
    atomic_path,
    check_outside,
    read_json,
    write_json,
)

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
        What to do with patients who have the id of a training patient.

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
    known = experiments_of(run)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--experiment {unknown[0]}: not of this run; it has {', '.join(known)}")
    names = list(dict.fromkeys(names)) or known
    models = {name: read_models(run, name) for name in names}
    first = models[names[0]]
    faults, met = outcome_faults(first[0], cohort), seen_in_training(run, cohort)
    leaves_out = overlap == "exclude" and met is not None and not met.all()
    others = cohort.of_rows(np.flatnonzero(~met)) if leaves_out else cohort
    for name in names:
        faults += [fault for fault in training_mismatches(models[name], others) if fault not in faults]
    if faults:
        named = overlap == "refuse" and met is not None and met.any()
        raise UserError([*faults, id_fault(met)] if named else faults)
    with atomic_folder(out) as temporary:
        work = temporary / "prepared"
        n_given = len(cohort)
        cohort, warnings = without_training_patients(run, cohort, overlap)
        if faults := outcome_faults(first[0], cohort, n_given - len(cohort)):
            raise UserError(faults)
        validated = [
            validate_experiment(models[name], cohort, work, n_draws=n_draws, seed=seed, workers=workers)
            for name in names
        ]
        warnings += dict.fromkeys(line for each in models.values() for line in finder_warnings(each, cohort, work))
        warnings += dict.fromkeys(line for each in models.values() for line in grey_scale_warnings(each, work))
        shutil.rmtree(work, ignore_errors=True)
        study = Study(run, cohort, validated, n_draws, seed, warnings)
        _write_tables(study, temporary)
        write_json(temporary / "recalibration.json", recalibration_record(run, cohort, validated))
        write_page(study, temporary)
    # values of single patients are named here alone, and not on the page
    odd = values_beyond_training(first, cohort, named_rows=True)
    return [validation_answer(study), *(f"warning: {line}" for line in [*cautions(study), *odd])]


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
