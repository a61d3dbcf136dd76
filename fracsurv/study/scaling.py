"""Covariates as a model takes them: imputed, standardised, with what training patients alone decided."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from fracsurv.cohort.cohort import Cohort
from fracsurv.cohort.covariates import MISSING, constant_indicators
from fracsurv.models.cox import is_constant
from fracsurv.vertebrae.covariates import vertebral_covariates


@dataclass(frozen=True)
class Scaling:
    """What is done to a cohort's covariates; `fit_scaling` finds it on the training part of a fold.

    Attributes
    ----------
    kinds : dict of str to str
        Covariates, in the order in which the model takes them, and their kinds.
    fill_values, mean, sd : list of float, one a covariate
        What is put in the place of a missing value, and, of continuous ones, what is subtracted (`mean`)
        and divided by (`sd`); 0 and 1 for the others.
    indicators : list of str
        Columns of 0 and 1 that follow, which say where a covariate is not known.
    constant : list of str
        Indicators and continuous covariates that were constant in the training patients: 0 for everybody.
    block_mean, block_sd : list of float
        Of the vertebral covariates that follow those; empty for a model without them.
    """

    kinds: dict[str, str]
    fill_values: list[float]
    mean: list[float]
    sd: list[float]
    indicators: list[str]
    constant: list[str]
    block_mean: list[float]
    block_sd: list[float]

    @property
    def informative(self) -> list[str]:
        """The indicators in which training patients differ."""
        return [name for name in self.indicators if name not in self.constant]

    def __call__(self, cohort: Cohort) -> np.ndarray:
        """Covariates (n, p) float32 of a cohort that has these covariates."""
        values = cohort.table[list(self.kinds)].to_numpy(float)
        unknown = np.isnan(values)
        values = np.where(unknown, self.fill_values, values)
        values = (values - self.mean) / self.sd * ~np.isin(list(self.kinds), self.constant)
        indicated = [list(self.kinds).index(name.removesuffix(MISSING)) for name in self.indicators]
        values = np.hstack([values, unknown[:, indicated] & np.isin(self.indicators, self.informative)])
        if self.block_mean:
            block = (vertebral_covariates(cohort) - self.block_mean) / self.block_sd
            values = np.hstack([values, np.nan_to_num(block)])
        return values.astype(np.float32)

    def as_record(self) -> dict[str, Any]:
        """Plain lists, for a JSON file."""
        return asdict(self)


def fit_scaling(cohort: Cohort, train: np.ndarray, *, morphometry: bool = False) -> Scaling:
    """Medians, means and standard deviations of the rows `train` alone.

    A covariate that is not known has their median (binary: their most frequent value); `Cohort.indicators` say of
    whom it is not, unless no training patient, or every one, is among them. With `morphometry` the block of
    `vertebral_covariates` follows, standardised likewise; a patient whose vertebrae could not be measured gets the
    training patients' mean.
    """
    kinds = dict(cohort.covariates)
    values = cohort.table[list(kinds)].to_numpy(float)[train]
    fill_values = [_fill_value(values[:, column], kind) for column, kind in enumerate(kinds.values())]
    values = np.where(np.isnan(values), fill_values, values)
    continuous = np.array([kind == "continuous" for kind in kinds.values()])
    scaler = StandardScaler().fit(values)
    constant = continuous & is_constant(values)
    block = StandardScaler().fit(vertebral_covariates(cohort)[train]) if morphometry else None
    return Scaling(
        kinds,
        fill_values,
        np.where(continuous, scaler.mean_, 0.0).tolist(),
        np.where(continuous, scaler.scale_, 1.0).tolist(),
        cohort.indicators,
        [
            *constant_indicators(cohort.table.iloc[train], cohort.indicators),
            *np.array(list(kinds))[constant].tolist(),
        ],
        block.mean_.tolist() if block else [],
        block.scale_.tolist() if block else [],
    )


def standardise(cohort: Cohort, train: np.ndarray, *, morphometry: bool = False) -> np.ndarray:
    """Covariates (n, p) float32; continuous ones have mean 0 and SD 1 over the rows `train`; see `fit_scaling`."""
    return fit_scaling(cohort, train, morphometry=morphometry)(cohort)


def _fill_value(values: np.ndarray, kind: str) -> float:
    """A value to stand in for one that is not known; 0 where none is known."""
    known = values[~np.isnan(values)]
    if not known.size:
        return 0.0
    return float(known.mean() > 0.5) if kind == "binary" else float(np.median(known))
