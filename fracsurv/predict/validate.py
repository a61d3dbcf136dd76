"""External validation: a run's fold models held against what happened to other patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp

from fracsurv import metrics
from fracsurv.cohort.cohort import Cohort
from fracsurv.config import derive_seed
from fracsurv.metrics import Drawn, Estimate, cox_slope, events_ratio, percentile_interval
from fracsurv.predict.predict import FoldModels, apply_models, probability_column
from fracsurv.predict.recalibrate import (
    LEAST_EVENTS,
    METHODS,
    PARTS,
    Prediction,
    Recalibration,
    cross_fitted,
    recalibrate,
)
from fracsurv.study.model_bundle import ModelBundle
from fracsurv.utils.formatting import counted

COLUMNS = [
    "experiment", "model", "metric", "horizon", "threshold", "value", "low", "high", "sd", "n", "events",
]  # fmt: skip
ENSEMBLE, FOLD_MEAN = "ensemble", "fold_mean"
THRESHOLDS = (0.1, 0.2, 0.3)
"""Predicted probabilities from which on to act, for the net benefit: the report's, fixed beforehand."""
UNDRAWN = ("ici", "e50", "e90")
"""Given without an interval: resampling makes a calibration curve rougher, so that its gaps grow."""


@dataclass(frozen=True)
class Validated:
    """One experiment in the patients of a cohort.

    Attributes
    ----------
    name : str
    models : FoldModels
    horizons : array
        Those of the run that follow-up reaches, in training and here.
    last : float
        Where the training follow-up of a fold model ends first; `events_ratio` and slopes count follow-up until then.
    predictions : dict of str to Prediction
        'ensemble' as `fracsurv predict` gives it, and the cross-fitted recalibrations, at `horizons`.
    fitted : dict of str to Recalibration
        By method, from all these patients.
    absent : dict of str to str
        Method to why there is no recalibration by it.
    n_events : int
        Patients with the event by `last`.
    table : DataFrame
        `COLUMNS`, as in validation.csv.
    """

    name: str
    models: FoldModels
    horizons: NDArray
    last: float
    predictions: dict[str, Prediction]
    fitted: dict[str, Recalibration]
    absent: dict[str, str]
    n_events: int
    table: pd.DataFrame = field(repr=False)

    @property
    def about(self) -> dict[str, Any]:
        """What is known of the training: see `ModelBundle.about`."""
        return self.models.applied[0].about


def validate_experiment(
    bundles: Sequence[ModelBundle],
    cohort: Cohort,
    work: Path,
    *,
    n_draws: int,
    seed: int,
    workers: int = 1,
    progress: bool = True,
) -> Validated:
    """An experiment's fold models, and their recalibrations, evaluated on a cohort with outcomes.

    Parameters
    ----------
    bundles, cohort, work
        As for `predict.predict_cohort`; the cohort must have outcomes without `outcome_faults`.
    n_draws, seed : int
        Bootstrap samples of the patients and their seed, from which the cross-fitting's parts are drawn too.

    Raises
    ------
    UserError
        As `predict_cohort`.
    """
    name = bundles[0].experiment.name
    models = apply_models(bundles, cohort, work, workers=workers, progress=progress)
    event, time = cohort.table["event"].to_numpy(), cohort.table["time"].to_numpy()
    last = min(applied.baseline.last for applied in models.applied)
    days = models.horizons[models.horizons <= last]
    days = metrics.usable_horizons(event, time, time, days) if len(days) else days
    grid = metrics.integration_grid(days) if len(days) else days
    times = np.union1d(days, grid)
    until, had = np.minimum(time, last), event & (time <= last)
    surv = models.survival(times) if len(times) else np.empty((len(models.risks), len(cohort), 0))
    whole = Prediction(models.risk, surv.mean(axis=0), _joint_hazard(models, until))
    fitted, crossed, absent = _recalibrated(had, until, whole, times, derive_seed(seed, "parts"))
    given = {ENSEMBLE: whole} | crossed
    folds = {f"fold {k}": risk for k, risk in enumerate(models.risks)}
    drawn = metrics.validation_metrics(
        event, time, folds | {ENSEMBLE: models.risk},
        dict(zip(folds, surv, strict=True)) | {model: each.surv for model, each in given.items()},
        times, horizons=days, grid=grid, thresholds=THRESHOLDS, n_draws=n_draws, seed=derive_seed(seed, "bootstrap"),
    )  # fmt: skip
    rows = _over_folds(drawn, list(folds))
    at = np.searchsorted(times, days)
    predictions = {model: Prediction(each.risk, each.surv[:, at], each.hazard) for model, each in given.items()}
    rows += _calibrations(event, time, had, until, predictions, days, n_draws, seed)
    rows.append(_row(ENSEMBLE, "mean_log_hazard", None, _point(models.risk.mean())))  # 0: as in training
    rows.append(_row(ENSEMBLE, "sd_log_hazard", None, _point(models.risk.std(ddof=1))))
    slopes = [cox_slope(had, until, risk).value for risk in models.risks]
    rows.append(_row(FOLD_MEAN, "calibration_slope", None, _point(np.mean(slopes)), _sd(slopes)))
    table = pd.DataFrame(rows).assign(experiment=name, n=len(cohort))
    horizon = table["horizon"].astype(float)
    table["horizon"], table["threshold"] = horizon, table["threshold"].astype(float)
    table["events"] = [int((event & (time <= day)).sum()) if day == day else int(event.sum()) for day in horizon]
    return Validated(name, models, days, last, predictions, fitted, absent, int(had.sum()), table[COLUMNS])


