"""The ablation: every experiment's metrics over its folds, with bootstrap intervals, in one tidy table.

Intervals resample the patients evaluated on and keep the models: they say how far other patients of the same kind
would have moved the mean over the folds. The SD is over the fold models. Neither says how far another draw of
training patients, or another seed, would have moved it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from fracsurv.cohort.cohort import horizons
from fracsurv.config import TRUE_RISK, derive_seed
from fracsurv.metrics import bootstrap_metrics, holm, paired_p, percentile_interval
from fracsurv.study.results import EVALUATED, finished, integration_times, other_risks, read_folds, read_metrics
from fracsurv.study.run import Run
from fracsurv.utils.files import atomic_path, read_json, write_json
from fracsurv.utils.formatting import estimate_cell

COLUMNS = [
    "experiment", "input", "encoder", "fusion", "split", "metric", "horizon_days",
    "mean", "sd", "ci_low", "ci_high", "n_folds", "n_patients",
]  # fmt: skip
REFERENCES = ("cox_ph", "deepsurv", "cox_ph_vf")
"""The models that the others are held against: two of clinical factors, and one with graded vertebral fractures."""
DIFFERENCE_COLUMNS = [
    "experiment", "reference", "split", "metric", "horizon_days",
    "difference", "ci_low", "ci_high", "se", "p", "p_holm",
]  # fmt: skip
FAMILY = ["reference", "split", "metric", "horizon_days"]
TABLES_VERSION = 3
"""Raised whenever the same fold models would give other tables, or tables with other columns."""
Draws = dict[tuple[str, str, float], np.ndarray]


def bootstrap_seed(run: Run, split: str, folds: Sequence[int]) -> int:
    """Seed of the draws of a split's patients, the same wherever one interval is made of them."""
    return derive_seed(run.profile.seed, "bootstrap", split, *folds)


def ablation(
    run: Run, names: Iterable[str] | None = None, *, progress: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean, SD and 95 % interval of every metric, and paired differences from `REFERENCES`.

    Parameters
    ----------
    names : iterable of str, optional
        Experiments to take; all that are finished if not given.

    Returns
    -------
    table : DataFrame
        Columns `COLUMNS`; `horizon_days` is empty for metrics without a horizon, `sd` (n − 1) for one fold.
        Metrics that follow-up does not allow in every fold are not listed.
    differences : DataFrame
        `DIFFERENCE_COLUMNS`: experiment minus each of `REFERENCES` and `best_unimodal`, on the same patients in the
        same bootstrap draws; `se` is the SD over the draws, `p` two-sided (`metrics.paired_p`), `p_holm` adjusted
        for all experiments that this metric holds against this reference on this split, but for the true risk, which
        is no model and gets none. Where `names` are but some of the run's rows, nothing is adjusted (p would be held
        against fewer others than in the report), and none of them is the best of the run.
    """
    whole = names is None or set(run.runnable()) <= set(names)
    names = list(names) if names is not None else finished(run)
    rows, draws = [], {}
    for name in tqdm(names, desc="bootstrap", disable=not progress, leave=False):
        draws[name] = metric_draws(run, name)
        rows += _rows(run, name, draws[name])
    table = pd.DataFrame(rows, columns=COLUMNS)
    best = best_unimodal(run, table) if whole else None
    differences = _differences(table, draws, dict.fromkeys([*REFERENCES, *([best] if best else [])]))
    return table, differences if whole else differences.assign(p_holm=np.nan)


def read_ablation(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`ablation.csv` and `differences.csv`; made anew where missing or not of the fold models finished now."""
    paths = [run.out / f"{name}.csv" for name in ("ablation", "differences")]
    record = run.out / "ablation.json"
    there = record.exists() and all(path.exists() for path in paths)
    if not there or read_json(record) != _made_from(run):
        write_ablation(run)
    table, differences = (pd.read_csv(path) for path in paths)
    return table, differences


