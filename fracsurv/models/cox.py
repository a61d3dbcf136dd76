"""Cox proportional hazards on the clinical factors, by scikit-survival."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

RIDGE = 0.1
DEPENDENT = 1e-6  # share of a covariate's length, without earlier ones, below which it is their linear combination
RUNAWAY = 10.0  # log hazard ratio over a covariate's whole range above which the likelihood seems to have no maximum


@dataclass(frozen=True)
class CoxFit:
    """Log hazard ratios (p,) float64, per SD for continuous covariates; columns left out or penalised, by number."""

    coefficients: np.ndarray
    constant: tuple[int, ...]
    repeated: tuple[int, ...]
    penalised: tuple[int, ...]

    def risk(self, tabular: np.ndarray) -> np.ndarray:
        """Log hazards (n,) of covariates (n, p), higher = riskier."""
        return tabular.astype(float) @ self.coefficients

    def note(self, names: list[str]) -> str:
        """Which covariates were left out or penalised, in words; empty if none was."""
        kinds = {
            "constant, left out": self.constant,
            "linear combination of earlier ones, left out": self.repeated,
            "penalised": self.penalised,
        }
        return "; ".join(f"{what}: {', '.join(names[i] for i in which)}" for what, which in kinds.items() if which)


def fit_cox(tabular: np.ndarray, event: np.ndarray, time: np.ndarray) -> CoxFit:
    """Fit Cox PH (Efron ties) to covariates (n, p), without a penalty wherever the likelihood has a maximum.

    A covariate that is constant, or a linear combination of earlier ones, is left out (coefficient 0), as R's `coxph`
    does. One that separates the events (a rare factor whose few carriers all were, or all were not, censored) has no
    finite estimate; it alone gets a ridge penalty of `RIDGE`.
    """
    outcome = Surv.from_arrays(event, time)
    constant = np.ptp(tabular, axis=0) == 0
    repeated = _repeated(tabular.astype(float))
    numbers = np.flatnonzero(~constant & ~repeated)
    values = tabular[:, numbers].astype(float)
    penalty = np.zeros(values.shape[1])
    for _ in range(values.shape[1] + 1):
        found = _newton(values, outcome, penalty)
        runaway = (np.abs(found) * np.ptp(values, axis=0) > RUNAWAY) & (penalty == 0)
        if not runaway.any():
            break
        penalty[runaway] = RIDGE
    coefficients = np.zeros(tabular.shape[1])
    coefficients[numbers] = found
    left_out = (tuple(np.flatnonzero(which).tolist()) for which in (constant, repeated))
    return CoxFit(coefficients, *left_out, tuple(numbers[penalty > 0].tolist()))


def _repeated(values: np.ndarray) -> np.ndarray:
    """Which columns of (n, p) are linear combinations of a constant and earlier columns, and vary; (p,) bool."""
    centred = values - values.mean(axis=0)
    repeated = np.zeros(values.shape[1], bool)
    basis = np.zeros((len(values), 0))
    for column in np.flatnonzero(np.ptp(values, axis=0)):
        rest = centred[:, column] / np.linalg.norm(centred[:, column])
        for _ in range(2):  # once leaves rounding errors
            rest = rest - basis @ (basis.T @ rest)
        repeated[column] = np.linalg.norm(rest) < DEPENDENT
        if not repeated[column]:
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    return repeated


def _newton(values: np.ndarray, outcome: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients of scikit-survival's fit; where it breaks down, infinite for every unpenalised covariate."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return CoxPHSurvivalAnalysis(ties="efron", alpha=penalty).fit(values, outcome).coef_
        except (ValueError, ArithmeticError, RuntimeWarning, UserWarning, np.linalg.LinAlgError):
            return np.where(penalty == 0, np.inf, 0.0)
