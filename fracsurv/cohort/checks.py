"""Checks of a cohort's values and radiographs: every fault becomes one line, all at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa

from fracsurv.cohort.covariates import MISSING
from fracsurv.cohort.settings import TOO_LARGE, CohortSettings
from fracsurv.cohort.tables import clean_name
from fracsurv.utils.errors import LONGEST_SHOWN, row_faults, shorten
from fracsurv.utils.names import canonical, look_alikes, plain

UNKNOWN = ("na", "n/a", "nan", "none", "null", "unknown", "not known", "missing", "#n/a", ".", "-", "?")
SPLITS = ("train", "test", "external")
NO_YES = (("1", "2"), ("no", "yes"), ("n", "y"), ("nein", "ja"), ("nej", "ja"))
LINK_ADVICE = ". If this link leads to your archive of images, name that folder in cohort.yaml as `image_archive`"
FAR_BEFORE, HARDLY_ANY = 100, 0.01
"""Last horizons in the longest follow-up, and share of patients with an event by then: another unit is meant."""
MIN_SHARE_WITH_IMAGE = 0.5
"""Of the patients, where those without a radiograph are masked."""


class Columns(NamedTuple):
    """The columns of a cohort's file: the file's names where they differ from ours, and the covariates' kinds."""

    file: str
    renamed: dict[str, str]
    covariates: dict[str, str]

    def theirs(self, name: str) -> str:
        """The file's name of a column."""
        return clean_name(self.renamed.get(name, name))

    def place(self, name: str) -> str:
        """Where a column stands, for messages."""
        return f"{self.file}, column {self.theirs(name)}"


