"""What notebooks and report say in words: names, provenance, and sentences made from a run's numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import horizons
from fracsurv.config import TRUE_RISK
from fracsurv.detection.locate import boxes_line
from fracsurv.metrics import MIN_SHARE_OF_DRAWS, usable_horizons
from fracsurv.metrics.names import METRIC_NAMES
from fracsurv.study.labels import experiment_name, fitting_notes, masked_summary, profile_line, replaced_encoders
from fracsurv.study.protocol import FEWEST_PATIENTS, HELD_OUT, PROVENANCE, evaluated_split, split_counts
from fracsurv.study.results import censoring_rows
from fracsurv.study.run import Run
from fracsurv.utils.formatting import counted, horizon_label

WORDS = {
    "C-DS": "C-DS = ConvDeepSurv, a convolutional network with DeepSurv's loss",
    "ViT-DS": "ViT-DS = ViTDeepSurv, a vision transformer in its place",
    ", crops": "crops = the 13 vertebrae from T4 to L4, a channel each",
    ", full": "full = the whole radiograph",
    "IF-MLP": "IF-MLP = intermediate fusion: the image's features and the clinical factors go into one multilayer "
    "perceptron",
    "LF-FC": "LF-FC = late fusion: one layer weighs the log hazards of two trained models",
    ", α": "α = the clinical log hazard times α (in brackets) plus the image's times 1 − α; validation chose α",
    "*": "img*, tab* = that part was trained before and stays as it is",
}
"""What occurs in names of models, and what it stands for."""


def provenance_lines(run: Run, names: Iterable[str] | None = None) -> list[str]:
    """What a reader must know before any number: provenance, the cohort's own words, the profile, the encoders.

    The encoders are those of the experiments `names`, or of all that the cohort allows.
    """
    lines = [
        PROVENANCE[run.cohort.provenance],
        run.cohort.description,
        boxes_line(run.cohort),
        masked_summary(run),
        profile_line(run) or f"Profile {run.profile.name}.",
    ]
    return [line for line in [*lines, replaced_encoders(run, names)] if line]


def no_thirds(n: int, one: str = "patient") -> str:
    """The sentence in the place of such curves."""
    return (
        f"No curves by third of predicted risk: thirds of {counted(n, one)} have fewer than {FEWEST_PATIENTS} each."
    )


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
    judged = evaluated_split(table, run)
    return f"{said} Shown and compared are the {judged} patients." if judged in there else said


def not_reported(run: Run, table: pd.DataFrame, only: str | None = None) -> list[str]:
    """A sentence for each split and reason for which AUC or Brier score at some horizon is not there.

    A horizon is reported where every fold model has a figure for it: both need follow-up beyond the horizon, of those
    judged and of those whose censoring weights them, and the AUC somebody who has had an event by then. With `only`,
    those of one split.
    """
    sentences = []
    held_out = [split for split in HELD_OUT if split in set(run.splits["split"])]
    for split in [only] if only else dict.fromkeys([*table["split"], *held_out]):
        of_metric = {
            metric: table.loc[(table["split"] == split) & (table["metric"] == metric), "horizon_days"].to_numpy(float)
            for metric in ("auc", "brier")
        }
        why: dict[tuple[str, str], list[str]] = {}
        for day in horizons(run.cohort):
            there = {metric: np.isclose(days, day).any() for metric, days in of_metric.items()}
            short, without = _folds_without(run, split, day)
            label = horizon_label(day, run.cohort.time_unit)
            if not there["brier"]:
                why.setdefault(("AUC and Brier score", f"{short}follow-up ends before"), []).append(label)
            elif not there["auc"]:
                why.setdefault(("AUC", f"{without}nobody has had an event by then"), []).append(label)
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
    lacking = table[table["mean"].notna() & table["ci_low"].isna() & table["metric"].isin(METRIC_NAMES)]
    lacking = lacking[lacking["metric"] != "auc_thesis"]
    if lacking.empty:
        return []
    parts = []
    for split, rows in lacking.groupby("split", sort=False):
        named = [
            METRIC_NAMES[metric] + ("" if np.isnan(day) else f" at {horizon_label(day, run.cohort.time_unit)}")
            for metric, day in rows[["metric", "horizon_days"]].drop_duplicates().itertuples(index=False)
        ]
        parts.append(f"{', '.join(named)} on {split}")
    return [
        f"Without an interval: {'; '.join(parts)}. Fewer than {100 * MIN_SHARE_OF_DRAWS:g} % of the bootstrap "
        "samples have a value: too few patients, events among them, or patients followed beyond the horizon."
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


def split_summary(run: Run) -> str:
    """'train 81 (34 events); test 9 (1 event)'."""
    rows = split_counts(run).itertuples()
    return "; ".join(f"{row.split} {row.patients:,} ({counted(row.events, 'event')})" for row in rows)


def name_glossary(run: Run, names: Iterable[str]) -> str:
    """The short words in the names of these experiments, spelt out; '' where there are none."""
    called = "; ".join(experiment_name(run, name) for name in names)
    meanings = [meaning for word, meaning in WORDS.items() if word in called]
    return f"In the models' names: {'; '.join(meanings)}." if meanings else ""


def fitting_note(run: Run, names: Iterable[str]) -> str:
    """These notes of all Cox regressions among some experiments, in a sentence; '' where there are none."""
    parts = [
        f"{run.experiments[name].title}, {note}"
        for name in names
        if name != TRUE_RISK and run.experiments[name].model == "cox_ph"
        for note in fitting_notes(run, name, range(run.profile.n_folds))
    ]
    if not parts:
        return ""
    return (
        f"Where the training patients do not determine a coefficient, Cox regression left it out or was penalised: "
        f"{'. '.join(parts)}."
    )
