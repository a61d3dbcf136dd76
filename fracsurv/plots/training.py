"""How training went: learning curves, the sweep over α, what late fusion learnt."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fracsurv.plots.style import COLOURS, GREY, name_rows, new_figure


def learning_curves(history: pd.DataFrame, *, title: str = "", provenance: str = "") -> Figure:
    """C-index and loss over the epochs, a colour a fold; training dashed, validation solid, best epoch ringed.

    `history` has `fold, epoch, train_c_index, validation_c_index, train_loss, validation_loss`; validation values are
    missing in epochs that were not validated. Training values are collected during the epoch, while the weights still
    changed, under dropout and augmentation; the training loss compares patients within a batch, so it lies below that
    of all validation patients.
    """
    figure = new_figure(7.6, 3.1, provenance)
    panels = figure.subplots(1, 2)
    for fold, rows in history.groupby("fold"):
        colour = COLOURS[int(fold) % len(COLOURS)]
        validated = rows.dropna(subset=["validation_c_index"])
        best = validated.nlargest(1, "validation_c_index")  # none where no two validation patients can be ranked
        for axes, metric in zip(panels, ("c_index", "loss"), strict=True):
            marker = {"marker": ".", "markersize": 4}
            axes.plot(rows["epoch"], rows[f"train_{metric}"], "--", color=colour, linewidth=1, alpha=0.7, **marker)
            axes.plot(validated["epoch"], validated[f"validation_{metric}"], "-", color=colour, **marker)
            ring = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.5}
            axes.plot(best["epoch"], best[f"validation_{metric}"], "o", **ring)
    panels[0].set(xlabel="Epoch", ylabel="C-index")
    panels[1].set(xlabel="Epoch", ylabel="Cox loss per event")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    folds = sorted(history["fold"].unique())
    handles = [Line2D([], [], color=COLOURS[int(fold) % len(COLOURS)], label=f"fold {fold}") for fold in folds]
    handles += [
        Line2D([], [], color=GREY, label="validation"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="training (its loss: within batches)"),
        Line2D([], [], color=GREY, marker="o", markersize=8, mfc="none", linestyle="", label="best epoch"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) if len(handles) < 6 else 4)
    return figure


def alpha_sweep(sweeps: dict[str, pd.DataFrame], *, provenance: str = "") -> Figure:
    """Validation C-index over α, a panel an experiment: points the folds, line their mean, the chosen α ringed.

    `sweeps` maps an experiment's title to `alpha, fold, validation_c_index, selected`.
    """
    figure = new_figure(max(4.2, 2.7 * len(sweeps)), 3.0, provenance)
    panels = figure.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
    for axes, (title, sweep) in zip(panels, sweeps.items(), strict=True):
        axes.plot(sweep["alpha"], sweep["validation_c_index"], "o", color=COLOURS[0], markersize=3.5, alpha=0.5)
        mean = sweep.groupby("alpha")["validation_c_index"].mean()
        axes.plot(mean.index, mean, "-", color=COLOURS[0])
        chosen = sweep.loc[sweep["selected"], "alpha"].iloc[0]
        axes.plot(chosen, mean[chosen], "o", markersize=10, markerfacecolor="none", markeredgecolor=COLOURS[3])
        axes.set(xlabel="α, weight of the clinical risk", xticks=mean.index)
        axes.margins(x=0.15, y=0.15)
        axes.set_title(f"{title}\nchosen: α = {chosen:g}", fontsize=9)
    panels[0].set_ylabel("C-index on validation")
    return figure


def late_fusion_weights(weights: pd.DataFrame, *, provenance: str = "") -> Figure:
    """What the last layer of late fusion learnt: log hazard per SD of each model's risk, a point a fold.

    `weights` has `fold, part` ('clinical' or 'image'), `per_sd`: weight times the SD of that risk over the training
    fold.
    """
    parts = list(dict.fromkeys(weights["part"]))
    figure = new_figure(5.6, 1.8, provenance)
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    for row, part in enumerate(parts):
        values = weights.loc[weights["part"] == part, "per_sd"].to_numpy()
        axes.plot(values, [row] * len(values), "o", color=COLOURS[row], markersize=4, alpha=0.6)
        axes.plot(np.mean(values), row, "D", color=COLOURS[row], markersize=7)
    name_rows(axes, [f"{part} risk" for part in parts])
    axes.set(xlabel="Log hazard per SD of the risk; diamonds: mean over the folds")
    return figure
