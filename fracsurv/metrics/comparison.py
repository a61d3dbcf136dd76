"""Many models, many metrics, one set of bootstrap draws: intervals, paired differences and their p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import (
    check_risk,
    check_survival,
    check_time,
    check_whole,
)
from fracsurv.metrics._pairs import pair_counts
from fracsurv.metrics.auc import auc_of_draws
from fracsurv.metrics.brier import brier_of_draws, brier_terms
from fracsurv.metrics.censoring import inverse_censoring_weights, reaches
from fracsurv.metrics.concordance import concordance_of_draws, uno_weights
from fracsurv.metrics.resampling import draw_chunks, paired_p, percentile_interval

PLAIN = ("c_index", "c_index_ipcw")
AT_A_TIME = ("auc", "auc_thesis", "brier")
WEIGHTED = ("c_index_ipcw", "auc", "brier")
Metric = str | tuple[str, float]
"""A metric as `bootstrap` is asked for it."""


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Estimates and bootstrap draws of many models and metrics.

    Attributes
    ----------
    models, metrics : names, in the order of the axes below.
    estimate : array, shape (n_models, n_metrics)
        In the patients as they are.
    draws : array, shape (n_draws, n_models, n_metrics)
        In each bootstrap sample, the same for all models; NaN where a draw has no answer.
    """

    models: tuple[str, ...]
    metrics: tuple[Metric, ...]
    estimate: NDArray
    draws: NDArray

    def table(self, reference: str | None = None, level: float = 0.95) -> pd.DataFrame:
        """A row a model and metric: `estimate`, `low`, `high` and, with a reference, its difference from that model.

        The difference's columns are `difference`, `difference_low`, `difference_high` and `p`; see `difference`.
        """
        index = pd.MultiIndex.from_product([self.models, map(_label, self.metrics)], names=["model", "metric"])
        low, high = np.moveaxis(self.interval(level), -1, 0)
        columns = {"estimate": self.estimate, "low": low, "high": high}
        if reference is not None:
            found, interval, p = self.difference(reference, level)
            low, high = np.moveaxis(interval, -1, 0)
            columns |= {"difference": found, "difference_low": low, "difference_high": high, "p": p}
        return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)

    def interval(self, level: float = 0.95) -> NDArray:
        """Percentile intervals that hold the truth with probability `level`, shape (n_models, n_metrics, 2).

        NaN where under 95 % of the draws have an answer.
        """
        return percentile_interval(self.draws, level)

    def difference(self, reference: str, level: float = 0.95) -> tuple[NDArray, NDArray, NDArray]:
        """Every model minus one of them, in the same draws; below 0 is better for a Brier score, else worse.

        Returns
        -------
        difference : array, shape (n_models, n_metrics)
        interval : array, shape (n_models, n_metrics, 2)
            Percentiles of the paired differences.
        p : array, shape (n_models, n_metrics)
            Two-sided, for no difference; see `paired_p`. Of the reference it is 1. Not adjusted for how many are
            asked.
        """
        if reference not in self.models:
            raise ValueError(f"reference {reference!r} is not one of the models: {', '.join(self.models)}")
        at = self.models.index(reference)
        paired = self.draws - self.draws[:, [at]]
        return self.estimate - self.estimate[at], percentile_interval(paired, level), paired_p(paired)


