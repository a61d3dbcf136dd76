"""Apply a run's models to new patients: no training data is needed, and nothing is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fracsurv.cohort.cohort import Cohort, own_or_protocols
from fracsurv.cohort.covariates import MISSING
from fracsurv.config import RESNETS
from fracsurv.detection.locate import locate_vertebrae
from fracsurv.images.plausibility import corrections_off_radiographs
from fracsurv.images.radiographs import EIGHT_TO_SIXTEEN, with_slots
from fracsurv.images.store import ImageStore, build_store
from fracsurv.study.experiments import untrained
from fracsurv.study.model_bundle import ModelBundle, read_bundle
from fracsurv.study.protocol import HEADLINE
from fracsurv.training.checkpoint import load_best
from fracsurv.training.data import ImageFeed, NetworkInputs, RiskColumns
from fracsurv.training.loop import Network, predict
from fracsurv.utils.devices import precision_of
from fracsurv.utils.errors import UserError
from fracsurv.utils.formatting import counted


def probability_column(horizon: float, what: str = "") -> str:
    """Name of the column that holds the probability of the event by `horizon`."""
    return f"probability_{horizon:g}{what}"


def predict_cohort(
    run: Path, cohort: Cohort, name: str, work: Path, *, workers: int = 1, progress: bool = True
) -> pd.DataFrame:
    """Risk and probabilities of an experiment's fold models for the patients of a cohort, whose outcome is not used.

    Parameters
    ----------
    run : path
        A run's folder.
    name : str
        An experiment of it.
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
        For an unknown experiment, models that were not finished by this version, and a cohort whose covariates or
        radiographs are not those of the training.
    """
    models = apply_models(run, cohort, name, work, workers=workers, progress=progress)
    days = models.horizons
    every = 1 - models.survival(days)
    table = pd.DataFrame({"patient_id": cohort.table["patient_id"], "risk": models.risk})
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
    run: Path, cohort: Cohort, name: str, work: Path, *, workers: int = 1, progress: bool = True
) -> FoldModels:
    """An experiment's fold models applied to a cohort; arguments and errors as for `predict_cohort`."""
    if name not in experiments_of(run):
        known = ", ".join(experiments_of(run))
        raise UserError(f"{run}: no experiment {name} whose models can be applied; there are: {known}")
    folders = fold_folders(run, name)
    read = [read_bundle(folder) for folder in folders]
    cohort = _checked(cohort, read, work, progress)
    stores = _Stores(cohort, work, workers, progress)
    risks = [_risk(run, folder, applied, cohort, stores) for folder, applied in zip(folders, read, strict=True)]
    return FoldModels(read, np.stack(risks), cohort)


