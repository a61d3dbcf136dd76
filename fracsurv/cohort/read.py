"""A cohort's table of patients, from the file's text to checked values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fracsurv.cohort.checks import Columns, check_images, check_values, has_image_entry
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES, label_of
from fracsurv.cohort.settings import COLUMNS, CohortSettings
from fracsurv.cohort.tables import TextTable, decimal_mark, numbers, read_table
from fracsurv.utils.errors import closest
from fracsurv.utils.names import same_but_for_writing

DATES = ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period")  # as pandas infers them
EVENTS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "1.0": 1.0, "0.0": 0.0}
COMPETING = {"2": 2.0, "2.0": 2.0}


class Patients(NamedTuple):
    """A cohort's patients, one row each, indexed by their row of the file, and how it was read.

    `kept` (bool) is False for patients without a radiograph who are to be excluded.
    """

    table: pd.DataFrame
    kept: pd.Series
    covariates: dict[str, str]
    read_as: str
    unread_columns: tuple[str, ...]


def read_patients(
    folder: Path, settings: CohortSettings, faults: list[str], *, outcome: bool, learnt: bool
) -> Patients | None:
    """The patients, typed and checked; None where no table can be read. Faults are appended to `faults`."""
    raw = read_table(folder, faults)
    if raw is None:
        return None
    columns = Columns(raw.file, settings.columns, _covariates(raw, settings, faults))
    _check_labels(columns.covariates, settings.labels, faults)
    frame = raw.frame
    if not outcome:
        frame = frame.drop(
            columns=[columns.theirs(name) for name in ("time_days", "event", "split")], errors="ignore"
        )
    table = _without_dates(_our_columns(frame, columns, faults, outcome=outcome), columns, faults)
    n_faults = len(faults)
    decimal = decimal_mark(table, ["time_days", *columns.covariates], columns.place, faults)
    # where the mark is in doubt one fault says so, and either is read meanwhile
    plain = table if len(faults) == n_faults else table.replace(r"^(\s*[-+]?\d+),(\d+\s*)$", r"\1.\2", regex=True)
    decimal = decimal if plain is table else "."
    values = _typed(plain, columns, decimal, competing=bool(settings.competing_event))
    kept = pd.Series(True, table.index)
    if settings.missing_images == "exclude" and "image" in table and has_image_entry(table).any():
        kept = has_image_entry(table)
    check_values(table, values, columns, settings, kept, decimal, faults)
    check_images(folder, values, columns, settings, faults, learnt=learnt and outcome)
    how = [words for words in (raw.read_as, "decimal commas" if decimal == "," else "") if words]
    used = {columns.theirs(name) for name in (*COLUMNS, *columns.covariates)}
    return Patients(
        _as_cohort(values, kept, settings, outcome=outcome),
        kept,
        columns.covariates,
        f"{raw.file}: {', '.join(how)}" if how else "",
        () if settings.covariates else tuple(str(name) for name in frame.columns if name not in used),
    )


def _covariates(raw: TextTable, settings: CohortSettings, faults: list[str]) -> dict[str, str]:
    """Name to kind of the covariates: those of `settings`, or the protocol's for which there is a column."""
    if settings.covariates:
        return dict(settings.covariates)
    names = {*settings.columns, *raw.frame.columns}
    found = {name: kind for name, kind in PROTOCOL_COVARIATES.items() if name in names}
    if not found:
        faults.append(f"{raw.file}: none of the protocol's covariates; name yours in cohort.yaml under `covariates`")
    return found


def _check_labels(covariates: Iterable[str], labels: Mapping[str, str], faults: list[str]) -> None:
    """Two covariates with one label could not be told apart in any table."""
    first: dict[str, str] = {}
    for name in covariates:
        other = first.setdefault(label_of(name, labels), name)
        if other != name:
            faults.append(
                f"covariates {other} and {name}: both are called {label_of(name, labels)!r}; give them different "
                "`labels` in cohort.yaml"
            )


