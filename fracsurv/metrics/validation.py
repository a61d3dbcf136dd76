"""Do models hold in other patients: discrimination, agreement of expected with observed events, and net benefit, all
from one set of bootstrap draws of these patients."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import (
    check_finite,
    check_risk,
    check_survival,
    check_times,
)
from fracsurv.metrics.auc import mean_auc_of_draws, survival_of_draws
from fracsurv.metrics.brier import integrate
from fracsurv.metrics.censoring import inverse_censoring_weights
from fracsurv.metrics.clinical import net_benefit
from fracsurv.metrics.comparison import bootstrap
from fracsurv.metrics.competing import NORMAL_97_5
from fracsurv.metrics.resampling import draw_chunks

Key = tuple[str, str, float | None, float | None]
"""Model, metric, horizon, threshold."""


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


class Drawn(NamedTuple):
    """A value and the same in every bootstrap draw, shape (n_draws,)."""

    value: float
    draws: NDArray


def events_ratio(event: ArrayLike, expected: ArrayLike) -> Estimate:
    r"""Observed events over expected ones, over all follow-up: calibration in the large without a horizon.

    .. math:: \sum_i \delta_i \Big/ \sum_i \hat H_i(t_i)

    The interval is that of a Poisson regression with the expected number as its offset, :math:`\exp(\log(O/E) \pm
    1.96/\sqrt O)` (Crowson et al. 2016).

    Parameters
    ----------
    event : array, shape (n,)
        True where the event was observed.
    expected : array, shape (n,)
        Each patient's predicted cumulative hazard until the end of her own follow-up, >= 0.

    Returns
    -------
    Estimate
        1 = right, above 1 = the model expects too few. NaN without an expected event; the interval also without an
        observed one.

    Raises
    ------
    ValueError
        For unequal lengths, and expected numbers that are negative or not finite.

    Examples
    --------
    >>> [round(each, 3) for each in events_ratio([1, 1, 0, 0], [0.5, 0.25, 0.25, 1.0])]
    [1.0, 0.25, 3.998]
    """
    expected = check_finite(expected, "expected")
    event, _ = check_survival(event, np.ones(len(expected)))
    if (expected < 0).any():
        raise ValueError(f"expected must be >= 0, got {expected.min()}")
    n, total = int(event.sum()), float(expected.sum())
    if total == 0:
        return Estimate(np.nan, np.nan, np.nan)
    if n == 0:
        return Estimate(0.0, np.nan, np.nan)
    width = np.exp(NORMAL_97_5 / np.sqrt(n))
    return Estimate(n / total, n / total / width, n / total * width)


def cox_slope(event: ArrayLike, time: ArrayLike, risk: ArrayLike) -> Estimate:
    """Calibration slope over all follow-up: the coefficient of a Cox regression on the predicted log hazard.

    Efron's ties, Wald's interval (lifelines).

    Parameters
    ----------
    event, time : arrays, shape (n,)
        True where the event was observed; time >= 0, in any one unit.
    risk : array, shape (n,)
        Log hazards, higher = riskier.

    Returns
    -------
    Estimate
        1 = right, below 1 = too extreme (over-fitted), 0 = of no use. NaN where it cannot be told: no event, equal
        risks, risks that separate events from the others.

    Raises
    ------
    ValueError
        For unequal lengths, negative times, values that are not finite.
    """
    event, time = check_survival(event, time)
    risk = check_risk(risk, len(time))
    nothing = Estimate(np.nan, np.nan, np.nan)
    if not event.any() or np.ptp(risk) == 0:
        return nothing
    from lifelines import CoxPHFitter  # takes a second, and most users of metrics need none
    from lifelines.exceptions import ConvergenceError

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what does not converge is no slope
        try:
            # scaled, since lifelines warns of little variance, which a hardly trained model's risks may have
            table = pd.DataFrame({"risk": (risk - risk.mean()) / risk.std(), "time": time, "event": event})
            fitted = CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-12})
        except (ConvergenceError, Warning, ArithmeticError, np.linalg.LinAlgError):
            return nothing
    slope, error = (float(each["risk"] / risk.std()) for each in (fitted.params_, fitted.standard_errors_))
    return Estimate(slope, slope - NORMAL_97_5 * error, slope + NORMAL_97_5 * error)


def validation_metrics(
    event: ArrayLike,
    time: ArrayLike,
    risks: Mapping[str, ArrayLike],
    surv: Mapping[str, ArrayLike],
    times: ArrayLike,
    *,
    horizons: Sequence[float],
    grid: Sequence[float],
    thresholds: Sequence[float] = (),
    n_draws: int,
    seed: int,
) -> dict[Key, Drawn]:
    """Metrics of several models in patients whom none was fitted on, each with its bootstrap draws.

    The censoring distribution that weights C, AUC and Brier scores is that of these patients; it, models and
    probabilities stay the same in all draws. The Kaplan–Meier estimates that predictions are held against are each
    draw's own.

    Parameters
    ----------
    event, time : arrays, shape (n,)
        True where the event was observed; time >= 0.
    risks : mapping of str to array, shape (n,)
        Log hazards of the models whose discrimination is asked for, higher = riskier.
    surv : mapping of str to array, shape (n, n_times)
        Probabilities of no event by each of `times`, of those and of further models.
    times : array, shape (n_times,)
        Increasing; all within these patients' follow-up (`usable_horizons`). Perhaps none.
    horizons, grid : sequences
        Those of `times` at which to report, and over which to integrate.
    thresholds : sequence
        Probabilities from which on to act, for the net benefit.

    Returns
    -------
    dict
        By (model, metric, horizon or None, threshold or None). Of the models in `risks`: 'c_index', 'c_index_ipcw',
        'auc', 'auc_thesis', 'mean_auc'. Of all: 'brier', 'scaled_brier' (1 − Brier score / that of the Kaplan–Meier
        curve given to everybody; Kattan and Gerds 2018), 'integrated_brier', 'integrated_scaled_brier', 'expected'
        (mean predicted probability), 'observed_to_expected' and 'net_benefit'. Of 'everyone', the net benefit of
        acting on all; of 'kaplan_meier', 'observed' and 'brier'.
    """
    event, time = check_survival(event, time)
    times = check_times(times) if len(times) else np.empty(0)
    at, on_grid = np.searchsorted(times, horizons), np.searchsorted(times, grid)
    known = (event, time)
    plain = ["c_index", "c_index_ipcw"]
    asked = plain + [("auc", t) for t in times] + [("auc_thesis", t) for t in horizons]
    ranked = bootstrap(*known, risks, metrics=asked, train=known, n_draws=n_draws, seed=seed)
    acted = {name: 1 - np.asarray(values)[:, at] for name, values in surv.items()}
    acted["everyone"] = np.ones((len(time), len(at)))
    drawn = _drawn_curves(event, time, surv, acted, times, horizons, thresholds, n_draws, seed)
    result: dict[Key, Drawn] = {}
    for m, name in enumerate(ranked.models):
        found = np.vstack([ranked.estimate[m], ranked.draws[:, m]]).T
        result |= {(name, metric, None, None): _of(found[k]) for k, metric in enumerate(plain)}
        auc, thesis = found[len(plain) : len(plain) + len(times)], found[len(plain) + len(times) :]
        for h, k in enumerate(at):
            result[name, "auc", horizons[h], None] = _of(auc[k])
            result[name, "auc_thesis", horizons[h], None] = _of(thesis[h])
        if len(grid):
            result[name, "mean_auc", None, None] = _of(mean_auc_of_draws(auc[on_grid], drawn["survival"][on_grid]))
    if not len(times):
        return result
    anyone = {name: np.zeros(len(time)) for name in surv}  # Brier scores look at no risk
    scores = bootstrap(
        *known, anyone, metrics=[("brier", t) for t in times], surv=surv, train=known, n_draws=n_draws, seed=seed
    )
    null = drawn["null"]
    for h, k in enumerate(at):
        result["kaplan_meier", "observed", horizons[h], None] = _of(1 - drawn["survival"][k])
        result["kaplan_meier", "brier", horizons[h], None] = _of(null[k])
    for m, name in enumerate(scores.models):
        brier = np.vstack([scores.estimate[m], scores.draws[:, m]]).T
        for h, k in enumerate(at):
            result[name, "brier", horizons[h], None] = _of(brier[k])
            result[name, "scaled_brier", horizons[h], None] = _of(1 - _ratio(brier[k], null[k]))
            observed, expected = 1 - drawn["survival"][k], drawn["expected", name][k]
            result[name, "expected", horizons[h], None] = _of(expected)
            result[name, "observed_to_expected", horizons[h], None] = _of(_ratio(observed, expected))
        if len(grid) > 1:
            whole = integrate(brier[on_grid], times[on_grid])
            result[name, "integrated_brier", None, None] = _of(whole)
            scaled = 1 - _ratio(whole, integrate(null[on_grid], times[on_grid]))
            result[name, "integrated_scaled_brier", None, None] = _of(scaled)
    for name, probability in acted.items():
        for h, horizon in enumerate(horizons):
            values = net_benefit(event, time, probability[:, h], horizon, thresholds) if len(thresholds) else []
            for k, threshold in enumerate(thresholds):
                draws = drawn["benefit", name][h, k]
                result[name, "net_benefit", horizon, threshold] = Drawn(float(values[k]), draws)
    return result


def _ratio(above: NDArray, below: NDArray) -> NDArray:
    """NaN where nothing is below, as in a sample in which nobody has had the event."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _of(values: NDArray) -> Drawn:
    return Drawn(float(values[0]), values[1:])


