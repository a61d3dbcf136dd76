"""External validation: metrics of several models in patients whom none was fitted on, with their bootstrap draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check
from fracsurv.metrics.auc import mean_auc_of_draws
from fracsurv.metrics.bootstrap import in_bootstrap, percentile_interval
from fracsurv.metrics.brier import integrate
from fracsurv.metrics.calibration import NO_ESTIMATE
from fracsurv.metrics.censoring import inverse_censoring_weights, reaches, survival_of_draws
from fracsurv.metrics.competing import event_share
from fracsurv.metrics.evaluate import Key, ModelMetrics
from fracsurv.metrics.net_benefit import benefit_of_draws, exact_benefit, net_benefit

ValidationKey = tuple[str, str, float | None, float | None]
"""Model, metric, horizon, threshold."""


class Drawn(NamedTuple):
    """A value and the same in every bootstrap draw, shape (n_draws,).

    Where nobody, or everybody, had the event, all draws agree on that: `low` and `high` are then exact bounds.
    """

    value: float
    draws: NDArray
    low: float = np.nan
    high: float = np.nan

    def interval(self) -> tuple[float, float]:
        """95 % interval: that of the draws, as far as the exact bounds at least."""
        bounds = np.array([percentile_interval(self.draws), (self.low, self.high)])
        return float(np.fmin(*bounds[:, 0])), float(np.fmax(*bounds[:, 1]))


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
) -> dict[ValidationKey, Drawn]:
    """Metrics of several models in patients whom none was fitted on, each with its bootstrap draws.

    C, AUC and Brier scores are weighted by these patients' own censoring distribution. It, models and probabilities
    stay the same in all draws. The Kaplan–Meier estimates that predictions are compared with are each draw's own.

    `risks` maps models to their log hazards (n,), for discrimination; `surv` maps these and further models to
    probabilities of no event (n, n_times) by `times`, perhaps none, all within these patients' follow-up
    (`usable_horizons`). `horizons` and `grid` are those of `times` at which to report, and over which to integrate;
    `thresholds` are probabilities from which on to act, for the net benefit.

    Returns
    -------
    dict
        By (model, metric, horizon or None, threshold or None). Of the models in `risks`: 'c_index', 'c_index_ipcw',
        'auc', 'auc_thesis', 'mean_auc'. Of all: 'brier', 'scaled_brier' (1 − Brier score / that of the Kaplan–Meier
        curve for everybody; Kattan and Gerds 2018), 'integrated_brier', 'integrated_scaled_brier', 'expected' (mean
        predicted probability), 'observed_to_expected' and 'net_benefit'. Of 'everyone', the net benefit of acting on
        all; of 'kaplan_meier', 'observed' and 'brier'.
    """
    event, time = known = check.survival(event, time)
    n, times = len(time), check.times(times) if len(times) else np.empty(0)
    usable = reaches(*known, time, times)
    surv = {name: check.surv(values, n, usable, f"surv[{name!r}]") for name, values in surv.items()}
    risks = {name: check.risk(risk, n, f"risks[{name!r}]") for name, risk in risks.items()}
    scores, thesis = [("brier", t) for t in times], [("auc_thesis", t) for t in horizons]
    ranks = [("c_index", None), ("c_index_ipcw", None), *(("auc", t) for t in times), *thesis]
    curves = _Curves(event, time, times, surv, horizons, thresholds)
    models = [ModelMetrics(*known, risk, ranks, censoring=known) for risk in risks.values()]
    models += [ModelMetrics(*known, np.zeros(n), scores, censoring=known, surv=each) for each in surv.values()]
    models.append(curves)
    once = [model.in_draws(np.ones((n, 1))) for model in models]
    # of every array the first value, along the last axis, is of the patients as they are
    *found, reference = (
        {key: np.concatenate([values, later[key]], axis=-1) for key, values in first.items()}
        for first, later in zip(once, in_bootstrap(models, n, n_draws, seed), strict=True)
    )
    places = times, horizons, np.searchsorted(times, horizons), np.searchsorted(times, grid)
    parts = {}
    for name, values in zip(risks, found, strict=False):
        parts[name, "ranked"] = _discrimination(values, reference, *places)
    if len(times):
        given = (("observed", 1 - reference["survival"]), ("brier", reference["null"]))
        at = zip(horizons, np.searchsorted(times, horizons), strict=True)
        parts["kaplan_meier", "observed"] = {(name, h): values[k] for h, k in at for name, values in given}
        for name, values in zip(surv, found[len(risks) :], strict=True):
            parts[name, "scored"] = _accuracy(values, reference["expected", name], reference, *places)
    result = {
        (name, metric, horizon, None): Drawn(float(values[0]), values[1:])
        for (name, _), part in parts.items()
        for (metric, horizon), values in part.items()
    }
    return _with_exact(result, event, time, horizons) | curves.benefits(reference)


def _with_exact(
    result: dict[ValidationKey, Drawn], event: NDArray, time: NDArray, horizons: Sequence[float]
) -> dict[ValidationKey, Drawn]:
    """Exact bounds, by `event_share`, of what says how many had the event, where nobody or everybody had."""
    bounds = {day: event_share(event, time, day) for day in horizons}
    for (name, metric, day, _), each in list(result.items()):
        share, low, high = bounds.get(day, NO_ESTIMATE)
        if share in (0, 1) and metric in ("observed", "observed_to_expected"):
            by = result[name, "expected", day, None].value if metric != "observed" else 1.0
            result[name, metric, day, None] = each._replace(low=low / by, high=high / by) if by else each
    return result


def _discrimination(values, reference, times, horizons, at, on_grid) -> dict[Key, NDArray]:
    """C, AUC at the horizons and its mean."""
    keys = [(name, horizon) for horizon in horizons for name in ("auc", "auc_thesis")]
    found = {key: values[key] for key in [("c_index", None), ("c_index_ipcw", None), *keys]}
    if len(on_grid):
        auc = np.stack([values["auc", t] for t in times], axis=1).T[on_grid]
        found["mean_auc", None] = mean_auc_of_draws(auc, reference["survival"][on_grid])
    return found


def _accuracy(values, expected, reference, times, horizons, at, on_grid) -> dict[Key, NDArray]:
    """Brier scores, also scaled and integrated, and expected against observed probabilities."""
    brier = np.stack([values["brier", t] for t in times], axis=1).T
    null, found = reference["null"], {}
    for horizon, k in zip(horizons, at, strict=True):
        found["brier", horizon] = brier[k]
        found["scaled_brier", horizon] = 1 - _ratio(brier[k], null[k])
        found["expected", horizon] = expected[k]
        found["observed_to_expected", horizon] = _ratio(1 - reference["survival"][k], expected[k])
    if len(on_grid) > 1:
        whole = integrate(brier[on_grid], times[on_grid])
        found["integrated_brier", None] = whole
        found["integrated_scaled_brier", None] = 1 - _ratio(whole, integrate(null[on_grid], times[on_grid]))
    return found


def _ratio(above: NDArray, below: NDArray) -> NDArray:
    """NaN where `below` is 0, as in a sample in which nobody has had the event."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