def _our_columns(table: pd.DataFrame, columns: Columns, faults: list[str], *, outcome: bool) -> pd.DataFrame:
    """The columns that are read, by our names; missing and ambiguous ones are faults."""
    known = list(dict.fromkeys([*COLUMNS, *columns.covariates]))
    faults += [
        f"cohort.yaml, columns: unknown name {name!r}{closest(str(name), known)}; it must be a covariate, or one of "
        f"{', '.join(COLUMNS)}"
        for name in columns.renamed if name not in known
    ]  # fmt: skip
    ours: dict[str, list[str]] = {}
    for name in known:
        ours.setdefault(columns.theirs(name), []).append(name)
    faults += [
        f"cohort.yaml, columns: {' and '.join(names)} are all column {column!r}; each needs a column of its own"
        for column, names in ours.items() if len(names) > 1
    ]  # fmt: skip
    required = ["patient_id", *(["time_days", "event"] if outcome else []), *columns.covariates]
    has = ", ".join(map(str, table.columns))
    faults += [
        f"{columns.file}: no column {columns.theirs(name)!r} (for {name}); it has {has}"
        for name in required if columns.theirs(name) not in table.columns
    ]  # fmt: skip
    faults += _nearly_named(table, columns, ["image", *(["split"] if outcome else [])])
    chosen = {column: names[-1] for column, names in ours.items() if column in table.columns}
    return table[list(chosen)].rename(columns=chosen)


def _nearly_named(table: pd.DataFrame, columns: Columns, optional: Iterable[str]) -> Iterator[str]:
    """Faults of columns that may be left out, but are mapped to none or nearly there: they would not be read."""
    for name in optional:
        theirs = columns.theirs(name)
        near = same_but_for_writing(theirs, map(str, table.columns))
        if theirs not in table.columns and (near or name in columns.renamed):
            fix = f"; is {near!r} meant? Call it {theirs}" if near else "; take it out of `columns` in cohort.yaml"
            yield f"{columns.file}: no column {theirs!r} (for {name}){fix}"


def _without_dates(table: pd.DataFrame, columns: Columns, faults: list[str]) -> pd.DataFrame:
    """The table without columns of a Parquet file that hold dates, durations or lists: each is a fault.

    Dates and durations would be read as nanoseconds.
    """
    wrong = []
    for name in ("time_days", *columns.covariates):
        kind = pd.api.types.infer_dtype(table[name], skipna=True) if name in table else ""
        if kind.startswith("mixed") and table[name].map(pd.api.types.is_list_like).any():
            kind = "lists of"
        if kind in (*DATES, "lists of"):
            faults.append(f"{columns.place(name)}: holds {kind} values; must be plain numbers, no dates or durations")
            wrong.append(name)
    return table.drop(columns=wrong)


def _typed(table: pd.DataFrame, columns: Columns, decimal: str, *, competing: bool) -> pd.DataFrame:
    """The table with ids and splits as text, everything else as numbers; NaN where a field is none."""
    values = table.copy()
    for name in ("patient_id", "split"):
        if name in values:
            values[name] = values[name].fillna("").astype(str).str.strip()
    if "event" in values:
        codes = EVENTS | (COMPETING if competing else {})
        values["event"] = values["event"].astype(str).str.strip().str.lower().map(codes)
    for name in ("time_days", *columns.covariates):
        if name in values:
            values[name] = numbers(values[name], decimal)
    return values


def _as_cohort(values: pd.DataFrame, kept: pd.Series, settings: CohortSettings, *, outcome: bool) -> pd.DataFrame:
    """The values by the names and types of `Cohort.table`."""
    values = values.rename(columns={"time_days": "time"})
    if "event" in values:
        if (values.loc[kept, "event"] == 2).any():
            values["competing"] = values["event"] == 2
        values["event"] = values["event"] == 1
    if settings.missing_images == "mask" and "image" in values:
        values["image"] = values["image"].where(has_image_entry(values), "")
    return values if outcome else values.assign(time=np.nan, event=False)
