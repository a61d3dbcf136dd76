"""Calibration: predicted against observed probability at a horizon, and expected against observed events."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from fracsurv.metrics import _checks as check
from fracsurv.metrics.censoring import censoring_survival
from fracsurv.metrics.competing import NORMAL_97_5, event_share, predicted_survival

_SMALLEST = 1e-9  # probabilities nearer to 0 or 1 count as that far away: the logit of 0 is not a number
KNOTS = (0.1, 0.5, 0.9)  # quantiles of the predictions at which the spline bends: Harrell's for three knots
SHOWN = (0.01, 0.99)  # the curve is given between these quantiles; beyond them there are few patients


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration at a horizon; the arrays hold a value a group, by rising prediction."""

    n: NDArray  # patients
    predicted: NDArray  # mean predicted probability
    observed: NDArray  # 1 − Kaplan–Meier at the horizon, with competing events the cumulative incidence
    low: NDArray  # of the 95 % interval of `observed`
    high: NDArray
    mean_predicted: float  # over all patients
    mean_observed: float
    intercept: float  # log odds to add to every prediction; 0 = right, above 0 = predictions too low
    slope: float  # factor for the predictions' log odds; 1 = right, below 1 = too extreme (over-fitted)

    @property
    def ratio(self) -> float:
        """Observed over expected, 1 for a model that is right on average; NaN where nothing was expected."""
        return self.mean_observed / self.mean_predicted if self.mean_predicted else np.nan


def calibration(
    event: ArrayLike, time: ArrayLike, probability: ArrayLike, at: float, *, n_groups: int | None = None
) -> Calibration:
    """Predicted against observed probability of the event by a time, censoring taken into account.

    Intercept and slope are those of a logistic regression of "event by `at`" on the log odds of the prediction
    (clipped to [1e-9, 1 − 1e-9]; an offset for the intercept), among the patients whose status at `at` is known.
    Weights are 1 / P(uncensored until just before the event or the horizon), by these patients' own Kaplan–Meier
    estimate of censoring. With them the share of events is exactly 1 − Kaplan–Meier, ties or not. A patient censored
    at `at` itself is known to be free of the event here; `cumulative_dynamic_auc` and `brier_score` count only those
    followed beyond it.

    Censoring must be independent of the event, for the regression also of the prediction: if patients at high risk
    are followed for a shorter time, the slope is biased and the groups are not. With deaths as censoring (0),
    "observed" is the risk if nobody died of another cause. With deaths as 2, a competing event, it is
    `cumulative_incidence`, and the dead are in the regression as free of the event.

    `n_groups` are groups of equal size by prediction, fewer where equal predictions do not allow it; by default one
    for every 20 events by `at`, from 2 to 10. Intervals are log–log Greenwood ones; where nobody or everybody in a
    group has had the event, Clopper and Pearson's exact ones, for as many patients as are still at risk, or as have
    had the event. Observed values and bounds are NaN where follow-up ends before `at` with somebody free of the
    event. Intercept and slope are NaN unless some patients are known to have had the event and some to be free of it;
    the slope also if all predictions are equal or separate the two.

    >>> found = calibration([1, 0, 1, 0], [1.0, 5.0, 2.0, 6.0], [0.2, 0.2, 0.4, 0.4], at=3.0, n_groups=1)
    >>> found.mean_observed, round(found.intercept, 3)
    (0.5, 0.896)
    """
    event, time = check.outcome(event, time)
    probability, at = check.probability(probability, len(time)), check.time(at, "at", above=0)
    if n_groups is None:
        n_groups = int(np.clip(((event == 1) & (time <= at)).sum() // 20, 2, 10))
    groups = _groups(probability, check.whole(n_groups, "n_groups", 1))
    n, predicted = (np.array([of(probability[group]) for group in groups]) for of in (len, np.mean))
    columns = np.array([event_share(event[group], time[group], at) for group in groups]).T
    mean_observed = event_share(event, time, at)[0]
    weak = _logistic(event, time, probability, at)
    return Calibration(n, predicted, *columns, float(probability.mean()), mean_observed, *weak)


def _groups(probability: NDArray, n_groups: int) -> list[NDArray]:
    """Row numbers of about equal groups by rising prediction; equal predictions are in one group."""
    order = np.argsort(probability, kind="stable")
    sorted_ = probability[order]
    wanted = np.round(np.arange(1, n_groups) * len(order) / n_groups).astype(int).clip(1)
    ends = np.unique(np.searchsorted(sorted_, sorted_[wanted - 1], side="right"))
    return [group for group in np.split(order, ends) if len(group)]


def _logistic(event: NDArray, time: NDArray, probability: NDArray, at: float) -> tuple[float, float]:
    """Intercept at slope 1, and slope, by maximum likelihood weighted for censoring."""
    known = (event > 0) | (time >= at)
    # an event and a censoring at one time: the event comes first, so its weight is 1 / G just before it
    weight = 1.0 / censoring_survival(event, time, np.minimum(time, at), just_before=True)[known]
    y = ((event == 1) & (time <= at))[known].astype(float)
    x = probability[known].clip(_SMALLEST, 1 - _SMALLEST)
    x = np.log(x / (1 - x))
    if not (y.any() and (1 - y).any()):
        return np.nan, np.nan
    reach = np.abs(x).max() + 40.0  # beyond this every probability is 0 or 1
    intercept = brentq(lambda shift: weight @ (y - expit(x + shift)), -reach, reach, xtol=1e-13)
    events, free = x[y == 1], x[y == 0]
    separated = events.min() >= free.max() or events.max() <= free.min()
    slope = np.nan if separated else _slope(x - np.average(x, weights=weight), y, weight)
    return float(intercept), float(slope)


def _slope(x: NDArray, y: NDArray, weight: NDArray) -> float:
    """Slope of a weighted logistic regression by Newton's method with short steps; NaN where it does not converge."""
    design, beta = np.stack([np.ones(len(x)), x], axis=1), np.zeros(2)
    scale = weight @ np.abs(design)
    for _ in range(500):
        p = expit(design @ beta)
        score = design.T @ (weight * (y - p))
        if (np.abs(score) <= 1e-12 * scale).all():
            return float(beta[1])
        information = design.T @ (design * (weight * p * (1 - p))[:, None])
        step = np.linalg.lstsq(information, score)[0]
        beta = beta + step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-300))
    return np.nan


