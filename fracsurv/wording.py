"""What notebooks and report say in words: names, provenance, and sentences made from a run's numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from fracsurv.boxes import boxes_line
from fracsurv.config import TRUE_RISK
from fracsurv.files import read_json
from fracsurv.plots import horizon_label
from fracsurv.results import horizons
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
CLINICAL = (REFERENCE, UNIMODAL)
FEW_EVENTS = 30
"""Events in the patients judged below which a report warns: the SD of C is then about 0.05 or more."""


def plain(text: str) -> str:
    """Text from a cohort, made safe to stand in Markdown: nothing in it is markup any more."""
    return re.sub(r"([\\`*_{}\[\]#|!~$])", r"\\\1", html.escape(str(text), quote=False))


def stamp(run: Run) -> str:
    """The few words that stand in every figure."""
    return f"{run.cohort.provenance} cohort · profile {run.profile.name}"


def replaced_encoders(run: Run) -> str:
    """Which encoders this profile puts in the place of the protocol's, in words; '' if none (or no images)."""
    names = [name for name in run.runnable() if name != TRUE_RISK]
    used = {run.experiments[name].encoder: run.experiment(name).encoder for name in names}
    swapped = {old: new for old, new in used.items() if old != new}
    if not swapped:
        return ""
    parts = [f"{ENCODERS.get(new, new)} in the place of {ENCODERS.get(old, old)}" for old, new in swapped.items()]
    return f"Encoders actually used: {' and '.join(parts)}."


def provenance_lines(run: Run) -> list[str]:
    """What a reader must know before any number: provenance, the cohort's own words, the profile, the encoders."""
    note = f"Profile {run.profile.name}: {run.profile.note}" if run.profile.note else f"Profile {run.profile.name}."
    lines = [PROVENANCE[run.cohort.provenance], run.cohort.description, boxes_line(run.cohort), note]
    return [line for line in [*lines, replaced_encoders(run)] if line]


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


def judged_split(table: pd.DataFrame) -> str:
    """Where the answer is read: the external cohort if there is one, the test set else."""
    return "external" if (table["split"] == "external").any() else "test"


def headline_horizon(table: pd.DataFrame, split: str) -> float | None:
    """The horizon nearest to 5 years (1826 of any other unit) that this split allows; None if it allows none."""
    rows = table[(table["split"] == split) & (table["metric"] == "auc")]
    days = rows["horizon_days"].dropna().unique()
    return float(min(days, key=lambda day: abs(day - HEADLINE_DAYS))) if len(days) else None


def not_reported(run: Run, table: pd.DataFrame) -> list[str]:
    """A sentence for each split and reason for which AUC or Brier score at some horizon is not there.

    The Brier score needs follow-up beyond the horizon alone; where it is there and the AUC is not, nobody has had an
    event by then.
    """
    sentences = []
    for split in dict.fromkeys(table["split"]):
        at = {
            m: table.loc[(table["split"] == split) & (table["metric"] == m), "horizon_days"] for m in ("auc", "brier")
        }
        no_brier, no_auc = (
            [day for day in horizons(run.cohort) if not np.isclose(at[metric].to_numpy(float), day).any()]
            for metric in ("brier", "auc")
        )
        if no_brier:
            listed = ", ".join(horizon_label(day, run.cohort.time_unit) for day in no_brier)
            sentences.append(f"AUC and Brier score at {listed} are not reported on {split}: follow-up ends before.")
        no_event = [day for day in no_auc if day not in no_brier]
        if no_event:
            listed = ", ".join(horizon_label(day, run.cohort.time_unit) for day in no_event)
            sentences.append(f"AUC at {listed} is not reported on {split}: nobody has had an event by then.")
    return sentences


def external_note(run: Run) -> str:
    """What 'external' means in a simulated cohort; '' where there is none, or where the patients are real."""
    if run.cohort.provenance != "simulated" or "external" not in set(run.splits["split"]):
        return ""
    return (
        "“External” here means further patients of the same simulator with the same settings: it says nothing about "
        "transport to another hospital."
    )


def interval(low: float, high: float, *, sign: bool = False) -> str:
    """'0.61 to 0.75', with three decimals."""
    form = "+.3f" if sign else ".3f"
    return f"{low:{form}} to {high:{form}}".replace("-", "−")


def signed(value: float) -> str:
    """'+0.042', with a true minus sign."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")  # + 0.0: never minus nothing


def answer(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The study's question answered in one sentence, by the row fixed beforehand: crops with intermediate fusion."""
    if HEADLINE not in run.runnable():
        return "This cohort has no radiographs with vertebra boxes, so whether they add anything cannot be answered."
    return answer_for(run, table, differences, HEADLINE)


def answer_for(run: Run, table: pd.DataFrame, differences: pd.DataFrame, name: str) -> str:
    """What an experiment's paired differences from Cox PH and from DeepSurv say, in one sentence and its caveat.

    A fusion row holds a non-linear network of the clinical factors besides the image, so that its lead over Cox PH
    alone is no gain from the image: 'adds' needs both intervals above 0. An interval that contains 0 is never called
    a gain or a loss.
    """
    split = judged_split(table)
    at = (differences["split"] == split) & (differences["metric"] == "c_index") & (differences["experiment"] == name)
    found = {row["reference"]: row for row in differences[at].to_dict("records") if row["reference"] in CLINICAL}
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
    return (
        f"On the {int(c_index.loc[name, 'n_patients']):,} {split} patients, {verdict}{experiment_name(run, name)} "
        f"ranks patients {_relations(signs)} ({'; '.join(numbers)}). Intervals are over patients, for these fold "
        "models."
    )


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
    split = judged_split(table)
    if split in counts.index and counts.loc[split, "events"] < FEW_EVENTS:
        notes.append(
            f"Judged are {counts.loc[split, 'patients']:,} {split} patients, {counts.loc[split, 'events']:,} of them "
            "with an event: too few to tell models apart, or for curves of groups. The cohort's column split can "
            "hold out more."
        )
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
    return [
        f"On the {counts.loc['test', 'patients']:,} test patients, {counts.loc['test', 'events']:,} with an event, "
        f"the difference from Cox PH is {signed(row['difference'])}, 95 % interval "
        f"{interval(row['ci_low'], row['ci_high'], sign=True)}: {verdict}."
    ]


def vertebral_says(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """What graded vertebral fractures add to Cox PH, and the headline's row to both; empty where not run."""
    split = judged_split(table)
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


def split_counts(run: Run) -> pd.DataFrame:
    """Patients and events by split: `split, patients, events`."""
    split = run.splits["split"].to_numpy()
    event = run.cohort.table["event"].to_numpy()
    names = [name for name in ("train", "test", "external") if (split == name).any()]
    return pd.DataFrame(
        [{"split": n, "patients": int((split == n).sum()), "events": int(event[split == n].sum())} for n in names]
    )


def fit_records(run: Run, names: list[str]) -> pd.DataFrame:
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
    return pd.DataFrame(records)
