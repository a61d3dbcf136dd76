"""Bootstrap over patients: many models and metrics in the same draws, intervals, paired differences and p-values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics import _checks as check
from fracsurv.metrics.censoring import reaches
from fracsurv.metrics.evaluate import Key, ModelMetrics, Outcome, fold_metrics

_CHUNK_ELEMENTS = 4_194_304  # of the largest arrays, (patients × draws) of a chunk of the draws: 32 MiB each
MIN_SHARE_OF_DRAWS = 0.95  # of the bootstrap draws, that must have an answer for an interval to be given
SAME = 1e-12  # draws that differ by no more differ by rounding errors
PLAIN = ("c_index", "c_index_ipcw")
AT_A_TIME = ("auc", "auc_thesis", "brier")
WEIGHTED = ("c_index_ipcw", "auc", "brier")
Metric = str | tuple[str, float]  # a name, or a name and a time


def draw_counts(n: int, n_draws: int, seed: int) -> NDArray:
    """How often each of n patients is in each of n_draws bootstrap samples of n, shape (n, n_draws), int."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=n_draws).T


def in_bootstrap(models: Sequence[Any], n: int, n_draws: int, seed: int) -> list[dict[Key, NDArray]]:
    """Every statistic of every model in the same bootstrap samples of n patients, (…, n_draws) each, by model.

    A model's `in_draws` maps counts (n, n_draws) to statistics, the draws on their last axis. The samples are those
    of `draw_counts`, some at a time, so that memory is bounded for any n.
    """
    check.whole(n_draws, "n_draws", 1)
    rng, share = np.random.default_rng(seed), np.full(n, 1.0 / n)
    step = max(1, _CHUNK_ELEMENTS // n)
    parts: list[dict[Key, list[NDArray]]] = [{} for _ in models]
    for start in range(0, n_draws, step):
        counts = rng.multinomial(n, share, size=min(step, n_draws - start)).T
        counts = np.ascontiguousarray(counts, dtype=float)
        for model, part in zip(models, parts, strict=True):
            for key, values in model.in_draws(counts).items():
                part.setdefault(key, []).append(values)
    return [{key: np.concatenate(values, axis=-1) for key, values in part.items()} for part in parts]


def resampled(statistic: Callable[[NDArray], ArrayLike], n: int, n_draws: int, seed: int) -> NDArray:
    """Any statistic in bootstrap samples of n patients, shape (n_draws, …): a loop over `draw_counts`.

    For what nothing faster computes. `statistic` maps the row numbers of a sample, (n,) int, to a number or an array.
    """
    rows = np.arange(n)
    return np.array([statistic(np.repeat(rows, counts)) for counts in draw_counts(n, n_draws, seed).T], float)


def percentile_interval(drawn: NDArray, level: float = 0.95, *, paired: bool = False) -> NDArray:
    """Percentile interval over the draws, the first axis: shape (…, 2).

    NaN where under 95 % of the draws have an answer. Draws without one are no random part of all: leaving many out
    would narrow and shift the interval. NaN too where all draws have the same: they do not say how far other patients
    would move it. `paired` differences of 0 in every draw stay 0: the two models agree.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    known = np.isfinite(drawn).mean(axis=0) >= MIN_SHARE_OF_DRAWS
    low, high = (bound(drawn, axis=0, where=np.isfinite(drawn), initial=start)
                 for bound, start in ((np.min, np.inf), (np.max, -np.inf)))  # fmt: skip
    known &= (high - low > SAME) | (paired & (low == 0) & (high == 0))
    result = np.full((*drawn.shape[1:], 2), np.nan)
    if known.any():
        bounds = np.nanpercentile(drawn[:, known], [50 * (1 - level), 50 * (1 + level)], axis=0)
        result[known] = np.moveaxis(bounds, 0, -1)
    return result


def paired_p(drawn: NDArray) -> NDArray:
    """Two-sided p for no difference, from paired differences in bootstrap draws, the first axis.

    2 (k + 1) / (n + 1), with k of n answered draws on 0 or on its other side: about the level at which the percentile
    interval begins to hold 0. NaN where under 95 % of the draws have an answer. Not adjusted; see `holm`.
    """
    drawn = np.asarray(drawn, float)
    n = np.isfinite(drawn).sum(axis=0)
    tail = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    return np.where(n < MIN_SHARE_OF_DRAWS * len(drawn), np.nan, np.minimum(1.0, 2 * (tail + 1) / (n + 1)))


def holm(p: ArrayLike) -> NDArray:
    """p-values (n,) adjusted by Holm's step-down procedure (1979), which controls the family-wise error rate.

    NaN are not part of the family and stay NaN.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    result, known = np.full(p.shape, np.nan), np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    result[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order])) if len(order) else 0.0
    return result


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Estimates and bootstrap draws of many models and metrics; NaN where there is no answer."""

    models: tuple[str, ...]
    metrics: tuple[Metric, ...]
    estimate: NDArray  # (n_models, n_metrics), in the patients as they are
    draws: NDArray  # (n_draws, n_models, n_metrics), in each bootstrap sample, the same for all models

    def table(self, reference: str | None = None, level: float = 0.95) -> pd.DataFrame:
        """A row a model and metric: `estimate`, `low`, `high` and, with a reference, what `difference` gives."""
        labels = [metric if isinstance(metric, str) else f"{metric[0]} at {metric[1]:g}" for metric in self.metrics]
        index = pd.MultiIndex.from_product([self.models, labels], names=["model", "metric"])
        low, high = np.moveaxis(self.interval(level), -1, 0)
        columns = {"estimate": self.estimate, "low": low, "high": high}
        if reference is not None:
            found, interval, p = self.difference(reference, level)
            low, high = np.moveaxis(interval, -1, 0)
            columns |= {"difference": found, "difference_low": low, "difference_high": high, "p": p}
        return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)

    def interval(self, level: float = 0.95) -> NDArray:
        """`percentile_interval` of every model and metric, shape (n_models, n_metrics, 2)."""
        return percentile_interval(self.draws, level)

    def difference(self, reference: str, level: float = 0.95) -> tuple[NDArray, NDArray, NDArray]:
        """Every model minus one of them, in the same draws: the difference, its percentile interval and `paired_p`.

        Shapes (n_models, n_metrics), (…, 2) and (n_models, n_metrics); p is not adjusted, and 1 for the reference.
        Below 0 is better for a Brier score, else worse.
        """
        if reference not in self.models:
            raise ValueError(f"reference {reference!r} is not one of the models: {', '.join(self.models)}")
        at = self.models.index(reference)
        paired = self.draws - self.draws[:, [at]]
        return self.estimate - self.estimate[at], percentile_interval(paired, level, paired=True), paired_p(paired)


def bootstrap(
    event: ArrayLike,
    time: ArrayLike,
    risks: Mapping[str, ArrayLike],
    *,
    metrics: Sequence[Metric] = ("c_index",),
    n_draws: int = 1000,
    seed: int = 0,
    train: Outcome | None = None,
    surv: Mapping[str, ArrayLike] | None = None,
) -> Bootstrap:
    """Metrics of many models in the same bootstrap samples of the patients.

    Only the patients evaluated on are drawn; models, probabilities and censoring weights stay. So the intervals say
    how far other patients would have moved the metrics, not how far other training patients would.

    Parameters
    ----------
    risks : mapping of names to arrays, shape (n,)
        Each model's log hazards or scores, higher = riskier.
    metrics : sequence
        'c_index' (`concordance_index`), 'c_index_ipcw' (`concordance_index_ipcw`, without tau), and, each with a time
        t, ('auc', t) (`cumulative_dynamic_auc`), ('auc_thesis', t) (`auc_censored_as_nonevent`), ('brier', t)
        (`brier_score`).
    train : (event, time), optional
        Training patients, needed for the weighted metrics 'c_index_ipcw', 'auc' and 'brier'.
    surv : mapping of names to arrays, shape (n, k), optional
        Probabilities of no event by the time of each of the k 'brier' metrics, in their order; needed for these.

    Examples
    --------
    >>> found = bootstrap([1, 1, 0], [1.0, 2.0, 3.0], {"one": [3, 2, 1], "other": [1, 2, 3]}, n_draws=9)
    >>> found.estimate[:, 0].tolist()
    [1.0, 0.0]
    """
    event, time = check.survival(event, time)
    for name, given in (("risks", risks), ("surv", {} if surv is None else surv)):
        if not hasattr(given, "items"):
            raise ValueError(f"{name} must be a mapping of models' names to arrays, got {type(given).__name__}")
    if train is not None:
        if not isinstance(train, tuple | list) or len(train) != 2:
            raise ValueError("train must be a pair (event_train, time_train)")
        train = check.survival(*train, "_train")
    n_draws, seed = check.whole(n_draws, "n_draws", 1), check.whole(seed, "seed", 0)
    known = {name: check.risk(risk, len(time), f"risks[{name!r}]") for name, risk in risks.items()}
    if not known:
        raise ValueError("risks must hold at least one model")
    keys = _check_metrics(metrics, train)
    at, probabilities = np.array([t for name, t in keys if name == "brier"]), dict.fromkeys(known)
    for name in known if len(at) else ():
        if surv is None or name not in surv:
            raise ValueError(f"surv has no probabilities of {name!r}; the Brier score needs them")
        usable = reaches(*train, time, at)
        probabilities[name] = check.surv(surv[name], len(time), usable, f"surv[{name!r}]")[:, np.argsort(at)]
    models = [
        ModelMetrics(event, time, risk, keys, censoring=train, surv=probabilities[name])
        for name, risk in known.items()
    ]
    once = np.ones((len(time), 1))
    estimate = np.array([[values[0] for values in model.in_draws(once).values()] for model in models])
    drawn = in_bootstrap(models, len(time), n_draws, seed)
    draws = np.stack([np.stack(list(found.values()), axis=-1) for found in drawn], axis=1)
    return Bootstrap(tuple(known), tuple(metrics), estimate, draws)


def bootstrap_metrics(
    event_train: Sequence[ArrayLike],
    time_train: Sequence[ArrayLike],
    risk_train: Sequence[ArrayLike],
    event: ArrayLike,
    time: ArrayLike,
    risks: ArrayLike,
    horizons: ArrayLike,
    *,
    grid: ArrayLike | None = None,
    censoring: Outcome | None = None,
    other_risks: Sequence[tuple[ArrayLike, ArrayLike] | None] | None = None,
    n_draws: int,
    seed: int,
) -> dict[Key, NDArray]:
    """`evaluate` of every fold's model in bootstrap samples of the patients, the same samples for every model.

    Only the patients evaluated on are drawn; models, baselines and censoring distributions stay. `event_train`,
    `time_train`, `risk_train` and `other_risks` hold an array, or pair of arrays, a model; `risks` is (n_models, n).
    Without a grid each model has the one `evaluate` gives it. The same seed and patients give the same samples.

    Returns
    -------
    dict
        The keys of `evaluate`; arrays of shape (n_draws, n_models), NaN where a draw has no answer.
    """
    event, time = check.outcome(event, time)
    risks, horizons = check.finite(risks, "risks"), check.times(horizons, "horizons")
    lengths = {len(event_train), len(time_train), len(risk_train), len(risks)}
    if risks.ndim != 2 or risks.shape[1] != len(time) or len(lengths) != 1:
        raise ValueError(
            f"risks must be of shape (n_models, {len(time)}) with a training fold for each model; got "
            f"{risks.shape} and {len(event_train)}, {len(time_train)} and {len(risk_train)} folds"
        )
    folds, others = zip(event_train, time_train, risk_train, strict=True), other_risks or [None] * len(risks)
    models = [
        fold_metrics(fold, event, time, risk, horizons, grid, censoring, other)
        for fold, risk, other in zip(folds, risks, others, strict=True)
    ]
    drawn = in_bootstrap(models, len(time), n_draws, seed)
    return {key: np.stack([found[key] for found in drawn], axis=1) for key in drawn[0]}


def _check_metrics(metrics: Sequence[Metric], train: object) -> list[Key]:
    """The metrics as keys of `ModelMetrics`."""
    keys: list[Key] = []
    one = isinstance(metrics, tuple) and len(metrics) == 2 and not isinstance(metrics[1], str | tuple | list)
    if one or isinstance(metrics, str):
        raise ValueError(f"metrics must be a list, got {metrics!r}; [{metrics!r}] is one of a single metric")
    for metric in metrics:
        name, *times = (metric,) if isinstance(metric, str) else metric
        if len(times) > 1 or name not in (AT_A_TIME if times else PLAIN):
            wanted = [*PLAIN, *(f"({each!r}, t)" for each in AT_A_TIME)]
            raise ValueError(f"metric {metric!r} is not one of {', '.join(wanted)}, where t is a time")
        if name in WEIGHTED and train is None:
            raise ValueError(f"metric {metric!r} is weighted for censoring: give train=(event_train, time_train)")
        keys.append((name, check.time(times[0], f"the time of metric {metric!r}") if times else None))
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"metrics must be at least one, each once; got {list(metrics)}")
    return keys