def model_summary(run: Path, name: str) -> str:
    """What made the predictions: fold models, training patients, outcome."""
    about = [read_bundle(folder).about for folder in fold_folders(run, name)]
    fewest = min(each["patients"] for each in about)
    competing = about[0]["competing_event"]
    first = f", before which nobody has had the competing event ({competing})" if competing else ""
    return (
        f"{name}: {counted(len(about), 'fold model')}, each trained on "
        f"{counted(fewest, about[0]['provenance'] + ' patient')} or more; "
        f"outcome: {about[0]['outcome']}{first}. Research only."
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


def fold_folders(run: Path, name: str) -> list[Path]:
    """The folders of an experiment's fold models, in order of the folds."""
    return sorted((run / "experiments" / name).glob("fold-*"))


class _Stores:
    """The cohort's image stores, each built and opened when it is first asked for: a look reads every radiograph."""

    def __init__(self, cohort: Cohort, work: Path, workers: int, progress: bool) -> None:
        self.cohort, self.work, self.workers, self.progress = cohort, work, workers, progress
        self.opened: dict[tuple[str, float], ImageStore] = {}

    def __call__(self, kind: str, scale: float) -> ImageStore:
        if (kind, scale) not in self.opened:
            folder = build_store(
                self.cohort,
                self.work / kind,
                scale=scale,
                inputs=[kind],
                workers=self.workers,
                progress=self.progress,
            )
            self.opened[kind, scale] = ImageStore.open(folder)
        return self.opened[kind, scale]


def training_mismatches(run: Path, cohort: Cohort, name: str) -> list[str]:
    """What in a cohort keeps an experiment's models from being applied to it, one line each; [] if nothing."""
    return _mismatches(cohort, [read_bundle(folder) for folder in fold_folders(run, name)])


def _mismatches(cohort: Cohort, read: Sequence[ModelBundle]) -> list[str]:
    applied = read[0]  # what is asked of it is the same for every fold's model
    row, scaling, faults = applied.experiment, applied.scaling, []
    informative = {name for each in read for name in each.scaling.informative}
    if applied.about["permuted"]:
        faults.append("the run's outcomes are permuted (`permute_outcomes`): its models know nothing")
    for name, kind in scaling.kinds.items():
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
    if cohort.time_unit != applied.about["time_unit"]:
        faults.append(f"time_unit: {applied.about['time_unit']} in training, {cohort.time_unit} here")
    if row.needs_images and cohort.windowed != applied.about["windowed"]:
        here, there = ("windowed" if windowed else "stored" for windowed in (cohort.windowed, not cohort.windowed))
        faults.append(f"dicom_values: {there} in training, {here} here")
    if row.needs_images and not cohort.has_images:
        faults.append("image: the model takes radiographs, and the cohort has none")
    elif row.needs_images and not applied.masked and (n := int((~cohort.has_image).sum())):
        faults.append(
            f"image: no radiograph in {n:,} of {counted(len(cohort), 'patient')}; the model's training "
            "masked nobody. Leave them out (`missing_images: exclude`), or fit the run anew on a cohort with "
            "`missing_images: mask`"
        )
    return faults


def _checked(cohort: Cohort, read: Sequence[ModelBundle], work: Path, progress: bool) -> Cohort:
    """The cohort, with vertebrae and slots where they are needed; a UserError names every fault."""
    if faults := _mismatches(cohort, read) + corrections_off_radiographs(cohort):
        raise UserError(faults)
    row = read[0].experiment
    if row.needs_boxes:
        cohort = with_slots(locate_vertebrae(cohort, work, progress=progress), work)
    if row.morphometry and not cohort.has_keypoints:
        raise UserError(f"{row.name}: takes vertebral fractures, and too few patients have measured vertebrae")
    return cohort


def _risk(run: Path, folder: Path, applied: ModelBundle, cohort: Cohort, stores: _Stores) -> np.ndarray:
    """Log hazards (n,) of one fold's model."""
    row, tabular = applied.experiment, applied.scaling(cohort)
    if row.model == "cox_ph":
        coefficients = pd.read_csv(folder / "coefficients.csv")["log_hazard_ratio"].to_numpy()
        return tabular.astype(float) @ coefficients
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = precision_of(device, applied.precision)
    store = stores(row.input, applied.scale) if row.needs_images and row.fusion != "late" else None
    model = untrained(row, tabular.shape[1], store, applied.alpha, masks=applied.masked)
    load_best(model, folder)
    if row.encoder in RESNETS:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    rows = np.arange(len(cohort))
    if row.fusion == "late":
        parts = []
        for part in ("tabular", "image"):
            place = run / "experiments" / row.pretrained[part] / folder.name
            parts.append(_risk(run, place, read_bundle(place), cohort, stores))
        return predict(Network(model, model.combine, RiskColumns(*parts, device)), rows, dtype=dtype)
    images = _feed(store, applied, device) if store is not None else None
    has_image = cohort.has_image if applied.masked else None
    inputs = NetworkInputs(tabular, images, device, has_image)
    return predict(Network(model, model, inputs), rows, dtype=dtype)


def _feed(store: ImageStore, applied: ModelBundle, device: torch.device) -> ImageFeed:
    row, limits = applied.experiment, applied.limits
    if (here := store.meta["bit_depth"]) != applied.bit_depth:
        if here > applied.bit_depth:
            raise UserError(
                f"radiographs have {here} bits; the models were trained on {applied.bit_depth}: export them likewise"
            )
        # as a store of both kinds holds them
        limits = limits and (limits[0] / EIGHT_TO_SIXTEEN, limits[1] / EIGHT_TO_SIXTEEN)
    return ImageFeed(
        store, row.input, np.arange(0), scale=applied.scale, how="patient" if limits is None else "fold",
        square=row.encoder not in RESNETS, device=device, limits=limits,
    )  # fmt: skip
