"""An experiment over its folds and values of α: fitted, α chosen on validation, evaluated once."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from fracsurv import __version__
from fracsurv.cohort.covariates import label_of
from fracsurv.config import RESNETS, TRUE_RISK, VITS, Experiment, derive_seed
from fracsurv.images.store import ImageStore
from fracsurv.models import build_model, count_parameters, fit_cox
from fracsurv.study.model_bundle import write_bundle
from fracsurv.study.own_models import encoder_class, is_own, read_risks
from fracsurv.study.provenance import commit
from fracsurv.study.results import is_complete, is_evaluated, is_fitted, risk_of, write_predictions
from fracsurv.study.run import Run
from fracsurv.study.scaling import standardise
from fracsurv.training.checkpoint import load_best
from fracsurv.training.compilation import worth_compiling
from fracsurv.training.data import ImageFeed, NetworkInputs, RiskColumns
from fracsurv.training.loop import Fit, Network, Patients, Recipe, fit, predict
from fracsurv.training.monitor import Board, Stopwatch
from fracsurv.utils.devices import device_name, peak_memory, precision_of
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, link_or_copy, read_json, write_json


def run_experiment(run: Run, name: str, *, progress: bool = True) -> None:
    """Do what an experiment still lacks: the models it takes over, every fold, every α, the evaluation."""
    if name != TRUE_RISK:
        for other in run.experiment(name).pretrained.values():
            run_experiment(run, other, progress=progress)
    for fold in range(run.profile.n_folds):
        for alpha in run.alphas(name):
            fit_fold(run, name, fold, alpha, progress=progress)
    if run.alphas(name) != (None,):
        evaluate_best_alpha(run, name)


def fit_fold(run: Run, name: str, fold: int, alpha: float | None = None, *, progress: bool = True) -> None:
    """Fit one experiment on one fold and, unless α is still to be chosen, evaluate it. Done work is not repeated.

    Raises
    ------
    UserError
        Where the run has no such experiment, fold or α, or what the experiment takes over is not finished.
    """
    _check_fit(run, name, fold, alpha)
    if alpha is None and is_complete(run, name, fold):
        return
    if name == TRUE_RISK:
        write_predictions(run, name, fold, _true_risk(run))
    elif run.experiment(name).model == "predictions":
        write_predictions(run, name, fold, read_risks(run.experiment(name), run.cohort, fold))
    elif run.experiment(name).model == "cox_ph":
        _fit_cox(run, name, fold)
    else:
        if not is_fitted(run, name, fold, alpha):
            _fit_network(run, name, fold, alpha, progress)
        if alpha is None:
            _evaluate(run, name, fold, None)


def _check_fit(run: Run, name: str, fold: int, alpha: float | None) -> None:
    if name not in (runnable := run.runnable()):
        raise UserError(
            f"experiment {name!r}: unknown, or {run.cohort.folder} lacks its inputs; choose {', '.join(runnable)}"
        )
    faults = []
    if fold >= run.profile.n_folds:
        faults.append(f"--fold {fold}: folds are 0 to {run.profile.n_folds - 1} in profile {run.profile.name}")
    if alpha not in run.alphas(name):
        wanted = ", ".join(f"{a:g}" for a in run.alphas(name) if a is not None) or "none"
        faults.append(f"--alpha {alpha}: {name} takes {wanted}")
    if faults:
        raise UserError(faults)


def evaluate_best_alpha(run: Run, name: str) -> float:
    """Choose the α with the best mean validation C-index over the folds and evaluate its models; returns it."""
    folds, rows = range(run.profile.n_folds), []
    for alpha in run.profile.alphas:
        for fold in folds:
            record = read_json(run.folder(name, fold, alpha) / "fit.json")
            result = {column: record[column] for column in ("validation_c_index", "best_epoch", "seconds")}
            rows.append({"alpha": alpha, "fold": fold, **result})
    sweep = pd.DataFrame(rows).astype({"validation_c_index": float})
    best = float(sweep.groupby("alpha")["validation_c_index"].mean().fillna(0).idxmax())
    sweep["selected"] = sweep["alpha"] == best
    with atomic_path(run.folder(name) / "sweep.csv") as temporary:
        sweep.to_csv(temporary, index=False)
    for fold in folds:
        if is_complete(run, name, fold, best):
            continue
        source, folder = run.folder(name, fold, best), run.folder(name, fold)
        _forget(folder)
        for file in ("best.safetensors", "last.safetensors", "history.csv", "timing.csv", "fit.json"):
            with atomic_path(folder / file) as temporary:
                link_or_copy(source / file, temporary)
        _evaluate(run, name, fold, best)
    return best


def _fit_cox(run: Run, name: str, fold: int) -> None:
    rows = run.rows(fold)["train"]
    experiment = run.experiment(name)
    tabular, covariates = standardise(run.cohort, rows, morphometry=experiment.morphometry), run.covariates(name)
    outcome = run.cohort.table.iloc[rows]
    cox = fit_cox(tabular[rows], outcome["event"].to_numpy(), outcome["time"].to_numpy())
    folder = run.folder(name, fold)
    coefficients = pd.DataFrame({"covariate": covariates, "log_hazard_ratio": cox.coefficients})
    with atomic_path(folder / "coefficients.csv") as temporary:
        coefficients.to_csv(temporary, index=False)
    note = cox.note([label_of(each, run.cohort.labels) for each in covariates])
    write_json(folder / "fit.json", {"key": run.key(name, fold), "note": note})
    risk = cox.risk(tabular)
    write_bundle(run, name, fold, None, risk, None)
    write_predictions(run, name, fold, risk)


def _fit_network(run: Run, name: str, fold: int, alpha: float | None, progress: bool) -> None:
    experiment, folder, rows = run.experiment(name), run.folder(name, fold, alpha), run.rows(fold)
    key = run.key(name, fold, alpha)
    seed = derive_seed(run.profile.seed, name, fold, alpha)
    watch, recipe = Stopwatch(run.device), recipe_of(run, experiment, seed)
    compiled_for = recipe.batch_size if recipe.compiled else 0
    network = make_network(run, experiment, fold, alpha, seed, watch, compiled_for)
    event, time = (run.cohort.table[column].to_numpy() for column in ("event", "time"))
    patients = Patients(event, time, rows["train"], rows["validation"])
    board = None
    if run.profile.tensorboard:
        board = Board(run.out / "tensorboard" / folder.relative_to(run.out / "experiments"))
    _forget(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    fitted = fit(network, patients, folder, recipe, key=key, watch=watch, after_epoch=board, progress=progress)
    if board is not None:
        board.close()
    about = {"key": key, "encoder": experiment.encoder, "alpha": alpha}
    write_json(folder / "fit.json", about | _fit_record(run, network.model, recipe, fitted))


def _fit_record(run: Run, model: nn.Module, recipe: Recipe, fitted: Fit) -> dict[str, object]:
    """What `fit.json` says of a network's fit."""
    return {
        "best_epoch": fitted.best_epoch,
        "validation_c_index": None if np.isnan(fitted.best_c_index) else fitted.best_c_index,
        "parameters": count_parameters(model),
        "trainable_parameters": count_parameters(model, trainable=True),
        "seed": recipe.seed,
        "device": device_name(run.device),
        "precision": str(recipe.dtype).removeprefix("torch."),
        "compiled": recipe.compiled,
        "threads": torch.get_num_threads(),
        "torch": version("torch"),
        "fracsurv": __version__,
        "commit": commit(),
        "seconds": round(float(fitted.timing["whole_s"].sum()), 2),
        "samples_per_s": round(float(fitted.timing["samples_per_s"].median()), 2),
        "peak_memory_mib": peak_memory(run.device),
    }


