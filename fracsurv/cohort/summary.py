"""The cohort in a table, as the thesis's Table 2.1."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.cohort import Cohort
from fracsurv.cohort.covariates import MISSING, constant_indicators, label_of
from fracsurv.metrics import kaplan_meier
from fracsurv.utils.formatting import NOT_KNOWN, counted, first_upper, number


def label(cohort: Cohort, name: str) -> str:
    """What to call a covariate in a table or figure: the cohort's label, the protocol's, or its name."""
    if name not in cohort.covariates and name in cohort.indicators:
        return f"{label_of(name.removesuffix(MISSING), cohort.labels)}: {NOT_KNOWN}"
    return label_of(name, cohort.labels)


def missing_summary(cohort: Cohort, trained_on: Iterable[NDArray] = ()) -> str:
    """What is missing in a cohort and how it is handled, in sentences; '' where nothing is.

    `trained_on` are row numbers of each fold's training patients: an indicator of missing values that is constant
    among them in every fold is used by no model, and is named.
    """
    n_missing = {name: int(cohort.table[name].isna().sum()) for name in cohort.covariates}
    parts = [f"{label(cohort, name)} of {n:,}" for name, n in n_missing.items() if n]
    sentences = []
    if parts:
        sentences.append(
            f"Not known of {counted(len(cohort), 'patient')}: {', '.join(parts)}. In their place stands the median "
            "(binary factors: the most frequent value) of each fold's training patients, and a further covariate "
            "says where."
        )
        constant = [set(constant_indicators(cohort.table.iloc[rows], cohort.indicators)) for rows in trained_on]
        if unused := [name for name in cohort.indicators if constant and name in set.intersection(*constant)]:
            names = ", ".join(label(cohort, name.removesuffix(MISSING)) for name in unused)
            sentences.append(
                f"But no model is told where {names} is not known: in no fold do the training patients differ in "
                "that."
            )
    if n := cohort.n_excluded:
        sentences.append(f"Left out, without a radiograph: {counted(n, 'patient')}.")
    if n := cohort.n_without_image:
        sentences.append(
            f"No radiograph: {n:,} of {counted(len(cohort), 'patient')}. In its place, "
            "models that take one get the mean features of the training patients who have one (from the image alone, "
            "so, the mean log hazard). Networks are trained on the pictures that are there."
        )
    return " ".join(sentences)


def followed(cohort: Cohort) -> str:
    """How long: the median by reverse Kaplan–Meier (events censor; Schemper and Smith 1996), and the longest."""
    time, unit = cohort.table["time"].to_numpy(), cohort.time_unit
    steps, uncensored = kaplan_meier(cohort.status > 0, time, censoring=True)
    half = steps[uncensored <= 0.5]
    median = f"{half[0]:,.6g} {unit}" if len(half) else "not reached"
    return f"median (reverse Kaplan–Meier) {median}, longest {time.max():,.6g} {unit}"


def summary_table(cohort: Cohort, *, outcome: bool = True) -> pd.DataFrame:
    """Counts and percentages of binary variables, mean ± SD (n − 1) of the others, and of the `outcome` if asked for.

    Indexed by the variable's label, one column named after the number of patients. Times are follow-up to the event
    or to censoring. Missing values are left out, and counted.
    """
    table = cohort.table
    rows = {}
    if outcome:
        rows[f"{first_upper(cohort.outcome)} experienced"] = _count(table["event"])
        rows[f"Time to {cohort.outcome} or censoring, {cohort.time_unit}"] = _mean(table["time"])
        if cohort.has_competing:
            rows[f"{first_upper(cohort.competing_event)} before it (in the time above)"] = _count(table["competing"])
    if cohort.n_without_image:
        rows["With a radiograph"] = _count(pd.Series(cohort.has_image))
    for name, kind in cohort.covariates.items():
        rows[label(cohort, name)] = _count(table[name]) if kind == "binary" else _mean(table[name])
    return pd.DataFrame({f"{counted(len(table), 'patient')} ({cohort.provenance})": rows})


def _count(values: pd.Series) -> str:
    return f"{int(values.sum()):,} ({100 * values.mean():.1f} %){_unknown(values)}"


def _mean(values: pd.Series) -> str:
    return f"{number(values.mean(), ',.1f')} ± {values.std():,.1f}{_unknown(values)}"


def _unknown(values: pd.Series) -> str:
    n = int(values.isna().sum())
    return f"; {n:,} {NOT_KNOWN}" if n else ""
