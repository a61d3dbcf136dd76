"""An experiment's fold models explained: what their networks look at, and how much each factor is worth to them.

Whoever only reads explanations imports no torch: the functions that compute them do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from fracsurv.cohort.boxes import LEVELS
from fracsurv.cohort.covariates import MISSING
from fracsurv.config import RESNETS, TRUE_RISK, derive_seed
from fracsurv.explain.factors import factor_importance
from fracsurv.metrics import percentile_interval
from fracsurv.study.own_models import is_own
from fracsurv.study.results import evaluated_alpha, finished, read_predictions
from fracsurv.study.run import Run
from fracsurv.study.scaling import standardise
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from fracsurv.training.data import NetworkInputs

BATCH = 32
PATIENTS, FACTOR_PATIENTS = 100, 500
"""Patients whose images are looked at by default: each passes the networks 16 times. Patients whose factors are
permuted, the same for all models."""
FILE = "explanation.json"
"""Written last."""
PREFERRED = ("intermediate", "none", "alpha")
"""Of the rows that share an input and an encoder, the one to explain: the first of these fusions."""


@dataclass(frozen=True)
class Explanation:
    """What an experiment's fold models look at, on the patients of one split.

    Attributes
    ----------
    split : str
        The patients' split.
    patients : list of str
        Ids of the sample whose images were explained.
    n_factors : int
        Number of patients whose factors were permuted.
    contributions : ndarray (n_folds, n, 13) or None
        See `vertebra_contributions`; None without an image.
    places : ndarray (H, W) or None
        Grad-CAM or rollout, the mean over the sample, each fold's scaled to mean 1, then over the folds.
    factors : DataFrame or None
        `fold, factor, loss`, and of the mean over the folds a 95 % interval over patients, `ci_low, ci_high`; None
        for a model without clinical factors.
    """

    split: str
    patients: list[str]
    n_factors: int
    contributions: np.ndarray | None
    places: np.ndarray | None
    factors: pd.DataFrame | None


def explainable(run: Run) -> list[str]:
    """The finished rows to explain: the two clinical models, and one for each input and encoder."""
    done = [name for name in finished(run) if name != TRUE_RISK]
    chosen = [name for name in ("cox_ph", "deepsurv") if name in done]
    for fusion in PREFERRED:
        for name in done:
            row, others = run.experiments[name], [run.experiments[other] for other in chosen]
            new = (row.input, row.encoder) not in [(other.input, other.encoder) for other in others]
            if row.needs_images and row.fusion == fusion and new:
                chosen.append(name)
    return [name for name in done if name in chosen]


def read_explanation(run: Run, name: str) -> Explanation | None:
    """An experiment's explanation; None where there is none, or one of other models."""
    folder = _folder(run, name)
    if not (folder / FILE).exists():
        return None
    about = read_json(folder / FILE)
    if about["key"] != _key(run, name, about["split"], about["asked"]):
        return None
    arrays = {
        what: np.load(path) if (path := folder / f"{what}.npy").exists() else None
        for what in ("contributions", "places")
    }
    factors = pd.read_csv(folder / "factors.csv") if about["factors"] else None
    return Explanation(about["split"], about["patients"], about["n_factors"], **arrays, factors=factors)


def explain(run: Run, name: str, split: str, patients: int = PATIENTS, *, progress: bool = False) -> Explanation:
    """Explain an experiment's fold models on a split, unless that is done already; written whole, the key last.

    Parameters
    ----------
    patients : int
        Number of patients, drawn at random from the split, whose images are explained.

    Raises
    ------
    UserError
        For experiments that are unknown or not finished, and for late fusion: its image part is another experiment.
    """
    if name == TRUE_RISK or name not in run.experiments:
        raise UserError(f"{name}: no model of configs/experiments.yaml; there are {', '.join(run.experiments)}")
    if name not in finished(run):
        raise UserError(f"{name}: not finished under these settings; run it first")
    if run.experiments[name].fusion == "late":
        parts = run.experiments[name].pretrained
        raise UserError(f"{name}: only weighs two finished risks; explain {parts['image']} and {parts['tabular']}")
    folder, key = _folder(run, name), _key(run, name, split, patients)
    if not (folder / FILE).exists() or read_json(folder / FILE)["key"] != key:
        _write(folder, _explain(run, name, split, patients, progress), key, patients)
    return read_explanation(run, name)


def _explain(run: Run, name: str, split: str, patients: int, progress: bool) -> Explanation:
    from fracsurv.study.experiments import fitted_network

    row = run.experiments[name]
    rows = run.rows(0)[split]
    rng = np.random.default_rng(derive_seed(run.profile.seed, "explained", split))
    drawn = rng.permutation(rows)
    visible = drawn[run.cohort.has_image[drawn]] if row.needs_images else drawn
    sample, of_factors = np.sort(visible[:patients]), np.sort(drawn[:FACTOR_PATIENTS])
    contributions, places, factors = [], [], []
    for fold in tqdm(range(run.profile.n_folds), desc=f"explain {name}", disable=not progress, leave=False):
        if row.model == "cox_ph":
            factors.append(_factors_of_cox(run, name, fold, of_factors))
            continue
        model, _, inputs = fitted_network(run, name, fold, evaluated_alpha(run, name, fold))
        model.eval()
        if row.needs_images and len(sample):
            moved, seen = _image_explanation(run, model, inputs, sample, row.input, row.encoder)
            contributions.append(moved)
            if seen is not None:
                places.append(seen / max(float(seen.mean()), 1e-12))
        if row.fusion != "none" or not row.needs_images:
            factors.append(_factors_of_network(run, name, fold, model, inputs, of_factors))
    return Explanation(
        split,
        run.cohort.table["patient_id"].iloc[sample].tolist(),
        len(of_factors),
        np.stack(contributions) if contributions else None,
        np.mean(places, axis=0) if places else None,
        _with_interval(factors) if factors else None,
    )


