"""Implausible values in a cohort's table: possible, yet odd. `fracsurv check` warns of them and refuses nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort, horizons
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.metrics import concordance_index, mean_weight
from fracsurv.utils.errors import UserError, closest, format_rows

ENOUGH = 10
"""Patients with, and without, an event that are always enough for a test set and three folds."""
MOST_ROWS = 3
"""Rows named in one warning; the others are counted."""
CODES = (-1, -8, -9, -88, -99, -888, -999, -9999, 88, 99, 888, 999, 9999)
"""What people write for a missing number."""
MUCH_MISSING = 0.2
"""Share of missing values in a covariate from which it is reported."""
FAR = 6
"""Interquartile ranges beyond the quartiles from which a value is reported."""
TOO_HEAVY = 0.01
"""How far weights' mean may be from 1."""
LATE = 20
"""Times the last of one's own horizons that follow-up may last without a question."""
SWAPPED, MOST, SEPARATES = 0.8, 0.5, 0.97
IDENTIFYING = re.compile(r"\d{6}(\d{2})?[-+ ]?\d{4}|[^\W\d_]{2,}[ ,]+[^\W\d_]{2,}.*")
"""A personal number (a date of birth and four digits), or two words as in a name."""


class Plausible(NamedTuple):
    """A clinical factor's range among adults, its unit, and slips that explain values outside: words and factor."""

    low: float
    high: float
    unit: str
    slips: tuple[tuple[str, float], ...]


SLIPS = (("a lost decimal point", 0.1), ("a decimal point too far left", 10.0))
PLAUSIBLE = {
    "age": Plausible(18, 110, "years", (("in days", 1 / 365.25), ("in months", 1 / 12))),
    "bmi": Plausible(12, 70, "kg/m²", SLIPS),
    "t_score": Plausible(-7, 6, "standard deviations", SLIPS[:1]),
}


def implausible_values(cohort: Cohort, *, outcome: bool = True) -> list[str]:
    """One line for each thing that is odd, with rows (as a spreadsheet numbers them), values and a suggestion.

    Values of single patients stand in these lines; a patient's id never does. Without an `outcome` only ids and
    covariates are checked.
    """
    cohort = replace(cohort, table=cohort.table.set_axis(list(cohort.file_rows)))  # so that an index names its row
    checks: list[Iterator[str]] = [_ids(cohort), _unread(cohort), _covariates(cohort, outcome=outcome)]
    if outcome:
        coarse = coarse_times_warning(cohort)
        coarse = [f"{cohort.column('time_days')}: {coarse}"] * bool(coarse)
        checks += [_times(cohort), iter(coarse), _events(cohort)]
        checks += [_separating(cohort), _alike(cohort)]
    return list(chain.from_iterable(checks))


def coarse_times_warning(cohort: Cohort) -> str:
    """How coarse times bias the weighted metrics, at the horizon where it is worst; '' if next to nothing."""
    time = cohort.table["time"].to_numpy()
    days = horizons(cohort)
    weights = np.array([mean_weight(cohort.status, time, day) for day in days])
    apart = np.nan_to_num(np.abs(weights - 1))
    worst = apart.argmax()
    if apart[worst] <= TOO_HEAVY:
        return ""
    return (
        "events and censorings share times, so that inverse-censoring weights (scikit-survival's) average "
        f"{weights[worst]:.2f}, not 1, by {days[worst]:g} {cohort.time_unit}: Brier scores are off by about as much, "
        "AUC and Uno's C, in which weights cancel, by far less; times in days mend it"
    )


def _where(found: pd.Series) -> str:
    """Rows and values of the first patients found, and how many more there are."""
    return _first([f"row {row}: {value:g}" for row, value in found.items()])


def _first(words: Sequence[str]) -> str:
    more = len(words) - MOST_ROWS
    return ", ".join(words[:MOST_ROWS]) + (f" and {more:,} more" if more > 0 else "")


