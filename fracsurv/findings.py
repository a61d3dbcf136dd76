"""Figures of a run's results, each with the sentence that it supports; notebooks and report show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors import safe_open

from fracsurv import metrics, plots
from fracsurv.config import TRUE_RISK
from fracsurv.curves import (
    KAPLAN_MEIER,
    event_share,
    metrics_over_time,
    patient_predictions,
    risk_tertiles,
)
from fracsurv.plots import format_p, horizon_label
from fracsurv.results import risk_of
from fracsurv.run import Run
from fracsurv.tables import in_thesis_order, way_to_true_risk
from fracsurv.wording import (
    HEADLINE,
    REFERENCE,
    chosen_alpha,
    experiment_name,
    headline_horizon,
    judged_split,
    signed,
    stamp,
)

MOST_HIGHLIGHTED = 4
FEWEST_FOR_SHARES = 300
PATIENTS = {name: f"the {name} patients" for name in ("validation", "test", "external")}


@dataclass(frozen=True)
class Finding:
    """A figure, its alternative text, and the computed sentence that it supports (plain text)."""

    name: str
    figure: Figure
    alt: str
    said: str


def names_of(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Experiment to its whole name."""
    return {name: experiment_name(run, name) for name in names}


def highlighted(table: pd.DataFrame, split: str) -> list[str]:
    """The rows to draw in colour: true risk, Cox PH, crops + IF-MLP, and the best of the others by C-index."""
    c_index = table[(table["metric"] == "c_index") & (table["split"] == split)]
    ranked = list(c_index.sort_values("mean", ascending=False)["experiment"])
    first = [name for name in (REFERENCE, HEADLINE, TRUE_RISK) if name in ranked]
    return (first + [name for name in ranked if name not in first])[:MOST_HIGHLIGHTED]


