"""What the study fixed beforehand: headline, references, horizon, and the smallest groups that it reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fracsurv.study.run import Run
from fracsurv.utils.files import read_json

HEADLINE, REFERENCE, UNIMODAL, VERTEBRAL_ROW = "cds_crops_if", "cox_ph", "deepsurv", "cox_ph_vf"
HEADLINE_DAYS = 5 * 365.25
PROVENANCE = {
    "simulated": "Simulated cohort: patients, radiographs and outcomes come from a simulator. No number here says "
    "anything about real patients.",
    "semi-synthetic": "Semi-synthetic cohort: real radiographs, but simulated clinical factors and outcomes. No "
    "number here says anything about the real patients' fractures.",
    "real": "Real cohort.",
}
HELD_OUT = ("external", "test")
"""Held-out splits in the order in which a report takes them for its answer."""
CLINICAL = (REFERENCE, UNIMODAL)
FEW_EVENTS = 30
FEW = f"fewer than {FEW_EVENTS} events"
"""Events in the patients evaluated on below which a report warns: the SD of C is then about 0.05 or more."""
FEWEST_EVENTS = 10
"""With fewer, C by chance is far from normal and a bootstrap interval of it means nothing: a group has no figures."""
FEWEST_PATIENTS = 10
"""A group of fewer is counted and has no row or curve of its own: it would describe single people."""


def evaluated_split(table: pd.DataFrame, run: Run | None = None) -> str:
    """Where the answer is read: on the external patients if they have a C-index, on the test patients else.

    Where neither has one, on the external patients if there are any: `run` tells of those who have no metric at all.
    """
    with_c_index = set(table.loc[table["metric"] == "c_index", "split"])
    for there in (with_c_index, set(table["split"]), set() if run is None else set(run.splits["split"])):
        for split in HELD_OUT:
            if split in there:
                return split
    return "test"


def headline_horizon(table: pd.DataFrame, split: str) -> float | None:
    """The horizon nearest to 5 years (1826 of any other unit) that this split allows; None if it allows none.

    One with an AUC, or, where nobody has had an event by any, with a Brier score.
    """
    for metric in ("auc", "brier"):
        days = table.loc[(table["split"] == split) & (table["metric"] == metric), "horizon_days"].dropna().unique()
        if len(days):
            return float(min(days, key=lambda day: abs(day - HEADLINE_DAYS)))
    return None


def split_counts(run: Run) -> pd.DataFrame:
    """Patients and events by split: `split, patients, events`."""
    split = run.splits["split"].to_numpy()
    event = run.cohort.table["event"].to_numpy()
    names = [name for name in ("train", "test", "external") if (split == name).any()]
    return pd.DataFrame(
        [{"split": n, "patients": int((split == n).sum()), "events": int(event[split == n].sum())} for n in names]
    )


def chosen_alpha(run: Run, name: str) -> float | None:
    """The α that validation chose; None where there is no finished sweep."""
    path = run.folder(name) / "sweep.csv"
    if not path.exists():
        return None
    sweep = pd.read_csv(path)
    return float(sweep.loc[sweep["selected"], "alpha"].iloc[0])


def fit_records(run: Run, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every fit's record (`fit.json`) of these experiments, with experiment and fold: seconds, device and so on.

    Fits of an α that is no longer in the profile's grid may lie beside the others; they are no part of the run.
    """
    records = []
    for name in names:
        # An α-model's evaluated folds, which lie in no α's folder, hold copies of the chosen α's records.
        for alpha in run.alphas(name):
            paths = {fold: run.folder(name, fold, alpha) / "fit.json" for fold in range(run.profile.n_folds)}
            records += [
                {"experiment": name, "fold": fold, **read_json(path)} for fold, path in paths.items() if path.exists()
            ]
    return records