def _joint_hazard(models: FoldModels, until: NDArray) -> NDArray:
    """Cumulative hazard (n,) of the mean of the models' survival probabilities, until each patient's own time."""
    pairs = zip(models.risks, models.applied, strict=True)
    hazards = np.stack([applied.baseline.own_hazard(risk, until) for risk, applied in pairs])
    return np.log(len(hazards)) - logsumexp(-hazards, axis=0)  # in logarithms: no survival is too small


def _recalibrated(
    had: NDArray, until: NDArray, given: Prediction, times: NDArray, seed: int
) -> tuple[dict[str, Recalibration], dict[str, Prediction], dict[str, str]]:
    """By method, what all patients ask for, and the cross-fitted predictions; or why there is neither."""
    fitted: dict[str, Recalibration] = {}
    crossed: dict[str, Prediction] = {}
    absent: dict[str, str] = {}
    if (n := int(had.sum())) < LEAST_EVENTS:
        few = f"that needs {LEAST_EVENTS} events within the models' training follow-up; there: {n}"
        return fitted, crossed, dict.fromkeys(METHODS, few)
    for method in METHODS:
        whole = recalibrate(method, had, until, given)
        if whole is None:
            absent[method] = "no event was expected" if method == "intercept" else "its slope is not above 0"
            continue
        parts = cross_fitted(method, had, until, given, times, seed)
        if parts is not None:
            fitted[method], crossed[method] = whole, parts
        elif method == "slope" and "baseline" in fitted:  # whose parts' follow-up is the same
            absent[method] = f"its slope is not above 0 without one of {PARTS} parts"
        else:
            absent[method] = f"follow-up ends before the last horizon without one of {PARTS} parts"
    return fitted, crossed, absent


def _row(
    model: str,
    metric: str,
    horizon: float | None,
    found: Estimate,
    sd: float = np.nan,
    threshold: float | None = None,
) -> dict[str, Any]:
    return {"model": model, "metric": metric, "horizon": horizon, "threshold": threshold, "sd": sd} | found._asdict()


def _point(value: float) -> Estimate:
    """An estimate without an interval."""
    return Estimate(float(value), np.nan, np.nan)


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def _over_folds(drawn: dict[metrics.ValidationKey, Drawn], folds: list[str]) -> list[dict[str, Any]]:
    """A row a model and metric, the fold models as their mean with its SD, by the order of what was drawn."""
    rows, wanted = [], dict.fromkeys((FOLD_MEAN if key[0] in folds else key[0], *key[1:]) for key in drawn)
    for model, metric, horizon, threshold in wanted:
        of = [drawn[one, metric, horizon, threshold] for one in (folds if model == FOLD_MEAN else [model])]
        values = [each.value for each in of]
        # a fold model without exact bounds goes into their mean with its own interval
        exact = any(np.isfinite(each.low) for each in of)
        low, high = np.mean([each.interval() for each in of], axis=0) if exact else (np.nan, np.nan)
        mean = Drawn(float(np.mean(values)), np.mean([each.draws for each in of], axis=0), low, high)
        sd = _sd(values) if model == FOLD_MEAN else np.nan
        rows.append(_row(model, metric, horizon, Estimate(mean.value, *mean.interval()), sd, threshold))
    return rows


