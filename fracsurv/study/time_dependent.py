"""What figures need beyond the ablation table: metrics over time, risk groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.cohort import Cohort, horizons
from fracsurv.cohort.summary import label
from fracsurv.metrics import (
    brier_score,
    cumulative_dynamic_auc,
    cumulative_incidence,
    kaplan_meier,
    predicted_survival,
)
from fracsurv.metrics.competing import ranking_by_last, ranking_by_time
from fracsurv.study.results import (
    by_split,
    censoring_rows,
    other_risks,
    read_folds,
    read_predictions,
    survival_column,
)
from fracsurv.study.run import Run
from fracsurv.utils.formatting import NOT_KNOWN

STEPS = 16
KAPLAN_MEIER = "kaplan_meier"
UNKNOWN = -1
"""The group of those whose covariate is not known."""


def metrics_over_time(run: Run, names: Sequence[str], split: str, last: float) -> pd.DataFrame:
    """AUC(t) and Brier(t) at equal steps up to `last`, means over the folds.

    Returns
    -------
    DataFrame
        `experiment, metric, time, value`; NaN where any fold's follow-up does not reach. Experiment
        'kaplan_meier' has the Brier score of the training fold's Kaplan–Meier curve given to everyone: what a
        model reaches that knows nothing of the patient (with competing events, that of the cumulative incidence).
    """
    times = last * np.arange(1, STEPS + 1) / STEPS
    found: dict[tuple[str, str], list[NDArray]] = {}
    for folds in zip(*(read_folds(run, name) for name in names), strict=True):
        for name, fold in zip(names, folds, strict=True):
            train, at, by = fold["train"], fold[split], censoring_rows(fold, split)
            known = (by.event, by.time, at.event, at.time)
            other = other_risks(train, at)
            surv = predicted_survival(train.event, train.time, train.risk, at.risk, times, other)
            ranking = at.risk if other is None else ranking_by_time(surv, at.risk)
            found.setdefault((name, "auc"), []).append(cumulative_dynamic_auc(*known, ranking, times)[0])
            found.setdefault((name, "brier"), []).append(brier_score(*known, surv, times))
        same = np.broadcast_to(share_without(train.event, train.time, times), (len(at.time), len(times)))
        found.setdefault((KAPLAN_MEIER, "brier"), []).append(brier_score(*known, same, times))
    parts = [
        pd.DataFrame({"experiment": name, "metric": metric, "time": times, "value": np.mean(values, axis=0)})
        for (name, metric), values in found.items()
    ]
    return pd.concat(parts, ignore_index=True)


def patient_predictions(run: Run, name: str, split: str, horizon: float | None = None) -> pd.DataFrame:
    """One prediction a patient: over the folds' models, or of the one fold that a patient validates.

    Returns
    -------
    DataFrame
        `patient_id, event` (as in `Predictions`), `time, rank` (mean over the models of the patient's rank among all
        evaluated on, 0 to 1, higher = riskier: risks of different models have no common scale; with a competing event
        by the probability of the event by the last horizon in the place of the hazard) and, with a horizon,
        `probability` of the event by then, the mean over the models.
    """
    parts = []
    for fold in range(run.profile.n_folds):
        part = read_predictions(run, name, fold).query("split == @split").copy()
        part["rank"] = _ranking(run, part).rank(pct=True)
        part["event"] = by_split(part)[split].event
        if horizon is not None:
            part["probability"] = 1 - part[survival_column(horizon)]
        parts.append(part)
    columns = {"event": "first", "time": "first", "rank": "mean"}
    columns |= {} if horizon is None else {"probability": "mean"}
    return pd.concat(parts).groupby("patient_id", sort=False).agg(columns).reset_index()


def _ranking(run: Run, predictions: pd.DataFrame) -> pd.Series:
    """What ranks patients by whether they will have the event, as AUC and Wolbers' C do (`metrics.evaluate`)."""
    if not run.cohort.has_competing:
        return predictions["risk"]
    surv = predictions[[survival_column(day) for day in horizons(run.cohort)]].to_numpy()
    return pd.Series(ranking_by_last(surv, predictions["risk"].to_numpy()), predictions.index)


def follow_up_groups(cohort: Cohort) -> tuple[str, NDArray, dict[int, str]]:
    """Two groups to compare by Kaplan–Meier: prior fracture as in the thesis's Figure 2.3, or what comes nearest.

    Without `prior_fracture` the first binary covariate is taken; without any, the median of the first covariate.

    Returns
    -------
    name, group, labels : the covariate; 0 or 1 for each patient, `UNKNOWN` where it is not known; and what these
    three are called.
    """
    binary = [name for name, kind in cohort.covariates.items() if kind == "binary"]
    name = "prior_fracture" if "prior_fracture" in binary else [*binary, *cohort.covariates][0]
    values, called = cohort.table[name], label(cohort, name)
    if binary:
        parts = "no", "yes"
    else:
        median = values.median()
        parts = f"at most {median:g}", f"above {median:g}"
        values = (values > median).astype(float).mask(values.isna())
    labels = {key: f"{called}: {part}" for key, part in zip((0, 1, UNKNOWN), (*parts, NOT_KNOWN), strict=True)}
    return name, values.fillna(UNKNOWN).to_numpy(int), labels


def event_share(event: NDArray, time: NDArray, at: float) -> float:
    """Share with an event by `at`: 1 − Kaplan–Meier, or cumulative incidence.

    NaN beyond the last time, unless nobody was then left free of any event.
    """
    last = time.max()
    if at > last and (event[time == last] == 0).any():
        return np.nan
    return 1 - float(share_without(event, time, np.array([at]))[0])


def share_without(event: NDArray, time: NDArray, at: NDArray) -> NDArray:
    """Share (n_at,) that has had no event by each of `at`; where `event` holds 2, those dead by then among them."""
    if (event == 2).any():
        times = np.unique(time)
        share = 1 - cumulative_incidence(event, time, times).incidence
    else:
        times, share = kaplan_meier(event, time)
    return np.concatenate([[1.0], share])[np.searchsorted(times, at, side="right")]


def risk_tertiles(rank: NDArray) -> NDArray:
    """0, 1, 2 for the third with the lowest, middle and highest rank."""
    return (3 * (pd.Series(rank).rank(method="first").to_numpy() - 1) // len(rank)).astype(int)
