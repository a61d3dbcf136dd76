"""How much a model's ranking loses when one clinical factor is dealt out at random among the patients judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.metrics import concordance_index

REPEATS = 10


def factor_importance(
    risk_of: Callable[[NDArray], NDArray],
    tabular: NDArray,
    event: NDArray,
    time: NDArray,
    names: Sequence[str],
    *,
    seed: int,
) -> pd.DataFrame:
    """Permutation importance (Breiman 2001; Fisher et al. 2019): loss of Harrell's C, mean over 10 permutations.

    A factor that others stand in for loses little, however much it matters by itself.

    Parameters
    ----------
    risk_of : callable
        Covariates (n, p) to (n,) log hazards; whatever else the model sees, an image say, stays as it is.
    tabular : array (n, p)
        As the model takes them, columns named `names`.
    event, time : arrays (n,)

    Returns
    -------
    DataFrame
        `factor, loss`: C as it is less C with this factor permuted; above 0, the model uses it rightly.
    """
    rng = np.random.default_rng(seed)
    whole = concordance_index(event, time, risk_of(tabular))
    rows = []
    for column, name in enumerate(names):
        losses = []
        for _ in range(REPEATS):
            changed = tabular.copy()
            changed[:, column] = rng.permutation(tabular[:, column])
            losses.append(whole - concordance_index(event, time, risk_of(changed)))
        rows.append({"factor": name, "loss": float(np.mean(losses))})
    return pd.DataFrame(rows)
