"""Result files of an experiment: what is written where, and how it is read again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.cohort import horizons
from fracsurv.config import TRUE_RISK
from fracsurv.metrics import evaluate, integration_grid, predicted_survival, usable_horizons
from fracsurv.study.competing import competing_hazard
from fracsurv.study.run import Run
from fracsurv.study.scaling import standardise
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, read_json, write_json

BUNDLE_FILE = "model.json"
"""In a fold's folder: what its model needs, besides its weights, for new patients; see `model_bundle`."""
EVALUATED = ("validation", "test", "external")
Patients = TypeVar("Patients")


def survival_column(horizon: float) -> str:
    """Name of the column that holds the probability of no event until `horizon` days."""
    return f"survival_{horizon:g}d"


class Predictions(NamedTuple):
    """A fold model's predictions for one split, and what happened to these patients.

    `event` (n,) is what the metrics take: bool, or 0, 1 and 2 where anybody had a competing event; `time` (n,) days;
    `risk` (n,) log hazards, higher = riskier; `other_risk` (n,) those of the competing event, None without one.
    """

    patient_id: NDArray
    event: NDArray
    time: NDArray
    risk: NDArray
    other_risk: NDArray | None


def by_split(predictions: pd.DataFrame) -> dict[str, Predictions]:
    """The rows of a `predictions.parquet` by split, in the file's order."""
    found = {}
    for split, part in predictions.groupby("split", sort=False):
        event = part["event"].to_numpy()
        other = None
        if "competing" in part:
            event, other = np.where(part["competing"], 2, event), part["competing_risk"].to_numpy()
        found[split] = Predictions(
            part["patient_id"].to_numpy(), event, part["time"].to_numpy(), part["risk"].to_numpy(), other
        )
    return found


def read_folds(run: Run, name: str) -> list[dict[str, Predictions]]:
    """An experiment's predictions by fold and split; errors as `read_predictions`."""
    return [by_split(read_predictions(run, name, fold)) for fold in range(run.profile.n_folds)]


def other_risks(train: Predictions, evaluated: Predictions) -> tuple[NDArray, NDArray] | None:
    """The competing event's log hazards as metrics take `other_risk`; None without one."""
    return None if train.other_risk is None else (train.other_risk, evaluated.other_risk)


def integration_times(
    folds: Sequence[Mapping[str, tuple[NDArray, NDArray]]], split: str, days: NDArray
) -> NDArray | None:
    """Times over which a split's mean AUC and integrated Brier score are taken, the same in every fold.

    Up to the last of `days` that follow-up reaches in all folds; None where it reaches none.

    Parameters
    ----------
    folds : sequence of mapping
        For each fold, every split's (event, time).
    """
    for fold in folds:
        time = fold[split][1]
        for given in (fold["train"], censoring_rows(fold, split)):
            days = np.intersect1d(days, usable_horizons(*given, time, days))
            if not len(days):
                return None
    return integration_grid(days)


def censoring_rows(rows: Mapping[str, Patients], split: str) -> Patients:
    """The patients, of those given by split, whose censoring distribution weights a split's metrics.

    Validation and test patients were drawn from the same cohort as the training patients, so these, who are more,
    stand for them. External patients may have been followed otherwise: they stand for themselves.
    """
    return rows["external" if split == "external" else "train"]


def write_predictions(run: Run, name: str, fold: int, risk: np.ndarray, alpha: float | None = None) -> None:
    """Write `predictions.parquet` and, last, `metrics.json` of one fold's model.

    Parameters
    ----------
    risk : ndarray of shape (n,)
        Log hazards of all patients of the cohort, higher = riskier. Probabilities come from them through the
        Breslow baseline of this fold's training patients; the censoring distribution is that of
        `censoring_rows`. Where the cohort has competing events, the columns `competing` (bool) and `competing_risk`
        (log hazard of `CompetingHazard`) are there too, and probabilities are `absolute_risk`s.
    """
    folder, table, rows, days = run.folder(name, fold), run.cohort.table, run.rows(fold), horizons(run.cohort)
    event, time = run.cohort.status, table["time"].to_numpy()
    train, columns = rows["train"], {"time": time, "event": event == 1, "risk": risk}
    hazard, other = competing_hazard(run.cohort, train), None
    if hazard is not None:
        columns |= {"competing": event == 2, "competing_risk": hazard.risk(standardise(run.cohort, train))}
        other = columns["competing_risk"][train], columns["competing_risk"]
    surv = predicted_survival(event[train], time[train], risk[train], risk, days, other)
    parts = []
    for split, at in rows.items():
        part = {"patient_id": table["patient_id"].to_numpy()[at], "split": split}
        part |= {name: values[at] for name, values in columns.items()}
        part |= {survival_column(day): surv[at, i] for i, day in enumerate(days)}
        parts.append(pd.DataFrame(part))
    predictions = pd.concat(parts, ignore_index=True)
    with atomic_path(folder / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)
    outcomes = [
        {split: (event[at], time[at]) for split, at in run.rows(each).items()} for each in range(run.profile.n_folds)
    ]
    values = _metrics(by_split(predictions), outcomes, days)
    key = run.evaluation_key(name, fold, alpha)
    write_json(folder / "metrics.json", {"key": key, "fold": fold, "metrics": values})


