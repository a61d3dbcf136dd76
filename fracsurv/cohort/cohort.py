"""A cohort on disk, read and checked whole: every fault is listed at once, nothing is half-read.

The format is described in `data/README.md`. A cohort folder holds `cohort.csv` (or `.parquet`), and
optionally `cohort.yaml`, `images/`, `vertebrae.csv`, `vertebrae_corrections.csv` and, where the outcome is
simulated, `truth.parquet`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fracsurv.cohort.annotations import read_truth, read_vertebrae, with_keypoints, written_by
from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, LEVELS
from fracsurv.cohort.covariates import MISSING
from fracsurv.cohort.file_names import misnamed_files
from fracsurv.cohort.read import read_patients
from fracsurv.cohort.settings import read_settings
from fracsurv.cohort.tables import TABLES
from fracsurv.utils.errors import UserError
from fracsurv.utils.formatting import DAYS_A_YEAR, HORIZONS_YEARS

CORRECTIONS = "vertebrae_corrections.csv"
FROM_SETTINGS = (
    "provenance", "resolution", "labels", "outcome", "horizons", "description", "time_unit", "competing_event",
    "outcome_includes_death", "columns",
)  # fmt: skip
"""Entries of `cohort.yaml` that a `Cohort` has by the same name."""
MIN_SHARE_MEASURED = 0.8
"""Share of the patients whose vertebrae must be measured; the others get the mean, and the report counts them."""


@dataclass(frozen=True)
class Cohort:
    """A checked cohort, one row a patient.

    Attributes
    ----------
    table : DataFrame
        `patient_id` (str), `time` (float, days, > 0), `event` (bool, True = fracture), the covariates
        (float, NaN = missing), and where given `image` (path relative to `folder`; '' = no radiograph, where the
        cohort masks) and `split` ('' = not fixed).
    covariates : dict of str to str
        Name to kind: 'continuous' (standardised on a training fold), 'normalised' or 'binary' (as they are).
    resolution : float
        Image pixels per pixel of the protocol's radiographs (which are 1,200 to 1,600 pixels tall).
    vertebrae : DataFrame or None
        One row a box, in pixels of the patient's radiograph, corrections applied.
    boxes_from : str
        Where the boxes come from: '' without any, 'vertebrae.csv', or a finder's summary of itself.
    corrections, uncorrected : DataFrame or None
        Boxes that override those of their patients, from `vertebrae_corrections.csv` (the index is the file's row),
        and the same patients' boxes before that.
    slots : DataFrame or None
        Which box fills which slot, a row a patient in the table's order (`vertebrae.slots.slot_table`); None until
        `prepare` has decided it.
    horizons : tuple of float
        Times at which AUC and Brier score are reported, increasing; empty = the protocol's 1, 3, 5 and 8 years.
    time_unit : str
        Unit of `time` and `horizons`, for labels.
    competing_event : str
        Meaning of the code 2 in the column `event`, or ''. Where it occurs, `table` has a column `competing`
        (bool, True = that happened first, at `time`; `event` is False then).
    outcome_includes_death : bool
        Whether death counts as the event, so that no patient is censored by it.
    n_excluded : int
        Patients left out because they have no radiograph (`missing_images: exclude`).
    masks, windowed : bool
        Whether patients may have no radiograph (`missing_images: mask`), and DICOM radiographs are read as they are
        displayed (`dicom_values: windowed`).
    read_as : str
        How the table's file was read, where it is not plain CSV: 'separated by semicolons, decimal commas'.
    unread_columns : tuple of str
        Columns of the file that are not used, where the covariates were found by their names (no `covariates` set).
    columns : dict of str to str
        Our name of a column to the file's, where it differs.
    file_rows : tuple of int
        Each patient's row of the file as a spreadsheet numbers it, for messages.
    """

    folder: Path
    table: pd.DataFrame
    covariates: dict[str, str]
    provenance: str = "real"
    resolution: float = 1.0
    vertebrae: pd.DataFrame | None = None
    boxes_from: str = ""
    corrections: pd.DataFrame | None = None
    uncorrected: pd.DataFrame | None = None
    slots: pd.DataFrame | None = None
    labels: dict[str, str] = field(default_factory=dict)
    outcome: str = "any fracture"
    horizons: tuple[float, ...] = ()
    description: str = ""
    time_unit: str = "days"
    competing_event: str = ""
    outcome_includes_death: bool = False
    n_excluded: int = 0
    masks: bool = False
    windowed: bool = False
    read_as: str = ""
    unread_columns: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    file_rows: tuple[int, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> str:
        """A column for messages, by the file's name."""
        return f"column {self.columns.get(name, name)}"

    @property
    def has_images(self) -> bool:
        """Whether there are radiographs: every patient's, or most patients' where the cohort masks."""
        return "image" in self.table

    @property
    def has_image(self) -> NDArray:
        """Whether each patient has a radiograph, bool (n,)."""
        return (self.table["image"] != "").to_numpy() if self.has_images else np.zeros(len(self), bool)

    @property
    def n_without_image(self) -> int:
        """Number of patients without a radiograph where the cohort masks."""
        return int((~self.has_image).sum()) if self.masks else 0

    @property
    def has_competing(self) -> bool:
        """Whether any patient had a competing event."""
        return "competing" in self.table

    @property
    def status(self) -> NDArray:
        """The metrics' `event` (n,): bool, or 0, 1 and 2 (competing) where any patient had a competing event."""
        event = self.table["event"].to_numpy()
        return np.where(self.table["competing"], 2, event) if self.has_competing else event

    @property
    def indicators(self) -> list[str]:
        """Names of the columns that say where a covariate is missing, one for each covariate with missing values."""
        return [name + MISSING for name in self.covariates if self.table[name].isna().any()]

    @property
    def n_measured(self) -> int:
        """Number of patients with the six keypoints of at least one vertebra."""
        if self.vertebrae is None:
            return 0
        return int(self.vertebrae.loc[self.vertebrae[KEYPOINT_COLUMNS].notna().all(axis=1), "patient_id"].nunique())

    @property
    def has_keypoints(self) -> bool:
        """Whether enough patients are measured (`MIN_SHARE_MEASURED`) for vertebral fractures to be covariates."""
        return self.n_measured >= MIN_SHARE_MEASURED * len(self)

    @property
    def slot_index(self) -> NDArray:
        """(n, 13) int: which of a patient's boxes, in the order of `vertebrae`, fills which slot; −1 = empty."""
        if self.slots is None:
            raise ValueError("the slots are not decided yet; see `images.radiographs.with_slots`")
        return self.slots[list(LEVELS)].to_numpy()

    def with_boxes(self, vertebrae: pd.DataFrame, boxes_from: str) -> Cohort:
        """The cohort with these boxes; patients with corrections have those alone."""
        if self.corrections is None:
            return replace(self, vertebrae=vertebrae, boxes_from=boxes_from, slots=None)
        corrected = vertebrae["patient_id"].isin(self.corrections["patient_id"])
        given = with_keypoints(self.corrections[self.corrections[BOX_COLUMNS].notna().all(axis=1)], vertebrae)
        return replace(
            self,
            vertebrae=pd.concat([vertebrae[~corrected], given], ignore_index=True),
            boxes_from=boxes_from,
            uncorrected=vertebrae[corrected].reset_index(drop=True),
            slots=None,
        )

    def of_rows(self, rows: NDArray) -> Cohort:
        """The cohort of these patients, with their boxes; the folder, and so the truth, stay the whole cohort's."""
        table = self.table.iloc[rows].reset_index(drop=True)
        corrections = _of_patients(self.corrections, table["patient_id"])
        return replace(
            self,
            table=table,
            vertebrae=_of_patients(self.vertebrae, table["patient_id"], renumbered=True),
            corrections=None if corrections is None or corrections.empty else corrections,
            uncorrected=_of_patients(self.uncorrected, table["patient_id"]),
            slots=None if self.slots is None else self.slots.iloc[rows].reset_index(drop=True),
            file_rows=tuple(self.file_rows[row] for row in rows),
        )

    def with_image(self) -> Cohort:
        """The cohort of the patients who have a radiograph."""
        return self if self.has_image.all() else self.of_rows(np.flatnonzero(self.has_image))

    def truth(self) -> pd.DataFrame | None:
        """The simulator's truth, indexed by patient; None for a real cohort. Only the evaluation may use it."""
        faults: list[str] = []
        truth = read_truth(self.folder, self.table["patient_id"], faults)
        if faults:
            raise UserError(faults)
        return truth

    def true_vertebrae(self) -> pd.DataFrame | None:
        """Boxes, levels and keypoints as the simulator drew them; only the evaluation may use them.

        None without `truth_vertebrae.csv`, or without its grades in `truth.parquet`. Rows of other patients are
        left out.
        """
        faults: list[str] = []
        table, truth = read_vertebrae(self.folder, None, faults, file="truth_vertebrae.csv"), self.truth()
        if faults:
            raise UserError(faults)
        graded = truth is not None and {f"grade_{level}" for level in LEVELS} <= set(truth)
        if table is None or not graded:
            return None
        return _of_patients(table, self.table["patient_id"])

    def fingerprint(self, *, boxes: bool = True) -> str:
        """SHA-256 of the table, the covariates' kinds and, with `boxes`, the boxes; radiographs do not enter."""
        digest = hashlib.sha256(repr((self.covariates, self.provenance, self.resolution)).encode())
        for table in (self.table, self.vertebrae if boxes else None):
            if table is not None:
                digest.update(",".join(table.columns).encode())
                digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
        return digest.hexdigest()[:16]

    def image_fingerprint(self) -> str:
        """SHA-256 of every radiograph's name, size and time of change: quick, and different when one is replaced."""
        digest = hashlib.sha256(b"upright" + b"windowed" * self.windowed)  # another word wherever reading changes
        for name in self.table.loc[self.has_image, "image"] if self.has_images else ():
            stat = (self.folder / name).stat()
            digest.update(repr((name, stat.st_size, stat.st_mtime_ns)).encode())
        return digest.hexdigest()


def horizons(cohort: Cohort) -> NDArray:
    """Times at which AUC and Brier score are reported, float (n,): the cohort's own, or 1, 3, 5 and 8 years."""
    return own_or_protocols(cohort.horizons)


def own_or_protocols(horizons: Sequence[float]) -> NDArray:
    """These horizons, or the protocol's if there are none."""
    return np.array(horizons or [round(DAYS_A_YEAR * year) for year in HORIZONS_YEARS], dtype=float)


def read_cohort(folder: str | Path, *, outcome: bool = True, learnt: bool = True) -> Cohort:
    """The cohort in a folder, read and checked.

    Parameters
    ----------
    outcome : bool
        Whether times and events are read; if not, `time` is NaN and `event` False.
    learnt : bool
        Whether models will be fitted to it, so that at least half of the patients need a radiograph.

    Raises
    ------
    UserError
        With every fault found: file, row (as a spreadsheet numbers it: the header is row 1), column,
        the value and what was expected.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give the cohort's folder, {folder.parent}")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such cohort folder; `fracsurv simulate {folder}` makes one")
    faults = misnamed_files(folder, TABLES)
    settings = read_settings(folder, faults)
    read = read_patients(folder, settings, faults, outcome=outcome, learnt=learnt)
    if read is None or "patient_id" not in read.table:
        raise UserError(faults)
    ids = read.table["patient_id"]
    masks = settings.missing_images == "mask" and "image" in read.table
    without_image = set(ids[read.table["image"] == ""]) if masks else frozenset()
    vertebrae = read_vertebrae(folder, set(ids), faults, without_image=without_image)
    corrections = read_vertebrae(
        folder, set(ids), faults, file=CORRECTIONS, none_allowed=True, without_image=without_image
    )
    if corrections is not None and "image" not in read.table:
        faults.append(f"{CORRECTIONS}: corrects boxes on radiographs, but the cohort has none (no column `image`)")
    if outcome and not faults:  # without sound patient ids its faults would be echoes
        read_truth(folder, ids, faults)  # checked here, used by the evaluation alone
    if faults:
        raise UserError(faults)
    values = read.table[read.kept]
    names = ["patient_id", "time", "event", *read.covariates]
    names += [name for name in ("image", "split", "competing") if name in values]
    corrections = _of_patients(corrections, values["patient_id"])
    cohort = Cohort(
        folder=folder,
        table=values[names].reset_index(drop=True),
        covariates=read.covariates,
        corrections=None if corrections is None or corrections.empty else corrections,
        n_excluded=int((~read.kept).sum()),
        masks=masks,
        windowed=settings.dicom_values == "windowed",
        read_as=read.read_as,
        unread_columns=read.unread_columns,
        file_rows=tuple(values.index.tolist()),
        **{name: getattr(settings, name) for name in FROM_SETTINGS},
    )
    boxes = _of_patients(vertebrae, values["patient_id"], renumbered=True)
    return cohort if boxes is None else cohort.with_boxes(boxes, written_by(folder))


def _of_patients(boxes: pd.DataFrame | None, patients: pd.Series, *, renumbered: bool = False) -> pd.DataFrame | None:
    """The boxes of these patients; by default the index stays the file's row."""
    if boxes is None:
        return None
    boxes = boxes[boxes["patient_id"].isin(patients)]
    return boxes.reset_index(drop=True) if renumbered else boxes
