"""What notebooks and report say in words: names, provenance, and sentences made from a run's numbers."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd

from fracsurv.boxes import boxes_line
from fracsurv.cohort import horizons
from fracsurv.config import TRUE_RISK
from fracsurv.files import read_json
from fracsurv.plots import horizon_label
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
FEW = f"fewer than {FEW_EVENTS} events"
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


def true_minus(text: str) -> str:
    """Hyphens before digits made minus signs."""
    return re.sub(r"(?<![\w–])-(?=\d)", "−", text)


def signed(value: float) -> str:
    """'+0.042', with a true minus sign."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")  # + 0.0: never minus nothing


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