@dataclass(frozen=True, eq=False)
class SmoothCalibration:
    """A calibration curve at a horizon, and how far predictions are from it."""

    predicted: NDArray  # 50 probabilities from the 1st to the 99th percentile of the predictions
    observed: NDArray  # (50,), the probability observed there
    ici: float  # mean, median and 90th percentile, over the patients, of |prediction − what was observed at it|
    e50: float
    e90: float


def smooth_calibration(event: ArrayLike, time: ArrayLike, probability: ArrayLike, at: float) -> SmoothCalibration:
    """Observed probability of the event by `at` as a smooth function of the predicted one (Austin et al. 2020).

    "Observed" is the probability by `at` of a Cox model (Efron's ties, Breslow's baseline) of log(−log(1 − p)), as a
    restricted cubic spline with three knots. It uses all follow-up and assumes proportional hazards; `calibration`
    does neither. With competing events (2), a second such model is fitted to their hazard, and the two give
    `absolute_risk`. NaN throughout where no curve can be fitted: no event, follow-up that ends before `at`, or
    predictions too similar for three knots.
    """
    event, time = check.outcome(event, time)
    probability, at = check.probability(probability, len(time)), check.time(at, "at", above=0)
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
    from sksurv.linear_model import CoxPHSurvivalAnalysis  # its import takes a second

    outcome = np.array(list(zip(event, time, strict=True)), dtype=[("event", bool), ("time", float)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what does not converge is no curve
        try:
            return CoxPHSurvivalAnalysis(ties="efron", tol=1e-12).fit(covariates, outcome).coef_
        except (ArithmeticError, Warning, ValueError, np.linalg.LinAlgError):
            return None


def _log_log(probability: NDArray) -> NDArray:
    return np.log(-np.log1p(-probability.clip(_SMALLEST, 1 - _SMALLEST)))


def _restricted_cubic(x: NDArray, knots: NDArray) -> NDArray:
    """Cubic between three knots, linear outside: x itself and one bent column, shape (n, 2)."""
    first, middle, last = (np.maximum(x - knot, 0.0) ** 3 for knot in knots)
    low, mid, high = knots
    bent = first - middle * (high - low) / (high - mid) + last * (mid - low) / (high - mid)
    return np.stack([x, bent / (high - low) ** 2], axis=1)


class Estimate(NamedTuple):
    """A value and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


NO_ESTIMATE = Estimate(np.nan, np.nan, np.nan)


def events_ratio(event: ArrayLike, expected: ArrayLike) -> Estimate:
    r"""Observed over expected events over all follow-up, :math:`\sum_i \delta_i / \sum_i \hat H_i(t_i)`.

    1 = right, above 1 = the model expects too few: calibration in the large without a horizon. `expected` (n,) is
    each patient's predicted cumulative hazard until the end of the own follow-up, >= 0. The interval is that of a
    Poisson regression with the expected number as its offset, :math:`\exp(\log(O/E) \pm 1.96/\sqrt O)` (Crowson et
    al. 2016), without an observed event the exact one, from 0 to :math:`-\log(0.025) / E`. NaN without an expected
    event.

    >>> [round(float(each), 3) for each in events_ratio([1, 1, 0, 0], [0.5, 0.25, 0.25, 1.0])]
    [1.0, 0.25, 3.998]
    """
    expected = check.without_noise(check.finite(expected, "expected"))
    event, _ = check.survival(event, np.ones(len(expected)))
    if (expected < 0).any():
        raise ValueError(f"expected must be >= 0, got {expected.min()}")
    n, total = int(event.sum()), float(expected.sum())
    if total == 0:
        return NO_ESTIMATE
    if n == 0:
        return Estimate(0.0, 0.0, float(-np.log(0.025) / total))
    width = np.exp(NORMAL_97_5 / np.sqrt(n))
    return Estimate(n / total, n / total / width, n / total * width)


def cox_slope(event: ArrayLike, time: ArrayLike, risk: ArrayLike) -> Estimate:
    """Calibration slope over all follow-up: the coefficient of a Cox regression on the predicted log hazard.

    Efron's ties, Wald's interval (lifelines). 1 = right, below 1 = too extreme (over-fitted), 0 = uninformative. NaN
    without an event, with equal risks, and where the regression does not converge.
    """
    event, time = check.survival(event, time)
    risk = check.risk(risk, len(time))
    if not event.any() or np.ptp(risk) == 0:
        return NO_ESTIMATE
    from lifelines import CoxPHFitter  # its import takes a second
    from lifelines.exceptions import ConvergenceError

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what does not converge is no slope
        try:
            # scaled, since lifelines warns of little variance, which a hardly trained model's risks may have
            table = pd.DataFrame({"risk": (risk - risk.mean()) / risk.std(), "time": time, "event": event})
            fitted = CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-12})
        except (ConvergenceError, Warning, ArithmeticError, np.linalg.LinAlgError):
            return NO_ESTIMATE
    slope, error = (float(each["risk"] / risk.std()) for each in (fitted.params_, fitted.standard_errors_))
    return Estimate(slope, slope - NORMAL_97_5 * error, slope + NORMAL_97_5 * error)
