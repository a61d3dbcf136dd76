"""Permutation importance: how much concordance a model loses when one clinical factor is permuted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.metrics import bootstrap

REPEATS = 10


def factor_importance(
    risk_of: Callable[[NDArray], NDArray],
    tabular: NDArray,
    event: NDArray,
    time: NDArray,
    names: Sequence[str],
    *,
    columns: Sequence[Sequence[int]] | None = None,
    seed: int,
    n_draws: int = 200,
) -> tuple[pd.DataFrame, NDArray]:
    """Loss of Harrell's C with each factor permuted, mean over 10 permutations (Breiman 2001; Fisher et al. 2019).

    A factor that is correlated with others loses little, however much it matters by itself.

    Parameters
    ----------
    risk_of : callable
        Covariates (n, p) to (n,) log hazards, higher = riskier; the model's other inputs, such as an image, stay.
    tabular : array (n, p)
        As the model takes them.
    event, time : arrays (n,)
    names : sequence of str
        Of the factors.
    columns : sequence of sequences of int, optional
        Each factor's columns of `tabular`, permuted together; by default factor k has column k.

    Returns
    -------
    losses : DataFrame
        `factor, loss`: C less C with this factor permuted; above 0, the factor improves the ranking.
    drawn : array (n_draws, p)
        The same in bootstrap samples of the patients.
    """
    rng = np.random.default_rng(seed)
    risks = {"": risk_of(tabular)}
    of = [[column] for column in range(len(names))] if columns is None else [list(those) for those in columns]
    for those, name in zip(of, names, strict=True):
        for repeat in range(REPEATS):
            changed = tabular.copy()
            changed[:, those] = rng.permutation(tabular[:, those])
            risks[f"{name} {repeat}"] = risk_of(changed)
    found = bootstrap(event, time, risks, n_draws=n_draws, seed=seed)
    loss, drawn = (
        whole[..., :1] - whole[..., 1:].reshape(*whole.shape[:-1], len(names), REPEATS).mean(axis=-1)
        for whole in (found.estimate[:, 0], found.draws[:, :, 0])
    )
    return pd.DataFrame({"factor": list(names), "loss": loss}), drawn
