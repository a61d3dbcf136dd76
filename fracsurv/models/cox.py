"""Cox proportional hazards on the clinical factors, by scikit-survival."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

RIDGE = 0.1
"""Of a penalised coefficient: per SD, of a covariate of two values from one to the other."""
DEPENDENT = 1e-6  # share of a covariate's length, without earlier ones, below which it is their linear combination
SPREAD = 1e-12  # share of a covariate's size below which its range is rounding errors
RUNAWAY = 10.0  # log hazard ratio over a covariate's whole range above which the likelihood seems to have no maximum


@dataclass(frozen=True)
class CoxFit:
    """Log hazard ratios (p,) float64, of one unit of each covariate; columns left out or penalised, by number.

    `alpha` (p,) holds the penalties, as scikit-survival takes them.
    """

    coefficients: np.ndarray
    constant: tuple[int, ...]
    repeated: tuple[int, ...]
    penalised: tuple[int, ...]
    alpha: np.ndarray

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
    """Fit Cox PH (Efron ties) to covariates (n, p), without a penalty unless a coefficient runs away (`RUNAWAY`).

    A covariate that is constant, or a linear combination of earlier ones, among those at risk at the first event is
    left out (coefficient 0), as R's `coxph` does. One that separates the events (a rare factor whose few carriers all
    were, or all were not, censored) has no finite estimate; it alone gets a ridge penalty of `RIDGE`, or more where
    Newton's method needs it. The origin and scale of a covariate change its own coefficient alone.
    """
    outcome, tabular = Surv.from_arrays(event, time), tabular.astype(float)
    at_risk = tabular[time >= time[event].min()]  # nobody is compared with those who left before the first event
    constant = is_constant(at_risk)
    repeated = _repeated(at_risk, constant)
    numbers = np.flatnonzero(~constant & ~repeated)
    values, unit, ridge = _in_own_units(tabular[:, numbers])
    found = penalty = np.zeros(values.shape[1])
    for _ in range(values.shape[1] + 9):
        found = _newton(values, outcome, penalty)
        reach = np.abs(found if np.isfinite(found).all() else _tamed(values, outcome, ridge)) * np.ptp(values, axis=0)
        runaway = (reach > RUNAWAY) & (penalty == 0)
        if not runaway.any():
            if np.isfinite(found).all():
                break
            harder = (penalty > 0) & (penalty < 1000 * ridge)
            runaway = harder | ~harder.any()
        penalty = np.where(runaway, np.maximum(ridge, 10 * penalty), penalty)
    coefficients, alpha = np.zeros((2, tabular.shape[1]))
    coefficients[numbers], alpha[numbers] = np.nan_to_num(found, posinf=0.0) / unit, penalty * unit**2
    which = (tuple(np.flatnonzero(each).tolist()) for each in (constant, repeated, alpha))
    return CoxFit(coefficients, *which, alpha)


def is_constant(values: np.ndarray) -> np.ndarray:
    """Which columns of (n, p) hold one value, but for rounding errors; (p,) bool."""
    return np.ptp(values, axis=0) <= SPREAD * np.abs(values).max(axis=0)


def _in_own_units(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns (n, p) that Newton's method can take, their units (p,), and the penalty of each in them (p,).

    Two values become 0 and 1; what lies far from 0 or has an SD far from 1 is moved and divided by a power of two.
    All other columns, such as standardised ones, stay as they are to the last bit.
    """
    low, high, sd = values.min(axis=0), values.max(axis=0), values.std(axis=0)
    two = ((values == low) | (values == high)).all(axis=0)
    unit = np.where(two, high - low, 64.0 ** np.round(np.log2(sd) / 6))
    origin = np.where(two, low, 8 * unit * np.round(values.mean(axis=0) / (8 * unit)))
    return (values - origin) / unit, unit, RIDGE * np.where(two, 1.0, sd / unit).round(6) ** 2


def _repeated(values: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Which columns of (n, p) vary and are linear combinations of a constant and earlier columns; (p,) bool."""
    centred = values - values.mean(axis=0)
    repeated = np.zeros(values.shape[1], bool)
    basis = np.zeros((len(values), 0))
    for column in np.flatnonzero(~constant):
        rest = centred[:, column] / np.linalg.norm(centred[:, column])
        for _ in range(2):  # once leaves rounding errors
            rest = rest - basis @ (basis.T @ rest)
        repeated[column] = np.linalg.norm(rest) < DEPENDENT
        if not repeated[column]:
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    return repeated


def _tamed(values: np.ndarray, outcome: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Coefficients with all covariates penalised, as hard as Newton's method needs it: which one runs away?"""
    tries = (_newton(values, outcome, ridge * 10.0**power) for power in range(6))
    return next((found for found in tries if np.isfinite(found).all()), np.zeros(values.shape[1]))


def _newton(values: np.ndarray, outcome: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients of scikit-survival's fit; where it breaks down, infinite."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "overflow")  # of a step that is halved
        try:
            found = CoxPHSurvivalAnalysis(ties="efron", alpha=penalty).fit(values, outcome).coef_
            return found if np.isfinite(found).all() else np.full(values.shape[1], np.inf)
        except (ValueError, ArithmeticError, RuntimeWarning, UserWarning, np.linalg.LinAlgError):
            return np.full(values.shape[1], np.inf)