def write_ablation(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute the ablation of what is finished; write `ablation.csv`, `differences.csv` and, last, `ablation.json`.

    The last says what the tables were made from: each experiment's keys of `metrics.json`, and the number of draws.
    """
    made_from = _made_from(run)
    table, differences = ablation(run, list(made_from["experiments"]), progress=False)
    for name, frame in (("ablation", table), ("differences", differences)):
        with atomic_path(run.out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_json(run.out / "ablation.json", made_from)
    return table, differences


def _made_from(run: Run) -> dict[str, Any]:
    folds = range(run.profile.n_folds)
    keys = {
        name: [read_json(run.folder(name, fold) / "metrics.json")["key"] for fold in folds] for name in finished(run)
    }
    return {"version": TABLES_VERSION, "bootstrap_draws": run.profile.bootstrap_draws, "experiments": keys}


def way_to_true_risk(table: pd.DataFrame, differences: pd.DataFrame, split: str) -> pd.Series:
    """Share of the way from Cox PH (0: clinical only) to the true risk (1) that each experiment's C-index went.

    Empty where there is no way to go: without a truth or Cox PH, and unless the paired 95 % interval of true risk
    minus Cox PH in C lies above 0 on this split. Else the share would be noise over noise.
    """
    at = (differences["split"] == split) & (differences["metric"] == "c_index")
    at &= (differences["experiment"] == TRUE_RISK) & (differences["reference"] == "cox_ph")
    if not (differences.loc[at, "ci_low"] > 0).any():
        return pd.Series(dtype=float)
    c_index = table[(table["metric"] == "c_index") & (table["split"] == split)].set_index("experiment")["mean"]
    return (c_index - c_index["cox_ph"]) / (c_index[TRUE_RISK] - c_index["cox_ph"])


def best_unimodal(run: Run, table: pd.DataFrame) -> str | None:
    """The row of one source, clinical factors or image, with the best mean validation C-index; None without any.

    Chosen on validation, where a network's epoch was chosen too, so that test and external patients choose nothing.
    """
    rows = table[(table["metric"] == "c_index") & (table["split"] == "validation")].set_index("experiment")["mean"]
    single = [
        name
        for name in rows.index
        if name != TRUE_RISK
        and run.experiments[name].fusion == "none"
        and not run.experiments[name].morphometry
        and run.experiments[name].model != "predictions"  # of what sources is not known
    ]
    return str(rows[single].idxmax()) if single else None


def _rows(run: Run, name: str, draws: Draws) -> list[list]:
    """The experiment's rows of the table, by `COLUMNS`."""
    row = run.experiment(name) if name != TRUE_RISK else None
    about = [name, *((row.input, row.encoder, row.fusion) if row else ("truth", "none", "none"))]
    metrics, n_folds = read_metrics(run, name).astype({"horizon_days": float}), run.profile.n_folds
    rows = []
    for key, group in metrics.groupby(["split", "metric", "horizon_days"], dropna=False, sort=False):
        if len(group) < n_folds:  # follow-up reaches the horizon in some folds only
            continue
        split, metric, horizon = key
        low, high = percentile_interval(draws[split, metric, _none(horizon)])
        found = [group["value"].mean(), group["value"].std(), low, high, n_folds, _n_patients(run, split)]
        rows.append([*about, *key, *found])
    return rows


def metric_draws(run: Run, name: str) -> Draws:
    """Each metric's mean over the folds in every bootstrap draw, by (split, metric, horizon or −1)."""
    days, predictions = horizons(run.cohort), read_folds(run, name)
    outcomes = [{split: (each.event, each.time) for split, each in fold.items()} for fold in predictions]
    result: Draws = {}
    for split in EVALUATED:
        if split not in predictions[0]:
            continue
        # validation patients differ from fold to fold, all others are the same in every fold
        n_folds = len(predictions)
        groups = [[fold] for fold in range(n_folds)] if split == "validation" else [list(range(n_folds))]
        found: dict = {}
        grid = integration_times(outcomes, split, days)
        for folds in groups:
            trained, at = [predictions[fold]["train"] for fold in folds], [predictions[fold][split] for fold in folds]
            drawn = bootstrap_metrics(
                [each.event for each in trained],
                [each.time for each in trained],
                [each.risk for each in trained],
                at[0].event,
                at[0].time,
                np.stack([each.risk for each in at]),
                days,
                grid=grid,
                censoring=(at[0].event, at[0].time) if split == "external" else None,
                other_risks=[other_risks(*pair) for pair in zip(trained, at, strict=True)],
                n_draws=run.profile.bootstrap_draws,
                seed=bootstrap_seed(run, split, folds),
            )
            for key, values in drawn.items():
                found.setdefault(key, []).append(values)
        for (metric, horizon), values in found.items():
            result[split, metric, -1.0 if horizon is None else horizon] = np.hstack(values).mean(axis=1)
    return result


def _differences(table: pd.DataFrame, draws: dict[str, Draws], references: Iterable[str]) -> pd.DataFrame:
    means = {
        (row["experiment"], row["split"], row["metric"], _none(row["horizon_days"])): row["mean"]
        for row in table.to_dict("records")
    }
    rows = []
    for reference in references:
        for (name, *key), mean in means.items():
            split, metric, horizon = key
            if name == reference or (reference, *key) not in means:
                continue
            paired = draws[name][split, metric, horizon] - draws[reference][split, metric, horizon]
            low, high = percentile_interval(paired, paired=True)
            if np.isnan(low):
                continue
            days = np.nan if horizon < 0 else horizon
            found = [mean - means[reference, *key], low, high, np.nanstd(paired, ddof=1), paired_p(paired)]
            rows.append([name, reference, split, metric, days, *found, np.nan])
    differences = pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS).astype({"p": float})
    models = differences[differences["experiment"] != TRUE_RISK]
    adjusted = models.groupby(FAMILY, dropna=False)["p"].transform(holm)
    differences.loc[models.index, "p_holm"] = adjusted
    return differences


def _none(horizon: float) -> float:
    """A horizon that can be a key: −1 for none (NaN equals nothing)."""
    return -1.0 if np.isnan(horizon) else horizon


def _n_patients(run: Run, split: str) -> int:
    if split == "validation":  # every training patient validates once
        return int((run.splits["fold"] >= 0).sum())
    return int((run.splits["split"] == split).sum())


def metric_cell(row: Mapping[str, float], between: str = "\n") -> str:
    """'0.612 ± 0.010', and the interval in brackets; what is not known is left out."""
    return estimate_cell(row["mean"], row["ci_low"], row["ci_high"], sd=row["sd"], between=between)
