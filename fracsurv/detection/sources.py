"""Radiographs with vertebra boxes to train or evaluate a detector on: a YOLO folder or a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS
from fracsurv.cohort.cohort import Cohort, read_cohort
from fracsurv.cohort.file_names import OTHERS
from fracsurv.cohort.tables import TABLES
from fracsurv.images.plausibility import corrections_off_radiographs
from fracsurv.images.radiographs import read_radiograph
from fracsurv.importers.yolo import read_yolo
from fracsurv.utils.errors import UserError
from fracsurv.vertebrae.slots import MAX_HEIGHT

MIN_RADIOGRAPHS = 20


@dataclass(frozen=True)
class Labelled:
    """A radiograph's file, its name in messages, and its vertebrae; `windowed` as of `Cohort`."""

    path: Path
    name: str
    boxes: np.ndarray
    keypoints: np.ndarray
    windowed: bool = False

    def read(self) -> np.ndarray:
        """The radiograph."""
        return read_radiograph(self.path, name=self.name, windowed=self.windowed)


def read_labelled(src: str | Path) -> tuple[list[Labelled], str]:
    """Radiographs with boxes, and their provenance: 'real' for a YOLO folder, else the cohort's.

    A folder with a cohort's table, or another file of one, is a cohort; boxes over the protocol's maximum height
    hold several vertebrae and are left out. Anything else is read as a YOLO folder.

    Raises
    ------
    UserError
        For every fault of the source, a cohort without radiographs or boxes, and fewer than 20 radiographs.
    """
    src = Path(src)
    if any((src / name).exists() for name in (*TABLES, *OTHERS)):
        cohort = read_cohort(src)
        if faults := corrections_off_radiographs(cohort):
            raise UserError(faults)
        found, provenance = _of_cohort(cohort), cohort.provenance
    else:
        radiographs, faults = read_yolo(src)
        if faults:
            raise UserError(faults)
        found = [
            Labelled(
                each.path, each.path.relative_to(src).as_posix(), each.boxes, np.full((len(each.boxes), 6, 2), np.nan)
            )
            for each in radiographs
        ]
        provenance = "real"
    n_with = sum(len(each.boxes) > 0 for each in found)
    if n_with < MIN_RADIOGRAPHS:
        raise UserError(f"{src}: {n_with} radiographs with boxes; at least {MIN_RADIOGRAPHS} are needed")
    return found, provenance


def read_all_labelled(sources: Sequence[str | Path]) -> tuple[list[Labelled], str]:
    """Radiographs with boxes of several sources as one, and their provenances, each once ('simulated and real').

    Raises
    ------
    UserError
        For every fault of every source.
    """
    found, provenances, faults = [], [], []
    for src in sources:
        try:
            radiographs, provenance = read_labelled(src)
            found += radiographs
            provenances.append(provenance)
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(faults)
    return found, " and ".join(dict.fromkeys(provenances))


def _of_cohort(cohort: Cohort) -> list[Labelled]:
    if not cohort.has_images or cohort.vertebrae is None:
        raise UserError(
            f"{cohort.folder}: radiographs or boxes (vertebrae.csv) are missing; a detector learns from both"
        )
    height = cohort.vertebrae["y_max"] - cohort.vertebrae["y_min"]
    single = cohort.vertebrae[height <= MAX_HEIGHT * cohort.resolution]
    of = dict(list(single.groupby("patient_id")))
    return [
        Labelled(
            cohort.folder / image,
            image,
            of[patient][BOX_COLUMNS].to_numpy(float),
            of[patient][KEYPOINT_COLUMNS].to_numpy(float).reshape(-1, 6, 2),
            cohort.windowed,
        )
        for patient, image in zip(cohort.table["patient_id"], cohort.table["image"], strict=True)
        if patient in of
    ]
