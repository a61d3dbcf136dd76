"""Vertebra boxes of a cohort: its own vertebrae.csv or, without one, what the finder that ships with fracsurv finds.

Torch is imported only where vertebrae are searched: boxes that were found before are read without it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from fracsurv.cohort.annotations import read_vertebrae
from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, LEVELS, SCALE_COLUMNS, overlapping_pairs
from fracsurv.cohort.cohort import Cohort
from fracsurv.images.radiographs import read_patient_radiograph
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, locked, read_json, write_json
from fracsurv.utils.formatting import counted
from fracsurv.vertebrae.slots import MAX_HEIGHT, into_slots, slots

if TYPE_CHECKING:
    from fracsurv.detection.finder import Finder, Vertebrae

SHIPPED = Path(__file__).parent / "weights" / "simulated.safetensors"
"""A finder trained on simulated radiographs; weights/README.md says how, and how good it is."""
VERSION = 3
"""Raised whenever the same radiographs and weights would give other vertebrae."""
FOUND, CORRECTED = "vertebrae", "vertebrae_corrected"
"""Tables of what the finder found, and of the corrected boxes that it measured."""
BATCH, PART = 8, 128
"""Radiographs that are read together, and whose vertebrae are saved together: a kill costs no more than these."""


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


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _is_of(folder: Path, name: str, key: str) -> bool:
    """Whether the table `name` lies in `folder`, made from what `key` stands for."""
    path, record = folder / f"{name}.csv", folder / f"{name}.json"
    return path.exists() and record.exists() and read_json(record)["key"] == key


def _find(cohort: Cohort, folder: Path, name: str, key: str, progress: bool) -> None:
    """Write the table `name` and its record; a search that was interrupted goes on from its parts."""
    from fracsurv.detection.finder import load_finder

    finder = load_finder(SHIPPED)
    record = folder / f"{name}.json"
    record.unlink(missing_ok=True)  # no record may stand beside a table that it does not speak of
    with atomic_path(folder / f"{name}.csv") as temporary:
        if name == FOUND:
            parts = folder / f".{name}.parts.{key}"
            table = find_vertebrae(finder, cohort, progress=progress, parts=parts)
        else:
            table = measure_vertebrae(finder, cohort, progress=progress)
        table.to_csv(temporary, index=False)
    write_json(record, {"key": key, "finder": finder.summary()})


def _read(cohort: Cohort, folder: Path, name: str) -> pd.DataFrame:
    faults: list[str] = []
    file = f"{name}.csv"
    table = read_vertebrae(folder, set(cohort.table["patient_id"]), faults, file=file, none_allowed=True)
    if faults:
        raise UserError([f"{folder}: {fault}; delete {folder / file}" for fault in faults])
    return table.reset_index(drop=True)


def find_vertebrae(
    finder: Finder, cohort: Cohort, *, progress: bool = True, parts: Path | None = None
) -> pd.DataFrame:
    """A cohort's `vertebrae.csv`: boxes, levels, scores and, with keypoints, Genant's grades and their chances.

    Columns besides those of a cohort's boxes: `grade` (0 to 3), `p_fracture` and `p_grade_2_or_more`, and for each
    keypoint coordinate `x1 …` its standard deviation `sx1 …`, in pixels; empty for a finder without keypoints.
    `level` is that of the slot which the box fills (`vertebrae.slots`), empty for a box that fills none.

    Parameters
    ----------
    parts : Path, optional
        Folder for this finder's unfinished work on this cohort: a call after an interruption goes on from there, to
        the same table.

    Raises
    ------
    UserError
        For a cohort without radiographs, and for every radiograph that cannot be read.
    """
    from fracsurv.detection.finder import find

    if not cohort.has_images:
        raise UserError(f"{cohort.folder}: has no radiographs (no column `image`)")
    patients = cohort.table.loc[cohort.has_image, "patient_id"].tolist()
    tables, faults = [], []
    with tqdm(total=len(patients), desc="vertebrae", unit="image", disable=not progress, leave=False) as bar:
        for start in range(0, len(patients), PART):
            part = patients[start : start + PART]
            path = parts / f"{start}-{start + len(part)}.parquet" if parts is not None else None
            if path is not None and path.exists():
                tables.append(pd.read_parquet(path))
                bar.update(len(part))
                continue
            rows = [
                graded_table(patient, each, image.shape[0], cohort.resolution)
                for names, images in _batches(cohort, part, bar, faults)
                for patient, image, each in zip(names, images, find(finder, images), strict=True)
            ]
            if faults:
                continue
            tables.append(pd.concat(rows, ignore_index=True))
            if path is not None:
                with atomic_path(path) as temporary:
                    tables[-1].to_parquet(temporary)
    if faults:
        raise UserError(faults)
    return pd.concat(tables, ignore_index=True)


def measure_vertebrae(finder: Finder, cohort: Cohort, *, progress: bool = True) -> pd.DataFrame:
    """The cohort's corrections with all columns of `find_vertebrae`; keypoints are located where none are given."""
    of = dict(list(cohort.corrections.groupby("patient_id")))
    rows, faults = [], []
    with tqdm(total=len(of), desc="vertebrae", unit="image", disable=not progress, leave=False) as bar:
        for patients, images in _batches(cohort, list(of), bar, faults):
            rows += [_measured(finder, cohort, of[name], image) for name, image in zip(patients, images, strict=True)]
    if faults:
        raise UserError(faults)
    return pd.concat(rows, ignore_index=True)


