"""The competing event of a cohort that tells of one (death, say): its hazard, and what is said of it in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.cohort.cohort import Cohort
from fracsurv.metrics import Baseline, absolute_risk, breslow_baseline
from fracsurv.models.cox import fit_cox
from fracsurv.study.scaling import standardise

EVENTS_A_FACTOR = 10
"""Below so many competing events a clinical factor, the factors are not asked: a death or two would decide."""


@dataclass(frozen=True)
class CompetingHazard:
    """A Cox model of the competing event on a fold's clinical factors; `coefficients` (p,) are log hazard ratios.

    It is the same for every experiment: what a radiograph says of the fracture is asked, not what it says of death.
    """

    coefficients: NDArray
    baseline: Baseline

    def risk(self, tabular: NDArray) -> NDArray:
        """Log hazards (n,) of standardised covariates (n, p or more: vertebral ones stand last and do not count)."""
        return tabular[:, : len(self.coefficients)].astype(float) @ self.coefficients

    def survival(self, baseline: Baseline, risk: NDArray, tabular: NDArray, times: ArrayLike) -> NDArray:
        """1 − probability of the event by each of `times`, from a model's baseline and log hazards (n,) of it."""
        return 1 - absolute_risk(baseline, risk, self.baseline, self.risk(tabular), times)

    def as_record(self) -> dict[str, Any]:
        """Plain lists, for a JSON file."""
        return {"coefficients": self.coefficients.tolist(), "baseline": baseline_record(self.baseline)}


def competing_hazard(cohort: Cohort, train: NDArray) -> CompetingHazard | None:
    """Fitted on the rows `train` (as `fit_cox` does it); None for a cohort without competing events.

    Where these rows have fewer than `EVENTS_A_FACTOR` competing events a factor, it is the same for everybody.
    """
    if not cohort.has_competing:
        return None
    tabular = standardise(cohort, train)[train].astype(float)
    table = cohort.table.iloc[train]
    had, time = table["competing"].to_numpy(), table["time"].to_numpy()
    enough = had.sum() >= EVENTS_A_FACTOR * tabular.shape[1]
    coefficients = fit_cox(tabular, had, time).coefficients if enough else np.zeros(tabular.shape[1])
    return CompetingHazard(coefficients, breslow_baseline(had, time, tabular @ coefficients))


def baseline_record(baseline: Baseline) -> dict[str, Any]:
    """A baseline as plain lists, for a JSON file."""
    return {"time": baseline.time.tolist(), "log_hazard": baseline.log_hazard.tolist(), "last": baseline.last}


def read_baseline(record: dict[str, Any]) -> Baseline:
    """A baseline from `baseline_record`."""
    return Baseline(np.array(record["time"]), np.array(record["log_hazard"]), record["last"])


def read_competing(record: dict[str, Any]) -> CompetingHazard:
    """The hazard from `CompetingHazard.as_record`."""
    return CompetingHazard(np.array(record["coefficients"]), read_baseline(record["baseline"]))


def probability_method(cohort: Cohort) -> str:
    """What predicted probabilities are, and by what they are computed."""
    if cohort.has_competing:
        return (
            f"absolute risks, since {cohort.competing_event} may come first, by Breslow's baselines of both hazards"
        )
    return "probabilities by Breslow's baseline"
