"""What notebooks and report say in words: names, provenance, and sentences made from a run's numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fracsurv.boxes import boxes_line
from fracsurv.cohort import horizons
from fracsurv.config import TRUE_RISK
from fracsurv.files import read_json
from fracsurv.metrics import LEAST_ANSWERED, usable_horizons
from fracsurv.numerals import counted
from fracsurv.plots import horizon_label
from fracsurv.results import censoring_rows
from fracsurv.run import Run

ENCODERS = {"resnet50": "ResNet-50", "resnet18": "ResNet-18", "vit_b_32": "ViT-B/32", "vit_tiny": "a small ViT"}
FUSIONS = {"intermediate": "IF-MLP", "late": "LF-FC", "alpha": "α"}
HEADLINE, REFERENCE, UNIMODAL, VERTEBRAL_ROW = "cds_crops_if", "cox_ph", "deepsurv", "cox_ph_vf"
HEADLINE_DAYS = 5 * 365.25
PROVENANCE = {
    "simulated": "Simulated cohort: patients, radiographs and outcomes come from a simulator. No number here says "
    "anything about real patients.",
    "semi-synthetic": "Semi-synthetic cohort: real radiographs, but simulated clinical factors and outcomes. No "
    "number here says anything about the real patients' fractures.",
    "real": "Real cohort.",
}
METRICS_SAID = {
    "c_index": "C-index", "c_index_ipcw": "Uno's C", "auc": "AUC", "brier": "Brier score", "mean_auc": "mean AUC",
    "integrated_brier": "integrated Brier score",
}  # fmt: skip
JUDGED_FIRST = ("external", "test")
"""Held-out splits in the order in which a report takes them for its answer."""
CLINICAL = (REFERENCE, UNIMODAL)
FEW_EVENTS = 30
FEW = f"fewer than {FEW_EVENTS} events"
"""Events in the patients judged below which a report warns: the SD of C is then about 0.05 or more."""
FEWEST_EVENTS = 10
"""With fewer, C by chance is far from normal and a bootstrap interval of it means nothing: a group has no figures."""
FEWEST_PATIENTS = 10
"""A group of fewer is counted and has no row or curve of its own: it would tell of single people."""


def plain(text: str) -> str:
    """Text from a cohort, made safe to stand in Markdown: nothing in it is markup any more."""
    return re.sub(r"([\\`*_{}\[\]#|!~$])", r"\\\1", html.escape(str(text), quote=False))


def stamp(run: Run) -> str:
    """The few words that stand in every figure."""
    return f"{run.cohort.provenance} cohort · profile {run.profile.name}"


def replaced_encoders(run: Run, names: Iterable[str] | None = None) -> str:
    """Which encoders this profile puts in the place of the protocol's, in words; '' if none (or no images).

    Of these experiments, or of all that the cohort allows.
    """
    names = [name for name in (run.runnable() if names is None else names) if name != TRUE_RISK]
    used = {run.experiments[name].encoder: run.experiment(name).encoder for name in names}
    swapped = {old: new for old, new in used.items() if old != new}
    if not swapped:
        return ""
    parts = [f"{ENCODERS.get(new, new)} in the place of {ENCODERS.get(old, old)}" for old, new in swapped.items()]
    return f"Encoders actually used: {' and '.join(parts)}."


def provenance_lines(run: Run, names: Iterable[str] | None = None) -> list[str]:
    """What a reader must know before any number: provenance, the cohort's own words, the profile, the encoders.

    The encoders are those of the experiments `names`, or of all that the cohort allows.
    """
    lines = [
        PROVENANCE[run.cohort.provenance],
        run.cohort.description,
        boxes_line(run.cohort),
        masked_told(run),
        profile_line(run) or f"Profile {run.profile.name}.",
    ]
    return [line for line in [*lines, replaced_encoders(run, names)] if line]


def profile_line(run: Run) -> str:
    """A profile that does not do the protocol in full, in its own words; '' for one that has none."""
    return f"Profile {run.profile.name}: {run.profile.note}" if run.profile.note else ""


def experiment_name(run: Run, name: str) -> str:
    """A row's whole name: 'C-DS end to end, crops, IF-MLP'."""
    if name == TRUE_RISK:
        return "True risk (simulator)"
    model, crops, fusion = experiment_columns(run, name)
    if fusion == "tabular only":
        return model
    return f"{model}, {'crops' if crops else 'full'}, {fusion}"


