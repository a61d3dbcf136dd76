"""Apply a run's models to new patients: no training data is needed, and nothing is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fracsurv.cohort.cohort import Cohort, own_or_protocols
from fracsurv.cohort.covariates import MISSING
from fracsurv.config import VITS
from fracsurv.detection.locate import locate_vertebrae
from fracsurv.images.plausibility import corrections_off_radiographs
from fracsurv.images.radiographs import EIGHT_TO_SIXTEEN, with_slots
from fracsurv.images.store import ImageStore, build_store
from fracsurv.study.experiments import ready, untrained
from fracsurv.study.model_bundle import ModelBundle, read_bundle
from fracsurv.study.protocol import HEADLINE
from fracsurv.training.checkpoint import load_best
from fracsurv.training.data import ImageFeed, NetworkInputs, RiskColumns
from fracsurv.training.loop import predict
from fracsurv.utils.devices import precision_of
from fracsurv.utils.errors import UserError
from fracsurv.utils.formatting import counted


def probability_column(horizon: float, what: str = "") -> str:
    """Name of the column that holds the probability of the event by `horizon`."""
    return f"probability_{horizon:g}{what}"


def read_models(run: Path, name: str) -> list[ModelBundle]:
    """An experiment's fold models, in order of the folds.

    Raises
    ------
    UserError
        For an unknown experiment, and models that were not finished by this version.
    """
    known = experiments_of(run)
    if name not in known:
        raise UserError(f"{run}: no experiment {name} whose models can be applied; there are: {', '.join(known)}")
    return fold_models(run, name)


def fold_models(run: Path, name: str) -> list[ModelBundle]:
    """Likewise, of an experiment that may be but a part of another one, and no row of the run's table."""
    folds = sorted({folder.name for folder in run.glob("experiments/*/fold-*")})  # a fold of any row is one of all
    return [read_bundle(run / "experiments" / name / fold) for fold in folds]


def predict_cohort(
    models: Sequence[ModelBundle], cohort: Cohort, work: Path, *, workers: int = 1, progress: bool = True
) -> pd.DataFrame:
    """Risk and probabilities of an experiment's fold models for the patients of a cohort, whose outcome is not used.

    Parameters
    ----------
    models : sequence of ModelBundle
        As `read_models` reads them.
    work : path
        Where the cohort's image store, and its vertebrae if they have to be found, are kept.

    Returns
    -------
    DataFrame
        `patient_id`; `risk`, the mean over the fold models of the log hazard against the mean of their training
        patients (0 = as these, higher = riskier); for each horizon `probability_T`, the mean of the fold models'
        probabilities of the event by T, and `probability_T_low` and `_high`, the minimum and maximum of them: how far
        the models disagree, which is no confidence interval. NaN beyond the last time of any training part.

    Raises
    ------
    UserError
        For a cohort whose covariates or radiographs are not those of the training, and damaged weights.
    """
    applied = apply_models(models, cohort, work, workers=workers, progress=progress)
    days = applied.horizons
    every = 1 - applied.survival(days)
    table = pd.DataFrame({"patient_id": cohort.table["patient_id"], "risk": applied.risk})
    for k, day in enumerate(days):
        table[probability_column(day)] = every[:, :, k].mean(axis=0)
        table[probability_column(day, "_low")] = every[:, :, k].min(axis=0)
        table[probability_column(day, "_high")] = every[:, :, k].max(axis=0)
    return table


@dataclass(frozen=True)
class FoldModels:
    """An experiment's fold models with the log hazards that they give to patients.

    Attributes
    ----------
    applied : list of ModelBundle
    risks : array, shape (n_models, n)
        Log hazards as each model gives them, which belong to its own baseline.
    cohort : Cohort
        These patients.
    """

    applied: list[ModelBundle]
    risks: np.ndarray
    cohort: Cohort

    @property
    def horizons(self) -> np.ndarray:
        """Those of the training, in its unit of time."""
        return own_or_protocols(self.applied[0].about["horizons"])

    @property
    def risk(self) -> np.ndarray:
        """Mean over the models of the log hazard (n,) against the mean of their training patients."""
        return np.mean([r - a.centre for r, a in zip(self.risks, self.applied, strict=True)], axis=0)

    def survival(self, times: np.ndarray) -> np.ndarray:
        """1 − each model's probabilities of the event by increasing times, (n_models, n, n_times)."""
        pairs = zip(self.risks, self.applied, strict=True)
        return np.stack([applied.survival(risk, self.cohort, times) for risk, applied in pairs])


def apply_models(
    models: Sequence[ModelBundle], cohort: Cohort, work: Path, *, workers: int = 1, progress: bool = True
) -> FoldModels:
    """An experiment's fold models applied to a cohort; arguments and errors as for `predict_cohort`."""
    cohort = _checked(cohort, models, work, progress)

    @cache  # a store is built once, and only if a model takes it: that reads every radiograph
    def store(kind: str, scale: float) -> ImageStore:
        place = work / kind
        return ImageStore.open(
            build_store(cohort, place, scale=scale, inputs=[kind], workers=workers, progress=progress)
        )

    risks = [_risk(model, cohort, store) for model in models]
    return FoldModels(list(models), np.stack(risks), cohort)


def model_summary(models: Sequence[ModelBundle]) -> str:
    """What made the predictions: fold models, training patients, outcome."""
    about = models[0].about
    fewest = min(model.about["patients"] for model in models)
    competing = about["competing_event"]
    first = f", before which nobody has had the competing event ({competing})" if competing else ""
    return (
        f"{models[0].experiment.name}: {counted(len(models), 'fold model')}, each trained on "
        f"{counted(fewest, about['provenance'] + ' patient')} or more; "
        f"outcome: {about['outcome']}{first}. Research only."
    )


