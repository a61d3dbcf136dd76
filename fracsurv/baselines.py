"""Cox proportional hazards on the clinical factors, by scikit-survival."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

RIDGE = 0.1
RUNAWAY = 10.0
"""A log hazard ratio over a covariate's whole range beyond which the likelihood is taken to have no maximum."""


@dataclass(frozen=True)
class CoxFit:
    """Log hazard ratios (p,) float64, per SD for continuous covariates; what was left out or penalised, by number."""

    coefficients: np.ndarray
    constant: tuple[int, ...]
    penalised: tuple[int, ...]

    def risk(self, tabular: np.ndarray) -> np.ndarray:
        """Log hazards (n,) of covariates (n, p), higher = riskier."""
        return tabular.astype(float) @ self.coefficients

    def note(self, names: list[str]) -> str:
        """What a reader of the coefficients must know; empty where nothing was done to any."""
        parts = [
            f"{what}: {', '.join(names[i] for i in which)}"
            for what, which in (("constant, left out", self.constant), ("penalised", self.penalised))
            if which
        ]
        return "; ".join(parts)


def fit_cox(tabular: np.ndarray, event: np.ndarray, time: np.ndarray) -> CoxFit:
    """Fit Cox PH (Efron ties) to covariates (n, p), without a penalty wherever the likelihood has a maximum.

    A covariate that is constant among these patients is left out (coefficient 0). One that separates the events
    (a rare factor whose few carriers all were, or all were not, censored) has no finite estimate: it gets a ridge
    penalty of `RIDGE`, it alone.
    """
    outcome = Surv.from_arrays(event, time)
    varies = np.ptp(tabular, axis=0) > 0
    values = tabular[:, varies].astype(float)
    penalty = np.zeros(values.shape[1])
    for _ in range(values.shape[1] + 1):
        found = _newton(values, outcome, penalty)
        runaway = (np.abs(found) * np.ptp(values, axis=0) > RUNAWAY) & (penalty == 0)
        if not runaway.any():
            break
        penalty[runaway] = RIDGE
    coefficients = np.zeros(tabular.shape[1])
    coefficients[varies] = found
    numbers = np.flatnonzero(varies)
    return CoxFit(coefficients, tuple(np.flatnonzero(~varies).tolist()), tuple(numbers[penalty > 0].tolist()))


def _newton(values: np.ndarray, outcome: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients of scikit-survival's fit; of every unpenalised one infinite where it breaks down."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return CoxPHSurvivalAnalysis(ties="efron", alpha=penalty).fit(values, outcome).coef_
        except (ValueError, ArithmeticError, RuntimeWarning, UserWarning, np.linalg.LinAlgError):
            return np.where(penalty == 0, np.inf, 0.0)