def bootstrap(
    event: ArrayLike,
    time: ArrayLike,
    risks: Mapping[str, ArrayLike],
    *,
    metrics: Sequence[Metric] = ("c_index",),
    n_draws: int = 1000,
    seed: int = 0,
    train: tuple[ArrayLike, ArrayLike] | None = None,
    surv: Mapping[str, ArrayLike] | None = None,
) -> Bootstrap:
    """Metrics of many models in the same bootstrap samples of the patients.

    Each sample enters as how often it holds each patient, so that nothing is resampled or sorted anew: the
    concordance of all draws is a product of the matrix of pairs and these counts (beyond 4,096 patients, of passes in
    O(n log n) a draw, in memory that grows with n). Only the patients judged are drawn: models, probabilities and
    censoring weights stay, so the intervals say how far other patients would have moved the metrics, not how far
    other training patients would.

    Parameters
    ----------
    event, time : arrays, shape (n,)
        True where the event was observed; time >= 0, in any one unit.
    risks : mapping of names to arrays, shape (n,)
        Each model's log hazards or scores, higher = riskier.
    metrics : sequence
        'c_index' (`concordance_index`), 'c_index_ipcw' (`concordance_index_ipcw`, without tau), and, each with a time
        t in the unit of `time`, ('auc', t) (`cumulative_dynamic_auc`), ('auc_thesis', t)
        (`auc_censored_as_nonevent`) and ('brier', t) (`brier_score`).
    n_draws, seed : int
        Bootstrap samples, and their seed.
    train : (event, time), optional
        Training patients, whose censoring weights 'c_index_ipcw', 'auc' and 'brier'; needed for these.
    surv : mapping of names to arrays, shape (n, k)
        Probabilities of no event by the time of each of the k 'brier' metrics, in their order; needed for these.

    Returns
    -------
    Bootstrap

    Raises
    ------
    ValueError
        For unequal lengths, negative times, values that are not finite, unknown metrics, arguments of another kind,
        and where `train` or `surv` is missing for a metric.

    Examples
    --------
    >>> found = bootstrap([1, 1, 0], [1.0, 2.0, 3.0], {"one": [3, 2, 1], "other": [1, 2, 3]}, n_draws=9)
    >>> found.estimate[:, 0].tolist()
    [1.0, 0.0]
    """
    event, time = check_survival(event, time)
    for name, given in (("risks", risks), ("surv", surv)):
        if given is not None and not hasattr(given, "items"):
            raise ValueError(f"{name} must be a mapping of models' names to arrays, got {type(given).__name__}")
    if train is not None:
        if not isinstance(train, tuple | list) or len(train) != 2:
            raise ValueError("train must be a pair (event_train, time_train)")
        train = check_survival(*train, "_train")
    n_draws, seed = check_whole(n_draws, "n_draws", 1), check_whole(seed, "seed", 0)
    known = {name: check_risk(risk, len(time), f"risks[{name!r}]") for name, risk in risks.items()}
    if not known:
        raise ValueError("risks must hold at least one model")
    asked = _Asked(event, time, metrics, train, surv, tuple(known))
    once = np.ones((len(time), 1))
    estimate = np.stack([asked.of(name, risk, once)[0] for name, risk in known.items()])
    draws = [
        np.stack([asked.of(name, risk, counts) for name, risk in known.items()], axis=1)
        for _, counts in draw_chunks(len(time), n_draws, seed)
    ]
    return Bootstrap(tuple(known), tuple(metrics), estimate, np.concatenate(draws))