def experiments_of(run: Path) -> list[str]:
    """Experiments of a run's folder whose models can be applied: of its ablation table, once that is written.

    Others may lie there, of the cohort as it was before. A UserError where there is none.
    """
    found = {path.parent.parent.name for path in run.glob("experiments/*/fold-*/model.json")}
    if (run / "ablation.csv").exists():
        found &= set(pd.read_csv(run / "ablation.csv")["experiment"])
    if not found:
        raise UserError(f"{run}: no models to apply; is it the folder of a finished `fracsurv run`?")
    return sorted(found)


def default_experiment(run: Path) -> str:
    """The row of the report's answer, or else the first that there is."""
    names = experiments_of(run)
    return HEADLINE if HEADLINE in names else names[0]


def training_mismatches(models: Sequence[ModelBundle], cohort: Cohort) -> list[str]:
    """What in a cohort keeps an experiment's models from being applied to it, one line each; [] if nothing."""
    model = models[0]  # the folds differ in what was informative alone
    row, faults = model.experiment, []
    informative = {name for each in models for name in each.scaling.informative}
    if model.about["permuted"]:
        faults.append("the run's outcomes are permuted (`permute_outcomes`): its models know nothing")
    for name, kind in model.scaling.kinds.items():
        theirs = cohort.covariates.get(name)
        if theirs is None:
            faults.append(f"covariate {name}: the model takes it, and the cohort does not have it")
        elif theirs != kind:
            faults.append(f"covariate {name}: {kind} where the model was trained, {theirs} here")
        elif name + MISSING in cohort.indicators and name + MISSING not in informative:
            n = int(cohort.table[name].isna().sum())
            faults.append(
                f"covariate {name}: missing in {counted(n, 'patient')}; no model can use that, since in training it "
                "was missing in all patients or in none"
            )
    if cohort.time_unit != model.about["time_unit"]:
        faults.append(f"time_unit: {model.about['time_unit']} in training, {cohort.time_unit} here")
    if row.needs_images and cohort.windowed != model.about["windowed"]:
        here, there = ("windowed" if windowed else "stored" for windowed in (cohort.windowed, not cohort.windowed))
        faults.append(f"dicom_values: {there} in training, {here} here")
    if row.needs_images and not cohort.has_images:
        faults.append("image: the model takes radiographs, and the cohort has none")
    elif row.needs_images and not model.masked and (n := int((~cohort.has_image).sum())):
        faults.append(
            f"image: no radiograph in {n:,} of {counted(len(cohort), 'patient')}; the model's training "
            "masked nobody. Leave them out (`missing_images: exclude`), or fit the run anew on a cohort with "
            "`missing_images: mask`"
        )
    return faults


def _checked(cohort: Cohort, models: Sequence[ModelBundle], work: Path, progress: bool) -> Cohort:
    """The cohort, with vertebrae and slots where they are needed; a UserError names every fault."""
    if faults := training_mismatches(models, cohort) + corrections_off_radiographs(cohort):
        raise UserError(faults)
    row = models[0].experiment
    if row.needs_boxes:
        cohort = with_slots(locate_vertebrae(cohort, work, progress=progress), work)
    if row.morphometry and not cohort.has_keypoints:
        raise UserError(f"{row.name}: takes vertebral fractures, and too few patients have measured vertebrae")
    return cohort


def _risk(model: ModelBundle, cohort: Cohort, open_store: Callable[[str, float], ImageStore]) -> np.ndarray:
    """Log hazards (n,) of one fold's model."""
    row, tabular = model.experiment, model.scaling(cohort)
    if row.model == "cox_ph":
        coefficients = pd.read_csv(model.folder / "coefficients.csv")["log_hazard_ratio"].to_numpy()
        return tabular.astype(float) @ coefficients
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store = open_store(row.input, model.scale) if row.needs_images and row.fusion != "late" else None
    module = untrained(row, tabular.shape[1], store, model.alpha, masks=model.masked)
    load_best(module, model.folder)
    if row.fusion == "late":
        places = [
            model.run / "experiments" / row.pretrained[part] / model.folder.name for part in ("tabular", "image")
        ]
        parts = [_risk(read_bundle(place), cohort, open_store) for place in places]
        inputs = RiskColumns(*parts, device)
    else:
        images = _feed(store, model, device) if store is not None else None
        inputs = NetworkInputs(tabular, images, device, cohort.has_image if model.masked else None)
    dtype = precision_of(device, model.precision)
    return predict(ready(module, row, inputs, device), np.arange(len(cohort)), dtype=dtype)


def _feed(store: ImageStore, model: ModelBundle, device: torch.device) -> ImageFeed:
    row, limits = model.experiment, model.limits
    if (here := store.meta["bit_depth"]) != model.bit_depth:
        if here > model.bit_depth:
            raise UserError(
                f"radiographs have {here} bits; the models were trained on {model.bit_depth}: export them likewise"
            )
        # as a store of both kinds holds them
        limits = limits and (limits[0] / EIGHT_TO_SIXTEEN, limits[1] / EIGHT_TO_SIXTEEN)
    return ImageFeed(
        store, row.input, np.arange(0), scale=model.scale, how="patient" if limits is None else "fold",
        square=row.encoder in VITS, device=device, limits=limits,
    )  # fmt: skip
