"""A cohort's table of patients, from the file's text to checked values. Every fault becomes one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa

from fracsurv.cohort.covariates import MISSING, PROTOCOL_COVARIATES, label_of
from fracsurv.cohort.settings import COLUMNS, TOO_LARGE, CohortSettings
from fracsurv.cohort.tables import TextTable, decimal_mark, numbers, read_table
from fracsurv.utils.errors import closest, row_faults, shorten

DATES = ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period")  # as pandas infers them
EVENTS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "1.0": 1.0, "0.0": 0.0}
COMPETING = {"2": 2.0, "2.0": 2.0}
UNKNOWN = ("na", "n/a", "nan", "none", "null", "unknown", "not known", "missing", "#n/a", ".", "-", "?")
SPLITS = ("train", "test", "external")
NO_YES = (("1", "2"), ("no", "yes"), ("n", "y"), ("nein", "ja"), ("nej", "ja"), ("false", "true"))
MIN_SHARE_WITH_IMAGE = 0.5
"""Of the patients, where those without a radiograph are masked."""


class Columns(NamedTuple):
    """The columns of a cohort's file: the file's names where they differ from ours, and the covariates' kinds."""

    file: str
    renamed: dict[str, str]
    covariates: dict[str, str]

    def theirs(self, name: str) -> str:
        """The file's name of a column."""
        return self.renamed.get(name, name)

    def place(self, name: str) -> str:
        """Where a column stands, for messages."""
        return f"{self.file}, column {self.theirs(name)}"


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
    decimal = decimal_mark(table, ["time_days", *columns.covariates], columns.place, faults)
    values = _typed(table, columns, decimal, competing=bool(settings.competing_event))
    kept = pd.Series(True, table.index)
    if settings.missing_images == "exclude" and "image" in table and has_image_entry(table).any():
        kept = has_image_entry(table)
    _check_values(table, values, columns, settings, kept, decimal, faults)
    _check_images(folder, values, columns, settings, faults, learnt=learnt and outcome)
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
    chosen = {column: names[-1] for column, names in ours.items() if column in table.columns}
    return table[list(chosen)].rename(columns=chosen)


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


def _check_values(
    table: pd.DataFrame,
    values: pd.DataFrame,
    columns: Columns,
    settings: CohortSettings,
    kept: pd.Series,
    decimal: str,
    faults: list[str],
) -> None:
    """Check the values of the columns that the table has: `table` as the file holds them, `values` as read.

    One of the patients `kept` (bool) must have an event, and each covariate must be known of one of them. Neither is
    asked for without a column `event`, for then no model is fitted to them.
    """
    _check_coding(table, columns, settings, faults)
    impute = settings.missing_covariates == "impute"
    empty = _empty_fields(table, kept, columns, faults) if impute else {}
    # an empty field stands for a 0 meanwhile, which every kind of covariate may be
    checked = values.assign(**{name: values[name].mask(where, 0.0) for name, where in empty.items()})
    try:
        _schema(columns.covariates, settings.competing_event, present=values.columns).validate(checked, lazy=True)
    except pa.errors.SchemaErrors as errors:
        wrong: list[tuple[int, str]] = []
        for case in errors.failure_cases.sort_values(["index", "column"]).to_dict("records"):
            row, name = int(case["index"]), case["column"]
            raw = table[name].loc[row]
            shown = "empty" if pd.isna(raw) or not str(raw).strip() else shorten(str(raw))
            hint = _hint(name, shown, is_covariate=name in columns.covariates, decimal=decimal, impute=impute)
            wrong.append((row, f"column {columns.theirs(name)}: {shown}; {case['check']}{hint}"))
        faults += row_faults(columns.file, wrong)
    if "event" in values and values.loc[kept, "event"].isin([0, 2]).all():
        among = "" if kept.all() else " among those that have a radiograph"
        faults.append(f"{columns.file}, column event: no patient has an event{among}; nothing can be learnt")


def _hint(name: str, shown: str, *, is_covariate: bool, decimal: str, impute: bool) -> str:
    """What may be behind a field that is no number, and the way out."""
    if decimal == "," and "." in shown:
        return ", with a decimal comma as elsewhere in this file"
    if name == "event" and shown in ("'2'", "'2.0'"):
        return "; 2 may be a competing event, say death, if `competing_event` in cohort.yaml names it"
    if is_covariate and (shown == "empty" or shown.strip("'").strip().lower() in UNKNOWN):
        steps = [] if shown == "empty" else ["leave the field empty"]
        steps += [] if impute else ["set `missing_covariates: impute` in cohort.yaml"]
        return f". If it is not known, {' and '.join(steps)}"
    return ""


