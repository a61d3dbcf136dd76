"""Calibration as a curve, without groups."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import check_outcome, check_time
from fracsurv.metrics.clinical import _LEAST, _check_probability
from fracsurv.metrics.competing import predicted_survival

KNOTS = (0.1, 0.5, 0.9)
"""Quantiles of the predictions at which the spline bends: Harrell's for three knots."""
SHOWN = (0.01, 0.99)
"""The curve is drawn between these quantiles of the predictions: beyond them few patients bear it."""


@dataclass(frozen=True, eq=False)
class SmoothCalibration:
    """A calibration curve at a horizon.

    Attributes
    ----------
    predicted, observed : arrays, shape (50,)
        Probabilities from the 1st to the 99th percentile of the predictions, and what was observed there.
    ici, e50, e90 : float
        Mean, median and 90th percentile, over the patients, of |prediction − what was observed at it|.
    """

    predicted: NDArray
    observed: NDArray
    ici: float
    e50: float
    e90: float


def smooth_calibration(event: ArrayLike, time: ArrayLike, probability: ArrayLike, at: float) -> SmoothCalibration:
    """Observed probability of the event by `at` as a smooth function of the predicted one (Austin et al. 2020).

    A Cox model (Efron's ties, Breslow's baseline) of a restricted cubic spline with three knots of log(−log(1 − p)),
    its probability at `at` being what was observed. It uses all follow-up, and takes hazards at different predictions
    to be proportional; `calibration` does neither. With competing events (2), a second such model is fitted to their
    hazard, and the two give the probability (`absolute_risk`).

    Parameters
    ----------
    event, time, probability, at
        As for `calibration`.

    Returns
    -------
    SmoothCalibration
        NaN throughout where no curve can be fitted: no event, follow-up that ends before `at`, or predictions too
        alike for three knots.
    """
    event, time = check_outcome(event, time)
    probability, at = _check_probability(probability, len(time)), check_time(at, "at", above=0)
    shown = np.linspace(*np.quantile(probability, SHOWN), 50)
    x = _log_log(probability)
    knots = np.quantile(x, KNOTS)
    nothing = SmoothCalibration(shown, np.full(50, np.nan), np.nan, np.nan, np.nan)
    if not (event == 1).any() or at > time.max() or (np.diff(knots) <= 1e-9).any():
        return nothing
    basis = _restricted_cubic(x, knots)
    mean, sd = basis.mean(axis=0), basis.std(axis=0)
    both = np.concatenate([basis, _restricted_cubic(_log_log(shown), knots)])
    risks = []
    for cause in (1, 2) if (event == 2).any() else (1,):
        coefficients = _cox(event == cause, time, (basis - mean) / sd)
        if coefficients is None:
            return nothing
        risks.append(((both - mean) / sd) @ coefficients)
    known, other = len(time), None if len(risks) == 1 else (risks[1][: len(time)], risks[1])
    observed = 1 - predicted_survival(event, time, risks[0][:known], risks[0], [at], other)[:, 0]
    gap = np.abs(probability - observed[: len(time)])
    return SmoothCalibration(shown, observed[len(time) :], gap.mean(), np.median(gap), np.quantile(gap, 0.9))


def _cox(event: NDArray, time: NDArray, covariates: NDArray) -> NDArray | None:
    from sksurv.linear_model import CoxPHSurvivalAnalysis  # takes a second, and most users of metrics need none

    outcome = np.array(list(zip(event, time, strict=True)), dtype=[("event", bool), ("time", float)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what does not converge is no curve
        try:
            return CoxPHSurvivalAnalysis(ties="efron", tol=1e-12).fit(covariates, outcome).coef_
        except (ArithmeticError, Warning, ValueError, np.linalg.LinAlgError):
            return None


def _log_log(probability: NDArray) -> NDArray:
    return np.log(-np.log1p(-probability.clip(_LEAST, 1 - _LEAST)))


def _restricted_cubic(x: NDArray, knots: NDArray) -> NDArray:
    """Cubic between three knots, linear outside: x itself and one bent column, shape (n, 2)."""
    first, middle, last = (np.maximum(x - knot, 0.0) ** 3 for knot in knots)
    low, mid, high = knots
    bent = first - middle * (high - low) / (high - mid) + last * (mid - low) / (high - mid)
    return np.stack([x, bent / (high - low) ** 2], axis=1)
