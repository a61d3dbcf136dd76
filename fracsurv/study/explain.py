"""An experiment's fold models explained: what their networks look at, and how much each factor is worth to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fracsurv.cohort.covariates import MISSING
from fracsurv.config import RESNETS, TRUE_RISK, derive_seed
from fracsurv.explain.factors import factor_importance
from fracsurv.explain.images import attention_rollout, grad_cam, vertebra_contributions, vertebra_frames
from fracsurv.metrics import percentile_interval
from fracsurv.study.experiments import fitted_network
from fracsurv.study.explanations import (
    FACTOR_PATIENTS,
    PATIENTS,
    Explanation,
    explanation_key,
    folder_of,
    read_explanation,
    write_explanation,
)
from fracsurv.study.results import finished, read_predictions
from fracsurv.study.run import Run
from fracsurv.study.scaling import standardise
from fracsurv.training.data import NetworkInputs
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import read_json

BATCH = 32


def explain(run: Run, name: str, split: str, patients: int = PATIENTS, *, progress: bool = False) -> Explanation:
    """Explain an experiment's fold models on a split, unless that is done already; written whole, the key last.

    Parameters
    ----------
    patients : int
        Of so many of the split, drawn at random, the images are looked at, or of all; of those who have one.

    Raises
    ------
    UserError
        For late fusion, whose image part is another experiment's: explain that one; and what is not finished.
    """
    if name == TRUE_RISK or name not in run.experiments:
        raise UserError(f"{name}: no model of configs/experiments.yaml; there are {', '.join(run.experiments)}")
    if name not in finished(run):
        raise UserError(f"{name}: not finished under these settings; run it first")
    if run.experiments[name].fusion == "late":
        parts = run.experiments[name].pretrained
        raise UserError(f"{name}: only weighs two finished risks; explain {parts['image']} and {parts['tabular']}")
    folder, key = folder_of(run, name), explanation_key(run, name, split, patients)
    if not (folder / "explanation.json").exists() or read_json(folder / "explanation.json")["key"] != key:
        write_explanation(run, folder, _explain(run, name, split, patients, progress), key, patients)
    return read_explanation(run, name)


def _explain(run: Run, name: str, split: str, patients: int, progress: bool) -> Explanation:
    row = run.experiments[name]
    judged = run.rows(0)[split]
    rng = np.random.default_rng(derive_seed(run.profile.seed, "explained", split))
    drawn = rng.permutation(judged)
    visible = drawn[run.cohort.has_image[drawn]] if row.needs_images else drawn
    sample, of_factors = np.sort(visible[:patients]), np.sort(drawn[:FACTOR_PATIENTS])
    contributions, places, factors = [], [], []
    for fold in tqdm(range(run.profile.n_folds), desc=f"explain {name}", disable=not progress, leave=False):
        if row.model == "cox_ph":
            factors.append(_factors_of_cox(run, name, fold, of_factors))
            continue
        model, _, inputs = fitted_network(run, name, fold, _alpha(run, name, fold))
        model.eval()
        if row.needs_images and len(sample):
            moved, seen = _looked_at(run, model, inputs, sample, row.input, row.encoder)
            contributions.append(moved)
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
    low, high = percentile_interval(np.mean([drawn for _, drawn in factors], axis=0)).T
    return pd.concat([losses.assign(ci_low=low, ci_high=high) for losses, _ in factors], ignore_index=True)


def _alpha(run: Run, name: str, fold: int) -> float | None:
    return read_json(run.folder(name, fold) / "fit.json").get("alpha")


def _looked_at(
    run: Run, model: nn.Module, inputs: NetworkInputs, sample: np.ndarray, kind: str, encoder: str
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions (n, 13) of the sample, in float32 since differences are small, and its mean map (H, W)."""
    backbone = getattr(model, "encoder", getattr(model, "image", None))
    backbone = getattr(backbone, "encoder", backbone).backbone
    contributions, total = [], 0.0
    for rows in np.array_split(sample, -(-len(sample) // BATCH)):
        tabular, images, *_ = inputs(rows, None)
        frames = None
        if kind == "full":
            boxes = vertebra_frames(run.cohort, rows, run.store("full").full.shape[1:], images.shape[-2:])
            frames = torch.from_numpy(boxes).to(images.device)
        contributions.append(vertebra_contributions(model, tabular, images, frames).numpy())
        seen = (
            grad_cam(model, backbone.layer4, tabular, images)
            if encoder in RESNETS
            else attention_rollout(backbone, images[..., : backbone.image_size, : backbone.image_size])
        )
        total = total + seen.double().sum(dim=0).cpu().numpy()
    return np.concatenate(contributions), total / len(sample)


def _factors_of_cox(run: Run, name: str, fold: int, judged: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    tabular = standardise(run.cohort, run.rows(fold)["train"], morphometry=run.experiments[name].morphometry)
    coefficients = pd.read_csv(run.folder(name, fold) / "coefficients.csv")["log_hazard_ratio"].to_numpy()
    return _importance(run, name, fold, judged, tabular[judged], lambda values: values @ coefficients)


def _factors_of_network(
    run: Run, name: str, fold: int, model: nn.Module, inputs: NetworkInputs, judged: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """The images' part is computed once: only the factors change."""
    parts: list[Tensor] = []
    with torch.no_grad():
        if inputs.images is not None:
            batches = np.array_split(judged, -(-len(judged) // BATCH))
            parts = [torch.cat([model.image_part(*inputs(rows, None)[1:]) for rows in batches])]

    def risk(values: np.ndarray) -> np.ndarray:
        tabular = torch.from_numpy(values).to(run.device)
        with torch.no_grad():
            found = model.with_image_part(tabular, *parts) if parts else model(tabular)
        return found.float().cpu().numpy().astype(float)

    return _importance(run, name, fold, judged, inputs.tabular[judged].cpu().numpy(), risk)


def _importance(
    run: Run, name: str, fold: int, judged: np.ndarray, tabular: np.ndarray, risk
) -> tuple[pd.DataFrame, np.ndarray]:
    table = read_predictions(run, name, fold).set_index("patient_id").loc[run.cohort.table["patient_id"].iloc[judged]]
    seed = derive_seed(run.profile.seed, "factors")  # the same patients are drawn for every fold's model
    outcome = table["event"].to_numpy(), table["time"].to_numpy()
    given = run.covariates(name)
    said = run.cohort.indicators
    factors = [factor for factor in given if factor not in said]
    # a factor and where it is not known are one thing; a covariate may have such a name and be none of `said`
    parts = [[factor, *(name for name in said if name == factor + MISSING)] for factor in factors]
    columns = [[given.index(name) for name in names] for names in parts]
    losses, drawn = factor_importance(risk, tabular, *outcome, factors, columns=columns, seed=seed)
    return losses.assign(fold=fold), drawn
