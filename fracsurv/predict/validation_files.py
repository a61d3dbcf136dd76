"""Who a run's models may be evaluated on, with every refusal at once, and the files that an evaluation leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort, read_cohort
from fracsurv.predict.predict import experiments_of, read_models, training_mismatches
from fracsurv.predict.recalibrate import METHODS
from fracsurv.predict.shift import other_units
from fracsurv.predict.train_overlap import id_fault, seen_in_training, without_training_patients
from fracsurv.predict.validate import Validated, outcome_faults, predictions_table
from fracsurv.study.model_bundle import ModelBundle
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, read_json, write_json

VERSION = 1
WHAT = (
    "Recalibrations of a run's models to the patients of one cohort, made from all of them. They are corrections for "
    "patients like these, and no validated models: how well they do was estimated by cross-fitting (validation.csv), "
    "and has to be seen in further patients. Research only."
)


@dataclass(frozen=True)
class Admitted:
    """Models and the patients whom they may be evaluated on.

    Attributes
    ----------
    models : dict of str to list of ModelBundle
        An experiment's fold models.
    cohort : Cohort
        Without the patients whom `overlap` leaves out.
    warnings : list of str
        On patients who have the id of a training patient.
    """

    models: dict[str, list[ModelBundle]]
    cohort: Cohort
    warnings: list[str]


def admit(run: Path, folder: Path, names: Sequence[str], overlap: str, *, beyond_training: bool = True) -> Admitted:
    """Fold models of these experiments, and the patients of a cohort whom they may be evaluated on.

    Parameters
    ----------
    run, folder : path
        The run's folder, and the cohort's.
    names : sequence of str
        Experiments; all of the run if empty.
    overlap : {'refuse', 'exclude', 'keep'}
        What to do with patients who have the id of a training patient.
    beyond_training : bool
        Whether values may be as `shift.other_units` asks about; cautions name them then.

    Raises
    ------
    UserError
        With every fault: no models, another outcome, other covariates, nobody with an event, training patients.
    """
    cohort = read_cohort(folder, learnt=False)
    known = experiments_of(run)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--experiment {unknown[0]}: not of this run; it has {', '.join(known)}")
    models = {name: read_models(run, name) for name in list(dict.fromkeys(names)) or known}
    first = next(iter(models.values()))[0]
    faults, met = outcome_faults(first, cohort), seen_in_training(run, cohort)
    leaves_out = overlap == "exclude" and met is not None and not met.all()
    others = cohort.of_rows(np.flatnonzero(~met)) if leaves_out else cohort
    for each in models.values():
        found = training_mismatches(each, others) + ([] if beyond_training else other_units(each, others))
        faults += [fault for fault in found if fault not in faults]
    if faults:
        named = overlap == "refuse" and met is not None and met.any()
        raise UserError([*faults, id_fault(met)] if named else faults)
    others, warnings = without_training_patients(run, cohort, overlap)
    if faults := outcome_faults(first, others, len(cohort) - len(others)):
        raise UserError(faults)
    return Admitted(models, others, warnings)


def write_files(out: Path, run: Path, cohort: Cohort, validated: Sequence[Validated]) -> None:
    """Write `validation.csv` (every metric), `predictions.csv` (a row a patient) and `recalibration.json`."""
    metrics = pd.concat([each.table for each in validated], ignore_index=True)
    trained_on = validated[0].about["provenance"]
    metrics = metrics.assign(trained_on=trained_on, judged_on=cohort.provenance)
    predictions = pd.concat([predictions_table(cohort, each) for each in validated], ignore_index=True)
    for name, frame in (("validation", metrics), ("predictions", predictions)):
        with atomic_path(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
    write_json(out / "recalibration.json", recalibration_record(run, cohort, validated))


def recalibration_record(run: Path, cohort: Cohort, validated: Sequence[Validated]) -> dict[str, Any]:
    """Corrections, how to apply them, and the cohorts that they come from, for `recalibration.json`."""
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
