"""Groups of patients: does the answer hold in each of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fracsurv import plots
from fracsurv.findings.finding import PATIENTS, Finding, names_of
from fracsurv.run import Run
from fracsurv.subgroups import group_label, ratio_title, subgroup_table
from fracsurv.wording import FEW, experiment_name, headline_horizon, stamp


def in_groups(run: Run, table: pd.DataFrame, split: str, names: Sequence[str]) -> tuple[Finding, pd.DataFrame]:
    """C-index and observed over expected risk by group, and the table behind the figure.

    Parameters
    ----------
    names : sequence of str
        The model that others are held against, then those.
    """
    horizon = headline_horizon(table, split)
    found = subgroup_table(run, split, names, horizon)
    found["label"] = found.apply(group_label, axis=1)
    title = "" if horizon is None else ratio_title(horizon, run.cohort.time_unit)
    figure = plots.subgroups(found, names_of(run, names), title, small=FEW, provenance=f"{split} · {stamp(run)}")
    parts = []
    for name in names[1:]:
        rows = found[(found["experiment"] == name) & (found["group"] != "All") & ~found["small"]]
        above, below = int((rows["difference_low"] > 0).sum()), int((rows["difference_high"] < 0).sum())
        if rows.empty:
            parts.append("No group has 30 events, so nothing can be said of any")
            continue
        parts.append(
            f"{experiment_name(run, name)} minus {experiment_name(run, names[0])} in C has its 95 % interval above 0 "
            f"in {above} of {len(rows)} groups with 30 events or more, below 0 in {below}"
        )
    said = "; ".join(parts) or f"Groups of {PATIENTS[split]}, {experiment_name(run, names[0])} alone"
    said += (
        ". Groups overlap and no correction is made for their number; whether they differ from each other is not "
        "tested. C is the mean over the fold models; observed over expected risk is that of the mean of their "
        "probabilities."
    )
    return Finding(f"groups_{split}", figure, f"C-index and calibration in groups of patients, {split}", said), found