def _empty_fields(table: pd.DataFrame, kept: pd.Series, columns: Columns, faults: list[str]) -> dict[str, pd.Series]:
    """Where each covariate's field is empty; one that is empty for all patients to learn from is a fault."""
    empty = {}
    for name in columns.covariates:
        if name + MISSING in columns.covariates:
            faults.append(f"cohort.yaml, covariates, {name}{MISSING}: the name is taken; choose another")
        if name in table:
            empty[name] = table[name].isna() | (table[name].astype(str).str.strip() == "")
            if "event" in table and empty[name][kept].all():
                among = "" if kept.all() else " that has a radiograph"
                faults.append(f"{columns.place(name)}: empty for every patient{among}; leave it out")
    return empty


def _check_coding(table: pd.DataFrame, columns: Columns, settings: CohortSettings, faults: list[str]) -> None:
    """A column of 1 and 2, or of yes and no, where 0 and 1 are wanted: one line says what may be meant."""
    binary = [name for name, kind in columns.covariates.items() if kind == "binary"]
    for name in binary if settings.competing_event else ["event", *binary]:
        if name not in table:
            continue
        held = set(table[name].astype(str).str.strip().str.lower().str.removesuffix(".0")) - {""}
        for no, yes in NO_YES:
            if held == {no, yes} and not (name == "event" and no == "false"):
                faults.append(
                    f"{columns.place(name)}: holds {no} and {yes}; code them as 0 and 1 (fracsurv does not guess "
                    "which is which)"
                )


def _schema(covariates: dict[str, str], competing: str, *, present: pd.Index) -> pa.DataFrameSchema:
    """Pandera's schema of the columns present of a cohort's table; a check's `error` is what the user reads."""

    def check(rule, error: str) -> pa.Check:
        return pa.Check(rule, error=error, ignore_na=False)

    event = f"1 (the event), 2 ({competing}) or 0 (censored)" if competing else "1 (fracture) or 0 (censored)"
    number = check(lambda s: s.notna() & (s.abs() < TOO_LARGE), "must be a number")
    binary = check(lambda s: s.isin([0, 1]), "must be 0 or 1")
    ids = [
        check(lambda s: s.str.len() > 0, "must be given"),
        check(lambda s: ~s.str.contains(r"[\r\n]"), "must be one line; is a quotation mark missing or too many?"),
        check(lambda s: ~s.duplicated() | (s == ""), "must be unique: one row a patient"),
    ]
    days = check(lambda s: (s > 0) & np.isfinite(s), "must be days, above 0")
    split = check(lambda s: s.isin(["", *SPLITS]), f"must be empty or one of {', '.join(SPLITS)}")
    columns = {
        "patient_id": pa.Column(str, ids),
        "time_days": pa.Column(float, days, nullable=True),
        "event": pa.Column(float, check(lambda s: s.notna(), f"must be {event}"), nullable=True),
        **{
            name: pa.Column(float, binary if kind == "binary" else number, nullable=True)
            for name, kind in covariates.items()
        },
        "split": pa.Column(str, split),
    }
    return pa.DataFrameSchema({name: column for name, column in columns.items() if name in present})


def has_image_entry(table: pd.DataFrame) -> pd.Series:
    """Whether a patient's field `image` is filled, bool."""
    return table["image"].fillna("").astype(str).str.strip() != ""


def _check_images(
    folder: Path, values: pd.DataFrame, columns: Columns, settings: CohortSettings, faults: list[str], *, learnt: bool
) -> None:
    """Check that radiographs lie inside the folder, and that enough patients have one.

    All need one, unless `missing_images` allows an empty field. With `mask` half of the patients do, and half of
    those to train on; where no model is fitted to them (`learnt`), one of them.
    """
    if "image" not in values:
        return
    has_image, allowed = has_image_entry(values), settings.missing_images
    if allowed != "refuse" and not has_image.any():
        faults.append(f"{columns.file}, column image: empty for every patient; leave the column out")
    elif allowed == "mask" and learnt:
        held_out = values["split"].isin(["test", "external"]) if "split" in values else pd.Series(False, values.index)
        groups = {"patients": has_image, "patients to train on": has_image[~held_out]}
        faults += [
            f"{columns.file}, column image: filled for {among.sum():,} of {len(among):,} {who}; with `missing_images"
            ": mask` at least half must have a radiograph; set it to exclude, and the others are left out"
            for who, among in groups.items() if len(among) and among.mean() < MIN_SHARE_WITH_IMAGE
        ][:1]  # fmt: skip
    wrong: list[tuple[int, str]] = []
    if allowed == "refuse":
        what = "empty; give every patient an image, leave the column out, or set `missing_images` to exclude or mask"
        wrong += [(row, f"{what} in cohort.yaml") for row in values.index[~has_image]]
    for row, path in values.loc[has_image, "image"].astype(str).items():
        if not is_inside(folder, path):
            wrong.append((row, f"{path!r}; must not leave the cohort folder"))
        elif not (folder / path).is_file():
            wrong.append((row, f"{path!r}; no such file in the cohort folder"))
    faults += row_faults(columns.file, ((row, f"column image: {what}") for row, what in sorted(wrong)))


def is_inside(folder: Path, path: str) -> bool:
    """Whether a cohort's path stays in its folder."""
    try:
        return (folder / path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file can have
        return False
