"""Cox proportional hazards on the clinical factors, by scikit-survival."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

RIDGE = 0.1


@dataclass(frozen=True)
class CoxFit:
    """Log hazard ratios (p,) float64, per SD for continuous covariates; 0 where a covariate was constant."""

    coefficients: np.ndarray
    note: str

    def risk(self, tabular: np.ndarray) -> np.ndarray:
        """Log hazards (n,) of covariates (n, p), higher = riskier."""
        return tabular.astype(float) @ self.coefficients


def fit_cox(tabular: np.ndarray, event: np.ndarray, time: np.ndarray) -> CoxFit:
    """Fit Cox PH (Efron ties, no penalty) to covariates (n, p).

    A covariate that is constant among these patients is left out. Where the likelihood has no maximum (a rare
    factor that separates the events), a small ridge penalty is put in and `note` says so.
    """
    outcome = Surv.from_arrays(event, time)
    varies = np.ptp(tabular, axis=0) > 0
    notes = [] if varies.all() else [f"{int((~varies).sum())} constant covariates left out"]
    values = tabular[:, varies].astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = CoxPHSurvivalAnalysis(ties="efron").fit(values, outcome)
            if np.abs(model.coef_ * values.std(axis=0)).max() > 10:
                raise ValueError("the likelihood runs away")
        except (ValueError, ArithmeticError, RuntimeWarning, UserWarning, np.linalg.LinAlgError):
            warnings.simplefilter("ignore")
            model = CoxPHSurvivalAnalysis(ties="efron", alpha=RIDGE).fit(values, outcome)
            notes.append(f"no maximum of the likelihood; ridge penalty {RIDGE:g}")
    coefficients = np.zeros(tabular.shape[1])
    coefficients[varies] = model.coef_
    return CoxFit(coefficients, "; ".join(notes))
