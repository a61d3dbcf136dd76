"""Result files of an experiment: what is written where, and how it is read again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import horizons
from fracsurv.metrics import (
    evaluate,
    integration_grid,
    predicted_survival,
    usable_horizons,
)
from fracsurv.study.competing import competing_hazard
from fracsurv.study.run import Run
from fracsurv.study.scaling import standardise
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, read_json, write_json

EVALUATED = ("validation", "test", "external")


def survival_column(horizon: float) -> str:
    """Name of the column that holds the probability of no event until `horizon` days."""
    return f"survival_{horizon:g}d"


def integration_times(run: Run, split: str) -> np.ndarray | None:
    """Times over which a split's mean AUC and integrated Brier score are taken, the same in every fold.

    Up to the last horizon that follow-up reaches in all folds; None where it reaches none.
    """
    event, time = run.cohort.status, run.cohort.table["time"].to_numpy()
    days = horizons(run.cohort)
    for fold in range(run.profile.n_folds):
        rows = run.rows(fold)
        for given in (rows["train"], censoring_rows(rows, split)):
            days = np.intersect1d(days, usable_horizons(event[given], time[given], time[rows[split]], days))
            if not len(days):
                return None
    return integration_grid(days)


def censoring_rows(rows: dict[str, np.ndarray], split: str) -> np.ndarray:
    """The patients whose censoring distribution weights a split's metrics.

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
    hazard = competing_hazard(run.cohort, train)
    if hazard is not None:
        columns |= {"competing": event == 2, "competing_risk": hazard.risk(standardise(run.cohort, train))}
    other = columns.get("competing_risk")
    surv = predicted_survival(event[train], time[train], risk[train], risk, days, of_train(other, train))
    parts = []
    for split, at in rows.items():
        part = {"patient_id": table["patient_id"].to_numpy()[at], "split": split}
        part |= {name: values[at] for name, values in columns.items()}
        part |= {survival_column(day): surv[at, i] for i, day in enumerate(days)}
        parts.append(pd.DataFrame(part))
    with atomic_path(folder / "predictions.parquet") as temporary:
        pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)
    values = []
    for split in EVALUATED:
        if split in rows:
            at = rows[split]
            grid = integration_times(run, split)
            by = censoring_rows(rows, split)
            found = evaluate(
                event[train], time[train], risk[train], event[at], time[at], risk[at], days,
                grid=grid, censoring=(event[by], time[by]), other_risk=of_train(other, train, at),
            )  # fmt: skip
            values += [
                {"split": split, "metric": metric, "horizon_days": horizon, "value": value}
                for (metric, horizon), value in found.items()
                if math.isfinite(value)
            ]
    key = run.evaluation_key(name, fold, alpha)
    write_json(folder / "metrics.json", {"key": key, "fold": fold, "metrics": values})


def of_train(
    values: np.ndarray | None, train: np.ndarray, at: np.ndarray | slice = slice(None)
) -> tuple[np.ndarray, np.ndarray] | None:
    """A column (n,) of the training patients and of those judged, as metrics take `other_risk`; None without one."""
    return None if values is None else (values[train], values[at])


def is_done(path: Path, key: str) -> bool:
    """Whether a `fit.json` or `metrics.json` is there and was made under the setting that `key` stands for."""
    return path.exists() and read_json(path).get("key") == key


def read_predictions(run: Run, name: str, fold: int) -> pd.DataFrame:
    """One fold model's predictions.

    Raises
    ------
    UserError
        Where the experiment has not been run.
    """
    path = run.folder(name, fold) / "predictions.parquet"
    if not path.exists():
        raise UserError(f"{name}: fold {fold} has not been run; run it first, or leave it out")
    return pd.read_parquet(path)


def status_of(predictions: pd.DataFrame) -> np.ndarray:
    """What the metrics take as `event` (n,), of rows of `predictions.parquet`; see `Cohort.status`."""
    event = predictions["event"].to_numpy()
    return np.where(predictions["competing"], 2, event) if "competing" in predictions else event


def risk_of(run: Run, name: str, fold: int) -> np.ndarray:
    """Log hazards (n,) that a fold's model gave, in the order of the cohort's rows."""
    return _column_of(run, name, fold, "risk")


def competing_risk_of(run: Run, name: str, fold: int) -> np.ndarray | None:
    """Log hazards (n,) of the competing event beside them; None for a cohort without."""
    return _column_of(run, name, fold, "competing_risk") if run.cohort.has_competing else None


def _column_of(run: Run, name: str, fold: int, column: str) -> np.ndarray:
    predictions = read_predictions(run, name, fold).set_index("patient_id")[column]
    return predictions.loc[run.cohort.table["patient_id"]].to_numpy()


def read_metrics(run: Run, name: str) -> pd.DataFrame:
    """All folds' metrics: `fold, split, metric, horizon_days, value`."""
    records: list[dict[str, Any]] = []
    for fold in range(run.profile.n_folds):
        path = run.folder(name, fold) / "metrics.json"
        if not path.exists():
            raise UserError(f"{name}: fold {fold} has not been run; run it first, or leave it out")
        records += [{"fold": fold, **row} for row in read_json(path)["metrics"]]
    return pd.DataFrame(records)


def finished(run: Run) -> list[str]:
    """The experiments of which every fold is evaluated under the run's present settings."""
    return [name for name in run.runnable() if is_finished(run, name)]


def is_finished(run: Run, name: str) -> bool:
    """Whether every fold of an experiment is evaluated under the run's present settings."""
    return all(_is_current(run, name, k) for k in range(run.profile.n_folds))


def _is_current(run: Run, name: str, fold: int) -> bool:
    folder = run.folder(name, fold)
    if not (folder / "metrics.json").exists():
        return False
    alpha = read_json(folder / "fit.json").get("alpha") if (folder / "fit.json").exists() else None
    return is_done(folder / "metrics.json", run.evaluation_key(name, fold, alpha))
