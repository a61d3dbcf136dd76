"""A finder's work on a whole cohort: vertebrae.csv, with levels, keypoints and grades."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, LEVELS, SCALE_COLUMNS
from fracsurv.cohort.cohort import Cohort
from fracsurv.detection.finder import Finder, Vertebrae, find, find_keypoints
from fracsurv.detection.inference import BATCH_SIZE
from fracsurv.images.radiographs import read_patient_radiograph
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path
from fracsurv.vertebrae.morphometry import grade_probabilities, morphometry
from fracsurv.vertebrae.slots import MAX_HEIGHT, into_slots, slots

PART = 16 * BATCH_SIZE
"""Radiographs whose vertebrae are saved together: after a kill, no more than these are searched again."""


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
    if not cohort.has_images:
        raise UserError(f"{cohort.folder}: has no radiographs (no column `image`)")
    patients = cohort.table.loc[cohort.has_image, "patient_id"]
    tables: list[pd.DataFrame] = []
    faults: list[str] = []
    with _bar(len(patients), progress) as bar:
        for start in range(0, len(patients), PART):
            end = min(start + PART, len(patients))
            path = parts / f"{start}-{end}.parquet" if parts is not None else None
            if path is not None and path.exists():
                tables.append(pd.read_parquet(path))
                bar.update(end - start)
                continue
            rows = [
                graded_table(patient, each, image.shape[0], cohort.resolution)
                for names, images in _batches(cohort, patients.iloc[start:end], bar, faults)
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


def measure_vertebrae(
    finder: Finder, cohort: Cohort, corrections: pd.DataFrame, *, progress: bool = True
) -> pd.DataFrame:
    """`corrections` with all columns of `find_vertebrae`: keypoints are located in boxes that come without."""
    of = dict(list(corrections.groupby("patient_id")))
    rows: list[pd.DataFrame] = []
    faults: list[str] = []
    with _bar(len(of), progress) as bar:
        for patients, images in _batches(cohort, pd.Series(list(of)), bar, faults):
            rows += [_measured(finder, cohort, of[name], image) for name, image in zip(patients, images, strict=True)]
    if faults:
        raise UserError(faults)
    return pd.concat(rows, ignore_index=True)


def _measured(finder: Finder, cohort: Cohort, rows: pd.DataFrame, image: np.ndarray) -> pd.DataFrame:
    """One patient's corrections with all columns of `find_vertebrae`."""
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


def _bar(total: int, progress: bool) -> tqdm:
    return tqdm(total=total, desc="vertebrae", unit="image", disable=not progress, leave=False)


def _batches(
    cohort: Cohort, patients: pd.Series, bar: tqdm, faults: list[str]
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Patients and their radiographs, a few at a time; unreadable ones go into `faults`, and end the batches."""
    name_of = dict(zip(cohort.table["patient_id"], cohort.table["image"], strict=True))
    for start in range(0, len(patients), BATCH_SIZE):
        read: dict[str, np.ndarray] = {}
        for patient in patients.iloc[start : start + BATCH_SIZE]:
            bar.update()
            try:
                read[patient] = read_patient_radiograph(cohort, name_of[patient])
            except UserError as error:
                faults += error.faults
        if not faults:
            yield list(read), list(read.values())


def graded_table(patient: str, found: Vertebrae, image_height: int, resolution: float) -> pd.DataFrame:
    """One patient's rows of `find_vertebrae`, from a radiograph of that height."""
    n = len(found.boxes)
    table = pd.DataFrame(found.boxes.round(3), columns=BOX_COLUMNS)
    index = slots(found.boxes, max_height=MAX_HEIGHT * resolution, image_height=image_height).index
    filled = index >= 0
    level = np.full(n, "", dtype=object)
    level[index[filled]] = np.array(LEVELS)[filled]
    table.insert(0, "patient_id", patient)
    table.insert(1, "level", level)
    table["score"] = found.score.round(4)
    known = np.isfinite(found.keypoints).all(axis=(1, 2))
    # graded as a spine: only beside its neighbours does a vertebra show that it lost height all over
    mean, scale = (torch.from_numpy(into_slots(part, index)) for part in (found.keypoints, found.scale))
    grade, chance = np.zeros(n, int), np.full((n, 4), np.nan)
    grade[index[filled]] = morphometry(mean, ordered=True).grade.numpy()[filled]
    chance[index[filled]] = grade_probabilities(mean, scale, ordered=True).numpy()[filled]
    known &= np.isin(np.arange(n), index)
    grades = pd.DataFrame(
        {
            "grade": pd.Series(grade).where(known).astype("Int64"),
            "p_fracture": chance[:, 1:].sum(axis=1).round(3),
            "p_grade_2_or_more": chance[:, 2:].sum(axis=1).round(3),
        }
    )
    points = pd.DataFrame(found.keypoints.reshape(n, 12).round(3), columns=KEYPOINT_COLUMNS)
    spread = pd.DataFrame(found.scale.reshape(n, 12).round(3), columns=SCALE_COLUMNS)
    return pd.concat([table, grades, points, spread], axis=1)
