"""What is checked in the values of a cohort's table. Every fault becomes one line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pandera.pandas as pa

from fracsurv.cohort.covariates import MISSING
from fracsurv.cohort.settings import LONGEST_SHOWN, TOO_LARGE
from fracsurv.cohort.tables import numbers
from fracsurv.utils.errors import row_faults

NOT_KNOWN = ("na", "n/a", "nan", "none", "null", "unknown", "not known", "missing", "#n/a", ".", "-", "?")
SPLITS = ("train", "test", "external")
DATES = ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period")  # as pandas infers them


def check_types(
    table: pd.DataFrame, covariates: dict[str, str], columns: dict[str, str], file: str, faults: list[str]
) -> pd.DataFrame:
    """The table without the times and covariates of a Parquet file that are dates or durations: each is a fault.

    They would be taken as nanoseconds.
    """
    wrong = []
    for name in ("time_days", *covariates):
        kind = pd.api.types.infer_dtype(table[name], skipna=True) if name in table else ""
        if kind.startswith("mixed") and table[name].map(pd.api.types.is_list_like).any():
            kind = "lists of"
        if kind in (*DATES, "lists of"):
            faults.append(
                f"{file}, column {columns.get(name, name)}: holds {kind} values; must be plain numbers, no dates or "
                "durations"
            )
            wrong.append(name)
    return table.drop(columns=wrong)


def check_values(
    table: pd.DataFrame,
    covariates: dict[str, str],
    columns: dict[str, str],
    file: str,
    faults: list[str],
    *,
    decimal: str = ".",
    empty_allowed: bool = False,
    kept: pd.Series | None = None,
    competing: str = "",
) -> pd.DataFrame:
    """The table with its types, `time` in the place of `time_days`; faults are appended to `faults`.

    Only the columns that the table has are checked; those that it should have are told of before. With
    `empty_allowed` a covariate's field may be empty; it is NaN then. `kept` says which patients will be left (all, if
    not given): among them there must be an event, and of one of them every covariate must be known. Without a column
    `event` nobody learns from these patients, and neither is asked for. `competing` says what 2 as an event means
    ('' = it may not occur); where it occurs among those left, a column `competing` is added.
    """
    kept = pd.Series(True, table.index) if kept is None else kept
    values = table.drop(columns="competing", errors="ignore")  # a column of theirs that nobody asked for
    for name in ("patient_id", "split"):
        if name in values:
            values[name] = values[name].fillna("").astype(str).str.strip()
    if "event" in values:
        event = values["event"].astype(str).str.strip().str.lower()
        codes = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "1.0": 1.0, "0.0": 0.0}
        values["event"] = event.map(codes | ({"2": 2.0, "2.0": 2.0} if competing else {}))
    for name in ("time_days", *covariates):
        if name in values:
            values[name] = numbers(values[name], decimal)
    coded = table.drop(columns="event", errors="ignore") if competing else table
    _check_coding(coded, covariates, columns, file, faults)
    empty = _empty_fields(table, kept, covariates, columns, file, faults) if empty_allowed else {}
    try:
        # an empty field stands for a 0 meanwhile, which every kind of covariate may be
        checked = values.assign(**{name: values[name].mask(where, 0.0) for name, where in empty.items()})
        _schema(covariates, competing, present=values.columns).validate(checked, lazy=True)
    except pa.errors.SchemaErrors as errors:
        wrong: list[tuple[int, str]] = []
        for case in errors.failure_cases.sort_values(["index", "column"]).to_dict("records"):
            row, name = int(case["index"]), case["column"]
            raw = table[name].loc[row]
            shown = "empty" if pd.isna(raw) or not str(raw).strip() else repr(str(raw))[:LONGEST_SHOWN]
            hint = _hint(name, shown, covariates, decimal, empty_allowed)
            wrong.append((row, f"column {columns.get(name, name)}: {shown}; {case['check']}{hint}"))
        faults += row_faults(file, wrong)
    if "event" in values:
        if values.loc[kept, "event"].isin([0, 2]).all():
            left = "" if kept.all() else " among those that have a radiograph"
            faults.append(f"{file}, column event: no patient has an event{left}; nothing can be learnt")
        if (values.loc[kept, "event"] == 2).any():
            values["competing"] = values["event"] == 2
        values["event"] = values["event"] == 1
    return values.rename(columns={"time_days": "time"})


def _hint(name: str, shown: str, covariates: dict[str, str], decimal: str, empty_allowed: bool) -> str:
    """What may be behind a field that is no number, and the way out."""
    if decimal == "," and "." in shown:
        return ", with a decimal comma as elsewhere in this file"
    if name == "event" and shown in ("'2'", "'2.0'"):
        return "; 2 may be a competing event, say death, if `competing_event` in cohort.yaml names it"
    if name in covariates and (shown == "empty" or shown.strip("'").strip().lower() in NOT_KNOWN):
        steps = [] if shown == "empty" else ["leave the field empty"]
        steps += [] if empty_allowed else ["set `missing_covariates: impute` in cohort.yaml"]
        return f". If it is not known, {' and '.join(steps)}"
    return ""


def _empty_fields(
    table: pd.DataFrame,
    kept: pd.Series,
    covariates: dict[str, str],
    columns: dict[str, str],
    file: str,
    faults: list[str],
) -> dict[str, pd.Series]:
    """Where each covariate's field is empty; one that is empty for everybody who is to be learnt from is a fault."""
    empty = {}
    for name in covariates:
        if name + MISSING in covariates:
            faults.append(f"cohort.yaml, covariates, {name}{MISSING}: the name is taken; choose another")
        if name in table:
            empty[name] = table[name].isna() | (table[name].astype(str).str.strip() == "")
            if "event" in table and empty[name][kept].all():
                left = "for every patient" if kept.all() else "for every patient that has a radiograph"
                faults.append(f"{file}, column {columns.get(name, name)}: empty {left}; leave it out")
    return empty