def experiment_columns(run: Run, name: str) -> tuple[str, str, str]:
    """Model, crops ('✓' or '') and fusion, as the thesis's tables have them; an α-model with its chosen α."""
    if name == TRUE_RISK:
        return "True risk (simulator)", "", ""
    row = run.experiments[name]
    if row.fusion == "none":
        fusion = "tabular only" if row.input == "none" else "image only"
    elif row.fusion == "alpha":
        alpha = chosen_alpha(run, name)
        fusion = "α" if alpha is None else f"α ({alpha:g})"
    else:
        fusion = FUSIONS[row.fusion]
    return row.title, "✓" if row.input == "crops" else "", fusion


def chosen_alpha(run: Run, name: str) -> float | None:
    """The α that validation chose; None where there is no finished sweep."""
    path = run.folder(name) / "sweep.csv"
    if not path.exists():
        return None
    sweep = pd.read_csv(path)
    return float(sweep.loc[sweep["selected"], "alpha"].iloc[0])


def too_few_for_thirds(n: int) -> bool:
    """Whether a third of so many patients would have no curve of its own (`FEWEST_PATIENTS`)."""
    return n < 3 * FEWEST_PATIENTS


def no_thirds(n: int, one: str = "patient") -> str:
    """The sentence in the place of such curves."""
    return (
        f"No curves by third of predicted risk: thirds of {counted(n, one)} have fewer than {FEWEST_PATIENTS} each."
    )


def judged_split(table: pd.DataFrame, run: Run | None = None) -> str:
    """Where the answer is read: on the external patients if they have a C-index, on the test patients else.

    Where neither has one, on the external patients if there are any: `run` tells of those who have no metric at all.
    """
    with_c_index = set(table.loc[table["metric"] == "c_index", "split"])
    for there in (with_c_index, set(table["split"]), set() if run is None else set(run.splits["split"])):
        for split in JUDGED_FIRST:
            if split in there:
                return split
    return "test"


def not_ranked(run: Run, table: pd.DataFrame) -> str:
    """Which held-out patients have no C-index, why, and who is judged in their place; '' where all have one."""
    there = set(table.loc[table["metric"] == "c_index", "split"])
    counts = split_counts(run)
    without = counts[(counts["split"] != "train") & ~counts["split"].isin(there)]
    if without.empty:
        return ""
    whose = " and ".join(
        f"the {row.patients:,} {row.split} patients ({counted(row.events, 'event')})" for row in without.itertuples()
    )
    said = (
        f"There is no C-index of {whose}: it takes a patient who had {run.cohort.outcome} while another "
        "was still free of it."
    )
    judged = judged_split(table, run)
    return f"{said} Shown and compared are the {judged} patients." if judged in there else said


def headline_horizon(table: pd.DataFrame, split: str) -> float | None:
    """The horizon nearest to 5 years (1826 of any other unit) that this split allows; None if it allows none.

    One with an AUC, or, where nobody has had an event by any, with a Brier score.
    """
    for metric in ("auc", "brier"):
        days = table.loc[(table["split"] == split) & (table["metric"] == metric), "horizon_days"].dropna().unique()
        if len(days):
            return float(min(days, key=lambda day: abs(day - HEADLINE_DAYS)))
    return None


def not_reported(run: Run, table: pd.DataFrame, only: str | None = None) -> list[str]:
    """A sentence for each split and reason for which AUC or Brier score at some horizon is not there.

    A horizon is reported where every fold model has a figure for it: both need follow-up beyond the horizon, of those
    judged and of those whose censoring weights them, and the AUC somebody who has had an event by then. With `only`,
    those of one split.
    """
    sentences = []
    held_out = [split for split in JUDGED_FIRST if split in set(run.splits["split"])]
    for split in [only] if only else dict.fromkeys([*table["split"], *held_out]):
        of_metric = {
            metric: table.loc[(table["split"] == split) & (table["metric"] == metric), "horizon_days"].to_numpy(float)
            for metric in ("auc", "brier")
        }
        why: dict[tuple[str, str], list[str]] = {}
        for day in horizons(run.cohort):
            there = {metric: np.isclose(days, day).any() for metric, days in of_metric.items()}
            short, without = _folds_without(run, split, day)
            told = horizon_label(day, run.cohort.time_unit)
            if not there["brier"]:
                why.setdefault(("AUC and Brier score", f"{short}follow-up ends before"), []).append(told)
            elif not there["auc"]:
                why.setdefault(("AUC", f"{without}nobody has had an event by then"), []).append(told)
        for (metrics, reason), days in why.items():
            verb = "is" if metrics == "AUC" else "are"
            sentences.append(f"{metrics} at {', '.join(days)} {verb} not reported on {split}: {reason}.")
    return sentences