def _calibrations(event, time, had, until, predictions, days, n_draws: int, seed: int) -> list[dict[str, Any]]:
    """Ratio of events, slopes, intercepts and gaps of the ensemble and its recalibrations."""
    rows = []
    for model, given in predictions.items():
        rows.append(_row(model, "observed_to_expected", None, events_ratio(had, given.hazard)))
        rows.append(_row(model, "calibration_slope", None, cox_slope(had, until, given.risk)))
        for k, day in enumerate(days):
            probability = 1 - given.surv[:, k]
            found = _weak(event, time, probability, day)
            bounds = np.full((2, 2), np.nan)
            if model == ENSEMBLE:

                def weak(rows, probability=probability, day=day):
                    return _weak(event[rows], time[rows], probability[rows], day)

                drawn = metrics.resampled(weak, len(time), n_draws, derive_seed(seed, "weak", day))
                bounds = percentile_interval(drawn)
            for i, metric in enumerate(("calibration_intercept", "calibration_slope")):
                rows.append(_row(model, metric, day, Estimate(found[i], *bounds[i])))
            smooth = metrics.smooth_calibration(event, time, probability, day)
            rows += [_row(model, gap, day, _point(getattr(smooth, gap))) for gap in UNDRAWN]
    return rows


def _weak(event, time, probability, day: float) -> tuple[float, float]:
    found = metrics.calibration(event, time, probability, day, n_groups=1)
    return found.intercept, found.slope


def predictions_table(cohort: Cohort, validated: Validated) -> pd.DataFrame:
    """What was predicted for each patient, and what happened: a row a patient, for predictions.csv.

    `risk` and `probability_T` as `predict_cohort` gives them; `probability_T_intercept`, `_baseline` and `_slope` the
    cross-fitted recalibrations.
    """
    table = cohort.table[["patient_id", "time", "event"]].copy()
    table.insert(0, "experiment", validated.name)
    table["risk"] = validated.models.risk
    every = 1 - validated.models.survival(validated.horizons) if len(validated.horizons) else None
    for k, day in enumerate(validated.horizons):
        for model, given in validated.predictions.items():
            what = "" if model == ENSEMBLE else f"_{model}"
            table[probability_column(day, what)] = 1 - given.surv[:, k]
        table[probability_column(day, "_low")] = every[:, :, k].min(axis=0)
        table[probability_column(day, "_high")] = every[:, :, k].max(axis=0)
    return table


def outcome_faults(applied: ModelBundle, cohort: Cohort, left_out: int = 0) -> list[str]:
    """Where a cohort's outcome is not that of the training, nobody has had it, or another event competes with it.

    Parameters
    ----------
    left_out : int
        Patients who are no longer in the cohort, since they were trained on.
    """
    about, faults = applied.about, []
    if cohort.has_competing or applied.competing is not None:
        faults.append(
            f"{cohort.folder}: competing events (code 2), or models of a run with them, which `validate` does not "
            "take; docs/validation.md evaluates `predict`'s table by hand. `fracsurv run` evaluates models that it "
            "fits anew on the split `external` of its cohort"
        )
    if cohort.outcome != about["outcome"]:
        faults.append(
            f"outcome: {about['outcome']!r} in training, {cohort.outcome!r} here; if they are the same, give it the "
            "same name (`outcome` in cohort.yaml)"
        )
    since = f" (without {counted(left_out, 'patient')} met in training)" if left_out else ""
    if len(cohort) < 2:
        n = counted(len(cohort), "patient")
        faults.append(f"patient_id: {n}{since}; nothing can be validated on fewer than two")
    elif not cohort.table["event"].any():
        faults.append(f"event: nobody of {len(cohort):,} patients{since} has had the event: nothing can be validated")
    return faults