def check_values(
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
    coded = _check_coding(table, columns, settings, faults)
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
            if name in coded and shown != "empty":
                continue  # the column's own fault says it once
            hint = _hint(name, shown, is_covariate=name in columns.covariates, decimal=decimal, impute=impute)
            wrong.append((row, f"column {columns.theirs(name)}: {shown}; {case['check']}{hint}"))
        faults += row_faults(columns.file, wrong)
    if "patient_id" in values:
        faults += row_faults(columns.file, _look_alike_ids(values["patient_id"], columns.theirs("patient_id")))
    _check_horizons(values, settings, faults)
    if "event" in values and values.loc[kept, "event"].isin([0, 2]).all():
        among = "" if kept.all() else " among those that have a radiograph"
        faults.append(f"{columns.place('event')}: no patient has an event{among}; nothing can be learnt")


def _check_horizons(values: pd.DataFrame, settings: CohortSettings, faults: list[str]) -> None:
    """Horizons of another unit than the times: far before the end of follow-up, and next to no event by then."""
    if not settings.horizons or not {"time_days", "event"} <= set(values):
        return
    last, time, unit = settings.horizons[-1], values["time_days"], settings.time_unit
    had = (values["event"] == 1) & (time <= last)
    if time.max() >= FAR_BEFORE * last and had.mean() < HARDLY_ANY:
        faults.append(
            f"cohort.yaml, horizons: {last:g} {unit} is the last, by which {had.sum():,} of {len(time):,} patients "
            f"had the event; the longest follow-up is {time.max():g} {unit}. Are these "
            f"{'years' if unit == 'days' else 'of another unit'}? Give them in {unit}"
        )


def _look_alike_ids(ids: pd.Series, column: str) -> Iterator[tuple[int, str]]:
    """Rows of patients whose ids a reader would take for one."""
    groups = look_alikes(name for name in ids if plain(name))
    words = {name: " and ".join(ascii(each)[:LONGEST_SHOWN] for each in group) for group in groups for name in group}
    why = "differ only by capitals, accents, blanks, dashes or invisible characters; one patient? Give other ids"
    for row, name in ids.items():
        if name in words:
            yield row, f"column {column}: {words[name]} {why}, or keep one row"


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
    word = re.fullmatch(r"'([^\W\d_]+)'", shown) if is_covariate or name == "event" else None
    if word:
        return f"; give words their codes in cohort.yaml, as in `values: {{{name}: {{{word[1]}: 0, …}}}}`"
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


def _check_coding(table: pd.DataFrame, columns: Columns, settings: CohortSettings, faults: list[str]) -> set[str]:
    """A column of 1 and 2, or of yes and no, where 0 and 1 are wanted: one line says what may be meant.

    The names of these columns.
    """
    coded = set()
    binary = [name for name, kind in columns.covariates.items() if kind == "binary"]
    for name in binary if settings.competing_event else ["event", *binary]:
        if name not in table or pd.api.types.is_bool_dtype(table[name]):
            continue
        held = set(table[name].dropna().astype(str).str.strip().str.lower().str.removesuffix(".0")) - {""}
        is_code = len(held) == 2 and any(map(str.isalpha, held)) and not held & {*UNKNOWN, "0", "1"}
        words = sorted(held) if is_code else []
        for no, yes in [pair for pair in NO_YES if held == set(pair)] or [words] * bool(words):
            coded.add(name)
            faults.append(
                f"{columns.place(name)}: holds {no} and {yes}; code them as 0 and 1 (fracsurv does not guess which "
                f"is which), or add to cohort.yaml `values: {{{name}: {{{no}: 0, {yes}: 1}}}}`, if so"
            )
    return coded


def _schema(covariates: dict[str, str], competing: str, *, present: pd.Index) -> pa.DataFrameSchema:
    """Pandera's schema of the columns present of a cohort's table; a check's `error` is what the user reads."""

    def check(rule, error: str) -> pa.Check:
        return pa.Check(rule, error=error, ignore_na=False)

    event = f"1 (the event), 2 ({competing}) or 0 (censored)" if competing else "1 (fracture) or 0 (censored)"
    number = check(lambda s: s.notna() & (s.abs() < TOO_LARGE), "must be a number")
    binary = check(lambda s: s.isin([0, 1]), "must be 0 or 1")
    ids = [
        check(lambda s: s.map(plain).str.len() > 0, "must be given"),
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


def check_images(
    folder: Path, values: pd.DataFrame, columns: Columns, settings: CohortSettings, faults: list[str], *, learnt: bool
) -> None:
    """Check that radiographs lie inside the folder (or where `image_archive` allows), and that enough have one.

    All need one, unless `missing_images` allows an empty field. With `mask` half of the patients do, and half of
    those to train on; where no model is fitted to them (`learnt`), one of them.
    """
    if "image" not in values:
        return
    has_image, allowed = has_image_entry(values), settings.missing_images
    if allowed != "refuse" and not has_image.any():
        faults.append(f"{columns.place('image')}: empty for every patient; leave the column out")
    elif allowed == "mask" and learnt:
        held_out = values["split"].isin(["test", "external"]) if "split" in values else pd.Series(False, values.index)
        groups = {"patients": has_image, "patients to train on": has_image[~held_out]}
        faults += [
            f"{columns.place('image')}: filled for {among.sum():,} of {len(among):,} {who}; with `missing_images"
            ": mask` at least half must have a radiograph; set it to exclude, and the others are left out"
            for who, among in groups.items() if len(among) and among.mean() < MIN_SHARE_WITH_IMAGE
        ][:1]  # fmt: skip
    wrong: list[tuple[int, str]] = []
    if allowed == "refuse":
        what = "empty; give every patient an image, leave the column out, or set `missing_images` to exclude or mask"
        wrong += [(row, f"{what} in cohort.yaml") for row in values.index[~has_image]]
    archive = settings.image_archive
    if archive and not Path(archive).is_dir():
        faults.append(f"cohort.yaml, image_archive: {shorten(archive)}; no such folder")
    names = cache(_names_in)
    for row, path in values.loc[has_image, "image"].astype(str).items():
        if not is_inside(folder, path, archive):
            also = f" or {archive} (image_archive)" if archive else ""
            fix = "" if archive or not _is_named_inside(folder, path) else LINK_ADVICE
            wrong.append((row, f"{path!r}; must not leave the cohort folder{also}{fix}"))
        elif not (folder / path).is_file():
            wrong.append((row, f"{path!r}; no such file in the cohort folder{_path_hint(folder, path, names)}"))
    column = columns.theirs("image")
    faults += row_faults(columns.file, ((row, f"column {column}: {what}") for row, what in sorted(wrong)))


def _path_hint(folder: Path, path: str, names: Callable[[Path], dict[str, str]]) -> str:
    """What may be behind a path at which there is no file, and the way out."""
    if "\\" in path or path[1:2] == ":":
        return "; write it relative to the cohort folder, with / in place of \\"
    if path == Path(path).name:
        inside = [each for each in {*names(folder).values()} if names(folder / each).get(canonical(path)) == path]
        if len(inside) == 1:
            return f"; is {f'{inside[0]}/{path}'!r} meant?"
    here = folder
    for part in Path(path).parts:
        found = names(here)
        name = found.get(canonical(part)) or found.get(canonical(Path(part).stem))
        if name is None:
            return ""
        here /= name
    return f"; is {here.relative_to(folder).as_posix()!r} meant?"


def _names_in(folder: Path) -> dict[str, str]:
    """The names in a folder by their canonical form, and by that without a suffix."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return {canonical(Path(name).stem): name for name in names} | {canonical(name): name for name in names}


def is_inside(folder: Path, path: str, archive: str = "") -> bool:
    """Whether a cohort's path stays in its folder, or is a link in it to something in the folder `archive`."""
    try:
        target = (folder / path).resolve()
        if target.is_relative_to(folder.resolve()):
            return True
        return bool(archive) and _is_named_inside(folder, path) and target.is_relative_to(Path(archive).resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file can have
        return False


def _is_named_inside(folder: Path, path: str) -> bool:
    """Whether a path stays in the folder as it is written, wherever links lead."""
    return Path(os.path.normpath(folder.absolute() / path)).is_relative_to(os.path.normpath(folder.absolute()))