def recipe_of(run: Run, experiment: Experiment, seed: int) -> Recipe:
    """How a run trains an experiment."""
    has_encoder = experiment.needs_images and experiment.fusion != "late"
    n_steps = experiment.epochs * -(-len(run.rows(0)["train"]) // experiment.batch_size)
    return Recipe(
        lr=experiment.lr,
        scheduler=experiment.scheduler,
        epochs=experiment.epochs,
        batch_size=experiment.batch_size,
        seed=seed,
        validate_every=run.profile.validate_every,
        dtype=precision_of(run.device, run.profile.precision),
        compiled=has_encoder
        and not is_own(experiment.encoder)  # who knows what it does
        and not run.cohort.masks  # the number of images changes from batch to batch
        and worth_compiling(run.profile.compile, run.device, n_steps),
    )


def _evaluate(run: Run, name: str, fold: int, alpha: float | None) -> None:
    """Predict every patient with the best weights, once, and write predictions and metrics."""
    network = fitted_network(run, name, fold, alpha)
    dtype = precision_of(run.device, run.profile.precision)
    risk = predict(network, np.arange(len(run.cohort)), dtype=dtype)
    images = getattr(network.inputs, "images", None)  # late fusion takes two columns of risks
    write_bundle(run, name, fold, alpha, risk, images and images.limits)
    write_predictions(run, name, fold, risk, alpha)


def fitted_network(run: Run, name: str, fold: int, alpha: float | None = None) -> Network:
    """A fold's network with its best weights."""
    seed = derive_seed(run.profile.seed, name, fold, alpha)
    network = make_network(run, run.experiment(name), fold, alpha, seed)
    load_best(network.model, run.folder(name, fold))
    return network


def make_network(
    run: Run,
    experiment: Experiment,
    fold: int,
    alpha: float | None,
    seed: int,
    watch: Stopwatch | None = None,
    compiled_for: int = 0,
) -> Network:
    """An experiment's untrained network on the run's device; `watch` and `compiled_for` are `ImageFeed`'s."""
    train = run.rows(fold)["train"]
    store = run.store(experiment.input) if experiment.needs_images else None
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = untrained(experiment, len(run.covariates(experiment.name)), store, alpha, masks=run.cohort.masks)
    for part, other in experiment.pretrained.items():
        if not is_evaluated(run, other, fold):
            raise UserError(f"{experiment.name} takes over {other}, whose fold {fold} is not finished; run it first")
        load_best(getattr(model, part).module, run.folder(other, fold))
    if experiment.fusion == "late":
        risks = (risk_of(run, experiment.pretrained[part], fold) for part in ("tabular", "image"))
        return ready(model, experiment, RiskColumns(*risks, run.device), run.device)
    images = None
    if store is not None:
        images = ImageFeed(
            store, experiment.input, train, scale=run.scale(experiment.input), how=run.profile.normalise,
            square=experiment.encoder in VITS, device=run.device, place=run.profile.feeding, watch=watch,
            compiled_for=compiled_for,
        )  # fmt: skip
    tabular = standardise(run.cohort, train, morphometry=experiment.morphometry)
    has_image = run.cohort.has_image if run.cohort.masks else None
    return ready(model, experiment, NetworkInputs(tabular, images, run.device, has_image), run.device)


def ready(
    model: nn.Module, experiment: Experiment, inputs: NetworkInputs | RiskColumns, device: torch.device
) -> Network:
    """An experiment's network on a device, with what it is called with."""
    if experiment.encoder in RESNETS:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    return Network(model, model.combine if experiment.fusion == "late" else model, inputs)


def untrained(
    experiment: Experiment, n_covariates: int, store: ImageStore | None, alpha: float | None, *, masks: bool = False
) -> nn.Module:
    """An experiment's network, newly initialised, for `n_covariates` and the images of a store.

    `masks`: whether patients may lack an image.
    """
    own = is_own(experiment.encoder)
    try:
        return build_model(
            fusion=experiment.fusion,
            input=experiment.input,
            encoder=encoder_class(experiment.encoder) if own else experiment.encoder,
            n_covariates=n_covariates,
            image_size=store.crops.shape[3] if store is not None and experiment.input == "crops" else 0,
            alpha=alpha,
            frozen=tuple(experiment.pretrained),
            masks=masks,
        )
    except (TypeError, AttributeError) as error:
        if not own:
            raise
        rule = "it must take the number of channels alone and have the attribute n_features"
        raise UserError(f"encoder {experiment.encoder}: {error}; {rule}") from None


def _forget(folder: Path) -> None:
    """Delete the files that say a fit is done, before its weights are overwritten."""
    for file in ("metrics.json", "predictions.parquet", "fit.json"):
        (folder / file).unlink(missing_ok=True)


def _true_risk(run: Run) -> np.ndarray:
    truth = run.cohort.truth()
    if truth is None:
        raise UserError(f"{TRUE_RISK}: {run.cohort.folder} has no truth.parquet; only simulated outcomes do")
    return truth["log_hazard"].to_numpy(float)
