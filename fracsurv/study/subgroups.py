"""How the models do in groups of patients: ranking and calibration, with intervals, small groups marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.summary import label
from fracsurv.config import derive_seed
from fracsurv.metrics import bootstrap, percentile_interval, resampled
from fracsurv.metrics.competing import event_share as metrics_share
from fracsurv.study.ablation import bootstrap_seed
from fracsurv.study.protocol import FEW_EVENTS, FEWEST_EVENTS, FEWEST_PATIENTS
from fracsurv.study.results import by_split, read_predictions, risk_of
from fracsurv.study.run import Run
from fracsurv.study.time_dependent import event_share, patient_predictions
from fracsurv.utils.formatting import NOT_KNOWN, counted, horizon_label

FACTORS = ("age", "bmi", "prior_fracture", "t_score")
MOST_FACTORS = 4
ALL = "All"
OSTEOPOROSIS = -2.5
"""The T-score from which on WHO calls it so."""


def subgroups(run: Run, split: str) -> list[tuple[str, NDArray]]:
    """Groups of a split's patients that are no few (`FEWEST_PATIENTS`): a name, and which of the split's rows (bool).

    See `all_groups`.
    """
    return [(words, at) for words, at in all_groups(run, split) if at.sum() >= FEWEST_PATIENTS]


def left_out(run: Run, split: str) -> dict[str, int]:
    """The other groups, and how many patients each has."""
    return {words: int(at.sum()) for words, at in all_groups(run, split) if at.sum() < FEWEST_PATIENTS}


def all_groups(run: Run, split: str) -> list[tuple[str, NDArray]]:
    """Groups of a split's patients: a name, and which of the split's rows (bool).

    By age, BMI, prior fracture and T-score where the cohort has them, in the place of each that it has not by another
    of its covariates; by who has a radiograph where some have none; and by the format of the radiographs where there
    are several. Continuous factors are cut at the training patients' median, the T-score at −2.5. Without those that
    have no patient.
    """
    rows = run.rows(0)[split]
    table = run.cohort.table
    first = [name for name in FACTORS if name in run.cohort.covariates]
    names = first + [name for name in run.cohort.covariates if name not in first]
    groups: list[tuple[str, NDArray]] = []
    for name in names[:MOST_FACTORS]:
        values, called = table[name].to_numpy(float), label(run.cohort, name)
        if run.cohort.covariates[name] == "binary":
            parts = [(f"{called}: no", values == 0), (f"{called}: yes", values == 1)]
        else:
            trained = (run.splits["split"] == "train").to_numpy()
            cut = OSTEOPOROSIS if name == "t_score" else float(np.nanmedian(values[trained]))
            shown = f"{cut:,.6g}".replace("-", "−")
            parts = [(f"{called}: at most {shown}", values <= cut), (f"{called}: above {shown}", values > cut)]
        parts.append((f"{called}: {NOT_KNOWN}", np.isnan(values)))
        groups += [(words, at[rows]) for words, at in parts]
    if run.cohort.has_images:
        has_image = run.cohort.has_image
        if not has_image.all():
            groups += [("Radiograph: yes", has_image[rows]), ("Radiograph: no", ~has_image[rows])]
        suffix = table["image"].map(lambda name: PurePosixPath(name).suffix.lower().lstrip("."))
        kinds = sorted(suffix[has_image].unique())
        if len(kinds) > 1:
            groups += [(f"Radiograph: {kind}", (has_image & (suffix == kind).to_numpy())[rows]) for kind in kinds]
    return [(words, at) for words, at in groups if at.any()]


def subgroup_table(run: Run, split: str, names: Sequence[str], horizon: float | None) -> pd.DataFrame:
    """C-index and observed over expected risk of models in all patients and in each group.

    Parameters
    ----------
    names : sequence of str
        Experiments; of the first the others' difference in C is taken.
    horizon : float or None
        Where observed (Kaplan–Meier, or cumulative incidence) and expected (mean predicted) risk are compared; None:
        not.

    Returns
    -------
    DataFrame
        `group, n, events, small` (fewer events than `FEW_EVENTS`), `experiment, c_index, ci_low, ci_high, difference,
        difference_low, difference_high, ratio, ratio_low, ratio_high`: C is the mean over the fold models, `ratio` is
        observed over expected of the mean of the fold models' probabilities, with 95 % bootstrap intervals. NaN in
        groups, unless it is everybody, with fewer events than `FEWEST_EVENTS`.
    """
    evaluated = by_split(read_predictions(run, names[0], 0))[split]
    patients, status, time, folds = *evaluated[:3], range(run.profile.n_folds)
    event = status == 1
    at = pd.Index(run.cohort.table["patient_id"]).get_indexer(patients)
    risks = {name: [risk_of(run, name, fold)[at] for fold in folds] for name in names}
    probability = {}
    if horizon is not None:
        for name in names:
            found = patient_predictions(run, name, split, horizon).set_index("patient_id")["probability"]
            probability[name] = found.loc[patients].to_numpy()
    records = []
    for number, (group, inside) in enumerate([(ALL, np.ones(len(time), bool)), *subgroups(run, split)]):
        seed = derive_seed(run.profile.seed, "subgroup", split, number)
        if inside.all() and split != "validation":  # the draws of the ablation: one interval for one quantity
            seed = bootstrap_seed(run, split, folds)
        own, n_events = (event[inside], time[inside]), int(event[inside].sum())
        c_index = _c_index(*own, {name: [r[inside] for r in risks[name]] for name in names}, run, seed)
        for name in names:
            record = {"group": group, "n": int(inside.sum()), "events": n_events}
            record |= {"small": n_events < FEW_EVENTS, "experiment": name, **c_index[name]}
            if horizon is not None:
                given = status[inside], own[1], probability[name][inside]
                record |= _ratio(*given, horizon, run.profile.bootstrap_draws, seed)
            records.append(record)
    found = pd.DataFrame(records)
    figures = found.columns.difference(["group", "n", "events", "small", "experiment"])
    found.loc[(found["group"] != ALL) & (found["events"] < FEWEST_EVENTS), figures] = np.nan
    return found


def _c_index(
    event: NDArray, time: NDArray, risks: dict[str, list[NDArray]], run: Run, seed: int
) -> dict[str, dict[str, float]]:
    """Mean C over the fold models, and what it is above the first experiment's, by experiment, in the same draws."""
    flat = {f"{name} {fold}": risk for name, each in risks.items() for fold, risk in enumerate(each)}
    found = bootstrap(event, time, flat, n_draws=run.profile.bootstrap_draws, seed=seed)
    result, first = {}, None
    for number, name in enumerate(risks):
        own = slice(number * run.profile.n_folds, (number + 1) * run.profile.n_folds)
        value, draws = found.estimate[own, 0].mean(), found.draws[:, own, 0].mean(axis=1)
        low, high = percentile_interval(draws)
        result[name] = {"c_index": value, "ci_low": low, "ci_high": high}
        if first is None:
            first, low, high = (value, draws), np.nan, np.nan
        else:
            low, high = percentile_interval(draws - first[1], paired=True)
        result[name] |= {"difference": value - first[0], "difference_low": low, "difference_high": high}
    return result


def _ratio(event, time, probability, horizon: float, n_draws: int, seed: int) -> dict[str, float]:
    """Observed over expected risk by the horizon; NaN where follow-up ends before it, or none was expected.

    Where nobody, or everybody, had the event, all draws agree on that: the bounds are then exact.
    """

    def ratio(rows) -> float:
        return event_share(event[rows], time[rows], horizon) / probability[rows].mean()

    share, *exact = metrics_share(event, time, horizon)
    if not probability.any():
        return {"ratio": np.nan, "ratio_low": np.nan, "ratio_high": np.nan}
    if share in (0, 1):
        low, high = np.array(exact) / probability.mean()
    else:
        low, high = percentile_interval(resampled(ratio, len(time), n_draws, seed))
    return {"ratio": ratio(slice(None)), "ratio_low": float(low), "ratio_high": float(high)}


def group_label(row: pd.Series) -> str:
    """'Prior fracture: yes (n = 740, 300 events)'."""
    return f"{row['group']} (n = {row['n']:,}, {counted(row['events'], 'event')})"


def ratio_title(horizon: float, unit: str) -> str:
    """What the axis of `ratio` is called."""
    return f"Observed / expected risk at {horizon_label(horizon, unit)}"