class _Asked:
    """The metrics asked for, and all of them that depends on no draw."""

    def __init__(
        self,
        event: NDArray,
        time: NDArray,
        metrics: Sequence[Metric],
        train: tuple[ArrayLike, ArrayLike] | None,
        surv: Mapping[str, ArrayLike] | None,
        models: Sequence[str],
    ) -> None:
        self.event, self.time = event, time
        self.metrics, self.train = _check_metrics(metrics, train), train
        timed = {metric for metric in self.metrics if metric[0] in ("auc", "brier")}
        self.reached = {at: reaches(*train, time, np.array([at])) for _, at in timed}
        asked = np.array([metric[1] for metric in self.metrics if metric[0] == "brier"])
        checked = _check_surv(surv, models, len(time), [self.reached[at].item() for at in asked])
        self.brier = {name: brier_terms(*train, event, time, values, asked) for name, values in checked.items()}
        if train is not None:
            self.uno = uno_weights(*train, event, time)
            self.own = inverse_censoring_weights(*train, time)

    def of(self, name: str, risk: NDArray, counts: NDArray) -> NDArray:
        """Every metric of a model in every draw, shape (n_draws, n_metrics)."""
        result = np.empty((counts.shape[1], len(self.metrics)))
        pairs, column = None, 0
        for k, metric in enumerate(self.metrics):
            if metric in PLAIN:
                pairs = pair_counts(self.event, self.time, risk, counts) if pairs is None else pairs
                weight = self.event.astype(float) if metric == "c_index" else self.uno
                result[:, k] = concordance_of_draws(weight, counts, *pairs)
            elif metric[0] == "brier":
                terms, times = self.brier[name][:, [column]], np.array([metric[1]])
                result[:, k] = brier_of_draws(terms, self.time, times, self.reached[metric[1]], counts)[0]
                column += 1
            else:
                result[:, k] = self._auc(risk, *metric, counts)
        return result

    def _auc(self, risk: NDArray, kind: str, at: float, counts: NDArray) -> NDArray:
        times, weighted = np.array([at]), kind == "auc"
        usable = self.reached[at] if weighted else np.array([True])
        weight = self.own if weighted else np.ones(len(self.time))
        return auc_of_draws(self.event, self.time, risk, times, weight, usable, counts)[0]


def _label(metric: Metric) -> str:
    return metric if isinstance(metric, str) else f"{metric[0]} at {metric[1]:g}"


def _check_metrics(metrics: Sequence[Metric], train: object) -> list[Metric]:
    result: list[Metric] = []
    if isinstance(metrics, str) or (isinstance(metrics, tuple) and len(metrics) == 2 and np.isscalar(metrics[1])
                                    and not isinstance(metrics[1], str)):  # fmt: skip
        raise ValueError(f"metrics must be a list, got {metrics!r}; [{metrics!r}] is one of a single metric")
    for metric in metrics:
        plain = isinstance(metric, str)
        name, at = (metric, None) if plain else (metric[0], metric[1] if len(metric) == 2 else None)
        if plain and name in AT_A_TIME:
            raise ValueError(f"metric {metric!r} needs a time: ({metric!r}, t)")
        if name not in (PLAIN if plain else AT_A_TIME):
            raise ValueError(
                f"metric {metric!r} is unknown; one of {', '.join(PLAIN)}, or, with a time, of {', '.join(AT_A_TIME)}"
            )
        if not plain:
            if at is None:
                raise ValueError(f"metric {metric!r} must be a name and a time")
            at = check_time(at, f"the time of metric {metric!r}")
        if name in WEIGHTED and train is None:
            raise ValueError(f"metric {metric!r} is weighted for censoring: give train=(event_train, time_train)")
        result.append(metric if plain else (name, float(at)))
    if not result or len(set(result)) < len(result):
        raise ValueError(f"metrics must be at least one, each once; got {list(metrics)}")
    return result


def _check_surv(
    surv: Mapping[str, ArrayLike] | None, models: Sequence[str], n: int, usable: Sequence[bool]
) -> dict[str, NDArray]:
    """Probabilities (n, k) by model; those at times that follow-up does not reach are not looked at."""
    result = {}
    for name in models if usable else ():
        if surv is None or name not in surv:
            raise ValueError(f"surv has no probabilities of {name!r}; the Brier score needs them")
        values = np.asarray(surv[name], float)
        values = values[:, None] if values.ndim == 1 else values
        if values.shape != (n, len(usable)):
            raise ValueError(
                f"surv[{name!r}] must have a row a patient and a column for each 'brier' metric: shape "
                f"({n}, {len(usable)}) wanted, got {values.shape}"
            )
        wrong = np.argwhere(np.array(usable) & ~((values >= 0) & (values <= 1)))
        if len(wrong):
            row, column = (int(k) for k in wrong[0])
            raise ValueError(
                f"surv[{name!r}] must be probabilities, got surv[{name!r}][{row}, {column}] = {values[row, column]}"
            )
        result[name] = values
    return result
