"""All experiments beside each other: forest plot, metrics over time, who came furthest, validation against test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fracsurv import plots
from fracsurv.config import TRUE_RISK
from fracsurv.metrics import NORMAL_97_5, concordance_sd_by_chance
from fracsurv.report.findings.finding import (
    PATIENTS,
    Finding,
    highlighted,
    names_of,
)
from fracsurv.report.tables import in_thesis_order, way_to_true_risk
from fracsurv.report.wording import not_ranked
from fracsurv.study.competing import estimate_name
from fracsurv.study.labels import experiment_name, stamp
from fracsurv.study.protocol import (
    FEWEST_EVENTS,
    HELD_OUT,
    REFERENCE,
    evaluated_split,
    headline_horizon,
)
from fracsurv.study.run import Run
from fracsurv.study.time_dependent import KAPLAN_MEIER, metrics_over_time
from fracsurv.utils.formatting import counted, horizon_label, number

FEWEST_FOR_SHARES = 300


def forest(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> Finding:
    """C-index of every experiment on test and external, and which differ from Cox PH."""
    rows = table[table["metric"] == "c_index"]
    splits = [split for split in HELD_OUT if (rows["split"] == split).any()] or [evaluated_split(table, run)]
    order = in_thesis_order(list(dict.fromkeys(rows["experiment"])))
    rows = rows.set_index("experiment").loc[order].reset_index()
    chance = {split: found for split in splits if (found := chance_range(run, split))}
    figure = plots.forest(rows, names_of(run, order), splits, chance=chance, provenance=stamp(run))
    split = evaluated_split(table, run)
    found = differences[(differences["split"] == split) & (differences["metric"] == "c_index")]
    found = found[(found["reference"] == REFERENCE) & (found["experiment"] != TRUE_RISK)]
    above = [experiment_name(run, n) for n in found.loc[found["ci_low"] > 0, "experiment"]]
    below = [experiment_name(run, n) for n in found.loc[found["ci_high"] < 0, "experiment"]]
    if not (rows["split"] == split).any():
        said = "No experiment is compared with another."
    elif found.empty:
        said = "No experiment is compared with Cox PH in this run."
    else:
        said = (
            f"On {PATIENTS[split]}, the 95 % interval of the difference from Cox PH in C lies above 0 for "
            f"{len(above)} of {counted(len(found), 'experiment')}{_listed(above)}, below 0 for {len(below)}"
            f"{_listed(below)}, "
            f"and contains 0 for {len(found) - len(above) - len(below)}. Adjusted by Holm for so many rows, p is "
            f"below 0.05 for {int((found['p_holm'] < 0.05).sum())}."
        )
    if split in chance:
        low, high = chance[split]
        means = rows[rows["split"] == split].set_index("experiment")["mean"]
        within = [experiment_name(run, name) for name in means.index[means <= high]]
        said += (
            f" With the outcomes permuted among these patients, one model's C falls between {low:.3f} and "
            f"{high:.3f} in 95 of 100 permutations (grey), a mean over fold models less widely; "
            f"not above that: {len(within)} of {counted(len(order), 'row')}{_listed(within)}."
        )
    alt = f"Forest plot of the C-index of {counted(len(order), 'experiment')} with intervals"
    return Finding("forest", figure, alt, f"{said} {not_ranked(run, table)}".strip())


def chance_range(run: Run, split: str) -> tuple[float, float] | None:
    """Where C of a model that knows nothing falls in 95 of 100 permutations of a split's outcomes among its patients.

    By its exact variance and a normal distribution; None with under ten events.
    """
    table = run.cohort.table[(run.splits["split"] == split).to_numpy()]
    if table["event"].sum() < FEWEST_EVENTS:
        return None
    sd = concordance_sd_by_chance(table["event"].to_numpy(), table["time"].to_numpy())
    return 0.5 - NORMAL_97_5 * sd, 0.5 + NORMAL_97_5 * sd


def over_time(run: Run, table: pd.DataFrame, split: str, names: Sequence[str] | None = None) -> Finding | None:
    """AUC(t) and Brier(t) on a split; None where follow-up allows no horizon."""
    horizon = headline_horizon(table, split)
    rows = table[(table["split"] == split) & table["metric"].isin(["auc", "brier"])]
    if horizon is None:
        return None
    names = list(names or in_thesis_order(list(dict.fromkeys(rows["experiment"]))))
    last = float(rows["horizon_days"].max())
    curves = metrics_over_time(run, names, split, last)
    shown = [name for name in highlighted(table, split) if name in names]
    unit = run.cohort.time_unit
    stamped = f"{split} · {stamp(run)}"
    called = estimate_name(run.cohort)
    labels = names_of(run, names) | ({KAPLAN_MEIER: called} if run.cohort.has_competing else {})
    figure = plots.over_time(curves, labels, shown, time_unit=unit, provenance=stamped)
    at = curves[np.isclose(curves["time"], last)]
    brier = at[at["metric"] == "brier"].set_index("experiment")["value"]
    auc = at[(at["metric"] == "auc") & (at["experiment"] != TRUE_RISK)].set_index("experiment")["value"].dropna()
    models = brier.drop([KAPLAN_MEIER, TRUE_RISK], errors="ignore")
    said = f"At {horizon_label(last, unit)} on {PATIENTS[split]}, "
    if models.empty:
        said += (
            f"the {called} curve given to everyone has a Brier score of {brier[KAPLAN_MEIER]:.3f}; no model is "
            "judged in this run."
        )
    else:
        better = int((models < brier[KAPLAN_MEIER]).sum())
        verb = "has" if len(models) == 1 else "have"
        largest = f", as the largest of {len(auc)} biased upwards" if len(auc) > 1 else ""
        highest = "there is no AUC, for nobody has had an event by then"
        if len(auc):
            highest = f"the highest AUC of a model is {auc.max():.3f} ({experiment_name(run, auc.idxmax())}){largest}"
        said += (
            f"{highest}; {better} of {counted(len(models), 'model')} {verb} a lower Brier score than the {called} "
            f"curve given to everyone ({brier[KAPLAN_MEIER]:.3f})."
        )
    return Finding(f"over_time_{split}", figure, f"AUC and Brier score over time on {split}", said)


def chosen_and_judged(run: Run, table: pd.DataFrame) -> Finding | None:
    """C-index on validation against test or external; None for fewer than three experiments."""
    judged = evaluated_split(table, run)
    rows = table[(table["metric"] == "c_index") & (table["experiment"] != TRUE_RISK)]
    # rounded, so that models which rank alike share a rank
    wide = rows.pivot_table(index="experiment", columns="split", values="mean").round(9)
    if len(wide) < 3 or not {"validation", judged} <= set(wide):
        return None
    figure = plots.validation_against_test(rows, names_of(run, wide.index), judged=judged, provenance=stamp(run))
    best = wide["validation"].idxmax()
    rank = int(wide[judged].rank(ascending=False, method="min")[best])
    called = experiment_name(run, best)
    said = f"The best of {len(wide)} experiments on validation, {called}, is number {rank} on {judged}"
    if (wide[["validation", judged]].nunique() > 1).all():
        agreement = wide["validation"].corr(wide[judged], method="spearman")
        said += f"; the ranks on both agree with a Spearman correlation of {number(agreement, '.2f')}"
    return Finding("validation_against_test", figure, f"C-index on validation against {judged}", f"{said}.")


def furthest(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Who came furthest from Cox PH to the true risk in C; '' where there is no way to go, or under 300 patients.

    With fewer, the share is mostly noise: its denominator is a difference of two C-indices. For the same reason there
    is a way to go only where `tables.way_to_true_risk` finds one.
    """
    split = evaluated_split(table, run)
    way = way_to_true_risk(run, table, differences, split).drop([TRUE_RISK, REFERENCE], errors="ignore")
    if way.empty:
        return ""
    n = int(table.loc[table["split"] == split, "n_patients"].iloc[0])
    if n < FEWEST_FOR_SHARES:
        return ""
    share = f"{number(100 * way.max(), '.0f')} %"
    return (
        f"From Cox PH (0 %) to the true risk (100 %) in C on {PATIENTS[split]} (n = {n:,}), "
        f"{experiment_name(run, way.idxmax())} came furthest of {len(way)}: {share}, a point estimate without an "
        "interval, and as the largest of several biased upwards."
    )


def _listed(names: Sequence[str]) -> str:
    return f" ({'; '.join(names)})" if names else ""
