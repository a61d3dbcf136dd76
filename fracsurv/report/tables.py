"""The study's tables: in the layout of the thesis, and of groups, leaks looked for and contributions.

A cell is text: 'mean ± SD' and, on a second line, the 95 % interval; of a difference, on a third, p adjusted by Holm.
Column names are pairs (group, name): what this run found and what the thesis published are always in groups of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort
from fracsurv.cohort.summary import summary_table
from fracsurv.config import TRUE_RISK
from fracsurv.metrics.names import METRIC_NAMES
from fracsurv.report.tables_export import frame_of
from fracsurv.study.ablation import best_unimodal, metric_cell
from fracsurv.study.labels import experiment_columns, experiment_name
from fracsurv.study.leakage import leak_checks
from fracsurv.study.protocol import (
    FEW,
    HEADLINE,
    REFERENCE,
    UNIMODAL,
    VERTEBRAL_ROW,
    headline_horizon,
)
from fracsurv.study.run import Run
from fracsurv.study.subgroups import ratio_title
from fracsurv.study.thesis_results import (
    METRICS,
    OUTCOME,
    published,
    published_alpha,
    published_hyperparameters,
    published_summary,
    thesis_order,
)
from fracsurv.utils.formatting import MISSING, estimate_cell, format_p, horizon_label, number

FURTHER = ("c_index_ipcw", "mean_auc", "integrated_brier")
CHOSEN = "networks' epochs (and α) were chosen on these patients: optimistic"
THESIS = {
    "test": "thesis, test (Tables 4.2, 4.3): private SUPERB cohort, not comparable",
    "validation": "thesis, validation (Tables 4.1, A.2): private SUPERB cohort, not comparable",
}
NOT_LOOKED = "not looked at"
VERDICTS = {
    True: "as it must be",
    None: "look at them: the same people, or alike by chance",
    False: "LEAK: people who are judged were met in training",
}
FEWEST_FOR_AUC = 10
"""With fewer, an AUC over patients and its interval say nothing."""


def in_thesis_order(names: Sequence[str]) -> list[str]:
    """True risk first, then the rows of Table 4.3 in its order, then any others."""
    order = [TRUE_RISK, *thesis_order()]
    known = [name for name in order if name in names]
    return known + [name for name in names if name not in known]


def results_table(
    run: Run,
    table: pd.DataFrame,
    differences: pd.DataFrame,
    split: str,
    experiments: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One split in the layout of Tables 4.1 to 4.3 and A.2, with intervals, differences and published values.

    Parameters
    ----------
    table, differences : DataFrame
        As `ablation.ablation` gives them.
    split : str
        'validation', 'test' or 'external'. Published values stand beside the first two only: the thesis had no
        external cohort. They are left out where the cohort's outcome is not the thesis's.
    experiments : sequence of str, optional
        Rows to take; all of `table` if not given.
    """
    rows = table[table["split"] == split]
    present = list(dict.fromkeys(rows["experiment"]))
    names = in_thesis_order([name for name in present if experiments is None or name in experiments])
    way = way_to_true_risk(run, table, differences, split)
    horizon = headline_horizon(table, split)
    unit = run.cohort.time_unit
    metrics = [*METRICS, "auc_thesis"] if has_thesis_auc(run, rows) else METRICS
    validation = split == "validation"
    ours = f"this run, {split} ({run.cohort.provenance})" + (f"; {CHOSEN}" if validation else "")
    compared = differences[differences["split"] == split]
    best = best_unimodal(run, table)
    records = []
    for name in names:
        record = _row_head(run, name)
        for metric in metrics:
            record[(ours, _metric_name(metric, horizon, unit))] = _cell(rows, name, metric, horizon)
        # epochs (and α) were chosen on the validation patients, so that no difference from Cox PH is fair there
        if not validation:
            record[(ours, "ΔC from Cox PH")] = _difference(compared, name, REFERENCE)
            if (compared["reference"] == UNIMODAL).any():
                record[(ours, "ΔC from DeepSurv")] = _difference(compared, name, UNIMODAL)
            if best not in (None, REFERENCE, UNIMODAL) and (compared["reference"] == best).any():
                called = f"ΔC from {experiment_name(run, best)}: best of one source on validation"
                record[(ours, called)] = _difference(compared, name, best)
            if not way.empty:
                record[(ours, "way to true risk, no interval")] = f"{number(100 * way[name], '.0f')} %"
        if split in THESIS and run.cohort.outcome == OUTCOME:
            for metric in METRICS:
                record[(THESIS[split], METRIC_NAMES[metric])] = _published(name, split, metric)
        records.append(record)
    return frame_of(records)


def has_thesis_auc(run: Run, table: pd.DataFrame) -> bool:
    """Whether to show the AUC by the thesis's own definition: where it is there, and the outcome is the thesis's."""
    return run.cohort.outcome == OUTCOME and bool((table["metric"] == "auc_thesis").any())


