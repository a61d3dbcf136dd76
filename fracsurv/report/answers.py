"""The study's question answered in a sentence, by a rule fixed beforehand, and what is to be known beside it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fracsurv.report.wording import not_ranked
from fracsurv.study.labels import experiment_name
from fracsurv.study.protocol import (
    CLINICAL,
    FEW_EVENTS,
    HEADLINE,
    REFERENCE,
    UNIMODAL,
    VERTEBRAL_ROW,
    evaluated_split,
    split_counts,
)
from fracsurv.study.run import Run
from fracsurv.utils.formatting import counted, interval, signed


def study_answer(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The study's question answered in one sentence, by the row fixed beforehand: crops with intermediate fusion."""
    if HEADLINE not in run.runnable():
        return "This cohort has no radiographs with vertebra boxes, so whether they add anything cannot be answered."
    return row_answer(run, table, differences, HEADLINE)


def row_answer(run: Run, table: pd.DataFrame, differences: pd.DataFrame, name: str) -> str:
    """What an experiment's paired differences from Cox PH and from DeepSurv say, in one sentence and its caveat.

    A fusion row holds a non-linear network of the clinical factors besides the image, so that its lead over Cox PH
    alone is no gain from the image: 'adds' needs both intervals above 0. An interval that contains 0 is never called
    a gain or a loss.
    """
    split = evaluated_split(table, run)
    found = against_clinical(differences, split, name)
    if REFERENCE not in found:
        absent = [row for row in (name, REFERENCE) if row not in set(table["experiment"])]
        return f"Not answered by this run: {' and '.join(absent) or 'an interval'} is not among its results."
    c_index = table[(table["metric"] == "c_index") & (table["split"] == split)].set_index("experiment")
    signs = {reference: _sign(row) for reference, row in found.items()}
    numbers = [f"C-index {c_index.loc[name, 'mean']:.3f} for {experiment_name(run, name)}"]
    numbers += [
        f"{c_index.loc[reference, 'mean']:.3f} for {experiment_name(run, reference)}, difference "
        f"{signed(row['difference'])}, 95 % interval {interval(row['ci_low'], row['ci_high'], sign=True)}"
        for reference, row in found.items()
    ]
    fused = run.experiments[name].fusion != "none"
    verdict = _verdict(signs) if fused else ""
    judged = counted(int(c_index.loc[name, "n_patients"]), f"{split} patient")
    return (
        f"On the {judged}, {verdict}{experiment_name(run, name)} "
        f"ranks patients {_relations(signs)} ({'; '.join(numbers)}). Intervals are over patients, for these fold "
        "models."
    )


def against_clinical(differences: pd.DataFrame, split: str, name: str) -> dict[str, dict]:
    """An experiment's differences in C from Cox PH and from DeepSurv, those that there are, by reference."""
    at = (differences["split"] == split) & (differences["metric"] == "c_index") & (differences["experiment"] == name)
    return {row["reference"]: row for row in differences[at].to_dict("records") if row["reference"] in CLINICAL}


def adds(differences: pd.DataFrame, split: str, name: str = HEADLINE) -> bool:
    """Whether the report says that a fusion row's radiograph adds: both paired intervals lie above 0."""
    found = against_clinical(differences, split, name)
    return set(found) == set(CLINICAL) and all(row["ci_low"] > 0 for row in found.values())


def answer_note(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """What is to be known beside the answer: its rule, too few events, and what the test patients say."""
    notes = []
    if HEADLINE in run.runnable():
        notes.append(
            f"The question is put to one row, fixed beforehand: {experiment_name(run, HEADLINE)}, against Cox PH and "
            "DeepSurv, which have no image. That the radiograph adds is said only if both paired bootstrap intervals "
            "lie above 0."
        )
    counts = split_counts(run).set_index("split")
    split = evaluated_split(table, run)
    if split in counts.index and counts.loc[split, "events"] < FEW_EVENTS:
        notes.append(
            f"Judged: {counted(counts.loc[split, 'patients'], f'{split} patient')}, "
            f"{counts.loc[split, 'events']:,} of them with an event: too few to tell models apart. The cohort's "
            "column split can hold out more."
        )
    notes += [said] if (said := not_ranked(run, table)) else []
    if split == "external":
        notes += _test_says(differences, counts)
    notes += vertebral_says(run, table, differences)
    return " ".join(notes)


def _test_says(differences: pd.DataFrame, counts: pd.DataFrame) -> list[str]:
    """The headline's row on the test patients, where the answer is of the external ones."""
    at = (differences["metric"] == "c_index") & (differences["experiment"] == HEADLINE)
    at &= (differences["reference"] == REFERENCE) & (differences["split"] == "test")
    if not at.any():
        return []
    row = differences[at].iloc[0]
    verdict = {1: "above Cox PH there too", 0: "there it cannot be told", -1: "below Cox PH there"}[_sign(row)]
    judged = counted(counts.loc["test", "patients"], "test patient")
    return [
        f"On the {judged}, {counts.loc['test', 'events']:,} with an event, "
        f"the difference from Cox PH is {signed(row['difference'])}, 95 % interval "
        f"{interval(row['ci_low'], row['ci_high'], sign=True)}: {verdict}."
    ]


def vertebral_says(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """What graded vertebral fractures add to Cox PH, and the headline's row to both; empty where not run."""
    split = evaluated_split(table, run)
    at = (differences["metric"] == "c_index") & (differences["split"] == split)
    pairs = [(VERTEBRAL_ROW, REFERENCE), (HEADLINE, VERTEBRAL_ROW)]
    says = []
    for name, reference in pairs:
        rows = differences[at & (differences["experiment"] == name) & (differences["reference"] == reference)]
        for row in rows.to_dict("records"):
            says.append(
                f"{experiment_name(run, name)} minus {experiment_name(run, reference)} in C on the {split} patients: "
                f"{signed(row['difference'])}, 95 % interval {interval(row['ci_low'], row['ci_high'], sign=True)}."
            )
    return says


def _sign(row: Mapping[str, float]) -> int:
    """1 or −1 where the interval lies above or below 0, else 0."""
    return int(row["ci_low"] > 0) - int(row["ci_high"] < 0)


def _relations(signs: Mapping[str, int]) -> str:
    words = {1: "better than", 0: "not distinguishably better or worse than", -1: "worse than"}
    called = {REFERENCE: "Cox PH", UNIMODAL: "DeepSurv"}
    return " and ".join(f"{words[sign]} {called[reference]}" for reference, sign in signs.items())


def _verdict(signs: Mapping[str, int]) -> str:
    """What the signs of a fusion row against Cox PH and DeepSurv say of the radiograph."""
    if UNIMODAL not in signs:
        return "whether the radiograph adds anything is not answered, for DeepSurv was not run: "
    if min(signs.values()) > 0:
        return "the radiograph adds to the clinical factors: "
    if max(signs.values()) <= 0 and min(signs.values()) < 0:
        return "nothing shows that the radiograph adds to the clinical factors: "
    return "these data do not tell whether the radiograph adds anything to the clinical factors: "