class _Curves:
    """Kaplan–Meier's survival and Brier score, the mean prediction and the net benefit in each draw."""

    def __init__(self, event, time, times, surv, horizons, thresholds) -> None:
        self.event, self.time, self.times, self.surv, self.thresholds = event, time, times, surv, thresholds
        acted = {name: 1 - values[:, np.searchsorted(times, horizons)] for name, values in surv.items()}
        acted["everyone"] = np.ones((len(time), len(horizons)))
        self.acted = {(name, h): p[:, k] for name, p in acted.items() for k, h in enumerate(horizons)}
        self.own, self.common = (inverse_censoring_weights(event, time, at) for at in (time, times))

    def in_draws(self, counts: NDArray) -> dict[Any, NDArray]:
        """Each with the draws on its last axis."""
        event, time, times, n = self.event, self.time, self.times, counts.sum(axis=0)
        case, beyond = event[:, None] & (time[:, None] <= times), time[:, None] > times
        survival = survival_of_draws(event, time, times, counts)
        followed = (time[:, None] >= times).T @ counts > 0
        survival[~followed & (survival > 0)] = np.nan
        early, late = (case * self.own[:, None]).T @ counts, (beyond * self.common).T @ counts
        found = {"survival": survival, "null": (early * survival**2 + late * (1 - survival) ** 2) / n}
        found |= {("expected", name): (1 - values).T @ counts / n for name, values in self.surv.items()}
        for (name, horizon), probability in self.acted.items():
            for threshold in self.thresholds:
                benefit = benefit_of_draws(event, time, probability, horizon, threshold, counts)
                found["benefit", name, horizon, threshold] = benefit
        return found

    def benefits(self, drawn: dict[Any, NDArray]) -> dict[ValidationKey, Drawn]:
        """The net benefit of the models, and of acting on everyone, with its draws."""
        result: dict[ValidationKey, Drawn] = {}
        for (name, horizon), probability in self.acted.items():
            values = net_benefit(self.event, self.time, probability, horizon, self.thresholds)
            for threshold, value in zip(self.thresholds, values, strict=True):
                draws = drawn["benefit", name, horizon, threshold][1:]
                exact = exact_benefit(self.event, self.time, probability, horizon, threshold)
                result[name, "net_benefit", horizon, threshold] = Drawn(float(value), draws, *exact)
        return result
