"""All metrics of one model at once, in a group of patients or in bootstrap draws of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check
from fracsurv.metrics.auc import auc_of_draws, mean_auc_of_draws
from fracsurv.metrics.brier import brier_of_draws, brier_terms, integrate
from fracsurv.metrics.censoring import inverse_censoring_weights, reaches, survival_of_draws
from fracsurv.metrics.competing import predicted_survival, ranking_by_last, ranking_by_time
from fracsurv.metrics.concordance import concordance_of_draws, pair_counts, uno_pair_counts, uno_weights

Key = tuple[str, float | None]  # a metric and its time, None for a metric without one
Outcome = tuple[ArrayLike, ArrayLike]  # event and time
GRID_STEPS = 24


def integration_grid(horizons: ArrayLike) -> NDArray:
    """Times over which the integrated metrics are taken: 24 equal steps up to the last horizon, shape (24,).

    `horizons` (n_horizons,) increase and are above 0. The first time is one step, not 0, where no metric is defined.
    """
    horizons = check.times(horizons, "horizons")
    if horizons[0] <= 0:
        raise ValueError(f"horizons must be above 0, got {horizons}")
    return horizons[-1] * np.arange(1, GRID_STEPS + 1) / GRID_STEPS


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
    censoring: Outcome | None = None,
    other_risk: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[Key, float]:
    """All metrics of one model, fitted on one training fold, in one group of patients.

    The training fold gives Breslow's baseline, hence the probabilities of the Brier scores, and, unless `censoring`
    is given, the censoring distribution.

    With competing events (2 in any `event`), probabilities are `absolute_risk`s, Uno's C is Wolbers', and AUC and
    Brier score are those for competing risks. Harrell's C and 'auc_thesis' treat these events as censoring and rank
    by `risk`. With `other_risk`, Wolbers' C and the AUC rank by the predicted probability of the event: by the
    horizon for the AUC, by the last horizon that the fold's follow-up reaches for C.

    Parameters
    ----------
    grid : array, optional
        Times of the integrated metrics; `integration_grid` of the usable horizons if not given. Give one to
        compare folds whose follow-up does not end together.
    censoring : (event, time), optional
        Patients whose censoring distribution weights the metrics, instead of the training fold's. Patients from
        elsewhere need their own: weights are right only if both groups are censored in the same way.
    other_risk : (array of shape (n_train,), array of shape (n,)), optional
        Log hazards of the competing event in both groups; the same for all if not given.

    Returns
    -------
    dict
        ('c_index', None), ('c_index_ipcw', None), ('auc', h), ('auc_thesis', h), ('mean_auc', None), ('brier', h) and
        ('integrated_brier', None), a float each. NaN at a horizon that follow-up does not reach
        (`usable_horizons`), and for the integrated metrics if it does not reach the whole grid.
    """
    event, time = check.outcome(event, time)
    risk, horizons = check.risk(risk, len(time)), check.times(horizons, "horizons")
    fold = (event_train, time_train, risk_train)
    model = fold_metrics(fold, event, time, risk, horizons, grid, censoring, other_risk)
    return {key: float(value[0]) for key, value in model.in_draws(np.ones((len(time), 1))).items()}


def fold_metrics(fold, event, time, risk, horizons, grid, censoring, other_risk) -> ModelMetrics:
    """The metrics of `evaluate`, whose arguments these are, ready for any draws."""
    training = fold[:2]
    censoring = censoring or training
    if grid is None:
        grid = horizons[reaches(*training, time, horizons) & reaches(*censoring, time, horizons)]
        grid = integration_grid(grid) if len(grid) else grid
    else:
        grid = check.times(grid, "grid")
    times = np.union1d(horizons, grid)
    surv = predicted_survival(*fold, risk, times, other_risk)
    rankings = None
    if other_risk is not None:
        at_horizons = surv[:, np.searchsorted(times, horizons)]
        rankings = ranking_by_last(at_horizons, risk), ranking_by_time(surv, risk)
    keys = [(name, float(h)) for h in horizons for name in ("auc", "brier", "auc_thesis")]
    keys = [("c_index", None), ("c_index_ipcw", None), *keys, ("mean_auc", None), ("integrated_brier", None)]
    weighting = {"censoring": censoring, "training": training}
    return ModelMetrics(event, time, risk, keys, **weighting, surv=surv, grid=grid, rankings=rankings)


class ModelMetrics:
    """Metrics of one model in a group of patients: what is the same in all bootstrap draws is computed once.

    `keys` are the metrics, as in `evaluate`. `censoring`, (event, time), are the patients whose censoring
    distribution weights them, needed but for 'c_index' and 'auc_thesis'; `training` those whose follow-up must reach
    a time too. `surv` are probabilities of no event by the times of the Brier scores: those of `keys` and of `grid`,
    the times of the integrated metrics. `rankings` say what ranks patients for Uno's C, (n,), and for AUC(t), (n,) or
    (n, n_times), if not `risk`.
    """

    def __init__(
        self, event, time, risk, keys, *, censoring=None, training=None, surv=None, grid=(), rankings=None
    ) -> None:
        self.event, self.time, self.risk, self.keys = event, time, risk, keys
        self.grid = np.asarray(grid, float)
        self.ranking, self.ranking_at = rankings or (risk, risk)
        self.names = {name for name, _ in keys}
        self.auc_times, self.brier_times = (np.union1d(self._times(name), self.grid) for name in ("auc", "brier"))
        if censoring is None:
            return
        self.own, self.common = (inverse_censoring_weights(*censoring, at) for at in (time, self.auc_times))
        self.uno = uno_weights(*censoring, event == 1, time)
        self.auc_usable, self.brier_usable = (
            reaches(*censoring, time, times) & (training is None or reaches(*training, time, times))
            for times in (self.auc_times, self.brier_times)
        )
        if surv is not None:
            self.terms = brier_terms(*censoring, event, time, surv, self.brier_times)

    def in_draws(self, counts: NDArray) -> dict[Key, NDArray]:
        """Each metric in each draw, shape (n_draws,), NaN where a draw has no answer.

        `counts`, shape (n, n_draws), says how often each draw holds each patient, so nothing is sorted anew.
        """
        found = self._concordances(counts) | self._aucs(counts) | self._briers(counts)
        return {key: found[key] for key in self.keys}

    def _times(self, name: str) -> NDArray:
        return np.array([at for each, at in self.keys if each == name], float)

    def _concordances(self, counts: NDArray) -> dict[Key, NDArray]:
        found, event, time = {}, self.event == 1, self.time
        if not self.names & {"c_index", "c_index_ipcw"}:
            return found
        lower, comparable = pair_counts(event, time, self.risk, counts)
        if "c_index" in self.names:
            found["c_index", None] = concordance_of_draws(event.astype(float), counts, lower, comparable)
        if "c_index_ipcw" in self.names:
            if self.ranking is not self.risk or (self.event == 2).any():
                lower, comparable = uno_pair_counts(self.event, time, self.ranking, self.own, counts)
            found["c_index_ipcw", None] = concordance_of_draws(self.uno, counts, lower, comparable)
        return found

    def _aucs(self, counts: NDArray) -> dict[Key, NDArray]:
        found, event, time, times = {}, self.event, self.time, self.auc_times
        if "auc_thesis" in self.names:
            at, ones = self._times("auc_thesis"), np.ones(len(time))
            thesis = auc_of_draws(event == 1, time, self.risk, at, ones, np.ones(len(at), bool), counts)
            found |= {("auc_thesis", t): thesis[k] for k, t in enumerate(at)}
        if self.names & {"auc", "mean_auc"}:
            auc = auc_of_draws(event, time, self.ranking_at, times, self.own, self.auc_usable, counts, self.common)
            found |= {("auc", t): auc[k] for k, t in enumerate(times)}
            if "mean_auc" in self.names:
                survival = survival_of_draws(event, time, self.grid, counts)
                found["mean_auc", None] = mean_auc_of_draws(auc[np.searchsorted(times, self.grid)], survival)
        return found

    def _briers(self, counts: NDArray) -> dict[Key, NDArray]:
        if not self.names & {"brier", "integrated_brier"}:
            return {}
        times, integrated = self.brier_times, "integrated_brier" in self.names
        # one product is fast; column by column, no score depends in its last bit on which other times are asked for
        columns = [slice(None)] if integrated else [[k] for k in range(len(times))]
        brier = np.concatenate(
            [brier_of_draws(self.terms[:, k], self.time, times[k], self.brier_usable[k], counts) for k in columns]
        )
        found = {("brier", t): brier[k] for k, t in enumerate(times)}
        if integrated:
            found["integrated_brier", None] = integrate(brier[np.searchsorted(times, self.grid)], self.grid)
        return found
