"""`cohort.yaml`: what it may hold, checked by pydantic. Every fault becomes one line."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fracsurv.utils.yaml_files import read_yaml, validation_faults

COLUMNS = ("patient_id", "time_days", "event", "image", "split")
"""Of a cohort's table, besides the covariates."""
DATES = ("baseline_date", "event_date", "last_seen_date")
"""From which the times come where there is no column of them."""
RESERVED = (*COLUMNS, *DATES, "time", "competing")  # ours, never covariates
TOO_LARGE = 1e15  # a covariate of that size is none, and its square is no number of single precision
LONGEST_UNIT = 30  # characters; it stands on axes
DEATH = re.compile(r"\b(death|dead|died|decease|mortality)", re.IGNORECASE)


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must be text, not empty")
    return text


def _unit(text: str) -> str:
    if len(text) > LONGEST_UNIT or "\n" in text:
        raise ValueError(f"must be text such as days or months, at most {LONGEST_UNIT} characters")
    return text


def _whole_path(path: str) -> str:
    if path and (not Path(path).is_absolute() or Path(path).resolve() == Path(Path(path).anchor)):
        raise ValueError("must be the whole path of a folder, such as /archive/radiographs")
    return path


def _free_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError("the name is taken; choose another and map it in `columns`")
    return name


def _increasing(days: tuple[float, ...]) -> tuple[float, ...]:
    if not all(earlier < later for earlier, later in pairwise(days)):
        raise ValueError("must be a list of days, each later than the one before")
    return days


Text = Annotated[str, AfterValidator(_filled)]
Days = Annotated[float, Field(gt=0, lt=TOO_LARGE)]
Kind = Literal["continuous", "normalised", "binary"]


class CohortSettings(BaseModel):
    """The entries of `cohort.yaml`; `data/README.md` describes them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    provenance: Literal["real", "simulated", "semi-synthetic"] = "real"
    covariates: dict[Annotated[Text, AfterValidator(_free_name)], Kind] = {}
    columns: dict[Any, Text] = {}
    values: dict[Any, dict[Any, float | None]] = {}
    resolution: Annotated[float, Field(gt=0, le=10)] = 1.0
    labels: dict[Any, Text] = {}
    outcome: Text = "any fracture"
    horizons: Annotated[tuple[Days, ...], Field(strict=False), AfterValidator(_increasing)] = ()
    time_unit: Annotated[Text, AfterValidator(_unit)] = "days"
    competing_event: Text = ""
    outcome_includes_death: bool = False
    dicom_values: Literal["stored", "windowed"] = "stored"
    missing_covariates: Literal["refuse", "impute"] = "refuse"
    missing_images: Literal["refuse", "exclude", "mask"] = "refuse"
    image_archive: Annotated[str, AfterValidator(_whole_path)] = ""
    description: str = ""


def read_settings(folder: Path, faults: list[str]) -> CohortSettings:
    """The settings in `cohort.yaml`, or the defaults; faulty entries become faults, and have their defaults."""
    path = folder / "cohort.yaml"
    entries = (read_yaml(path, faults) or {}) if path.exists() else {}
    try:
        settings = CohortSettings.model_validate(entries)
    except ValidationError as error:
        faults += validation_faults(error, path.name, CohortSettings.model_fields)
        settings = _without_faults(entries, error)
    if settings.outcome_includes_death and DEATH.search(settings.competing_event):
        faults.append(f"{path.name}: outcome_includes_death and competing_event; a death is the one or the other")
    return settings


def _without_faults(entries: dict[Any, Any], error: ValidationError) -> CohortSettings:
    """The sound entries, so that the table can be checked too."""
    kept = {name: value for name, value in entries.items() if name in CohortSettings.model_fields}
    for name, *inner in (fault["loc"] for fault in error.errors()):
        value = kept.get(name)
        if not inner or not isinstance(value, dict):
            kept.pop(name, None)
        elif name == "covariates" and inner[0] in value and len(inner) == 1:
            value[inner[0]] = "normalised"  # only its kind is wrong: its column is checked as numbers
        else:
            kept[name] = {key: each for key, each in value.items() if isinstance(key, str) and key != inner[0]}
    return CohortSettings.model_validate(kept)
