"""How training went: learning curves, the sweep over α, what late fusion weighed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from safetensors import safe_open

from fracsurv import plots
from fracsurv.config import TRUE_RISK
from fracsurv.report.findings.finding import Finding
from fracsurv.study.labels import experiment_name, stamp
from fracsurv.study.protocol import chosen_alpha
from fracsurv.study.results import risk_of
from fracsurv.study.run import Run
from fracsurv.utils.formatting import signed


def learning(run: Run, name: str) -> Finding | None:
    """Learning curves of one experiment over its folds; None where a fold's history is not there."""
    paths = [run.folder(name, fold) / "history.csv" for fold in range(run.profile.n_folds)]
    if not all(path.exists() for path in paths):
        return None
    history = pd.concat([pd.read_csv(path).assign(fold=fold) for fold, path in enumerate(paths)], ignore_index=True)
    history = history.reindex(columns=[*history, *({"validation_c_index", "validation_loss"} - set(history))])
    figure = plots.learning_curves(history, title=experiment_name(run, name), provenance=stamp(run))
    validated = history.dropna(subset=["validation_c_index"])
    alt = f"Learning curves of {name}"
    if validated.empty:
        said = f"{experiment_name(run, name)}: no two validation patients could be ranked, so no epoch was the best."
        return Finding(f"learning_{name}", figure, alt, said)
    best = validated.loc[validated.groupby("fold")["validation_c_index"].idxmax()]
    last = validated.groupby("fold").tail(1)
    gap = float((last["train_c_index"] - last["validation_c_index"]).mean())
    epochs = ", ".join(f"{epoch:.0f}" for epoch in best["epoch"])
    said = (
        f"{experiment_name(run, name)}: validation is best after epoch {epochs} of {int(history['epoch'].max())} "
        f"(one a fold), with a C-index of {best['validation_c_index'].mean():.3f} on average"
    )
    if np.isfinite(gap):
        said += (
            f"; after the last epoch training's C-index is {abs(gap):.3f} {'above' if gap > 0 else 'below'} that of "
            "validation. Training's is collected during the epoch, under augmentation and dropout and while the "
            "weights still move, so the gap is not over-fitting alone"
        )
    said += "."
    return Finding(f"learning_{name}", figure, alt, said)


def sweep(run: Run, names: Sequence[str]) -> Finding | None:
    """Validation C-index over α for the α-models among `names`; None if there are none."""
    swept = [name for name in names if name != TRUE_RISK and chosen_alpha(run, name) is not None]
    if not swept:
        return None
    tables = {name: pd.read_csv(run.folder(name) / "sweep.csv") for name in swept}
    titles = {name: run.experiments[name].title for name in swept}
    figure = plots.alpha_sweep({titles[name]: table for name, table in tables.items()}, provenance=stamp(run))
    parts = []
    for name, table in tables.items():
        mean = table.groupby("alpha")["validation_c_index"].mean()
        parts.append(
            f"{titles[name]}: α = {mean.idxmax():g}, {mean.max():.3f} against {mean.min():.3f} at the worst α"
        )
    said = f"Mean C-index on validation at the chosen α. {'; '.join(parts)}."
    return Finding("alpha_sweep", figure, "Validation C-index over α", said)


def late_weights(run: Run, name: str) -> Finding:
    """What late fusion's last layer made of the two risks."""
    rows = []
    for fold in range(run.profile.n_folds):
        with safe_open(run.folder(name, fold) / "best.safetensors", framework="numpy") as weights_file:
            weight = weights_file.get_tensor("head.weight").ravel()
        train = run.rows(fold)["train"]
        for part, column, w in (("clinical", "tabular", weight[0]), ("image", "image", weight[1])):
            spread = risk_of(run, run.experiments[name].pretrained[column], fold)[train].std()
            rows.append({"fold": fold, "part": part, "per_sd": float(w * spread)})
    weights = pd.DataFrame(rows)
    figure = plots.late_fusion_weights(weights, provenance=stamp(run))
    mean = weights.groupby("part")["per_sd"].mean()
    said = (
        f"One SD more of the clinical risk adds {signed(mean['clinical'])} to the fused log hazard, one SD more of "
        f"the image risk {signed(mean['image'])} (means over the folds; SD over the training patients). Both "
        "risks are of frozen models on the very patients that they were trained on, as in the thesis: the weights "
        "favour an image model that over-fitted."
    )
    return Finding(f"late_weights_{name}", figure, "Weights of the two risks in late fusion", said)
