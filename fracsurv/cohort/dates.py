"""Dates as people write them, and the times to event that lie between them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from fracsurv.cohort.checks import Columns
from fracsurv.cohort.settings import DATES, CohortSettings
from fracsurv.cohort.tables import event_codes
from fracsurv.utils.errors import row_faults, shorten

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
PATTERN = re.compile(
    r"(?P<iso>(?=\d{8}$|\d{4}[-./])(?P<y1>\d{4})(?P<s>[-./]?)(?P<m1>\d\d?)(?P=s)(?P<d1>\d\d?))"
    r"|(?P<parts>(?P<a>\d\d?)(?P<t>[-./])(?P<b>\d\d?)(?P=t)(?P<y2>\d{4}|\d\d))"
    r"|(?P<named>(?P<d3>\d\d?)[-. ]*(?P<m3>[a-z]{3})[a-z]*[-., ]*(?P<y3>\d{4}|\d\d))",
    re.IGNORECASE,
)
TIME_OF_DAY = r"(?:T|,?\s+)\d\d?:\d\d.*$"
EIGHT_DIGITS = r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
EARLIEST = 1900
LEAST_OF_EIGHT = 19_000_101


def is_date(values: pd.Series) -> pd.Series:
    """Which fields are dates, bool; numbers of eight digits alone if all are, as in 20201231."""
    number = pd.to_numeric(values, errors="coerce")
    dates = _day(values.astype(object).where(number.isna(), "")).str.fullmatch(PATTERN).astype(bool)
    if number.min() >= LEAST_OF_EIGHT and _day(values[number.notna()]).str.fullmatch(EIGHT_DIGITS).all():
        dates |= number.notna()
    return dates


def is_later(values: pd.Series, baseline: pd.Series, columns: Columns) -> pd.Series:
    """Which fields are dates after the baseline's."""
    dates, _, _ = _read({"": values, "baseline_date": baseline}, columns, [])
    return dates[""] > dates["baseline_date"]


def with_times(
    table: pd.DataFrame, columns: Columns, settings: CohortSettings, faults: list[str]
) -> tuple[pd.DataFrame, str]:
    """The table with `time_days`, and with `event` if it has none, from its dates; and how they are written.

    Time runs from `baseline_date` to `event_date`, or where that is empty to `last_seen_date`. Of a table without
    these three nothing is made. Where dates are at fault the time is 1, so that nothing else is said of it.
    """
    given = {name: table[name] for name in DATES if name in table}
    if len(given) < len(DATES):
        return table.drop(columns=list(given)), ""
    if settings.time_unit != "days":
        faults.append(f"cohort.yaml, time_unit: {settings.time_unit}; times made from dates are in days")
    doubts = len(faults)
    dates, wrong, order = _read(given, columns, faults)
    if len(faults) > doubts:
        faults += row_faults(columns.file, sorted(wrong))
        return table.drop(columns=list(given)).assign(time_days=1.0, event=1.0), ""
    start, at, seen = (dates[name] for name in DATES)
    filled = _filled(given["event_date"])
    end = at.where(filled, seen)
    ours = {name: columns.theirs(name) for name in (*DATES, "event")}
    found = {
        f"column {ours['baseline_date']}: empty; must be a date": ~_filled(given["baseline_date"]),
        f"{ours['last_seen_date']} and the date of an event: both empty; give one": ~filled
        & ~_filled(given["last_seen_date"]),
    }
    if "event" in table:
        code = event_codes(table["event"])
        found[f"column {ours['event_date']}: filled, but {ours['event']} is 0"] = filled & (code == 0)
        found[f"column {ours['event_date']}: empty, but {ours['event']} is not 0"] = ~filled & (code > 0)
    wrong += [(row, what) for what, where in found.items() for row in table.index[where]]
    for row in table.index[(end <= start) | (at > seen)]:
        name = "event_date" if filled[row] else "last_seen_date"
        what, until = f"column {ours[name]}: {end[row]:%Y-%m-%d}", f"{ours['baseline_date']} {start[row]:%Y-%m-%d}"
        if end[row] < start[row]:
            wrong.append((row, f"{what}, before {until}"))
        elif end[row] == start[row]:
            wrong.append((row, f"{what}, the same day as {until}; time must be above 0"))
        if at[row] > seen[row]:
            wrong.append(
                (row, f"column {ours['last_seen_date']}: {seen[row]:%Y-%m-%d}, before the event {at[row]:%Y-%m-%d}")
            )
    faults += row_faults(columns.file, sorted(wrong))
    sound = ~table.index.isin([row for row, _ in wrong]) & (end > start)
    table = table.drop(columns=list(given)).assign(time_days=(end - start).dt.days.astype(float).where(sound, 1.0))
    if "event" not in table:
        table["event"] = filled.astype(float)
    return table, f"times from dates{order}"