def _measured(finder: Finder, cohort: Cohort, rows: pd.DataFrame, image: np.ndarray) -> pd.DataFrame:
    from fracsurv.detection.finder import Vertebrae, find_keypoints

    given = rows[rows[BOX_COLUMNS].notna().all(axis=1)]
    if given.empty:
        return rows
    boxes = given[BOX_COLUMNS].to_numpy(float)
    theirs, spread = (
        given[columns].to_numpy(float).reshape(-1, 6, 2) for columns in (KEYPOINT_COLUMNS, SCALE_COLUMNS)
    )
    mean, scale = find_keypoints(finder.keypoints, image, boxes)
    known = np.isfinite(theirs).all(axis=(1, 2))[:, None, None]
    # an annotator's points are kept, and are exact where they have no standard deviation
    points, scale = np.where(known, theirs, mean), np.where(known, np.nan_to_num(spread), scale)
    found = Vertebrae(boxes, given["score"].to_numpy(float), points, scale)
    return graded_table(rows["patient_id"].iloc[0], found, image.shape[0], cohort.resolution)


def _batches(
    cohort: Cohort, patients: Sequence[str], bar: tqdm, faults: list[str]
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Patients and their radiographs, a few at a time; unreadable ones go into `faults`, and end the batches."""
    name_of = dict(zip(cohort.table["patient_id"], cohort.table["image"], strict=True))
    for start in range(0, len(patients), BATCH):
        images: dict[str, np.ndarray] = {}
        for patient in patients[start : start + BATCH]:
            bar.update()
            try:
                images[patient] = read_patient_radiograph(cohort, name_of[patient])
            except UserError as error:
                faults += error.faults
        if not faults:
            yield list(images), list(images.values())


def graded_table(patient: str, found: Vertebrae, image_height: int, resolution: float) -> pd.DataFrame:
    """One patient's rows of `find_vertebrae`, from a radiograph of that height."""
    import torch

    from fracsurv.vertebrae.morphometry import grade_probabilities, morphometry

    n = len(found.boxes)
    boxes = found.boxes.round(3)  # as they are written: slots are decided from these
    index = slots(boxes, max_height=MAX_HEIGHT * resolution, image_height=image_height).index
    filled = index >= 0
    level = np.full(n, "", dtype=object)
    level[index[filled]] = np.array(LEVELS)[filled]
    # graded as a spine: only beside its neighbours does a vertebra show that it lost height all over
    mean, scale = (torch.from_numpy(into_slots(part, index)) for part in (found.keypoints, found.scale))
    grade, chance = np.zeros(n, int), np.full((n, 4), np.nan)
    grade[index[filled]] = morphometry(mean, ordered=True).grade.numpy()[filled]
    chance[index[filled]] = grade_probabilities(mean, scale, ordered=True).numpy()[filled]
    known = np.isfinite(found.keypoints).all(axis=(1, 2)) & np.isin(np.arange(n), index)
    table = pd.DataFrame(found.boxes.round(3), columns=BOX_COLUMNS)
    table.insert(0, "patient_id", patient)
    table.insert(1, "level", level)
    table = table.assign(
        score=found.score.round(4),
        grade=pd.Series(grade).where(known).astype("Int64"),
        p_fracture=chance[:, 1:].sum(axis=1).round(3),
        p_grade_2_or_more=chance[:, 2:].sum(axis=1).round(3),
    )
    points = pd.DataFrame(found.keypoints.reshape(n, 12).round(3), columns=KEYPOINT_COLUMNS)
    spread = pd.DataFrame(found.scale.reshape(n, 12).round(3), columns=SCALE_COLUMNS)
    return pd.concat([table, points, spread], axis=1)


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