def _with_interval(factors: list[tuple[pd.DataFrame, np.ndarray]]) -> pd.DataFrame:
    low, high = percentile_interval(np.mean([drawn for _, drawn in factors], axis=0), paired=True).T
    return pd.concat([losses.assign(ci_low=low, ci_high=high) for losses, _ in factors], ignore_index=True)


def _image_explanation(
    run: Run, model: nn.Module, inputs: NetworkInputs, sample: np.ndarray, kind: str, encoder: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Contributions (n, 13) of the sample, in float32 since differences are small, and its mean map (H, W).

    No map of an encoder of one's own: where it looks depends on how it is built.
    """
    import torch

    from fracsurv.explain.images import attention_rollout, grad_cam, vertebra_contributions, vertebra_frames

    contributions, total, own = [], 0.0, is_own(encoder)
    if not own:
        backbone = getattr(model, "encoder", getattr(model, "image", None))
        backbone = getattr(backbone, "encoder", backbone).backbone
    for rows in np.array_split(sample, -(-len(sample) // BATCH)):
        tabular, images, *_ = inputs(rows, None)
        frames = None
        if kind == "full":
            boxes = vertebra_frames(run.cohort, rows, run.store("full").full.shape[1:], images.shape[-2:])
            frames = torch.from_numpy(boxes).to(images.device)
        contributions.append(vertebra_contributions(model, tabular, images, frames).numpy())
        if own:
            continue
        seen = (
            grad_cam(model, backbone.layer4, tabular, images)
            if encoder in RESNETS
            else attention_rollout(backbone, images[..., : backbone.image_size, : backbone.image_size])
        )
        total = total + seen.double().sum(dim=0).cpu().numpy()
    return np.concatenate(contributions), None if own else total / len(sample)


def _factors_of_cox(run: Run, name: str, fold: int, rows: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    tabular = standardise(run.cohort, run.rows(fold)["train"], morphometry=run.experiments[name].morphometry)
    coefficients = pd.read_csv(run.folder(name, fold) / "coefficients.csv")["log_hazard_ratio"].to_numpy()
    return _importance(run, name, fold, rows, tabular[rows], lambda values: values @ coefficients)


def _factors_of_network(
    run: Run, name: str, fold: int, model: nn.Module, inputs: NetworkInputs, rows: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """The images' part is computed once: only the factors change."""
    import torch

    parts = []
    with torch.no_grad():
        if inputs.images is not None:
            batches = np.array_split(rows, -(-len(rows) // BATCH))
            parts = [torch.cat([model.image_part(*inputs(batch, None)[1:]) for batch in batches])]

    def risk(values: np.ndarray) -> np.ndarray:
        tabular = torch.from_numpy(values).to(run.device)
        with torch.no_grad():
            found = model.with_image_part(tabular, *parts) if parts else model(tabular)
        return found.float().cpu().numpy().astype(float)

    return _importance(run, name, fold, rows, inputs.tabular[rows].cpu().numpy(), risk)


def _importance(
    run: Run, name: str, fold: int, rows: np.ndarray, tabular: np.ndarray, risk: Callable[[NDArray], NDArray]
) -> tuple[pd.DataFrame, np.ndarray]:
    table = read_predictions(run, name, fold).set_index("patient_id").loc[run.cohort.table["patient_id"].iloc[rows]]
    seed = derive_seed(run.profile.seed, "factors")  # the same patients are drawn for every fold's model
    outcome = table["event"].to_numpy(), table["time"].to_numpy()
    given, indicators = run.covariates(name), run.cohort.indicators
    factors = [factor for factor in given if factor not in indicators]
    # a factor and its indicator are permuted together; a covariate may have such a name and be no indicator
    parts = [[factor, *(each for each in indicators if each == factor + MISSING)] for factor in factors]
    columns = [[given.index(each) for each in names] for names in parts]
    losses, drawn = factor_importance(risk, tabular, *outcome, factors, columns=columns, seed=seed)
    return losses.assign(fold=fold), drawn


def _folder(run: Run, name: str) -> Path:
    return run.out / "explanations" / name


def _key(run: Run, name: str, split: str, asked: int) -> str:
    folds = range(run.profile.n_folds)
    # boxes too: a vertebra of a full radiograph is taken away by its box, though no fit on full ones depends on it
    made_from = [asked, FACTOR_PATIENTS, split, run.cohort.fingerprint(boxes=True)]
    if run.cohort.slots is not None:
        made_from.append(hashlib.sha256(run.cohort.slot_index.tobytes()).hexdigest())
    made_from += [read_json(run.folder(name, k) / "metrics.json")["key"] for k in folds]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]


def _write(folder: Path, found: Explanation, key: str, asked: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    for what in ("contributions", "places"):
        array, path = getattr(found, what), folder / f"{what}.npy"
        path.unlink(missing_ok=True)
        if array is not None:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, array.astype(np.float32))
    if found.factors is not None:
        with atomic_path(folder / "factors.csv") as temporary:
            found.factors.to_csv(temporary, index=False)
    about = {"key": key, "split": found.split, "asked": asked, "levels": LEVELS, "patients": found.patients}
    about |= {"n_factors": found.n_factors, "factors": found.factors is not None}
    write_json(folder / FILE, about)