def _ids(cohort: Cohort) -> Iterator[str]:
    ids = cohort.table["patient_id"]
    personal = ids[ids.map(lambda text: IDENTIFYING.fullmatch(text) is not None)]
    if len(personal):
        yield (
            f"{cohort.column('patient_id')}: {len(personal):,} look like a name or a personal number, row "
            f"{personal.index[0]} first; use study ids, for these stand in every file of a run"
        )


def _unread(cohort: Cohort) -> Iterator[str]:
    """Columns that are not read while the protocol's factors are missing: one may be the other by another name."""
    absent = [name for name in PROTOCOL_COVARIATES if name not in cohort.covariates]
    if absent and cohort.unread_columns:
        alike = sorted(
            ((name, closest(name, absent)) for name in cohort.unread_columns), key=lambda each: not each[1]
        )
        yield (
            f"columns not read: {_first([name + hint for name, hint in alike])}; the protocol's factors without a "
            f"column: {', '.join(absent)}. Map a column to its factor in cohort.yaml under `columns`, and list "
            "further factors under `covariates`"
        )


def _covariates(cohort: Cohort, *, outcome: bool) -> Iterator[str]:
    for name, kind in cohort.covariates.items():
        values = cohort.table[name].dropna()
        if (missing := 1 - len(values) / len(cohort)) > MUCH_MISSING:
            yield f"{cohort.column(name)}: not known of {100 * missing:.0f} % of the patients"
        if outcome and values.nunique() < 2:
            yield f"{cohort.column(name)}: the same for everybody, so that models learn nothing from it"
        if kind != "binary" and len(values):
            yield from _numbers(name, cohort.column(name), values)
        mean, sd = values.mean(), values.std()
        if kind == "normalised" and sd > 0 and not (abs(mean) < 10 and 0.01 < sd < 10):
            yield (
                f"{cohort.column(name)}: `normalised`, yet its mean is {mean:g} and its SD {sd:g}; networks "
                "take it as it is. Make it `continuous` in cohort.yaml, and it is standardised"
            )


def _numbers(name: str, column: str, values: pd.Series) -> Iterator[str]:
    low, high, unit, others = PLAUSIBLE.get(name, (np.nan, np.nan, "", ()))
    if name in PLAUSIBLE:
        outside = values[(values < low) | (values > high)]
        expected = f"expected {low:g} to {high:g} {unit}"
    else:
        first, last = values.quantile([0.25, 0.75])
        reach = FAR * (last - first)
        outside = values[(values < first - reach) | (values > last + reach)] if reach > 0 else values[:0]
        expected = f"half of all lie between {first:g} and {last:g}"
    code = values.isin(CODES)
    coded = values[code & ((values < 0) & (values[~code] >= 0).all() | values.index.isin(outside.index))]
    if len(coded):
        yield f"{column}, {_where(coded)}; {expected}; a code for a missing value? Leave such a field empty"
    rest = outside.drop(coded.index, errors="ignore")
    for words, factor in others:
        fits = rest[(rest * factor).between(low, high)]
        if len(fits):
            yield f"{column}, {_where(fits)}; {expected}; {words} ({fits.iloc[0] * factor:.4g})?"
        rest = rest.drop(fits.index)
    if len(rest):
        yield f"{column}, {_where(rest)}; {expected}"
    if name == "t_score" and (values > 0).mean() > 0.9 and values.median() > 1:
        yield f"{column}: nearly all above 0, half above 1; was the minus lost?"


