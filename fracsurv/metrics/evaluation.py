"""Every metric of one fold model at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import check_outcome, check_risk, check_times
from fracsurv.metrics._pairs import pair_counts
from fracsurv.metrics.auc import auc_of_draws, mean_auc_of_draws, survival_of_draws
from fracsurv.metrics.brier import brier_of_draws, brier_terms, integrate
from fracsurv.metrics.censoring import inverse_censoring_weights, reaches
from fracsurv.metrics.competing import (
    competing_pair_counts,
    predicted_survival,
    ranking_by_last,
    ranking_by_time,
)
from fracsurv.metrics.concordance import concordance_of_draws, uno_weights

Key = tuple[str, float | None]


def integration_grid(horizons: ArrayLike, n_times: int = 24) -> NDArray:
    """Equal steps up to the last horizon, the times over which the integrated metrics are taken.

    Parameters
    ----------
    horizons : array, shape (n_horizons,)
        Increasing, above 0; only the last is used.
    n_times : int
        How many steps, at least 2. The first time is one step, not 0, where no metric says anything.
    """
    horizons = check_times(horizons, "horizons")
    if horizons[0] <= 0 or n_times < 2:
        raise ValueError(f"horizons above 0 and n_times >= 2 wanted, got {horizons} and {n_times}")
    return horizons[-1] * np.arange(1, n_times + 1) / n_times


def evaluate(
    event_train: ArrayLike,
    time_train: ArrayLike,
    risk_train: ArrayLike,
    event: ArrayLike,
    time: ArrayLike,
    risk: ArrayLike,
    horizons: ArrayLike,
    *,
    grid: ArrayLike | None = None,
    censoring: tuple[ArrayLike, ArrayLike] | None = None,
    other_risk: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[Key, float]:
    """All metrics of one model, fitted on one training fold, in one group of patients.

    The training fold gives Breslow's baseline, hence the probabilities that the Brier scores judge, and, unless
    `censoring` is given, the censoring distribution. Where any `event` holds 2, a competing event, probabilities are
    `absolute_risk`s, Uno's C is Wolbers', and AUC and Brier score are those for competing risks; Harrell's C and the
    thesis's AUC take it for censoring. With `other_risk` the former, which ask who will have the event, rank patients
    by that probability: by the horizon for the AUC, by the last horizon that the fold's follow-up reaches for C. The
    latter rank by `risk`: they judge the hazard among those free of both.

    Parameters
    ----------
    event_train, time_train, risk_train : arrays, shape (n_train,)
        The fold that the model was fitted on and its log hazards there.
    event, time, risk : arrays, shape (n,)
        The patients judged, and the model's log hazards of them, higher = riskier.
    horizons : array, shape (n_horizons,)
        Increasing, above 0, in the unit of the times.
    grid : array, optional
        Times of the integrated metrics; `integration_grid` of the usable horizons if not given. Give one to
        compare folds whose follow-up does not end together.
    censoring : (event, time), optional
        Patients whose censoring distribution weights the metrics, in the place of the training fold's. Weights are
        right only if those judged are censored as these are: judged patients from elsewhere need their own.
    other_risk : (array of shape (n_train,), array of shape (n,)), optional
        Log hazards of the competing event in the training fold and in those judged; the same for all if not given.

    Returns
    -------
    dict
        ('c_index', None), ('c_index_ipcw', None), ('auc', h), ('auc_thesis', h), ('mean_auc', None), ('brier', h) and
        ('integrated_brier', None), a float each: NaN at a horizon that follow-up does not reach
        (`usable_horizons`), and for the integrated metrics if it does not reach the whole grid.
    """
    event, time = check_outcome(event, time)
    risk = check_risk(risk, len(time))
    horizons = check_times(horizons, "horizons")
    ones = np.ones((len(time), 1))
    censoring = censoring or (event_train, time_train)
    grid = grid_for(event_train, time_train, time, horizons, grid, censoring)
    sample = DrawnSample(event, time, ones)
    fold = (event_train, time_train, risk_train)
    values = evaluate_draws(*fold, risk, horizons, grid, sample, censoring, other_risk)
    return {key: float(value[0]) for key, value in values.items()}


def grid_for(event_train, time_train, time, horizons, grid, censoring) -> NDArray:
    """The caller's grid; without one, that of the usable horizons, or empty if there are none."""
    if grid is not None:
        return check_times(grid, "grid")
    usable = horizons[reaches(event_train, time_train, time, horizons) & reaches(*censoring, time, horizons)]
    return integration_grid(usable) if len(usable) else usable


@dataclass(frozen=True)
class DrawnSample:
    """Patients (`event` 0, 1 or 2), and how often each is there in each draw: `counts`, shape (n, n_draws)."""

    event: NDArray
    time: NDArray
    counts: NDArray


def evaluate_draws(
    event_train: ArrayLike,
    time_train: ArrayLike,
    risk_train: ArrayLike,
    risk: NDArray,
    horizons: NDArray,
    grid: NDArray,
    sample: DrawnSample,
    censoring: tuple[ArrayLike, ArrayLike],
    other_risk: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[Key, NDArray]:
    """As `evaluate`, an array of shape (n_draws,) a metric."""
    event, time, counts = sample.event, sample.time, sample.counts
    result: dict[Key, NDArray] = {}
    times = np.union1d(horizons, grid)
    at_horizon, on_grid = np.searchsorted(times, horizons), np.searchsorted(times, grid)
    # beyond the training fold's follow-up there is no baseline, beyond `censoring`'s no weight
    usable = reaches(event_train, time_train, time, times) & reaches(*censoring, time, times)
    surv = predicted_survival(event_train, time_train, risk_train, risk, times, other_risk)
    of_horizon = ranking = risk  # who will have the event: with a competing one, not whoever's hazard is highest
    if other_risk is not None:
        of_horizon = ranking_by_time(surv, risk)
        ranking = ranking_by_last(surv[:, at_horizon], risk)

    own = inverse_censoring_weights(*censoring, time)
    lower, comparable = pair_counts(event == 1, time, risk, counts)
    result["c_index", None] = concordance_of_draws((event == 1).astype(float), counts, lower, comparable)
    if ranking is not risk:
        lower, comparable = pair_counts(event == 1, time, ranking, counts)
    if (event == 2).any():
        further = competing_pair_counts(event, time, ranking, own, counts)
        lower, comparable = lower + further[0], comparable + further[1]
    uno = uno_weights(*censoring, event == 1, time)
    result["c_index_ipcw", None] = concordance_of_draws(uno, counts, lower, comparable)

    common = inverse_censoring_weights(*censoring, times)
    auc = auc_of_draws(event, time, of_horizon, times, own, usable, counts, common)
    thesis = auc_of_draws(event == 1, time, risk, horizons, np.ones(len(time)), np.ones(len(horizons), bool), counts)
    terms = brier_terms(*censoring, event, time, surv, times)
    brier = brier_of_draws(terms, time, times, usable, counts)
    for i, (horizon, k) in enumerate(zip(horizons, at_horizon, strict=True)):
        result["auc", float(horizon)], result["brier", float(horizon)] = auc[k], brier[k]
        result["auc_thesis", float(horizon)] = thesis[i]
    survival = survival_of_draws(event, time, grid, counts)
    result["mean_auc", None] = mean_auc_of_draws(auc[on_grid], survival)
    result["integrated_brier", None] = integrate(brier[on_grid], grid)
    return result
