"""Groups of patients: does the answer hold in each of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fracsurv import plots
from fracsurv.report.findings.finding import PATIENTS, Finding, names_of
from fracsurv.study.labels import experiment_name, stamp
from fracsurv.study.protocol import (
    FEW,
    FEW_EVENTS,
    FEWEST_EVENTS,
    FEWEST_PATIENTS,
    headline_horizon,
)
from fracsurv.study.run import Run
from fracsurv.study.subgroups import (
    ALL,
    group_label,
    left_out,
    ratio_title,
    subgroup_table,
)
from fracsurv.utils.formatting import counted


def in_groups(run: Run, table: pd.DataFrame, split: str, names: Sequence[str]) -> tuple[Finding, pd.DataFrame]:
    """C-index and observed over expected risk by group, and the table behind the figure.

    No figure where no group has events enough for one.

    Parameters
    ----------
    names : sequence of str
        The model that others are held against, then those.
    """
    horizon = headline_horizon(table, split)
    found = subgroup_table(run, split, names, horizon)
    found["label"] = found.apply(group_label, axis=1)
    title = "" if horizon is None else ratio_title(horizon, run.cohort.time_unit)
    named = f"groups_{split}", f"C-index and calibration in groups of patients, {split}"
    drawn = found[found["c_index"].notna()]
    if not (drawn["group"] != ALL).any():
        events = int(found.loc[found["group"] == ALL, "events"].iloc[0])
        said = (
            f"No group of the {counted(int(found['n'].max()), f'{split} patient')}, {events:,} of them with an "
            f"event, has {FEWEST_PATIENTS} patients and {FEWEST_EVENTS} events, so nothing can be said of any."
        )
        return Finding(named[0], None, named[1], said + _left_out(run, split, found)), found
    figure = plots.subgroups(drawn, names_of(run, names), title, small=FEW, provenance=f"{split} · {stamp(run)}")
    parts = []
    for name in names[1:]:
        rows = found[(found["experiment"] == name) & (found["group"] != ALL) & ~found["small"]]
        above, below = int((rows["difference_low"] > 0).sum()), int((rows["difference_high"] < 0).sum())
        if rows.empty:
            parts.append(f"No group has {FEW_EVENTS} events, so nothing can be said of any")
            continue
        parts.append(
            f"{experiment_name(run, name)} minus {experiment_name(run, names[0])} in C has its 95 % interval above 0 "
            f"in {above} of {counted(len(rows), 'group')} with {FEW_EVENTS} events or more, below 0 in {below}"
        )
    said = "; ".join(parts) or f"Groups of {PATIENTS[split]}, {experiment_name(run, names[0])} alone"
    said += (
        ". Groups overlap and no correction is made for their number; whether they differ from each other is not "
        "tested. C is the mean over the fold models; observed over expected risk is that of the mean of their "
        "probabilities."
    )
    return Finding(*(named[0], figure, named[1], said + _left_out(run, split, found))), found


def _left_out(run: Run, split: str, found: pd.DataFrame) -> str:
    """Which groups are not drawn, and why."""
    said = ""
    if few := left_out(run, split):
        listed = "; ".join(f"{group}, {counted(n, 'patient')}" for group, n in few.items())
        said += f" Left out, with fewer than {FEWEST_PATIENTS} patients: {listed}."
    if bare := found.loc[found["c_index"].isna(), "group"].nunique():
        verb = "has" if bare == 1 else "have"
        said += f" {counted(bare, 'group')} with fewer than {FEWEST_EVENTS} events {verb} no figures."
    return said
