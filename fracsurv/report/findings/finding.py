"""A figure of a run's results with the sentence that it supports, and what several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fracsurv.config import TRUE_RISK
from fracsurv.study.labels import experiment_name
from fracsurv.study.protocol import HEADLINE, REFERENCE
from fracsurv.study.run import Run
from fracsurv.study.time_dependent import event_share
from fracsurv.utils.formatting import NOT_KNOWN, horizon_label

MOST_HIGHLIGHTED = 4
PATIENTS = {name: f"the {name} patients" for name in ("validation", "test", "external")}


@dataclass(frozen=True)
class Finding:
    """A figure, its alternative text, and the computed sentence that it supports (plain text).

    None in the figure's place where there are too few patients to draw it; the sentence says so.
    """

    name: str
    figure: Figure | None
    alt: str
    said: str


def names_of(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Experiment to its whole name."""
    return {name: experiment_name(run, name) for name in names}


def share_said(run: Run, event: NDArray, time: NDArray, at: float) -> str:
    """Share of some patients with the event by a time: '12.3 %', or that it is not known, and why."""
    share = event_share(event, time, at)
    if np.isfinite(share):
        return f"{100 * share:.1f} %"
    return f"a share {NOT_KNOWN} (followed up to {horizon_label(time.max(), run.cohort.time_unit)})"


def highlighted(table: pd.DataFrame, split: str) -> list[str]:
    """The rows to draw in colour: true risk, Cox PH, crops + IF-MLP, and the best of the others.

    The best by C on validation: the patients who are shown choose nothing. Without a validation, by C on them.
    """
    there = list(dict.fromkeys(table.loc[table["split"] == split, "experiment"]))
    c_index = table[table["metric"] == "c_index"]
    chosen_on = "validation" if (c_index["split"] == "validation").any() else split
    ranked = c_index[c_index["split"] == chosen_on].sort_values("mean", ascending=False)["experiment"]
    ranked = [name for name in ranked if name in there]
    ranked += [name for name in there if name not in ranked]  # none has a C-index
    first = [name for name in (REFERENCE, HEADLINE, TRUE_RISK) if name in ranked]
    return (first + [name for name in ranked if name not in first])[:MOST_HIGHLIGHTED]