def main_table(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """All experiments on all splits: C-index, AUC and Brier score at the headline horizon, and the published C."""
    names = in_thesis_order(list(dict.fromkeys(table["experiment"])))
    records = []
    for name in names:
        record = _one_cell_head(run, name)
        for split in _splits(table):
            rows, horizon = table[table["split"] == split], headline_horizon(table, split)
            group = _group(run, rows, split)
            for metric in METRICS:
                record[(group, _metric_name(metric, horizon, run.cohort.time_unit))] = _cell(
                    rows, name, metric, horizon
                )
        if run.cohort.outcome == OUTCOME:
            record[("thesis", "test C (not comparable)")] = _published(name, "test", "c_index")
        records.append(record)
    return frame_of(records)


def vertebral_table(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """With and without vertebral fractures as covariates: C-index and differences; empty where none was run."""
    present = list(dict.fromkeys(table["experiment"]))
    graded = [name for name in present if name != TRUE_RISK and run.experiments[name].morphometry]
    names = [name for name in (REFERENCE, UNIMODAL, *graded, HEADLINE) if name in present]
    records = []
    for name in dict.fromkeys(names if graded else []):
        record = _one_cell_head(run, name)
        for split in [split for split in _splits(table) if split != "validation"]:
            rows, compared = (frame[frame["split"] == split] for frame in (table, differences))
            group = _group(run, rows, split)
            record[(group, METRIC_NAMES["c_index"])] = _cell(rows, name, "c_index", None)
            record[(group, "ΔC from Cox PH")] = _difference(compared, name, REFERENCE)
            record[(group, "ΔC from DeepSurv")] = _difference(compared, name, UNIMODAL)
            record[(group, "ΔC from Cox PH + VF")] = _difference(compared, name, VERTEBRAL_ROW)
        records.append(record)
    return frame_of(records)


def further_metrics(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """All experiments on all splits: Uno's C, and AUC and Brier score over all times up to the last horizon."""
    records = []
    for name in in_thesis_order(list(dict.fromkeys(table["experiment"]))):
        record = _one_cell_head(run, name)
        for split in _splits(table):
            rows = table[table["split"] == split]
            group = _group(run, rows, split)
            record |= {(group, METRIC_NAMES[metric]): _cell(rows, name, metric, None) for metric in FURTHER}
        records.append(record)
    return frame_of(records)


def hyperparameters(run: Run, names: Sequence[str]) -> pd.DataFrame:
    """Table A.1: what each experiment was trained with here, beside what the thesis's was."""
    records = []
    for name in in_thesis_order([n for n in names if n != TRUE_RISK]):
        here = run.experiment(name)
        if here.model == "cox_ph":
            continue
        cosine = here.scheduler == "cosine"
        ours = _hyperparameters(here.encoder, here.lr, cosine, here.epochs, here.batch_size)
        theirs = published_hyperparameters(name)
        theirs = _hyperparameters(**theirs) if theirs else dict.fromkeys(ours, MISSING)
        head = {("", "experiment"): name, **_row_head(run, name)}
        head |= {("this run", key): value for key, value in ours.items()}
        records.append(head | {("thesis (Table A.1)", key): value for key, value in theirs.items()})
    return frame_of(records)


def _hyperparameters(encoder: str, lr: float, cosine: bool, epochs: int, batch: int) -> dict[str, str]:
    return {
        "encoder": encoder, "lr": f"{lr:g}", "cosine": "✓" * cosine, "epochs": str(epochs), "batch": str(batch),
    }  # fmt: skip


def summary_beside_published(cohort: Cohort) -> pd.DataFrame:
    """Table 2.1: the cohort, and where the covariate is the thesis's, the private SUPERB cohort's value."""
    ours = summary_table(cohort)
    theirs = published_summary()
    keys = ["event", "time", *(["competing"] if cohort.has_competing else [])]
    keys += [*(["has_image"] if cohort.n_without_image else []), *cohort.covariates]
    columns = {
        ("", "variable"): list(ours.index),
        ("this run", ours.columns[0]): [text.replace("-", "−") for text in ours.iloc[:, 0]],
    }
    if cohort.outcome == OUTCOME:
        columns["thesis (Table 2.1)", "3,028 women (private SUPERB cohort)"] = [theirs.get(k, MISSING) for k in keys]
    return pd.DataFrame(columns)


def way_to_true_risk(run: Run, table: pd.DataFrame, differences: pd.DataFrame, split: str) -> pd.Series:
    """Share of the way from Cox PH (0: clinical only) to the true risk (1) that each experiment's C-index went.

    Empty where there is no way to go: without a truth or Cox PH, with permuted outcomes, and unless the paired 95 %
    interval of true risk minus Cox PH in C lies above 0 on this split. Else the share would be noise over noise.
    """
    at = (differences["split"] == split) & (differences["metric"] == "c_index")
    at &= (differences["experiment"] == TRUE_RISK) & (differences["reference"] == REFERENCE)
    if run.profile.permute_outcomes or not (differences.loc[at, "ci_low"] > 0).any():
        return pd.Series(dtype=float)
    c_index = table[(table["metric"] == "c_index") & (table["split"] == split)].set_index("experiment")["mean"]
    if not {TRUE_RISK, REFERENCE} <= set(c_index.index):
        return pd.Series(dtype=float)
    return (c_index - c_index[REFERENCE]) / (c_index[TRUE_RISK] - c_index[REFERENCE])


def _row_head(run: Run, name: str) -> dict[tuple[str, str], str]:
    model, crops, fusion = experiment_columns(run, name)
    return {("", "model"): model, ("", "crops"): crops, ("", "fusion"): fusion}


def _one_cell_head(run: Run, name: str) -> dict[tuple[str, str], str]:
    model, _, fusion = experiment_columns(run, name)
    shown = {"none": "", "full": "full image, ", "crops": "crops, "}
    what = "" if name == TRUE_RISK else shown[run.experiments[name].input] + fusion
    return {("", "model"): f"{model}\n{what}" if what else model}


def _splits(table: pd.DataFrame) -> list[str]:
    return [split for split in ("external", "test", "validation") if (table["split"] == split).any()]


def _group(run: Run, rows: pd.DataFrame, split: str) -> str:
    n = f"{split}, n = {rows['n_patients'].iloc[0]:,} ({run.cohort.provenance})"
    return f"{n}; {CHOSEN}" if split == "validation" else n


def _metric_name(metric: str, horizon: float | None, unit: str) -> str:
    if metric == "c_index" or horizon is None:
        return METRIC_NAMES[metric]
    return f"{METRIC_NAMES[metric]}, {horizon_label(horizon, unit)}"


def _cell(rows: pd.DataFrame, name: str, metric: str, horizon: float | None) -> str:
    at = (rows["experiment"] == name) & (rows["metric"] == metric)
    if metric in ("auc", "auc_thesis", "brier"):
        at &= np.isclose(rows["horizon_days"].to_numpy(float), np.nan if horizon is None else horizon)
    if not at.any():
        return MISSING
    return metric_cell(rows[at].iloc[0])


def _difference(differences: pd.DataFrame, name: str, reference: str) -> str:
    at = (differences["metric"] == "c_index") & (differences["experiment"] == name)
    at &= differences["reference"] == reference
    if not at.any():
        return MISSING
    row = differences[at].iloc[0]
    p = "" if pd.isna(row["p_holm"]) else f"\n{format_p(row['p_holm'])}"
    return estimate_cell(row["difference"], row["ci_low"], row["ci_high"], "+.3f") + p


def _published(name: str, split: str, metric: str) -> str:
    value = published(name, split, metric)
    if value is None:
        return MISSING
    alpha = published_alpha(name)
    note = f"\nα = {alpha:g}" if alpha is not None and metric == "c_index" else ""
    return f"{value[0]:.2f} ± {value[1]:.2f}{note}"


def groups_table(run: Run, found: pd.DataFrame, horizon: float | None) -> pd.DataFrame:
    """A row a group, as `subgroups.subgroup_table` found it: C-index, its difference, observed over expected risk."""
    records = []
    names = list(dict.fromkeys(found["experiment"]))
    for group in dict.fromkeys(found["group"]):
        rows = found[found["group"] == group].set_index("experiment")
        first = rows.iloc[0]
        record = {("", "group"): group, ("", "n"): f"{first['n']:,}", ("", "events"): f"{first['events']:,}"}
        if first["small"]:
            record["", "group"] += f"\n{FEW}"
        for name in names:
            row, called = rows.loc[name], experiment_name(run, name)
            record[called, "C-index"] = estimate_cell(*row[["c_index", "ci_low", "ci_high"]])
            if name != names[0]:
                difference = row[["difference", "difference_low", "difference_high"]]
                record[called, f"ΔC from {experiment_name(run, names[0])}"] = (
                    MISSING if pd.isna(difference.iloc[1]) else estimate_cell(*difference, "+.3f")
                )
            if horizon is not None:
                record[called, ratio_title(horizon, run.cohort.time_unit)] = estimate_cell(
                    *row[["ratio", "ratio_low", "ratio_high"]]
                )
        records.append(record)
    return frame_of(records)


def checks_table(run: Run) -> pd.DataFrame:
    """What `leakage.leak_checks` looked for and found."""
    return frame_of(
        [
            {("", "two patients with"): check.asked, ("", "found"): check.found,
             ("", "verdict"): VERDICTS[check.sound] if check.looked else NOT_LOOKED}
            for check in leak_checks(run)
        ]
    )  # fmt: skip


def fractured_first_table(run: Run, found: pd.DataFrame) -> pd.DataFrame:
    """A row a network, as `findings.fractured_first` found it; a group of columns for each least grade."""
    records = []
    for name in dict.fromkeys(found["experiment"]):
        record = {("", "network"): experiment_name(run, name), ("", "encoder"): run.experiment(name).encoder}
        for row in found[found["experiment"] == name].to_dict("records"):
            words = "any fracture" if row["least"] == 1 else f"grade {row['least']} or more"
            known = row["n_patients"] >= FEWEST_FOR_AUC
            record[words, "AUC within a patient"] = (
                estimate_cell(row["auc"], row["ci_low"], row["ci_high"]) if known else MISSING
            )
            record[words, "patients"] = f"{row['n_patients']:,}"
            record[words, "fractured vertebrae"] = f"{row['n_fractured']:,}"
        records.append(record)
    return frame_of(records)
