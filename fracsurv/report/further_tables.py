"""Tables that the thesis does not have: groups of patients, leaks looked for, contributions against the truth."""

from __future__ import annotations

import pandas as pd

from fracsurv.report.tables import frame_of
from fracsurv.study.labels import experiment_name
from fracsurv.study.leakage import leak_checks
from fracsurv.study.protocol import FEW
from fracsurv.study.run import Run
from fracsurv.study.subgroups import ratio_title
from fracsurv.utils.formatting import MISSING, interval, signed

NOT_LOOKED = "not looked at"
VERDICTS = {
    True: "as it must be",
    None: "look at them: the same people, or alike by chance",
    False: "LEAK: people who are judged were met in training",
}
FEWEST_PATIENTS = 10
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
            record[called, "C-index"] = _cell(row, "c_index", "ci")
            if name != names[0]:
                record[called, f"ΔC from {experiment_name(run, names[0])}"] = _difference(row)
            if horizon is not None:
                record[called, ratio_title(horizon, run.cohort.time_unit)] = _cell(row, "ratio", "ratio")
        records.append(record)
    return frame_of(records)


def checks_table(run: Run) -> pd.DataFrame:
    """What `doubt.leak_checks` looked for and found."""
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
            known = row["n_patients"] >= FEWEST_PATIENTS
            record[words, "AUC within a patient"] = (
                f"{row['auc']:.3f}\n[{interval(row['ci_low'], row['ci_high'])}]" if known else MISSING
            )
            record[words, "patients"] = f"{row['n_patients']:,}"
            record[words, "fractured vertebrae"] = f"{row['n_fractured']:,}"
        records.append(record)
    return frame_of(records)


def _cell(row: pd.Series, value: str, bounds: str) -> str:
    if pd.isna(row[value]):
        return MISSING
    low, high = row[f"{bounds}_low"], row[f"{bounds}_high"]
    return f"{row[value]:.3f}" + ("" if pd.isna(low) else f"\n[{low:.3f}, {high:.3f}]")


def _difference(row: pd.Series) -> str:
    if pd.isna(row["difference_low"]):
        return MISSING
    return f"{signed(row['difference'])}\n[{signed(row['difference_low'])}, {signed(row['difference_high'])}]"
