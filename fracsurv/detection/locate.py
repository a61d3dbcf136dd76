"""Where a cohort's boxes come from: its own vertebrae.csv or, without one, the finder that ships with fracsurv."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fracsurv.cohort.annotations import read_vertebrae
from fracsurv.cohort.boxes import BOX_COLUMNS, overlapping_pairs
from fracsurv.cohort.cohort import Cohort
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import (
    atomic_path,
    locked,
    read_json,
    write_json,
)
from fracsurv.utils.formatting import counted

SHIPPED = Path(__file__).parent / "weights" / "simulated.safetensors"
"""A finder trained on simulated radiographs; weights/README.md says how, and how good it is."""
VERSION = 3
"""Raised whenever the same radiographs and weights would give other vertebrae."""
FOUND, CORRECTED = "vertebrae", "vertebrae_corrected"
"""Tables of what the finder found, and of the corrected boxes that it measured."""


def locate_vertebrae(cohort: Cohort, folder: Path, *, progress: bool = True) -> Cohort:
    """The cohort with boxes: as it is if it has them (or no radiographs); else they are found, once, and kept.

    In `folder`: `vertebrae.csv`, what the finder found, and, where the cohort has corrections,
    `vertebrae_corrected.csv`, in which the finder has located the keypoints that the corrected boxes come without;
    each with a .json, written last, that says what it was made from.

    Raises
    ------
    UserError
        For every radiograph that cannot be read; as `read_located`.
    """
    if not cohort.has_images or cohort.vertebrae is not None:
        return cohort
    with locked(folder / ".vertebrae.lock"):
        for name, key in _keys(cohort).items():
            if not _is_of(folder, name, key):
                _find(cohort, folder, name, key, progress)
            for former in folder.glob(f".{name}.parts.*"):  # of this table, and of other radiographs
                shutil.rmtree(former, ignore_errors=True)
        return read_located(cohort, folder)


def read_located(cohort: Cohort, folder: Path) -> Cohort | None:
    """The cohort with boxes, as `locate_vertebrae` left them in `folder`; None if it left none of this state.

    Raises
    ------
    UserError
        Where no vertebra was found in any radiograph, or somebody changed a table so that it cannot be read.
    """
    if not cohort.has_images or cohort.vertebrae is not None:
        return cohort
    keys = _keys(cohort)
    if not all(_is_of(folder, name, key) for name, key in keys.items()):
        return None
    found, *corrected = (_read(cohort, folder, name) for name in keys)
    summary = read_json(folder / f"{FOUND}.json")["finder"]
    if found.empty:
        raise UserError(
            f"{cohort.folder}: the finder ({summary}) saw no vertebra in any radiograph; give boxes (vertebrae.csv), "
            "or train a finder on radiographs like these (`fracsurv detect train`, then `detect predict`)"
        )
    if corrected:
        cohort = replace(cohort, corrections=corrected[0])
    return cohort.with_boxes(found, f"finder that ships with fracsurv ({summary})")


def _keys(cohort: Cohort) -> dict[str, str]:
    """The tables to be made of a cohort, by name, with a fingerprint of what each depends on."""
    pairs = list(zip(cohort.table["patient_id"], cohort.table["image"], strict=True))
    weights = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    keys = {FOUND: _digest(VERSION, weights, cohort.image_fingerprint(), pairs, cohort.resolution)}
    if cohort.corrections is not None:
        keys[CORRECTED] = _digest(keys[FOUND], cohort.corrections.to_csv(index=False))
    return keys


def _is_of(folder: Path, name: str, key: str) -> bool:
    """Whether the table `name` lies in `folder`, made from what `key` stands for."""
    path, record = folder / f"{name}.csv", folder / f"{name}.json"
    return path.exists() and record.exists() and read_json(record)["key"] == key


def _find(cohort: Cohort, folder: Path, name: str, key: str, progress: bool) -> None:
    """Write the table `name` and its record; a search that was interrupted goes on from its parts."""
    from fracsurv import detection  # here: it imports torch, which boxes found before do not need

    finder = detection.load_finder(SHIPPED)
    record = folder / f"{name}.json"
    record.unlink(missing_ok=True)  # no record may stand beside a table that it does not speak of
    with atomic_path(folder / f"{name}.csv") as temporary:
        if name == FOUND:
            parts = folder / f".{name}.parts.{key}"
            table = detection.find_vertebrae(finder, cohort, progress=progress, parts=parts)
        else:
            table = detection.measure_vertebrae(finder, cohort, cohort.corrections)
        table.to_csv(temporary, index=False)
    write_json(record, {"key": key, "finder": finder.summary()})


def _read(cohort: Cohort, folder: Path, name: str) -> pd.DataFrame:
    faults: list[str] = []
    file = f"{name}.csv"
    table = read_vertebrae(folder, set(cohort.table["patient_id"]), faults, file=file, none_allowed=True)
    if faults:
        raise UserError([f"{folder}: {fault}; delete {folder / file}" for fault in faults])
    return table.reset_index(drop=True)


def of_finder(cohort: Cohort) -> bool:
    """Whether a finder drew the boxes, so far as is known."""
    return "finder" in cohort.boxes_from


def source_line(cohort: Cohort) -> str:
    """Where a cohort's vertebra boxes come from, and whether its finder has ever seen such radiographs."""
    line = f"Vertebra boxes{' and keypoints' if cohort.has_keypoints else ''}: {cohort.boxes_from}."
    if of_finder(cohort) and "simulated radiographs" in cohort.boxes_from and cohort.provenance != "simulated":
        line += (
            " It was trained on simulated radiographs, and nothing shows that it finds vertebrae in real ones: look "
            "at them in notebook 02, or train a finder on radiographs like these (“fracsurv detect train”)."
        )
    return line


