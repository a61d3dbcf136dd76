"""The cohort in a table, as the thesis's Table 2.1."""

from __future__ import annotations

import pandas as pd

from fracsurv.cohort import Cohort
from fracsurv.covariates import label_of


def label(cohort: Cohort, name: str) -> str:
    """What to call a covariate in a table or figure: the cohort's label, the protocol's, or its name."""
    return label_of(name, cohort.labels)


def summary_table(cohort: Cohort) -> pd.DataFrame:
    """Counts and percentages of binary variables, mean ± SD of the others.

    Returns
    -------
    DataFrame
        Indexed by the variable's label, one column named after the number of patients. Times are
        follow-up to the event or to censoring. SD is the sample standard deviation (n − 1).
    """
    table = cohort.table
    rows = {
        f"{cohort.outcome.capitalize()} experienced": _count(table["event"]),
        f"Time to {cohort.outcome} or censoring, {cohort.time_unit}": _mean(table["time"]),
    }
    for name, kind in cohort.covariates.items():
        rows[label(cohort, name)] = _count(table[name]) if kind == "binary" else _mean(table[name])
    return pd.DataFrame({f"{len(table):,} patients ({cohort.provenance})": rows})


def _count(values: pd.Series) -> str:
    return f"{int(values.sum()):,} ({100 * values.mean():.1f} %)"


def _mean(values: pd.Series) -> str:
    return f"{values.mean():,.1f} ± {values.std():,.1f}"