def few_followed(run: Run, table: pd.DataFrame) -> list[str]:
    """A sentence a split of which fewer than `FEWEST_PATIENTS` are followed beyond a horizon that is reported."""
    time, sentences = run.cohort.table["time"].to_numpy(), []
    for split, rows in table[table["metric"] == "brier"].groupby("split", sort=False):
        parts = []
        for day in sorted(rows["horizon_days"].unique()):
            n = min(int((time[run.rows(fold)[split]] > day).sum()) for fold in range(run.profile.n_folds))
            if n < FEWEST_PATIENTS:
                parts.append(f"{counted(n, 'patient')} beyond {horizon_label(day, run.cohort.time_unit)}")
        if parts:
            sentences.append(f"On {split} few are followed for long: {', '.join(parts)}; figures there rest on them.")
    return sentences


def without_interval(run: Run, table: pd.DataFrame) -> list[str]:
    """Which figures of an ablation table stand without an interval, and why; nothing where none does."""
    lacking = table[table["mean"].notna() & table["ci_low"].isna() & table["metric"].isin(METRICS_SAID)]
    if lacking.empty:
        return []
    parts = []
    for split, rows in lacking.groupby("split", sort=False):
        named = [
            METRICS_SAID[metric] + ("" if np.isnan(day) else f" at {horizon_label(day, run.cohort.time_unit)}")
            for metric, day in rows[["metric", "horizon_days"]].drop_duplicates().itertuples(index=False)
        ]
        parts.append(f"{', '.join(named)} on {split}")
    return [
        f"Without an interval: {'; '.join(parts)}. Fewer than {100 * LEAST_ANSWERED:g} % of the bootstrap samples "
        "have a value: too few patients, events among them, or patients followed beyond the horizon."
    ]


def _folds_without(run: Run, split: str, day: float) -> tuple[str, str]:
    """In how many folds follow-up ends before a horizon, and in how many nobody has an event by it: '' for all."""
    table, n_folds = run.cohort.table, run.profile.n_folds
    event, time = (table[column].to_numpy() for column in ("event", "time"))
    short = without = 0
    for fold in range(n_folds):
        rows = run.rows(fold)
        judged = rows[split]
        weighting = (rows["train"], censoring_rows(rows, split))
        short += not all(len(usable_horizons(event[at], time[at], time[judged], [day])) for at in weighting)
        without += not (event[judged] & (time[judged] <= day)).any()
    return tuple("" if n == n_folds else f"in {n} of {n_folds} folds " for n in (short, without))


def external_note(run: Run) -> str:
    """What 'external' means in a simulated cohort; '' where there is none, or where the patients are real."""
    if run.cohort.provenance != "simulated" or "external" not in set(run.splits["split"]):
        return ""
    return (
        "“External” here means further patients of the same simulator with the same settings: it says nothing about "
        "transport to another hospital."
    )


def split_counts(run: Run) -> pd.DataFrame:
    """Patients and events by split: `split, patients, events`."""
    split = run.splits["split"].to_numpy()
    event = run.cohort.table["event"].to_numpy()
    names = [name for name in ("train", "test", "external") if (split == name).any()]
    return pd.DataFrame(
        [{"split": n, "patients": int((split == n).sum()), "events": int(event[split == n].sum())} for n in names]
    )


def splits_told(run: Run) -> str:
    """'train 81 (34 events); test 9 (1 event)'."""
    rows = split_counts(run).itertuples()
    return "; ".join(f"{row.split} {row.patients:,} ({counted(row.events, 'event')})" for row in rows)


def masked_told(run: Run) -> str:
    """How many have no radiograph, by split; '' where all have one, or nobody."""
    if not run.cohort.n_masked:
        return ""
    split, pictured = run.splits["split"].to_numpy(), run.cohort.pictured
    names = [name for name in ("train", "test", "external") if (split == name).any()]
    parts = [f"{name} {(~pictured[split == name]).sum():,} of {(split == name).sum():,}" for name in names]
    return f"Without a radiograph: {'; '.join(parts)}. All rows are judged on these patients too."


def fit_records(run: Run, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every fit's record (`fit.json`) of these experiments, with experiment and fold: seconds, device and so on.

    Fits of an α that is no longer in the profile's grid may lie beside the others; they are no part of the run.
    """
    records = []
    for name in names:
        swept = name != TRUE_RISK and run.experiments[name].fusion == "alpha"
        # An α-model's evaluated folds, which lie in no α's folder, hold copies of the chosen α's records.
        for alpha in run.profile.alphas if swept else (None,):
            paths = {fold: run.folder(name, fold, alpha) / "fit.json" for fold in range(run.profile.n_folds)}
            records += [
                {"experiment": name, "fold": fold, **read_json(path)} for fold, path in paths.items() if path.exists()
            ]
    return records
