"""vertebrae.csv and its like: read, checked, corrected."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, SCALE_COLUMNS, overlapping_pairs
from fracsurv.cohort.tables import decimal_mark, numbers, read_text_table
from fracsurv.utils.errors import row_faults
from fracsurv.utils.files import read_json


def read_vertebrae(
    folder: Path,
    patients: set[str] | None,
    faults: list[str],
    *,
    file: str = "vertebrae.csv",
    none_allowed: bool = False,
) -> pd.DataFrame | None:
    """The boxes of `vertebrae.csv`, or of another file like it, in pixels; None without the file.

    Every row must be of one of `patients`, if given. With `none_allowed` a row with a patient and four empty fields
    is sound: that patient has no vertebra. The table's index is the row of the file.
    """
    path = folder / file
    if not path.exists():
        return None
    read = read_text_table(path, faults)
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
    table = pd.DataFrame({"patient_id": raw["patient_id"].str.strip()})
    table["level"] = raw.get("level", "")
    measured = [*BOX_COLUMNS, "score", *KEYPOINT_COLUMNS, *SCALE_COLUMNS]
    decimal = decimal_mark(raw, measured, {}, file, faults)
    for name in measured:
        table[name] = numbers(raw[name], decimal) if name in raw else np.nan
    _check_optional(raw, table, file, faults)
    box = table[BOX_COLUMNS].to_numpy()
    unknown = ~table["patient_id"].isin(patients) if patients is not None else pd.Series(False, table.index)
    empty = (raw[BOX_COLUMNS].apply(lambda column: column.str.strip()) == "").all(axis=1) & none_allowed
    broken = ~np.isfinite(box).all(axis=1) & ~empty
    flat = ~broken & ((box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1]))
    wrong: list[tuple[int, str]] = []
    for row in table.index[unknown | broken | flat]:
        if unknown[row]:
            what = f"column patient_id: {table['patient_id'][row]!r}; not a patient of the cohort"
        else:
            shown = ", ".join(raw.loc[row, BOX_COLUMNS].fillna(""))
            what = f"{shown}; a box needs four numbers, x_min < x_max and y_min < y_max"
        wrong.append((row, what))
    faults += row_faults(file, wrong)
    return table


def _check_optional(raw: pd.DataFrame, table: pd.DataFrame, file: str, faults: list[str]) -> None:
    """Scores and keypoints may be left out, but not be half there, nor be anything but numbers."""
    for name in ["score", *KEYPOINT_COLUMNS, *SCALE_COLUMNS]:
        if name not in raw:
            continue
        broken = (raw[name].str.strip() != "") & ~np.isfinite(table[name])
        negative = (table[name] < 0) & (name in SCALE_COLUMNS)
        rule = "a number, 0 or above" if name in SCALE_COLUMNS else "a number"
        faults += [
            f"{file} row {row}, column {name}: {raw[name][row]!r}; must be {rule}, or empty"
            for row in table.index[broken | negative]
        ]
    n_known = table[KEYPOINT_COLUMNS].notna().sum(axis=1)
    faults += [
        f"{file} row {row}: {n_known[row]} of the 12 keypoint columns are filled; give all or none"
        for row in table.index[(n_known > 0) & (n_known < len(KEYPOINT_COLUMNS))]
    ]


def written_by(folder: Path) -> str:
    """'vertebrae.csv', and which finder wrote it, if one did and nobody has changed the file since."""
    record, path = folder / "vertebrae.json", folder / "vertebrae.csv"
    if record.exists():
        about = read_json(record)
        if about.get("sha256") == hashlib.sha256(path.read_bytes()).hexdigest():
            return f"vertebrae.csv, written by a finder ({about['finder']})"
    return "vertebrae.csv"


def with_keypoints(corrections: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """Corrected boxes without keypoints get those of the box before that they overlap by half: the same bone's."""
    corrections = corrections.copy()
    columns = [*KEYPOINT_COLUMNS, *SCALE_COLUMNS]
    for patient, theirs in corrections.groupby("patient_id"):
        old = before[before["patient_id"] == patient]
        pairs = overlapping_pairs(theirs[BOX_COLUMNS].to_numpy(float), old[BOX_COLUMNS].to_numpy(float))
        for i, j in pairs:
            if theirs.iloc[i][KEYPOINT_COLUMNS].isna().any():
                corrections.loc[theirs.index[i], columns] = old.iloc[j][columns].to_numpy(float)
    return corrections