def _times(cohort: Cohort) -> Iterator[str]:
    time, event = cohort.table["time"], cohort.table["event"]
    longest, first = time.max(), min(horizons(cohort))
    if longest < first:
        unit = "years" if longest < 40 else "months"
        yield (
            f"{cohort.column('time_days')}: the longest follow-up is {longest:g}, which does not reach the first "
            f"horizon ({first:g} {cohort.time_unit}); are these {unit}? Give days, or set `time_unit` and `horizons`"
        )
    elif cohort.time_unit == "days" and longest > 100 * 365.25:
        yield f"{cohort.column('time_days')}: the longest follow-up is {longest:g} days, over 100 years; in hours?"
    if cohort.horizons and longest > LATE * cohort.horizons[-1]:
        yield (
            f"cohort.yaml, horizons: the last is {cohort.horizons[-1]:g} {cohort.time_unit}, and the longest "
            f"follow-up {longest:g}; are the horizons in months or years?"
        )
    if (~event).any():
        end = time[~event].max()
        late = time[event & (time > 1.1 * end)]
        if len(late):
            yield (
                f"{cohort.column('time_days')}, {_where(late)}; events, though nobody without one was followed "
                f"beyond {end:g}: after the end of the study?"
            )


def _events(cohort: Cohort) -> Iterator[str]:
    event, time, column = cohort.table["event"], cohort.table["time"], cohort.column("event")
    if cohort.competing_event and not cohort.has_competing:
        yield f"{column}: no 2, though `competing_event` says what it means ({cohort.competing_event})"
    elif cohort.has_competing and (event | cohort.table["competing"]).all():
        yield f"{column}: 1 and 2 alone, so that nobody is censored; were 0 and 1 meant?"
    if event.mean() > SWAPPED:
        yield f"{column}: {100 * event.mean():.0f} % are 1; are 0 and 1 swapped? 1 = {cohort.outcome}"
    elif event.mean() > MOST and time[event].median() > time[~event].median():
        yield (
            f"{column}: {100 * event.mean():.0f} % are 1, and half of these were followed beyond "
            f"{time[event].median():g}, of the others {time[~event].median():g}; are 0 and 1 swapped? 1 = "
            f"{cohort.outcome}"
        )
    if event.sum() < 10 * len(cohort.covariates):
        yield (
            f"{column}: {event.sum():,} events for {len(cohort.covariates)} covariates; under ten a covariate, "
            "coefficients are unsure"
        )


def split_faults(cohort: Cohort) -> list[str]:
    """Why `fracsurv run` could not divide the patients into a test set and three folds; empty if it can."""
    event = cohort.table["event"]
    if min(event.sum(), (~event).sum()) >= ENOUGH and "split" not in cohort.table:
        return []
    from fracsurv.cohort.splits import make_splits  # scikit-learn takes a second

    try:
        make_splits(cohort)
    except UserError as error:
        return error.faults
    return []


def _separating(cohort: Cohort) -> Iterator[str]:
    for name, kind in cohort.covariates.items():
        known = cohort.table.dropna(subset=name)
        values, event, time = known[name], known["event"].to_numpy(), known["time"].to_numpy()
        if event.sum() < 5:
            continue
        if kind == "binary":
            counts = values[event].value_counts()
            if len(counts) == 1 and values.nunique() == 2:
                yield (
                    f"{cohort.column(name)}: every patient with an event has {counts.index[0]:g}; its hazard ratio "
                    "has no bound. Was it recorded after the outcome?"
                )
        elif values.nunique() > 1:
            ranked = concordance_index(event, time, values.to_numpy())
            if not SEPARATES > ranked > 1 - SEPARATES:
                yield (
                    f"{cohort.column(name)}: ranks the times almost perfectly by itself (C-index {ranked:.3f}); was "
                    "it made from the outcome?"
                )


def _alike(cohort: Cohort) -> Iterator[str]:
    columns = [*cohort.covariates, "time", "event"]
    if sum(cohort.table[name].nunique() > 2 for name in columns) < 3:  # people are alike by chance then
        return
    twins = cohort.table.index[cohort.table.duplicated(columns, keep=False)]
    if len(twins):
        yield (
            f"{format_rows(twins, MOST_ROWS)}: alike in every covariate, time and outcome, under several ids; "
            "the same person twice?"
        )
