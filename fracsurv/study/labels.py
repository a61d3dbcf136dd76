"""Names of experiments, metrics and encoders, and the lines that go with a model wherever it is used."""

from __future__ import annotations

from collections.abc import Iterable

from fracsurv.cohort.plausibility import coarse_times_warning
from fracsurv.cohort.summary import missing_summary
from fracsurv.config import TRUE_RISK, Experiment
from fracsurv.detection.locate import boxes_line, of_finder
from fracsurv.study.leakage import grey_scale_warning
from fracsurv.study.protocol import PROVENANCE, chosen_alpha, fit_records
from fracsurv.study.run import Run
from fracsurv.utils.files import read_json

ENCODERS = {"resnet50": "ResNet-50", "resnet18": "ResNet-18", "vit_b_32": "ViT-B/32", "vit_tiny": "a small ViT"}
ENOUGH_DRAWS = 1000
"""Bootstrap samples from which on nothing need be said of their number."""
FUSIONS = {"intermediate": "IF-MLP", "late": "LF-FC", "alpha": "α"}


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


def profile_line(run: Run) -> str:
    """A profile that does not do the protocol in full, in its own words; '' for one that has none."""
    return f"Profile {run.profile.name}: {run.profile.note}" if run.profile.note else ""


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


def run_notes(run: Run, names: Iterable[str]) -> list[tuple[str, str]]:
    """What a reader of the results of these experiments should know about this run's own data: (topic, note)."""
    rows = [name for name in names if name != TRUE_RISK]
    cox = [f"{run.experiments[name].title}, {note}" for name in rows if run.experiments[name].model == "cox_ph"
           for note in fitting_notes(run, name, range(run.profile.n_folds))]  # fmt: skip
    elsewhere = [run.experiments[name].title for name in rows if run.experiments[name].model == "predictions"]
    same = run.cohort.provenance == "simulated" and "external" in set(run.splits["split"])
    draws = run.profile.bootstrap_draws
    unranked = [fit for fit in fit_records(run, rows) if fit.get("validation_c_index", 0) is None]
    last = [f"{run.experiments[fit['experiment']].title}, fold {fit['fold'] + 1}" for fit in unranked]
    last = f"No two validation patients can be ranked, so the last epoch was kept: {', '.join(dict.fromkeys(last))}."
    notes = [
        ("cohort", run.cohort.description),
        ("profile", profile_line(run) or f"Profile {run.profile.name}."),
        ("encoders", replaced_encoders(run, rows)),
        ("vertebrae", boxes_line(run.cohort)),
        ("external", "Further patients of the same simulator: nothing on transport to another hospital." * same),
        ("radiographs", masked_summary(run)),
        ("covariates", missing_summary(run.cohort, run.trained_on())),
        ("Cox regression", "; ".join(cox)),
        ("epochs", last * bool(unranked)),
        ("from elsewhere", f"{', '.join(elsewhere)}: may have met these patients in training" * bool(elsewhere)),
        ("grey scale", grey_scale_warning(run)),
        ("times", coarse_times_warning(run.cohort)),
        ("bootstrap", f"{draws:,} samples, so few that the ends of intervals are rough." * (draws < ENOUGH_DRAWS)),
        ("outcomes", "Permuted: whatever is found here is chance or a leak." * run.profile.permute_outcomes),
    ]
    return [(topic, note) for topic, note in notes if note]


def experiment_name(run: Run, name: str) -> str:
    """A row's whole name: 'C-DS end to end, crops, IF-MLP'."""
    if name == TRUE_RISK:
        return "True risk (simulator)"
    return row_name(run.experiments[name], chosen_alpha(run, name))


def row_name(row: Experiment, alpha: float | None) -> str:
    """Likewise, of a row of the experiments and its chosen α (None where there is none)."""
    return row.title if row.input == "none" else f"{row.title}, {row.input}, {_fusion(row, alpha)}"


def _fusion(row: Experiment, alpha: float | None) -> str:
    if row.fusion == "none":
        return "tabular only" if row.input == "none" else "image only"
    if row.fusion == "alpha":
        return "α" if alpha is None else f"α ({alpha:g})"
    return FUSIONS[row.fusion]


def masked_summary(run: Run) -> str:
    """How many have no radiograph, by split; '' where all have one, or nobody."""
    if not run.cohort.n_without_image:
        return ""
    split, has_image = run.splits["split"].to_numpy(), run.cohort.has_image
    names = [name for name in ("train", "test", "external") if (split == name).any()]
    parts = [f"{name} {(~has_image[split == name]).sum():,} of {(split == name).sum():,}" for name in names]
    return f"Without a radiograph: {'; '.join(parts)}. All rows are evaluated on these patients too."


def fitting_notes(run: Run, name: str, folds: Iterable[int]) -> list[str]:
    """Of a Cox regression, fold by fold: covariates left out or penalised; empty where that was not needed."""
    notes = []
    for fold in folds:
        path = run.folder(name, fold) / "fit.json"
        if path.exists() and (note := read_json(path).get("note")):
            notes.append(f"fold {fold + 1}: {note}")
    return notes


def model_caveats(run: Run, name: str, fold: int) -> list[str]:
    """What goes with a fold's model wherever it is applied: made small, another encoder, found boxes, Cox's notes."""
    lines = [profile_line(run), replaced_encoders(run, [name])]
    if run.experiments[name].needs_boxes and of_finder(run.cohort):
        lines.append(boxes_line(run.cohort))
    lines += [f"Cox regression, {note}." for note in fitting_notes(run, name, [fold])]
    return [line for line in lines if line]
