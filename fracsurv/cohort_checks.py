"""What is checked in a cohort's files: settings, values, image paths and boxes. Every fault becomes one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from fracsurv.covariates import label_of
from fracsurv.text_tables import numbers

PROVENANCES = ("real", "simulated", "semi-synthetic")
KINDS = ("continuous", "normalised", "binary")
SETTINGS = (
    "provenance",
    "covariates",
    "columns",
    "resolution",
    "labels",
    "outcome",
    "horizons",
    "time_unit",
    "dicom_values",
    "description",
)
RESERVED = ("patient_id", "time", "time_days", "event", "image", "split")  # columns of ours, never covariates
LONGEST_UNIT = 30  # characters; it stands on axes
SPLITS = ("train", "test", "external")
DATES = ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period")  # as pandas infers them
BOX_COLUMNS = ["x_min", "y_min", "x_max", "y_max"]
KEYPOINT_COLUMNS = [f"{axis}{k}" for k in range(1, 7) for axis in "xy"]
SCALE_COLUMNS = [f"s{name}" for name in KEYPOINT_COLUMNS]  # standard deviations of those


def check_settings(settings: dict[str, Any], faults: list[str]) -> None:
    """Check what `cohort.yaml` holds; settings of the wrong type are taken out, so that reading can go on."""
    faults += [
        f"cohort.yaml: unknown setting {name!r}; known are {', '.join(SETTINGS)}"
        for name in settings
        if name not in SETTINGS
    ]
    resolution, days = settings.get("resolution", 1.0), settings.get("horizons", [])
    rules = {
        "provenance": (settings.get("provenance", "real") in PROVENANCES, f"must be one of {', '.join(PROVENANCES)}"),
        "resolution": (_is_number(resolution) and 0 < resolution <= 10, "must be a number above 0 and at most 10"),
        "horizons": (_are_horizons(days), "must be a list of days above 0, each later than the one before"),
        "dicom_values": (
            settings.get("dicom_values", "stored") in ("stored", "windowed"),
            "must be stored or windowed",
        ),
        "outcome": (_is_text(settings.get("outcome", "-")), "must be text, not empty"),
        "description": (isinstance(settings.get("description", ""), str), "must be text"),
        "time_unit": (
            _is_text(unit := settings.get("time_unit", "days")) and len(unit) <= LONGEST_UNIT and "\n" not in unit,
            f"must be text such as days or months, not empty, at most {LONGEST_UNIT} characters",
        ),
    }
    for name, (kept, rule) in rules.items():
        if not kept:
            faults.append(f"cohort.yaml, {name}: {settings.pop(name)!r}; {rule}")
    for name in ("covariates", "columns", "labels"):
        if not isinstance(settings.get(name, {}), dict):
            faults.append(f"cohort.yaml, {name}: must hold `name: value` lines")
            del settings[name]
    _check_maps(settings, faults)


def _check_maps(settings: dict[str, Any], faults: list[str]) -> None:
    """Check the entries of `covariates`, `columns` and `labels`."""
    for name, kind in settings.get("covariates", {}).items():
        if not _is_text(name):
            faults.append(
                f"cohort.yaml, covariates: {name!r}; a name must be text (in quotes, if it looks like a number)"
            )
        elif name in RESERVED:
            faults.append(
                f"cohort.yaml, covariates, {name}: the name is taken; choose another and map it in `columns`"
            )
        if kind not in KINDS:
            faults.append(f"cohort.yaml, covariates, {name}: {kind!r}; must be one of {', '.join(KINDS)}")
    for part in ("columns", "labels"):
        entries = settings.get(part, {})
        for name in [name for name, value in entries.items() if not _is_text(value)]:
            faults.append(f"cohort.yaml, {part}, {name}: {entries.pop(name)!r}; must be text, not empty")


def check_labels(covariates: Iterable[str], labels: Mapping[str, str], faults: list[str]) -> None:
    """Two covariates of one label could not be told apart in any table."""
    meant: dict[str, str] = {}
    for name in filter(_is_text, covariates):
        other = meant.setdefault(label_of(name, labels), name)
        if other != name:
            faults.append(
                f"covariates {other} and {name}: both are called {label_of(name, labels)!r}; give them different "
                "`labels` in cohort.yaml"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_horizons(days: object) -> bool:
    if not isinstance(days, list) or not all(_is_number(day) and day > 0 for day in days):
        return False
    return all(earlier < later for earlier, later in pairwise(days))


def check_types(
    table: pd.DataFrame, covariates: dict[str, str], columns: dict[str, str], file: str, faults: list[str]
) -> pd.DataFrame:
    """The table without the times and covariates of a Parquet file that are dates or durations: each is a fault.

    They would be taken as nanoseconds.
    """
    wrong = []
    for name in ("time_days", *covariates):
        kind = pd.api.types.infer_dtype(table[name], skipna=True) if name in table else ""
        if kind in DATES:
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
) -> pd.DataFrame:
    """The table with its types, `time` in the place of `time_days`; faults are appended to `faults`.

    Only the columns that the table has are checked; those that it should have are told of before.
    """
    values = table.copy()
    for name in ("patient_id", "split"):
        if name in values:
            values[name] = values[name].fillna("").astype(str).str.strip()
    if "event" in values:
        event = values["event"].astype(str).str.strip().str.lower()
        values["event"] = event.map({"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "1.0": 1.0, "0.0": 0.0})
    for name in ("time_days", *covariates):
        if name in values:
            values[name] = numbers(values[name], decimal)
    _check_coding(table, covariates, columns, file, faults)
    try:
        _schema(covariates, present=values.columns).validate(values, lazy=True)
    except pa.errors.SchemaErrors as errors:
        for case in errors.failure_cases.sort_values(["index", "column"]).to_dict("records"):
            row, column = int(case["index"]), case["column"]
            raw = table[column].iloc[row]
            shown = "empty" if pd.isna(raw) or not str(raw).strip() else repr(str(raw))[:60]
            name = columns.get(column, column)
            mark = ", with a decimal comma as elsewhere in this file" if decimal == "," and "." in shown else ""
            faults.append(f"{file} row {row + 2}, column {name}: {shown}; {case['check']}{mark}")
    if "event" in values:
        if (values["event"] == 0).all():
            faults.append(f"{file}, column event: no patient has an event; nothing can be learnt")
        values["event"] = values["event"] == 1
    return values.rename(columns={"time_days": "time"})


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


def _schema(covariates: dict[str, str], *, present: pd.Index) -> pa.DataFrameSchema:
    """Pandera's schema of the columns present of a cohort's table; a check's `error` is what the user reads."""
    finite = pa.Check(lambda s: s.notna() & np.isfinite(s), error="must be a number", ignore_na=False)
    binary = pa.Check(lambda s: s.isin([0, 1]), error="must be 0 or 1", ignore_na=False)
    columns = {
        "patient_id": pa.Column(
            str,
            [
                pa.Check(lambda s: s.str.len() > 0, error="must be given", ignore_na=False),
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
            pa.Check(lambda s: s.notna(), error="must be 1 (fracture) or 0 (censored)", ignore_na=False),
            nullable=True,
        ),
    }
    for name, kind in covariates.items():
        columns[name] = pa.Column(float, binary if kind == "binary" else finite, nullable=True)
    allowed = pa.Check(lambda s: s.isin(["", *SPLITS]), error=f"must be empty or one of {', '.join(SPLITS)}")
    columns["split"] = pa.Column(str, allowed)
    return pa.DataFrameSchema({name: column for name, column in columns.items() if name in present})


def check_images(folder: Path, values: pd.DataFrame, file: str, faults: list[str]) -> None:
    """Every patient has a file inside the folder, or there is no column `image`."""
    if "image" not in values:
        return
    for row, path in enumerate(values["image"].fillna("").astype(str)):
        where = f"{file} row {row + 2}, column image"
        if not path:
            faults.append(f"{where}: empty; give every patient an image, or leave the column out")
        elif not is_inside(folder, path):
            faults.append(f"{where}: {path!r}; must not leave the cohort folder")
        elif not (folder / path).is_file():
            faults.append(f"{where}: {path!r}; no such file in the cohort folder")


def is_inside(folder: Path, path: str) -> bool:
    """Whether a cohort's path stays in its folder."""
    return (folder / path).resolve().is_relative_to(folder.resolve())


def read_truth(folder: Path, patients: pd.Series, faults: list[str]) -> pd.DataFrame | None:
    """`truth.parquet` in the order of `patients`, indexed by them; None without the file, or with faults."""
    path = folder / "truth.parquet"
    if not path.exists():
        return None
    try:
        truth = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        faults.append(f"truth.parquet: not readable ({type(error).__name__})")
        return None
    if missing := [name for name in ("patient_id", "log_hazard") if name not in truth]:
        faults.append(f"truth.parquet: no column {', '.join(missing)}")
        return None
    truth = truth.set_index(truth["patient_id"].astype(str).str.strip()).drop(columns="patient_id")
    truth = truth[truth.index.isin(patients)]
    twice = truth.index[truth.index.duplicated()]
    absent = patients[~patients.isin(truth.index)]
    if len(twice):
        faults.append(f"truth.parquet: patient_id {twice[0]!r} stands in more than one row")
    elif len(absent):
        faults.append(f"truth.parquet: no row for {len(absent)} of the cohort's patients, {absent.iloc[0]} first")
    elif not np.isfinite(pd.to_numeric(truth["log_hazard"], errors="coerce").astype(float)).all():
        faults.append("truth.parquet: log_hazard must be a number in every row")
    else:
        return truth.loc[patients]
    return None
