"""A card for every saved model: what it is, what it was trained on, how it did, what it must not be used for."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fracsurv.cohort.summary import label
from fracsurv.report.tables import results_table
from fracsurv.report.tables_export import frame_of
from fracsurv.report.wording import provenance_lines
from fracsurv.study.competing import probability_method
from fracsurv.study.labels import experiment_name, fitting_notes, masked_summary
from fracsurv.study.protocol import PROVENANCE, split_counts
from fracsurv.study.run import Run
from fracsurv.utils.files import read_json
from fracsurv.utils.formatting import MISSING, counted
from fracsurv.vertebrae.covariates import VERTEBRAL

USES = {
    "simulated": "To study the method. Trained on simulated patients, it says nothing of any person's risk.",
    "semi-synthetic": "To study the method. Trained on simulated outcomes, it says nothing of any person's risk.",
    "real": "Research. It has not been evaluated as a medical device, and no decision on a patient may rest on it.",
}
FIT_FACTS = {
    "alpha": "α", "best_epoch": "best epoch", "validation_c_index": "validation C", "parameters": "parameters",
    "trainable_parameters": "of these trained", "seed": "seed", "precision": "precision", "torch": "torch",
}  # fmt: skip
"""Entries of `fit.json` that a card shows, and what they are called there."""
FILES = {
    "network": "best.safetensors, model.json, fit.json, history.csv",
    "cox_ph": "coefficients.csv, model.json",
}


def model_card(run: Run, name: str, table: pd.DataFrame, differences: pd.DataFrame) -> dict[str, Any]:
    """A card's title, facts as (what, value), tables as (caption, frame)."""
    row, settings = run.experiments[name], run.experiment(name)
    counts = {
        c.split: f"{counted(c.patients, 'patient')} ({counted(c.events, 'event')})"
        for c in split_counts(run).itertuples()
    }
    judged = "; ".join(f"{split} {words}" for split, words in counts.items() if split != "train")
    called = {c: label(run.cohort, c) for c in (*run.cohort.covariates, *run.cohort.indicators)} | VERTEBRAL
    covariates = [called[c] for c in run.covariates(name)]
    takes_factors = row.input == "none" or row.fusion != "none"
    image = {"none": "none", "full": "the whole lateral radiograph", "crops": "crops of 13 vertebrae, T4 to L4"}
    facts = [
        ("Model", f"{experiment_name(run, name)}; experiment {name}"),
        ("Kind", "Cox regression (Efron's ties)" if row.model == "cox_ph" else "network, Cox partial likelihood"),
        ("Image", image[row.input]),
        ("Encoder", settings.encoder + (f" (protocol: {row.encoder})" if settings.encoder != row.encoder else "")),
        ("Clinical factors", "; ".join(covariates) if takes_factors else "none"),
        ("Takes over, frozen", ", ".join(row.pretrained.values()) or "nothing"),
        ("Gives", f"a log hazard of {run.cohort.outcome}, higher = riskier; {probability_method(run.cohort)}"),
        ("Data", PROVENANCE[run.cohort.provenance]),
        (
            "Trained and validated on",
            f"{counts['train']}, one part of {run.profile.n_folds} held out for validation in each fold",
        ),
        *([("Fitted", ". ".join(notes))] if (notes := fitting_notes(run, name, range(run.profile.n_folds))) else []),
        *([("Masked", masked_summary(run))] if row.needs_images and masked_summary(run) else []),
        ("Judged on", judged or "nobody else"),
        ("Use", USES[run.cohort.provenance]),
        ("Files", f"experiments/{name}/fold-0 to fold-{run.profile.n_folds - 1}: {FILES[row.model]}"),
    ]  # fmt: skip
    splits = [split for split in ("external", "test", "validation") if (table["split"] == split).any()]
    tables = [(f"On {split}", results_table(run, table, differences, split, [name])) for split in splits]
    if row.model == "network":
        tables.insert(0, ("Fold models", _fits(run, name)))
    title = f"Model card: {experiment_name(run, name)}"
    return {"title": title, "provenance": provenance_lines(run, [name]), "facts": facts, "tables": tables}


def _fits(run: Run, name: str) -> pd.DataFrame:
    """A row a saved fold model: what its `fit.json` holds."""
    records = []
    for fold in range(run.profile.n_folds):
        path = run.folder(name, fold) / "fit.json"
        record = read_json(path) if path.exists() else {}
        records.append(
            {("", "fold"): str(fold)} | {("", words): _fact(record, key) for key, words in FIT_FACTS.items()}
        )
    return frame_of(records)


def _fact(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return MISSING
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if key.endswith("parameters") else str(value)
