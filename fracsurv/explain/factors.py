"""How much a model's ranking loses when one clinical factor is dealt out at random among the patients judged."""

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
    """Permutation importance (Breiman 2001; Fisher et al. 2019): loss of Harrell's C, mean over 10 permutations.

    A factor that others stand in for loses little, however much it matters by itself.

    Parameters
    ----------
    risk_of : callable
        Covariates (n, p) to (n,) log hazards; whatever else the model sees, an image say, stays as it is.
    tabular : array (n, p)
        As the model takes them.
    names : sequence of str
        Of the factors.
    columns : sequence of sequences of int, optional
        Of each factor its columns of `tabular`, which are permuted together; by default one after the other.
    event, time : arrays (n,)

    Returns
    -------
    losses : DataFrame
        `factor, loss`: C as it is less C with this factor permuted; above 0, the model uses it rightly.
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