def _metrics(predictions: Mapping[str, Predictions], outcomes: Sequence[Mapping], days: NDArray) -> list[dict]:
    """Rows of `metrics.json`; metrics that follow-up does not allow are left out."""
    values, train = [], predictions["train"]
    for split in EVALUATED:
        if split in predictions:
            at, by = predictions[split], censoring_rows(predictions, split)
            found = evaluate(
                train.event, train.time, train.risk, at.event, at.time, at.risk, days,
                grid=integration_times(outcomes, split, days), censoring=(by.event, by.time),
                other_risk=other_risks(train, at),
            )  # fmt: skip
            values += [
                {"split": split, "metric": metric, "horizon_days": horizon, "value": value}
                for (metric, horizon), value in found.items()
                if math.isfinite(value)
            ]
    return values


def _written(run: Run, name: str, fold: int, file: str) -> Path:
    """A fold's file; a UserError where the experiment has not been run."""
    path = run.folder(name, fold) / file
    if not path.exists():
        raise UserError(f"{name}: fold {fold} has not been run; run it first, or leave it out")
    return path


def read_predictions(run: Run, name: str, fold: int) -> pd.DataFrame:
    """One fold model's predictions; a UserError where the experiment has not been run."""
    return pd.read_parquet(_written(run, name, fold, "predictions.parquet"))


def risk_of(run: Run, name: str, fold: int) -> NDArray:
    """Log hazards (n,) that a fold's model gave, in the order of the cohort's rows."""
    predictions = read_predictions(run, name, fold).set_index("patient_id")["risk"]
    return predictions.loc[run.cohort.table["patient_id"]].to_numpy()


def read_metrics(run: Run, name: str) -> pd.DataFrame:
    """All folds' metrics: `fold, split, metric, horizon_days, value`; errors as `read_predictions`."""
    records: list[dict[str, Any]] = []
    for fold in range(run.profile.n_folds):
        found = read_json(_written(run, name, fold, "metrics.json"))
        records += [{"fold": fold, **row} for row in found["metrics"]]
    return pd.DataFrame(records)


def is_fitted(run: Run, name: str, fold: int, alpha: float | None = None) -> bool:
    """Whether a fit is there that was made under the run's present settings, by its `fit.json`."""
    path = run.folder(name, fold, alpha) / "fit.json"
    return path.exists() and read_json(path).get("key") == run.key(name, fold, alpha)


def is_evaluated(run: Run, name: str, fold: int, alpha: float | None = None) -> bool:
    """Whether a fold's predictions and metrics are there, of the present settings and the chosen `alpha`."""
    path = run.folder(name, fold) / "metrics.json"
    return path.exists() and read_json(path).get("key") == run.evaluation_key(name, fold, alpha)


def is_complete(run: Run, name: str, fold: int, alpha: float | None = None) -> bool:
    """Whether a fold is evaluated and its model can be applied to new patients."""
    from_elsewhere = name == TRUE_RISK or run.experiment(name).model == "predictions"
    can_be_applied = from_elsewhere or (run.folder(name, fold) / BUNDLE_FILE).exists()
    return can_be_applied and is_evaluated(run, name, fold, alpha)


def evaluated_alpha(run: Run, name: str, fold: int) -> float | None:
    """The α of a fold's evaluated model, as its `fit.json` says; None for a model without one."""
    path = run.folder(name, fold) / "fit.json"
    return read_json(path).get("alpha") if path.exists() else None


def finished(run: Run) -> list[str]:
    """The experiments of which every fold is evaluated under the run's present settings."""
    folds = range(run.profile.n_folds)
    return [
        name
        for name in run.runnable()
        if all(is_evaluated(run, name, fold, evaluated_alpha(run, name, fold)) for fold in folds)
    ]
