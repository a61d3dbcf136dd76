"""The ablation: every experiment's metrics over its folds, with bootstrap intervals, in one tidy table.

Intervals resample the patients evaluated on and keep the models: they say how far other patients of the same kind
would have moved the mean over the folds. The SD is over the fold models. Neither says how far another draw of
training patients, or another seed, would have moved it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from fracsurv.cohort.cohort import horizons
from fracsurv.config import TRUE_RISK, derive_seed
from fracsurv.metrics import bootstrap_metrics, holm, paired_p, percentile_interval
from fracsurv.study.results import EVALUATED, finished, integration_times, other_risks, read_folds, read_metrics
from fracsurv.study.run import Run
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


def best_unimodal(run: Run, table: pd.DataFrame) -> str | None:
    """The row of one source, clinical factors or image, with the best mean validation C-index; None without any.

    Chosen on validation, where a network's epoch was chosen too, so that test and external patients choose nothing.
    """
    rows = table[(table["metric"] == "c_index") & (table["split"] == "validation")].set_index("experiment")["mean"]
    single = [
        name
        for name in rows.index
        if name != TRUE_RISK and run.experiments[name].fusion == "none" and not run.experiments[name].morphometry
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
            low, high = percentile_interval(paired)
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
