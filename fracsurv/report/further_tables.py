"""Tables that the thesis does not have: groups of patients, leaks looked for, contributions against the truth."""

from __future__ import annotations

import pandas as pd

from fracsurv.report.tables_export import frame_of
from fracsurv.study.labels import experiment_name
from fracsurv.study.leakage import leak_checks
from fracsurv.study.protocol import FEW
from fracsurv.study.run import Run
from fracsurv.study.subgroups import ratio_title
from fracsurv.utils.formatting import MISSING, estimate_cell

NOT_LOOKED = "not looked at"
VERDICTS = {
    True: "as it must be",
    None: "look at them: the same people, or alike by chance",
    False: "LEAK: people who are judged were met in training",
}
FEWEST_FOR_AUC = 10
"""With fewer, an AUC over patients and its interval say nothing."""


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
