"""Bootstrap over patients: many fold models, every metric, one set of draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracsurv.metrics._checks import check_finite, check_outcome, check_times
from fracsurv.metrics.evaluation import (
    DrawnSample,
    Key,
    evaluate_draws,
    grid_for,
)

# Arrays of (patients × draws) are the largest made; a chunk of draws keeps each at 32 MiB.
_CHUNK_ELEMENTS = 4_194_304
LEAST_ANSWERED = 0.95
"""Share of the bootstrap draws that must have an answer for an interval to be given."""


def draw_counts(n: int, n_draws: int, seed: int) -> NDArray:
    """How often each of n patients is in each of n_draws bootstrap samples of n, shape (n, n_draws), int."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=n_draws).T


def draw_chunks(n: int, n_draws: int, seed: int) -> Iterator[tuple[slice, NDArray]]:
    """`draw_counts` as float64, a part of the draws after the other, with which draws they are: memory for any n."""
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1, got {n_draws}")
    rng, share = np.random.default_rng(seed), np.full(n, 1.0 / n)
    step = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, n_draws, step):
        stop = min(start + step, n_draws)
        yield slice(start, stop), np.ascontiguousarray(rng.multinomial(n, share, size=stop - start).T, dtype=float)


def percentile_interval(drawn: NDArray, level: float = 0.95) -> NDArray:
    """Percentile interval over the draws, the first axis: shape (…, 2).

    NaN where under 95 % of the draws have an answer (say, nobody followed beyond the horizon). Those without one are
    not any draws: leaving many out would narrow and shift the interval.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    known = np.isfinite(drawn).mean(axis=0) >= LEAST_ANSWERED
    result = np.full((*drawn.shape[1:], 2), np.nan)
    if known.any():
        bounds = np.nanpercentile(drawn[:, known], [50 * (1 - level), 50 * (1 + level)], axis=0)
        result[known] = np.moveaxis(bounds, 0, -1)
    return result


def resampled(statistic: Callable[[NDArray], ArrayLike], n: int, n_draws: int, seed: int) -> NDArray:
    """Any statistic in bootstrap samples of n patients: a loop over `draw_counts`, for what nothing faster computes.

    Parameters
    ----------
    statistic : callable
        From the row numbers of a sample, (n,) int, to a number or an array.

    Returns
    -------
    array, shape (n_draws, …)
    """
    rows = np.arange(n)
    return np.array([statistic(np.repeat(rows, counts)) for counts in draw_counts(n, n_draws, seed).T], float)


def paired_p(drawn: NDArray) -> NDArray:
    """Two-sided p for no difference, from paired differences in bootstrap draws, the first axis.

    2 (k + 1) / (n + 1), k of n answered draws lying on 0 or on its other side: about the level at which the
    percentile interval begins to hold 0, and never 0 itself. NaN where under 95 % of the draws have an answer. Not
    adjusted for how many are asked; see `holm`.
    """
    drawn = np.asarray(drawn, float)
    n = np.isfinite(drawn).sum(axis=0)
    tail = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    return np.where(n < LEAST_ANSWERED * len(drawn), np.nan, np.minimum(1.0, 2 * (tail + 1) / (n + 1)))


def holm(p: ArrayLike) -> NDArray:
    """Holm's step-down adjustment (Holm 1979): all below a level hold together at it, whatever their dependence.

    Parameters
    ----------
    p : array, shape (n,)
        One family of p-values; NaN are not of it and stay NaN.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    result, known = np.full(p.shape, np.nan), np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    result[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order])) if len(order) else 0.0
    return result


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
    censoring: tuple[ArrayLike, ArrayLike] | None = None,
    other_risks: Sequence[tuple[ArrayLike, ArrayLike]] | None = None,
    n_draws: int,
    seed: int,
) -> dict[Key, NDArray]:
    """`evaluate` in bootstrap samples of the patients judged, the same samples for every model.

    Only the patients judged are drawn; models, baselines and censoring distributions stay. Each draw enters
    as how often it holds each patient, so nothing is resampled or sorted anew, and the result is, draw by
    draw, what `evaluate` gives for the drawn rows on the same grid.

    Parameters
    ----------
    event_train, time_train, risk_train : sequences of arrays, one a model
        The fold that each model was fitted on and its log hazards there.
    event, time : arrays, shape (n,)
        The patients judged.
    risks : array, shape (n_models, n)
        Each model's log hazards of them, higher = riskier.
    horizons, grid
        As for `evaluate`. Without a grid each model has the one `evaluate` gives it.
    censoring : (event, time), optional
        As for `evaluate`, for all models.
    other_risks : sequence of (array, array), one a model, optional
        `other_risk` of `evaluate`.
    n_draws : int
        Bootstrap samples.
    seed : int
        Of the draws (`draw_counts`); the same seed and patients give the same samples.

    Returns
    -------
    dict
        The keys of `evaluate`; arrays of shape (n_draws, n_models), NaN where a draw has no answer (say, no
        patient followed beyond the horizon).
    """
    event, time = check_outcome(event, time)
    risks, horizons = check_finite(risks, "risks"), check_times(horizons, "horizons")
    lengths = {len(event_train), len(time_train), len(risk_train), len(risks)}
    if risks.ndim != 2 or risks.shape[1] != len(time) or len(lengths) != 1:
        raise ValueError(
            f"risks must be of shape (n_models, {len(time)}) with a training fold for each model; got "
            f"{risks.shape} and {len(event_train)}, {len(time_train)} and {len(risk_train)} folds"
        )
    weighting = [censoring or fold for fold in zip(event_train, time_train, strict=True)]
    grids = [
        grid_for(e, t, time, horizons, grid, by) for e, t, by in zip(event_train, time_train, weighting, strict=True)
    ]
    result: dict[Key, NDArray] = {}
    for chunk, counts in draw_chunks(len(time), n_draws, seed):
        sample = DrawnSample(event, time, counts)
        for model, model_grid in enumerate(grids):
            fold = (event_train[model], time_train[model], risk_train[model])
            other = other_risks[model] if other_risks else None
            found = evaluate_draws(*fold, risks[model], horizons, model_grid, sample, weighting[model], other)
            for key, values in found.items():
                result.setdefault(key, np.empty((n_draws, len(risks))))[chunk, model] = values
    return result