def forest(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> Finding:
    """C-index of every experiment on test and external, and which differ from Cox PH."""
    splits = [split for split in ("external", "test") if (table["split"] == split).any()]
    rows = table[table["metric"] == "c_index"]
    order = in_thesis_order(list(dict.fromkeys(rows["experiment"])))
    rows = rows.set_index("experiment").loc[order].reset_index()
    figure = plots.forest(rows, names_of(run, order), splits, provenance=stamp(run))
    split = judged_split(table)
    found = differences[(differences["split"] == split) & (differences["metric"] == "c_index")]
    found = found[(found["reference"] == REFERENCE) & (found["experiment"] != TRUE_RISK)]
    above = [experiment_name(run, n) for n in found.loc[found["ci_low"] > 0, "experiment"]]
    below = [experiment_name(run, n) for n in found.loc[found["ci_high"] < 0, "experiment"]]
    if found.empty:
        said = "No experiment is compared with Cox PH in this run."
    else:
        said = (
            f"On {PATIENTS[split]}, the 95 % interval of the difference from Cox PH in C lies above 0 for "
            f"{len(above)} of {len(found)} experiments{_listed(above)}, below 0 for {len(below)}{_listed(below)}, "
            f"and contains 0 for {len(found) - len(above) - len(below)}."
        )
    return Finding("forest", figure, f"Forest plot of the C-index of {len(order)} experiments with intervals", said)


def over_time(run: Run, table: pd.DataFrame, split: str, names: Sequence[str] | None = None) -> Finding | None:
    """AUC(t) and Brier(t) on a split; None where follow-up allows no horizon."""
    horizon = headline_horizon(table, split)
    rows = table[(table["split"] == split) & (table["metric"] == "auc")]
    if horizon is None:
        return None
    names = list(names or in_thesis_order(list(dict.fromkeys(rows["experiment"]))))
    last = float(rows["horizon_days"].max())
    curves = metrics_over_time(run, names, split, last)
    shown = [name for name in highlighted(table, split) if name in names]
    unit = run.cohort.time_unit
    stamped = f"{split} · {stamp(run)}"
    figure = plots.over_time(curves, names_of(run, names), shown, time_unit=unit, provenance=stamped)
    at = curves[np.isclose(curves["time"], last)]
    brier = at[at["metric"] == "brier"].set_index("experiment")["value"]
    auc = at[(at["metric"] == "auc") & (at["experiment"] != TRUE_RISK)].set_index("experiment")["value"]
    models = brier.drop([KAPLAN_MEIER, TRUE_RISK], errors="ignore")
    said = f"At {horizon_label(last, unit)} on {PATIENTS[split]}, "
    if models.empty:
        said += (
            f"the Kaplan–Meier curve given to everyone has a Brier score of {brier[KAPLAN_MEIER]:.3f}; no model is "
            "judged in this run."
        )
    else:
        better = int((models < brier[KAPLAN_MEIER]).sum())
        said += (
            f"the highest AUC of a model is {auc.max():.3f} ({experiment_name(run, auc.idxmax())}); {better} of "
            f"{len(models)} models have a lower Brier score than the Kaplan–Meier curve given to everyone "
            f"({brier[KAPLAN_MEIER]:.3f})."
        )
    return Finding(f"over_time_{split}", figure, f"AUC and Brier score over time on {split}", said)


def calibration(run: Run, table: pd.DataFrame, split: str, names: Sequence[str]) -> Finding | None:
    """Predicted against observed probabilities at the headline horizon; None where there is no such horizon."""
    horizon = headline_horizon(table, split)
    if horizon is None:
        return None
    groups = {}
    for name in names:
        found = patient_predictions(run, name, split, horizon)
        made = metrics.calibration(found["event"], found["time"], found["probability"], horizon)
        if np.isfinite(made.observed).any():
            groups[experiment_name(run, name)] = made
    if not groups:
        return None
    at = horizon_label(horizon, run.cohort.time_unit)
    figure = plots.calibration(
        groups, horizon, outcome=run.cohort.outcome, time_unit=run.cohort.time_unit,
        provenance=f"{split} · {stamp(run)}",
    )  # fmt: skip
    gaps = []
    for name, g in groups.items():
        known = np.isfinite(g.observed)
        gap = np.average(np.abs(g.predicted - g.observed)[known], weights=g.n[known])
        gaps.append(f"{name} {100 * gap:.1f}")
    said = (
        f"Between predicted and observed probability within {at} on {PATIENTS[split]} lie, on average over the risk "
        f"groups, in percentage points: {'; '.join(gaps)}. Judged is the mean of the fold models' probabilities, not "
        "any one model; by chance this average of absolute gaps lies above 0 even for a perfect model."
    )
    return Finding(f"calibration_{split}", figure, f"Calibration at {at} on {split}", said)


def risk_groups(run: Run, table: pd.DataFrame, name: str, split: str) -> Finding:
    """Kaplan–Meier curves by third of predicted risk."""
    found = patient_predictions(run, name, split)
    event, time = found["event"].to_numpy(), found["time"].to_numpy()
    third = risk_tertiles(found["rank"].to_numpy())
    labels = {0: "lowest third of risk", 1: "middle third", 2: "highest third"}
    figure = plots.kaplan_meier(
        event, time, third, labels, outcome=run.cohort.outcome, title=experiment_name(run, name),
        time_unit=run.cohort.time_unit, provenance=f"{split} · {stamp(run)}",
    )  # fmt: skip
    horizon = headline_horizon(table, split) or float(np.median(time))
    low, high = (100 * event_share(event[third == k], time[third == k], horizon) for k in (0, 2))
    p = format_p(plots.log_rank_p(event, time, third))
    by = horizon_label(horizon, run.cohort.time_unit)
    said = (
        f"By {by}, {low:.1f} % of the third that {experiment_name(run, name)} gives the lowest risk among "
        f"{PATIENTS[split]} have had {run.cohort.outcome}, and {high:.1f} % of the third with the highest "
        f"(Kaplan–Meier; log-rank over the three {p}). Thirds are by the mean of the fold models' ranks of a "
        "patient, not by any one model."
    )
    return Finding(f"tertiles_{name}_{split}", figure, f"Kaplan–Meier by third of risk, {name}, {split}", said)


def learning(run: Run, name: str) -> Finding:
    """Learning curves of one experiment over its folds."""
    history = pd.concat(
        [
            pd.read_csv(run.folder(name, fold) / "history.csv").assign(fold=fold)
            for fold in range(run.profile.n_folds)
        ],
        ignore_index=True,
    )
    history = history.reindex(columns=[*history, *({"validation_c_index", "validation_loss"} - set(history))])
    figure = plots.learning_curves(history, title=experiment_name(run, name), provenance=stamp(run))
    validated = history.dropna(subset=["validation_c_index"])
    best = validated.loc[validated.groupby("fold")["validation_c_index"].idxmax()]
    last = validated.groupby("fold").tail(1)
    gap = (last["train_c_index"] - last["validation_c_index"]).mean()
    epochs = ", ".join(f"{epoch:.0f}" for epoch in best["epoch"])
    said = (
        f"{experiment_name(run, name)}: validation is best after epoch {epochs} of {int(history['epoch'].max())} "
        f"(one a fold), with a C-index of {best['validation_c_index'].mean():.3f} on average; after the last epoch "
        f"training's C-index is {abs(gap):.3f} {'above' if gap > 0 else 'below'} that of validation. Training's is "
        "collected during the epoch, under augmentation and dropout and while the weights still move, so the gap is "
        "not over-fitting alone."
    )
    return Finding(f"learning_{name}", figure, f"Learning curves of {name}", said)


def sweep(run: Run, names: Sequence[str]) -> Finding | None:
    """Validation C-index over α for the α-models among `names`; None if there are none."""
    swept = [name for name in names if name != TRUE_RISK and chosen_alpha(run, name) is not None]
    if not swept:
        return None
    tables = {name: pd.read_csv(run.folder(name) / "sweep.csv") for name in swept}
    titles = {name: run.experiments[name].title for name in swept}
    figure = plots.alpha_sweep({titles[name]: table for name, table in tables.items()}, provenance=stamp(run))
    parts = []
    for name, table in tables.items():
        mean = table.groupby("alpha")["validation_c_index"].mean()
        parts.append(
            f"{titles[name]}: α = {mean.idxmax():g}, {mean.max():.3f} against {mean.min():.3f} at the worst α"
        )
    said = f"Mean C-index on validation at the chosen α. {'; '.join(parts)}."
    return Finding("alpha_sweep", figure, "Validation C-index over α", said)


def chosen_and_judged(run: Run, table: pd.DataFrame) -> Finding | None:
    """C-index on validation against test or external; None for fewer than three experiments."""
    judged = judged_split(table)
    rows = table[(table["metric"] == "c_index") & (table["experiment"] != TRUE_RISK)]
    wide = rows.pivot_table(index="experiment", columns="split", values="mean")
    if len(wide) < 3 or not {"validation", judged} <= set(wide):
        return None
    figure = plots.validation_against_test(rows, names_of(run, wide.index), judged=judged, provenance=stamp(run))
    best = wide["validation"].idxmax()
    rank = int(wide[judged].rank(ascending=False, method="min")[best])
    agreement = wide["validation"].corr(wide[judged], method="spearman")
    said = (
        f"The best of {len(wide)} experiments on validation, {experiment_name(run, best)}, is number {rank} on "
        f"{judged}; the ranks on both agree with a Spearman correlation of {agreement:.2f}.".replace("of -", "of −")
    )
    return Finding("validation_against_test", figure, f"C-index on validation against {judged}", said)


def furthest(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Who came furthest from Cox PH to the true risk in C; '' where there is no way to go, or under 300 patients.

    With fewer, the share is mostly noise: its denominator is a difference of two C-indices. For the same reason there
    is a way to go only where `tables.way_to_true_risk` finds one.
    """
    split = judged_split(table)
    way = way_to_true_risk(run, table, differences, split).drop([TRUE_RISK, REFERENCE], errors="ignore")
    if way.empty:
        return ""
    n = int(table.loc[table["split"] == split, "n_patients"].iloc[0])
    if n < FEWEST_FOR_SHARES:
        return ""
    share = f"{100 * way.max():.0f} %".replace("-", "−")
    return (
        f"From Cox PH (0 %) to the true risk (100 %) in C on {PATIENTS[split]} (n = {n:,}), "
        f"{experiment_name(run, way.idxmax())} came furthest of {len(way)}: {share}, a point estimate without an "
        "interval, and as the largest of several biased upwards."
    )


def late_weights(run: Run, name: str) -> Finding:
    """What late fusion's last layer made of the two risks."""
    rows = []
    for fold in range(run.profile.n_folds):
        with safe_open(run.folder(name, fold) / "best.safetensors", framework="numpy") as weights_file:
            weight = weights_file.get_tensor("head.weight").ravel()
        train = run.rows(fold)["train"]
        for part, column, w in (("clinical", "tabular", weight[0]), ("image", "image", weight[1])):
            spread = risk_of(run, run.experiments[name].pretrained[column], fold)[train].std()
            rows.append({"fold": fold, "part": part, "per_sd": float(w * spread)})
    weights = pd.DataFrame(rows)
    figure = plots.late_fusion_weights(weights, provenance=stamp(run))
    mean = weights.groupby("part")["per_sd"].mean()
    said = (
        f"One SD more of the clinical risk adds {signed(mean['clinical'])} to the fused log hazard, one SD more of "
        f"the image risk {signed(mean['image'])} (means over the folds; SD over the training patients). Both "
        "risks are of frozen models on the very patients that they were trained on, as in the thesis: the weights "
        "favour an image model that over-fitted."
    )
    return Finding(f"late_weights_{name}", figure, "Weights of the two risks in late fusion", said)


def _listed(names: Sequence[str]) -> str:
    return f" ({'; '.join(names)})" if names else ""
