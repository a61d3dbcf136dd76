"""What a model's name stands for, and what goes with it: its size, whose boxes, covariates left out or penalised."""

from __future__ import annotations

from collections.abc import Iterable

from fracsurv.config import TRUE_RISK
from fracsurv.study.labels import experiment_name, fitting_notes
from fracsurv.study.run import Run

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


def names_said(run: Run, names: Iterable[str]) -> str:
    """The short words in the names of these experiments, spelt out; '' where there are none."""
    called = "; ".join(experiment_name(run, name) for name in names)
    said = [meaning for word, meaning in WORDS.items() if word in called]
    return f"In the models' names: {'; '.join(said)}." if said else ""


def fitting_said(run: Run, names: Iterable[str]) -> str:
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
