"""What a model's name stands for, and what goes with it: its size, whose boxes, covariates left out or penalised."""

from __future__ import annotations

from collections.abc import Iterable

from fracsurv.boxes import boxes_line
from fracsurv.choices import RESNETS, VITS
from fracsurv.config import TRUE_RISK
from fracsurv.files import read_json
from fracsurv.run import Run
from fracsurv.wording import profile_line, replaced_encoders


def names_said(run: Run, names: Iterable[str]) -> str:
    """The short words in the names of these experiments, spelt out; '' where there are none."""
    rows = [run.experiments[name] for name in names if name != TRUE_RISK]
    encoders, fusions = {row.encoder for row in rows}, {row.fusion for row in rows}
    inputs = {row.input for row in rows}
    words = {
        "C-DS = ConvDeepSurv, a convolutional network with DeepSurv's loss": encoders & set(RESNETS),
        "ViT-DS = ViTDeepSurv, a vision transformer in its place": encoders & set(VITS),
        "crops = the 13 vertebrae from T4 to L4, a channel each": "crops" in inputs,
        "full = the whole radiograph": "full" in inputs,
        "IF-MLP = intermediate fusion: the image's features and the clinical factors go into one multilayer "
        "perceptron": "intermediate" in fusions,
        "LF-FC = late fusion: one layer weighs the log hazards of two trained models": "late" in fusions,
        "α = log hazards of both added, the clinical one's with the weight α (in brackets), chosen on validation": (
            "alpha" in fusions
        ),
        "img*, tab* = that part was trained before and stays as it is": any(row.pretrained for row in rows),
    }
    said = [word for word, occurs in words.items() if occurs]
    return f"In the models' names: {'; '.join(said)}." if said else ""


def fitting_notes(run: Run, name: str) -> list[str]:
    """Of a Cox regression, fold by fold: covariates left out or penalised; empty where that was not needed."""
    notes = []
    for fold in range(run.profile.n_folds):
        path = run.folder(name, fold) / "fit.json"
        if path.exists() and (note := read_json(path).get("note")):
            notes.append(f"fold {fold + 1}: {note}")
    return notes


def fitting_said(run: Run, names: Iterable[str]) -> str:
    """These notes of all Cox regressions among some experiments, in a sentence; '' where there are none."""
    parts = [
        f"{run.experiments[name].title}, {note}"
        for name in names
        if name != TRUE_RISK and run.experiments[name].model == "cox_ph"
        for note in fitting_notes(run, name)
    ]
    if not parts:
        return ""
    return (
        f"Where the training patients do not determine a coefficient, Cox regression left it out or was penalised: "
        f"{'. '.join(parts)}."
    )


def model_caveats(run: Run, name: str) -> list[str]:
    """What goes with an experiment's models wherever they are applied: made small, another encoder, found boxes."""
    row = run.experiments[name]
    found = (row.input == "crops" or row.morphometry) and "finder" in run.cohort.boxes_from
    lines = [profile_line(run), replaced_encoders(run, [name]), boxes_line(run.cohort) if found else ""]
    return [line for line in lines if line]
