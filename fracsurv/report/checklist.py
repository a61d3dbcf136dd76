"""The TRIPOD+AI checklist, filled where a run knows the answer and left open where it does not."""

from __future__ import annotations

from functools import cache

import pandas as pd
import yaml

from fracsurv.cohort.cohort import horizons
from fracsurv.cohort.settings import read_settings
from fracsurv.cohort.summary import followed, label, missing_summary
from fracsurv.config import CONFIGS, TRUE_RISK
from fracsurv.report.answers import study_answer
from fracsurv.report.tables_export import frame_of
from fracsurv.report.wording import split_summary
from fracsurv.study.competing import probability_method
from fracsurv.study.labels import experiment_name, masked_summary
from fracsurv.study.protocol import PROVENANCE, split_counts
from fracsurv.study.run import Run
from fracsurv.utils.formatting import counted, horizon_label

OPEN = "open: for the authors"
SIMULATED = {
    "5b": "No dates: simulated.",
    "6a": "No centre: simulated.",
    "16": "None: all patients come from the same simulator with the same settings.",
    "17": "Not needed: no person's data.",
    "18e": "Made anew by one command, see README.",
}
"""What is known besides where patients and outcomes are simulated."""


@cache
def _content() -> dict:
    return yaml.safe_load((CONFIGS / "tripod_ai.yaml").read_text(encoding="utf-8"))


def checklist_source() -> str:
    """The guideline, as it is to be cited."""
    return _content()["source"]


def checklist(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """One row an item: number, topic, what it asks for, and what this run knows, or that it is open."""
    facts = _facts(run, table, differences)
    known = SIMULATED if run.cohort.provenance == "simulated" else {}
    records = []
    for item, (topic, asked, *answered) in _content()["items"].items():
        said = answered[0].format(**facts) if answered else known.get(item, OPEN)
        values = {"item": item, "topic": topic, "asks for": asked, "from this run": said}
        records.append({("", name): value for name, value in values.items()})
    return frame_of(records)


def _facts(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> dict[str, object]:
    """What fills the braces."""
    cohort, counts = run.cohort, split_counts(run)
    external = "external" in set(counts["split"])
    rows = [name for name in dict.fromkeys(table["experiment"]) if name != TRUE_RISK]
    return {
        "evaluated": "evaluation on external patients" if external else "no evaluation on external patients",
        "provenance": " ".join([PROVENANCE[cohort.provenance], cohort.description]).strip(),
        "outcome": cohort.outcome + (f"; {cohort.competing_event} competes" if cohort.has_competing else ""),
        "horizons": ", ".join(horizon_label(day, cohort.time_unit) for day in horizons(cohort)),
        "covariates": ", ".join(label(cohort, name) for name in cohort.covariates),
        "people": split_summary(run),
        "held_out": _held_out(run),
        "probabilities": probability_method(cohort),
        "n_folds": run.profile.n_folds,
        "seed": run.profile.seed,
        "n_rows": counted(len(rows), "row"),
        "rows": "; ".join(experiment_name(run, name) for name in rows),
        "followed": f"Follow-up: {followed(cohort)}.",
        "answer": study_answer(run, table, differences),
        "missing": f"{_missing(run)} {masked_summary(run)}".strip(),
        **_by_models(run, rows, has_differences=len(differences) > 0, judged=len(counts) > 1),
    }


def _missing(run: Run) -> str:
    """What of the covariates and radiographs was missing, or would have been done about it."""
    cohort, said = run.cohort, missing_summary(run.cohort, run.trained_on())
    if cohort.indicators:
        return said
    imputed = read_settings(cohort.folder, []).missing_covariates == "impute"
    rule = (
        "No covariate was missing; missing ones would have been imputed (missing_covariates: impute)."
        if imputed
        else "No missing covariate is allowed: a cohort with one is refused."
    )
    return f"{rule} {said}".strip()


def _held_out(run: Run) -> str:
    """How it was decided who is held out; see `make_splits`."""
    held_out = set(run.splits["split"]) - {"train"}
    named = held_out & set(run.cohort.table.get("split", ()))
    said = [f"The {split} patients are those that the cohort's column split names. " for split in sorted(named)]
    said += ["The test patients were drawn at random, stratified by event. "] * ("test" in held_out - named)
    return "".join(said)


def _by_models(run: Run, rows: list[str], *, has_differences: bool, judged: bool) -> dict[str, str]:
    """What is only true where a run has pictures, networks, or models held against each other."""
    made = [run.experiments[name] for name in rows]
    inputs, models = {row.input for row in made}, {row.model for row in made}
    networks, has_pictures = "network" in models, inputs != {"none"}
    sweeps = any(row.fusion == "alpha" for row in made)
    chosen = [f"Epochs{' and α' * sweeps} were chosen on validation."] * networks
    chosen += [
        "Those held out were predicted once by each of these models; whether others came before is open."
    ] * judged
    files = ["Weights of every fold's network (safetensors) with their settings"] if networks else []
    files += ["Cox regression's coefficients"] if "cox_ph" in models else []
    whose = "each radiograph" if run.profile.normalise == "patient" else "each fold's training patients"
    pictures = f"Radiographs: least and greatest pixel of {whose} become 0 and 1"
    pictures += "; crops of 13 vertebrae. " if "crops" in inputs else ". "
    return {
        "pictures": pictures * has_pictures,
        "and_radiograph": "; and the radiograph" * has_pictures,
        "power": " The smallest difference that could be seen stands under “Could it be nothing?”." * has_differences,
        "empty_slots": " A vertebra that is not found is an empty slot." * ("crops" in inputs),
        "chosen": " ".join(chosen),
        "tuned": " See the hyperparameters." * networks,
        "paired": "; paired differences, p adjusted by Holm" * has_differences,
        "weights": f"{' and '.join(files)} lie in the run's folder; see the model cards.",
    }
