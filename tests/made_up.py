"""A run whose predictions are made up: a report of it is written in seconds, no model trained."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pandas as pd
import pytest

from fracsurv.config import ROOT, TRUE_RISK
from fracsurv.study.prepare import prepare
from fracsurv.study.results import write_predictions
from fracsurv.study.run import Run
from fracsurv.utils.files import write_json
from tests.conftest import tabular, write_cohort

SCRIPT = "<script>alert('x')</script>"


def made_up_run(
    folder: Path, *, deaths: bool = False, change: Callable[[pd.DataFrame], None] | None = None, **settings: object
) -> Run:
    """A tabular cohort with hostile labels; predictions, histories and records made up, no model trained.

    With `deaths` some of the censored, and some of those with an event, had a competing event instead. `change` may
    change the table in its place; `settings` stand in cohort.yaml.
    """
    table = tabular(n=160, seed=5)
    table["split"] = ["external" if i >= 100 else "" for i in range(160)]
    table["patient_id"] = [f"<script>{i}</script>" for i in range(160)]
    if deaths:
        table["event"] = np.where(np.random.default_rng(1).random(160) < 0.3, 2, table["event"])
    if change is not None:
        change(table)
    labels = {"age": f"Age {SCRIPT}", "smoker": "Cost [$](x) `a` *b*"}
    about = {"provenance": "simulated", "labels": labels, "description": SCRIPT}
    about |= {"covariates": {"age": "continuous", "smoker": "binary"}}
    about |= {"competing_event": f"death {SCRIPT}"} if deaths else {}
    cohort = write_cohort(folder / "cohort", table, **(about | settings))
    rng = np.random.default_rng(0)
    log_hazard = 0.3 * (table["age"].to_numpy() - 78)
    pd.DataFrame({"patient_id": table["patient_id"], "log_hazard": log_hazard}).to_parquet(cohort / "truth.parquet")
    made = prepare(cohort, folder / "out", "tiny")
    for name, noise in ((TRUE_RISK, 0.0), ("cox_ph", 0.3), ("deepsurv", 0.5)):
        for fold in range(made.profile.n_folds):
            place = made.folder(name, fold)
            write_json(place / "model.json", {})
            write_predictions(made, name, fold, log_hazard + noise * rng.normal(size=160))
            if name == "cox_ph":
                coefficients = {"covariate": ["age", "smoker"], "log_hazard_ratio": [0.5 + 0.1 * fold, -0.1]}
                pd.DataFrame(coefficients).to_csv(place / "coefficients.csv", index=False)
                write_json(place / "fit.json", {"key": made.key(name, fold, None), "note": "penalised: age" * fold})
            if name == "deepsurv":
                history = {"epoch": [1, 2], "train_loss": [4.0, 3.0], "train_c_index": [0.5, 0.6]}
                history |= {"validation_loss": [np.nan, 3.5], "validation_c_index": [np.nan, 0.58]}
                pd.DataFrame(history).to_csv(place / "history.csv", index=False)
                write_json(place / "fit.json", {"key": made.key(name, fold, None), "seconds": 1.5, "threads": 1,
                                             "torch": f"1.{fold}", "commit": "abc"})  # fmt: skip
    return made


def execute(stem: str, cohort: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> list:
    """Run a notebook's cells in this process; what it displayed, and the values that its cells end with."""
    shown = []
    monkeypatch.setattr("fracsurv.report.notebook.display", lambda data, **_: shown.append(data))
    monkeypatch.chdir(ROOT / "notebooks")
    notebook = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
    names: dict[str, object] = {"display": shown.append}
    with mpl.rc_context():
        for cell in notebook.cells:
            if cell.cell_type == "code":
                shown.append(run_cell(cell.source, names))
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"cohort": str(cohort), "out": str(out), **parameters}
    return [each for each in shown if each is not None]


def run_cell(source: str, names: dict[str, object]) -> object:
    """Run a cell; the value of its last line, if that is an expression."""
    *lines, last = ast.parse(source).body
    value = None
    if not isinstance(last, ast.Expr):
        lines, last = [*lines, last], None
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return value


def texts_of(shown: list) -> list[str]:
    """The Markdown and HTML among what a notebook displayed."""
    return [each.data for each in shown if hasattr(each, "data")]


def made_up_baselines(run: Run, rng: np.random.Generator) -> None:
    """Predictions of Cox PH and DeepSurv and what notebook 03 reads, no model trained."""
    for name in ("cox_ph", "deepsurv"):
        for fold in range(run.profile.n_folds):
            place = run.folder(name, fold)
            write_json(place / "model.json", {})
            write_predictions(run, name, fold, rng.normal(size=len(run.cohort)))
            write_json(
                place / "fit.json", {"key": run.key(name, fold, None), "note": "", "seconds": 1.0, "threads": 1}
            )
            effects = {"covariate": list(run.cohort.covariates), "log_hazard_ratio": 0.5}
            pd.DataFrame(effects).to_csv(place / "coefficients.csv", index=False)
            history = {"epoch": [1], "train_loss": [4.0], "train_c_index": [0.5]}
            history |= {"validation_loss": [3.5], "validation_c_index": [0.58]}
            pd.DataFrame(history).to_csv(place / "history.csv", index=False)