def _day(values: pd.Series) -> pd.Series:
    """Fields as text, without a time of day."""
    text = values.astype(object).where(values.notna(), "").astype(str)
    return text.str.strip().str.replace(TIME_OF_DAY, "", regex=True)


def _filled(values: pd.Series) -> pd.Series:
    return _day(values) != ""


def _read(
    given: Mapping[str, pd.Series], columns: Columns, faults: list[str]
) -> tuple[dict[str, pd.Series], list[tuple[int, str]], str]:
    """The dates, NaT where a field is none; those rows and their faults; how they are written, where that is no rule.

    Whether 3/4 is in March or April is decided by days above 12 in any column; without one it is a fault. So are
    dates of one column with other marks, or with the year first in some: a spreadsheet that took 3/4/2015 for another
    day left 13/4/2015 as it was. Fields of a column with the same fault share it.
    """
    texts = {name: _day(values) for name, values in given.items()}
    parts = {name: text.str.extract(f"^(?:{PATTERN.pattern})$", flags=re.IGNORECASE) for name, text in texts.items()}
    slashed = pd.concat([each[each["t"].isin(["/", "-"])] for each in parts.values()])
    day_first, month_first = (slashed[each].astype(float) > 12 for each in ("a", "b"))
    where = f"{columns.file}, columns {', '.join(columns.theirs(name) for name in given)}"
    doubts = len(faults)
    for name, part in parts.items():
        sound = part[["iso", "parts", "named"]].notna().any(axis=1) & (part["y2"].str.len() != 2)
        marks = part.loc[sound, "t"].fillna("").drop_duplicates()
        if len(marks) > 1:
            faults.append(
                f"{columns.file}, column {columns.theirs(name)}: {' and '.join(texts[name][marks.index])} are "
                "written in different ways, so that day and month may be mixed up; write them as 2020-12-31"
            )
    clear = len(faults) > doubts or slashed.empty or day_first.any() != month_first.any()
    if not clear and day_first.any():
        first = [slashed["parts"][which].iloc[0] for which in (day_first, month_first)]
        faults.append(f"{where}: {first[0]} has the day first, {first[1]} the month; write them as 2020-12-31")
    elif not clear:
        faults.append(
            f"{where}: does {slashed['parts'].iloc[0]} begin with the day or the month? No date tells; write them as "
            "2020-12-31"
        )
    dates, wrong, today = {}, [], pd.Timestamp.now()
    for name, part in parts.items():
        american = part["t"].isin(["/", "-"]) & month_first.any()
        part["m3"] = part["m3"].str.lower().map({month: k for k, month in enumerate(MONTHS, start=1)})
        number = part[["y1", "y2", "y3", "m1", "m3", "d1", "d3", "a", "b"]].astype(float)
        a, b = number["a"], number["b"]
        fields = {
            "year": number["y1"].fillna(number["y2"]).fillna(number["y3"]),
            "month": number["m1"].fillna(a.where(american, b)).fillna(number["m3"]),
            "day": number["d1"].fillna(b.where(american, a)).fillna(number["d3"]),
        }
        there = fields["year"].between(EARLIEST, today.year)  # no date is made of a year that is a fault
        dates[name] = pd.to_datetime(pd.DataFrame(fields), errors="coerce").where(there)
        found: dict[str, list[int]] = {}
        for row in part.index[texts[name] != ""]:
            date, year, what = dates[name][row], fields["year"][row], ""
            if pd.isna(year):
                what = "must be a date such as 2020-12-31"
            elif year < EARLIEST:
                what = "write the year with four digits" if year < 100 else f"before {EARLIEST}"
            elif year > today.year or date > today:
                what = "in the future"
            elif pd.isna(date) and len(faults) == doubts:
                what = "there is no such day"
            if what:
                found.setdefault(what, []).append(row)
        for what, rows in found.items():
            first = shorten(str(given[name][rows[0]])) + " first" * (len(rows) > 1)
            wrong += [(row, f"column {columns.theirs(name)}: {first}; {what}") for row in rows]
    order = f", {'month' if month_first.any() else 'day'} first" if len(slashed) else ""
    return dates, wrong, order
