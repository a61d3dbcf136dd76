"""A cohort's table of patients, from the file's text to checked values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fracsurv.cohort.checks import Columns, check_images, check_values, has_image_entry
from fracsurv.cohort.codes import coded
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES, label_of
from fracsurv.cohort.dates import is_date, is_later, with_times
from fracsurv.cohort.settings import COLUMNS, DATES, CohortSettings
from fracsurv.cohort.tables import TextTable, decimal_mark, event_codes, numbers, read_table
from fracsurv.utils.errors import SLIP, closest, format_rows, nearest, shorten
from fracsurv.utils.formatting import counted

NO_NUMBERS = ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period")  # as pandas infers them
_ENTRY = "entry|enter|entrance|start|begin|trunc|truncation|enroll?|enroll?ment|inclusion|recruitment|accrual"
ENTRY = re.compile(
    rf"(?!(?=.*date).*(start|begin))(?=.*({_ENTRY}))({_ENTRY}|delayed|late|left|study|cohort|risk|interval|observation"
    "|followup|time|date|age|at|to|of|on|in|t|(day|week|month|year|yr)s?)+|t0|time0|timein"
)
"""Names of a column, without capitals and underscores, that holds when patients come under observation."""
CALENDAR = (1900, 2100)
"""Years; numbers that all lie there are no times."""
NO_ENTRY = (
    "Delayed entry (left truncation) is not supported: everybody must be observed from the radiograph on. Leave out "
    "who is not"
)
FROM_DATES = f". Times are made from dates in columns {', '.join(DATES)}"
MUST_BE = {"time_days": f"days, above 0{FROM_DATES}", "event": f"0 or 1{FROM_DATES}"}
MANY = 0.1
"""Share of the patients with several rows from which that is no slip."""
NEAR = 0.4
"""How alike (difflib's ratio) the nearest column must be to one that is missing, to be named."""
MOST_NAMED = 20
"""Columns of a file that a message lists."""


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
    ours = Columns("", settings.columns, settings.covariates or PROTOCOL_COVARIATES)
    raw = read_table(folder, faults, [ours.theirs(name) for name in (*COLUMNS, *DATES, *ours.covariates)])
    if raw is None:
        return None
    columns = Columns(raw.file, settings.columns, _covariates(raw, settings, faults))
    _check_labels(columns.covariates, settings.labels, faults)
    frame = raw.frame
    if not outcome:
        frame = frame.drop(
            columns=[columns.theirs(name) for name in ("time_days", "event", "split", *DATES)], errors="ignore"
        )
    table = _our_columns(frame, columns, faults, outcome=outcome)
    used = {columns.theirs(name) for name in table}
    if outcome:
        table = _without_entry_times(table, frame, columns, faults)
    table, words = coded(_without_dates(table, columns, faults), columns, settings, faults)
    table, dates = with_times(table, columns, settings, faults)
    n_faults = len(faults)
    decimal = decimal_mark(table, ["time_days", *columns.covariates], raw.delimiter, columns.place, faults)
    # where the mark is in doubt one fault says so, and either is read meanwhile
    plain = table if len(faults) == n_faults else table.replace(r"^(\s*[-+]?\d+),(\d+\s*)$", r"\1.\2", regex=True)
    decimal = decimal if plain is table else "."
    values = _typed(plain, columns, decimal, competing=bool(settings.competing_event))
    kept = pd.Series(True, table.index)
    if settings.missing_images == "exclude" and "image" in table and has_image_entry(table).any():
        kept = has_image_entry(table)
    check_values(table, values, columns, settings, kept, decimal, faults)
    check_images(folder, values, columns, settings, faults, learnt=learnt and outcome)
    how = [each for each in (raw.read_as, "decimal commas" if decimal == "," else "", *words, dates) if each]
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
    names = {*map(str, settings.columns), *raw.frame.columns}
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
    known = list(dict.fromkeys([*COLUMNS, *DATES, *columns.covariates]))
    faults += [
        f"cohort.yaml, columns: unknown name {name!r}{closest(str(name), known)}; it must be a covariate, or one of "
        f"{', '.join((*COLUMNS, *DATES))}{f'. {NO_ENTRY}' if _is_entry(name) else ''}"
        for name in columns.renamed if name not in known
    ]  # fmt: skip
    ours: dict[str, list[str]] = {}
    for name in known:
        ours.setdefault(columns.theirs(name), []).append(name)
    faults += [
        f"cohort.yaml, columns: {' and '.join(names)} are all column {column!r}; each needs a column of its own"
        for column, names in ours.items() if len(names) > 1
    ]  # fmt: skip
    wanted = _outcome_columns(table, columns, faults) if outcome else []
    free = [column for column in map(str, table.columns) if column not in ours]
    lacking = [
        f"{columns.file}: no column {columns.theirs(name)!r}{f' (for {name})' if name in columns.renamed else ''}"
        f"{closest(columns.theirs(name), free, NEAR)}; give your name of it in cohort.yaml, `columns: {{{name}: "
        f"{nearest(columns.theirs(name), free, NEAR) or '…'}}}`"
        for name in ["patient_id", *wanted, *columns.covariates] if columns.theirs(name) not in table.columns
    ]  # fmt: skip
    if lacking:
        has = ", ".join(map(str, table.columns[:MOST_NAMED])) + ", …" * (table.shape[1] > MOST_NAMED)
        faults += [f"{lacking[0]}; there are {has}", *lacking[1:]]
    unread = DATES if "time_days" in wanted else ()
    optional = ["image", *(["split", "event"] if outcome else [])]
    faults += _nearly_named(table, free, columns, [name for name in optional if name not in wanted])
    chosen = {column: names[-1] for column, names in ours.items() if column in table.columns}
    chosen = {column: name for column, name in chosen.items() if name not in unread}
    return table[list(chosen)].rename(columns=chosen)


def _nearly_named(
    table: pd.DataFrame, free: Sequence[str], columns: Columns, optional: Iterable[str]
) -> Iterator[str]:
    """Faults of columns that may be left out, but are mapped to none or nearly there: they would not be read.

    `free` are those that are not read.
    """
    for name in optional:
        theirs = columns.theirs(name)
        near = nearest(theirs, free, SLIP)
        if theirs not in table.columns and (near or name in columns.renamed):
            fix = f"; is {near!r} meant? Call it {theirs}" if near else "; take it out of `columns` in cohort.yaml"
            yield f"{columns.file}: no column {theirs!r} (for {name}){fix}"


def _outcome_columns(table: pd.DataFrame, columns: Columns, faults: list[str]) -> list[str]:
    """The columns that tell of the outcome and must be there: times, or else dates."""
    there = [name for name in ("time_days", "event", *DATES) if columns.theirs(name) in table]
    mapped = [name for name in DATES if name in columns.renamed]
    if "time_days" in there and mapped:
        faults.append(f"cohort.yaml, columns: time_days and {', '.join(mapped)}; give the times, or the dates")
    if "time_days" not in there and "baseline_date" in [*there, *mapped]:
        return list(DATES)
    return ["time_days", "event"]


def _is_entry(name: object) -> bool:
    return ENTRY.fullmatch(re.sub(r"[\W_]", "", str(name)).lower()) is not None


def _some_late(entry: pd.Series, baseline: pd.Series | None, columns: Columns) -> bool:
    """Whether there are times above 0, or dates after the baseline's; years, flags and other dates tell nothing."""
    if baseline is not None and is_later(entry, baseline, columns).any():
        return True
    time = numbers(entry, ",").fillna(numbers(entry)).dropna()
    other = is_date(entry).any() or "date" in str(entry.name).lower() or time.between(*CALENDAR).all()
    return bool((time > 0).any() and not other and not time.isin([0, 1]).all())


def _without_entry_times(
    table: pd.DataFrame, frame: pd.DataFrame, columns: Columns, faults: list[str]
) -> pd.DataFrame:
    """The table with the first row of each patient; a fault where rows are intervals, or patients enter late.

    Entry times are sought in those columns of the file, `frame`, that are not read. Of times that are all 0 nothing
    is said: nobody entered late.
    """
    used, baseline = {columns.theirs(name) for name in table}, frame.get(columns.theirs("baseline_date"))
    named = [name for name in frame if name not in used and _is_entry(name)]
    late = [name for name in named if _some_late(frame[name], baseline, columns)]
    faults += [
        f"{columns.file}, column {name}: looks like the time from which a patient is observed. {NO_ENTRY}; if the "
        "column is something else, rename or delete it"
        for name in late
    ]
    if "patient_id" not in table:
        return table
    ids = table["patient_id"].fillna("").astype(str).str.strip()
    rows = ids[ids != ""].value_counts()
    several = rows[rows > 1]
    if len(several) < 2 or (len(several) < MANY * len(rows) and not late):
        return table
    faults.append(
        f"{columns.place('patient_id')}: {counted(len(several), 'patient')} have several rows, as visits or "
        f"intervals (start, stop) have, {shorten(several.index[0])} first; fracsurv takes one row a patient, "
        "as she was at the radiograph, and the time from there"
    )
    return table[~ids.duplicated() | (ids == "")]


def _without_dates(table: pd.DataFrame, columns: Columns, faults: list[str]) -> pd.DataFrame:
    """The table without dates, durations and lists where numbers are wanted: they are one fault a column.

    In a Parquet file dates and durations would be read as nanoseconds. A text that is a date becomes a 1, so that
    nothing else is said of it.
    """
    wrong, table = [], table.copy()
    for name in ("time_days", "event", *columns.covariates):
        kind = pd.api.types.infer_dtype(table[name], skipna=True) if name in table else ""
        if kind.startswith("mixed") and table[name].map(pd.api.types.is_list_like).any():
            kind = "lists of"
        if kind in (*NO_NUMBERS, "lists of"):
            faults.append(f"{columns.place(name)}: holds {kind} values; must be plain numbers, no dates or durations")
            wrong.append(name)
        elif name in table and (dates := is_date(table[name])).any():
            must, first = MUST_BE.get(name, "a number"), table.loc[dates, name]
            faults.append(
                f"{columns.file} {format_rows(first.index)}, column {columns.theirs(name)}: "
                f"{shorten(str(first.iloc[0]))}; a date, must be {must}"
            )
            if name == "event":  # where there was none, the field is empty
                dates |= table[name].isna() | (table[name].astype(str).str.strip() == "")
            table[name] = table[name].astype(object).where(~dates, "1")
    return table.drop(columns=wrong)


def _typed(table: pd.DataFrame, columns: Columns, decimal: str, *, competing: bool) -> pd.DataFrame:
    """The table with ids and splits as text, everything else as numbers; NaN where a field is none."""
    values = table.copy()
    for name in ("patient_id", "split"):
        if name in values:
            values[name] = values[name].fillna("").astype(str).str.strip()
    if "event" in values:
        code = event_codes(values["event"])
        values["event"] = code.where(code.isin([0, 1, 2] if competing else [0, 1]))
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