def _check_coding(
    table: pd.DataFrame, covariates: dict[str, str], columns: dict[str, str], file: str, faults: list[str]
) -> None:
    """A column of 1 and 2, or of yes and no, where 0 and 1 are wanted: one line says what may be meant."""
    for name in ["event", *(name for name, kind in covariates.items() if kind == "binary")]:
        if name not in table:
            continue
        held = set(table[name].astype(str).str.strip().str.lower().str.removesuffix(".0")) - {""}
        for no, yes in (("1", "2"), ("no", "yes"), ("n", "y"), ("nein", "ja"), ("nej", "ja"), ("false", "true")):
            if held == {no, yes} and not (name == "event" and no == "false"):
                faults.append(
                    f"{file}, column {columns.get(name, name)}: holds {no} and {yes}; code them as 0 and 1 (fracsurv "
                    "does not guess which is which)"
                )


def _schema(covariates: dict[str, str], competing: str, *, present: pd.Index) -> pa.DataFrameSchema:
    """Pandera's schema of the columns present of a cohort's table; a check's `error` is what the user reads."""
    finite = pa.Check(lambda s: s.notna() & (s.abs() < TOO_LARGE), error="must be a number", ignore_na=False)
    binary = pa.Check(lambda s: s.isin([0, 1]), error="must be 0 or 1", ignore_na=False)
    event = "must be 1 (fracture) or 0 (censored)"
    if competing:
        event = f"must be 1 (the event), 2 ({competing}) or 0 (censored)"
    columns = {
        "patient_id": pa.Column(
            str,
            [
                pa.Check(lambda s: s.str.len() > 0, error="must be given", ignore_na=False),
                pa.Check(
                    lambda s: ~s.str.contains(r"[\r\n]"),
                    error="must be one line; is a quotation mark missing or too many?",
                ),
                pa.Check(lambda s: ~s.duplicated() | (s == ""), error="must be unique: one row a patient"),
            ],
        ),
        "time_days": pa.Column(
            float,
            pa.Check(lambda s: (s > 0) & np.isfinite(s), error="must be days, above 0", ignore_na=False),
            nullable=True,
        ),
        "event": pa.Column(
            float,
            pa.Check(lambda s: s.notna(), error=event, ignore_na=False),
            nullable=True,
        ),
    }
    for name, kind in covariates.items():
        columns[name] = pa.Column(float, binary if kind == "binary" else finite, nullable=True)
    allowed = pa.Check(lambda s: s.isin(["", *SPLITS]), error=f"must be empty or one of {', '.join(SPLITS)}")
    columns["split"] = pa.Column(str, allowed)
    return pa.DataFrameSchema({name: column for name, column in columns.items() if name in present})
