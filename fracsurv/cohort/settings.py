"""What is checked in `cohort.yaml`. Every fault becomes one line."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fracsurv.cohort.covariates import PROTOCOL_COVARIATES, label_of

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
    "competing_event",
    "outcome_includes_death",
    "dicom_values",
    "missing_covariates",
    "missing_images",
    "description",
)
COLUMNS = ("patient_id", "time_days", "event", "image", "split")
"""Of a cohort's table, besides the covariates."""
RESERVED = (*COLUMNS, "time", "competing")  # ours, never covariates
TOO_LARGE = 1e15  # a covariate of that size is none, and its square is no number of single precision
LONGEST_SHOWN = 60  # characters of what a user gave, in a message
LONGEST_UNIT = 30  # characters; it stands on axes
DEATH = re.compile(r"\b(death|dead|died|decease|mortality)", re.IGNORECASE)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 2 * LONGEST_SHOWN


def read_settings(folder: Path, faults: list[str]) -> dict[str, Any]:
    """`cohort.yaml`, its faulty entries left out; empty without the file."""
    path = folder / "cohort.yaml"
    if not path.exists():
        return {}
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = " (must be UTF-8)" if isinstance(error, UnicodeDecodeError) else ""
        where = where if line is None else f" (line {line + 1})"
        faults.append(f"cohort.yaml: not readable as YAML{where}")
        return {}
    if not isinstance(settings, dict):
        faults.append("cohort.yaml: must hold `name: value` lines")
        return {}
    check_settings(settings, faults)
    return settings


def check_settings(settings: dict[str, Any], faults: list[str]) -> None:
    """Check what `cohort.yaml` holds; settings of the wrong type are taken out, so that reading can go on."""
    faults += [
        f"cohort.yaml: unknown setting {_shown(name)}; known are {', '.join(SETTINGS)}"
        for name in settings
        if name not in SETTINGS
    ]
    resolution, days = settings.get("resolution", 1.0), settings.get("horizons", [])
    rules = {
        "provenance": (settings.get("provenance", "real") in PROVENANCES, f"must be one of {', '.join(PROVENANCES)}"),
        "resolution": (_is_number(resolution) and 0 < resolution <= 10, "must be a number above 0 and at most 10"),
        "horizons": (_are_horizons(days), "must be a list of days above 0, each later than the one before"),
        "missing_covariates": (
            settings.get("missing_covariates", "refuse") in ("refuse", "impute"),
            "must be refuse or impute",
        ),
        "missing_images": (
            settings.get("missing_images", "refuse") in ("refuse", "exclude", "mask"),
            "must be refuse, exclude or mask",
        ),
        "dicom_values": (
            settings.get("dicom_values", "stored") in ("stored", "windowed"),
            "must be stored or windowed",
        ),
        "outcome": (_is_text(settings.get("outcome", "-")), "must be text, not empty"),
        "competing_event": (
            _is_text(settings.get("competing_event", "-")),
            "must be text, not empty: what 2 in the column event means, e.g. death",
        ),
        "outcome_includes_death": (
            isinstance(settings.get("outcome_includes_death", False), bool),
            "must be true or false: whether who dies has the event",
        ),
        "description": (isinstance(settings.get("description", ""), str), "must be text"),
        "time_unit": (
            _is_text(unit := settings.get("time_unit", "days")) and len(unit) <= LONGEST_UNIT and "\n" not in unit,
            f"must be text such as days or months, not empty, at most {LONGEST_UNIT} characters",
        ),
    }
    for name, (kept, rule) in rules.items():
        if not kept:
            faults.append(f"cohort.yaml, {name}: {_shown(settings.pop(name))}; {rule}")
    if settings.get("outcome_includes_death") and DEATH.search(str(settings.get("competing_event", ""))):
        faults.append("cohort.yaml: outcome_includes_death and competing_event; a death is the one or the other")
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
                f"cohort.yaml, covariates: {_shown(name)}; a name must be text (in quotes, if it looks like a number)"
            )
        elif name in RESERVED:
            faults.append(
                f"cohort.yaml, covariates, {name}: the name is taken; choose another and map it in `columns`"
            )
        if kind not in KINDS:
            faults.append(f"cohort.yaml, covariates, {name}: {_shown(kind)}; must be one of {', '.join(KINDS)}")
    for part in ("columns", "labels"):
        entries = settings.get(part, {})
        for name in [name for name, value in entries.items() if not _is_text(value)]:
            faults.append(f"cohort.yaml, {part}, {name}: {_shown(entries.pop(name))}; must be text, not empty")


def covariates_of(table: pd.DataFrame, settings: dict, file: str, faults: list[str]) -> dict[str, str]:
    """Name to kind of a cohort's covariates: those of `settings`, or those of the protocol's that the table has.

    One that `columns` gives a column is among them, whether or not the table has that column.
    """
    if settings.get("covariates"):
        return dict(settings["covariates"])
    columns = settings.get("columns", {})
    found = {name: kind for name, kind in PROTOCOL_COVARIATES.items() if name in columns or name in table.columns}
    if not found:
        faults.append(f"{file}: none of the protocol's covariates; name yours in cohort.yaml under `covariates`")
    return found


def unread_columns(table: pd.DataFrame, settings: dict, covariates: Iterable[str]) -> tuple[str, ...]:
    """Columns of the table that are none of ours, where nobody said which ones are covariates."""
    if settings.get("covariates"):
        return ()
    columns = settings.get("columns", {})
    ours = {columns.get(name, name) for name in (*COLUMNS, *covariates)}
    return tuple(str(name) for name in table.columns if name not in ours)


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


def _shown(value: object) -> str:
    text = _SHORT.repr(value)  # a YAML file of a few lines can stand for a text that no memory holds
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -TOO_LARGE < value < TOO_LARGE


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_horizons(days: object) -> bool:
    if not isinstance(days, list) or not all(_is_number(day) and day > 0 for day in days):
        return False
    return all(earlier < later for earlier, later in pairwise(days))