def _drawn_curves(event, time, surv, acted, times, horizons, thresholds, n_draws: int, seed: int) -> dict:
    """What needs the draws themselves; the first column of each array is of the patients as they are."""
    parts: dict = {}
    own, common = inverse_censoring_weights(event, time, time), inverse_censoring_weights(event, time, times)
    case, beyond = event[:, None] & (time[:, None] <= times), time[:, None] > times
    once = np.ones((len(time), 1))
    chunks = [once, *(counts for _, counts in draw_chunks(len(time), n_draws, seed))]
    for number, counts in enumerate(chunks):
        n = counts.sum(axis=0)
        survival = survival_of_draws(event, time, times, counts)
        followed = (time[:, None] >= times).T @ counts > 0
        survival[~followed & (survival > 0)] = np.nan
        early, late = (case * own[:, None]).T @ counts, (beyond * common).T @ counts
        parts.setdefault("survival", []).append(survival)
        parts.setdefault("null", []).append((early * survival**2 + late * (1 - survival) ** 2) / n)
        for name, values in surv.items():
            parts.setdefault(("expected", name), []).append((1 - np.asarray(values)).T @ counts / n)
        for name, probability in acted.items() if number else ():
            benefits = _benefit_of_draws(event, time, probability, horizons, thresholds, counts)
            parts.setdefault(("benefit", name), []).append(benefits)
    return {name: np.concatenate(each, axis=-1) for name, each in parts.items()}


def _benefit_of_draws(event, time, probability, horizons, thresholds, counts: NDArray) -> NDArray:
    """`net_benefit` of every horizon, threshold and draw."""
    result = np.zeros((len(horizons), len(thresholds), counts.shape[1]))
    n = counts.sum(axis=0)
    for h, horizon in enumerate(horizons):
        for k, threshold in enumerate(thresholds):
            treated = probability[:, h] >= threshold
            if not treated.any():
                continue
            theirs, when = counts[treated], time[treated]
            alive = survival_of_draws(event[treated], when, np.array([horizon]), theirs)[0]
            share = theirs.sum(axis=0) / n
            value = share * (1 - alive - alive * threshold / (1 - threshold))
            followed = theirs[when >= horizon].sum(axis=0) > 0
            value[~followed & (alive > 0)] = np.nan  # as `net_benefit` has it
            result[h, k] = np.where(share > 0, value, 0.0)
    return result