def boxes_line(cohort: Cohort) -> str:
    """Where the vertebra boxes come from, and how many were corrected by hand; '' without boxes."""
    if cohort.vertebrae is None:
        return ""
    line = source_line(cohort)
    if cohort.has_keypoints and (missing := len(cohort) - cohort.n_without_image - cohort.n_measured):
        line += (
            f" No vertebra could be measured in {counted(missing, 'patient')}"
            f"{' with a radiograph' if cohort.n_without_image else ''}: as covariates the others' mean."
        )
    if cohort.corrections is not None:
        n = correction_counts(cohort)
        line += (
            f" Corrected by hand (vertebrae_corrections.csv): patients {n['patients']:,}; boxes kept {n['kept']:,}, "
            f"moved {n['moved']:,}, added {n['added']:,}, removed {n['removed']:,}."
        )
    return line


def correction_counts(cohort: Cohort) -> dict[str, int]:
    """Of a cohort with corrections: `patients`, and boxes `kept`, `moved`, `added` and `removed`.

    In each patient a corrected box goes with the box before that it overlaps most, if by at least half (intersection
    over union): kept where no side moved by more than a pixel, else moved. The rest was added or removed.
    """
    counts = dict.fromkeys(("patients", "kept", "moved", "added", "removed"), 0)
    if cohort.corrections is None or cohort.uncorrected is None:
        return counts
    counts["patients"] = cohort.corrections["patient_id"].nunique()
    for patient, theirs in cohort.corrections.groupby("patient_id"):
        after = theirs[BOX_COLUMNS].dropna().to_numpy(float)
        before = cohort.uncorrected.loc[cohort.uncorrected["patient_id"] == patient, BOX_COLUMNS].to_numpy(float)
        pairs = overlapping_pairs(before, after)
        kept = sum(bool(np.abs(before[i] - after[j]).max() <= 1) for i, j in pairs)
        counts["kept"] += kept
        counts["moved"] += len(pairs) - kept
        counts["added"] += len(after) - len(pairs)
        counts["removed"] += len(before) - len(pairs)
    return counts


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
