"""What lies beside a cohort's table: vertebra boxes, their corrections, and a simulated cohort's truth."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from pathlib import Path

import numpy as np
import pandas as pd

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, SCALE_COLUMNS, overlapping_pairs
from fracsurv.cohort.tables import decimal_mark, numbers, read_text_table
from fracsurv.utils.errors import SLIP, nearest, row_faults, shorten
from fracsurv.utils.files import read_json
from fracsurv.utils.names import canonical


def read_vertebrae(
    folder: Path,
    patients: set[str] | None,
    faults: list[str],
    *,
    file: str = "vertebrae.csv",
    none_allowed: bool = False,
    without_image: Set[str] = frozenset(),
) -> pd.DataFrame | None:
    """The boxes of `vertebrae.csv`, or of another file like it, in pixels; None without the file.

    Columns: `patient_id`, `level`, sides, `score`, keypoints and their standard deviations (NaN = not given); the
    index is the row of the file. Faults are appended to `faults`: every row must be of one of the `patients` (if
    given), and of none `without_image`. With `none_allowed` four empty fields are sound: the patient has no vertebra.
    """
    path = folder / file
    read = read_text_table(path, faults, ("patient_id", *BOX_COLUMNS)) if path.exists() else None
    if read is None:
        return None
    raw = read.frame
    missing = [name for name in ("patient_id", *BOX_COLUMNS) if name not in raw]
    if missing:
        faults.append(f"{file}: no column {', '.join(missing)}")
        return None
    if raw.empty and not none_allowed:
        faults.append(f"{file}: no boxes; delete it, and fracsurv's own finder looks for the vertebrae")
        return None
    optional = ["level", "score", *KEYPOINT_COLUMNS, *SCALE_COLUMNS]
    for column in (column for column in raw if column not in ("patient_id", *BOX_COLUMNS, *optional)):
        if meant := nearest(column, optional, SLIP):
            faults.append(f"{file}: column {shorten(column)} is not read; call it {meant}")
    table = pd.DataFrame({"patient_id": raw["patient_id"].str.strip()})
    table["level"] = raw.get("level", "")
    measured = [*BOX_COLUMNS, "score", *KEYPOINT_COLUMNS, *SCALE_COLUMNS]
    decimal = decimal_mark(raw, measured, read.delimiter, lambda name: f"{file}, column {name}", faults)
    for name in measured:
        table[name] = numbers(raw[name], decimal) if name in raw else np.nan
    _check_optional(raw, table, file, faults)
    faults += row_faults(file, _box_faults(raw, table, patients, none_allowed))
    rows = table.index[table["patient_id"].isin(without_image)]
    advice = "has no radiograph for a box to lie on: give the image, or take the row out"
    faults += row_faults(file, ((row, f"column patient_id: {table['patient_id'][row]!r}; {advice}") for row in rows))
    return table


def _box_faults(
    raw: pd.DataFrame, table: pd.DataFrame, patients: set[str] | None, none_allowed: bool
) -> list[tuple[int, str]]:
    """Rows of unknown patients, and of boxes without four numbers or without an area."""
    box = table[BOX_COLUMNS].to_numpy()
    unknown = ~table["patient_id"].isin(patients) if patients is not None else pd.Series(False, table.index)
    empty = (raw[BOX_COLUMNS].apply(lambda column: column.str.strip()) == "").all(axis=1) & none_allowed
    sound = np.isfinite(box).all(axis=1) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    need = "a box needs four numbers, x_min < x_max and y_min < y_max"
    written = {canonical(name): f" (is {name!a} meant?)" for name in patients or ()}
    return [
        (row, f"column patient_id: {name!r}; not a patient of the cohort{written.get(canonical(name), '')}")
        if unknown[row]
        else (row, f"{', '.join(raw.loc[row, BOX_COLUMNS])}; {need}")
        for row, name in table.loc[unknown | ~(sound | empty), "patient_id"].items()
    ]


def _check_optional(raw: pd.DataFrame, table: pd.DataFrame, file: str, faults: list[str]) -> None:
    """Scores and keypoints may be left out, but not in part, and must be numbers."""
    for name in ["score", *KEYPOINT_COLUMNS, *SCALE_COLUMNS]:
        if name not in raw:
            continue
        broken = (raw[name].str.strip() != "") & ~np.isfinite(table[name])
        negative = (table[name] < 0) & (name in SCALE_COLUMNS)
        rule = "a number, 0 or above" if name in SCALE_COLUMNS else "a number"
        wrong = table.index[broken | negative]
        faults += row_faults(
            file, ((row, f"column {name}: {raw[name][row]!r}; must be {rule}, or empty") for row in wrong)
        )
    n_known = table[KEYPOINT_COLUMNS].notna().sum(axis=1)
    faults += [
        f"{file} row {row}: {n_known[row]} of the 12 keypoint columns are filled; give all or none"
        for row in table.index[(n_known > 0) & (n_known < len(KEYPOINT_COLUMNS))]
    ]


def written_by(folder: Path) -> str:
    """'vertebrae.csv', and which finder wrote it, if one did and the file is unchanged since."""
    record, path = folder / "vertebrae.json", folder / "vertebrae.csv"
    if record.exists():
        about = read_json(record)
        if about.get("sha256") == hashlib.sha256(path.read_bytes()).hexdigest():
            return f"vertebrae.csv, written by a finder ({about['finder']})"
    return "vertebrae.csv"


def with_keypoints(corrections: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """The corrections, of which boxes without keypoints get those of the former box that they overlap by half."""
    corrections = corrections.copy()
    columns = [*KEYPOINT_COLUMNS, *SCALE_COLUMNS]
    for patient, theirs in corrections.groupby("patient_id"):
        old = before[before["patient_id"] == patient]
        pairs = overlapping_pairs(theirs[BOX_COLUMNS].to_numpy(float), old[BOX_COLUMNS].to_numpy(float))
        for i, j in pairs:
            if theirs.iloc[i][KEYPOINT_COLUMNS].isna().any():
                corrections.loc[theirs.index[i], columns] = old.iloc[j][columns].to_numpy(float)
    return corrections


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
    repeated = truth.index[truth.index.duplicated()]
    absent = patients[~patients.isin(truth.index)]
    if len(repeated):
        faults.append(f"truth.parquet: patient_id {repeated[0]!r} stands in more than one row")
    elif len(absent):
        faults.append(f"truth.parquet: no row for {len(absent)} of the cohort's patients, {absent.iloc[0]} first")
    elif not np.isfinite(pd.to_numeric(truth["log_hazard"], errors="coerce").astype(float)).all():
        faults.append("truth.parquet: log_hazard must be a number in every row")
    else:
        return truth.loc[patients]
    return None
