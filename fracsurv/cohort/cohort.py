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

from fracsurv.cohort.annotations import (
    read_vertebrae,
    with_keypoints,
    written_by,
)
from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, LEVELS
from fracsurv.cohort.checks import check_types, check_values
from fracsurv.cohort.covariates import MISSING
from fracsurv.cohort.files import (
    check_boxes_have_image,
    check_images,
    check_masked,
    has_image_entry,
    kept_rows,
    read_truth,
)
from fracsurv.cohort.settings import (
    check_labels,
    covariates_of,
    read_settings,
    unread_columns,
)
from fracsurv.cohort.tables import decimal_mark, read_patients, renamed
from fracsurv.utils.errors import UserError
from fracsurv.utils.formatting import DAYS_A_YEAR, HORIZONS_YEARS

CORRECTIONS = "vertebrae_corrections.csv"
MIN_SHARE_MEASURED = 0.8
"""Share of the patients whose vertebrae must be measured; the others get the mean, and are counted in the report."""


@dataclass(frozen=True)
class Cohort:
    """A checked cohort, one row a patient.

    Attributes
    ----------
    table : DataFrame
        `patient_id` (str), `time` (float, days, > 0), `event` (bool, True = fracture), the covariates
        (float, NaN = not known), and where given `image` (path relative to `folder`; '' = no radiograph, of a patient
        who is masked) and `split` ('' = not fixed).
    covariates : dict of str to str
        Name to kind: 'continuous' (standardised on a training fold), 'normalised' or 'binary' (as they are).
    resolution : float
        Image pixels per pixel of the protocol's radiographs (which are 1,200 to 1,600 pixels tall).
    vertebrae : DataFrame or None
        One row a box, in pixels of the patient's radiograph, corrections applied.
    boxes_from : str
        Where the boxes come from: '' without any, 'vertebrae.csv', or what a finder says of itself.
    corrections : DataFrame or None
        Patients whose boxes are overridden, as `vertebrae_corrections.csv` has them.
    uncorrected : DataFrame or None
        These patients' boxes before that.
    horizons : tuple of float
        Times at which AUC and Brier score are reported, increasing; empty = the protocol's 1, 3, 5 and 8 years.
    time_unit : str
        What `time` and `horizons` are counted in, for labels; 'days' unless the cohort says otherwise.
    competing_event : str
        What the code 2 of the column `event` means, '' where the cohort names nothing. Where anybody has it, `table`
        has a column `competing` (bool, True = that happened first, at `time`; `event` is False then).
    outcome_includes_death : bool
        Whether who dies has the event, so that nobody is censored by death.
    n_excluded : int
        Patients that were left out since they have no radiograph (`missing_images: exclude`).
    masks : bool
        Whether patients without a radiograph may be among them (`missing_images: mask`); `has_image` says who is not.
    windowed : bool
        Whether DICOM radiographs are read as they are displayed (`dicom_values: windowed`).
    read_as : str
        How the table's file was read, where that is no matter of course: 'separated by semicolons, decimal commas'.
    unread_columns : tuple of str
        Columns of the table that are no one's, where covariates were taken by their names (no `covariates` set).
    file_rows : tuple of int
        For messages: the row of its file in which each patient stands, as a spreadsheet numbers them.
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
    file_rows: tuple[int, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def has_images(self) -> bool:
        """Whether there are radiographs: every patient's, or where the cohort masks, most patients'."""
        return "image" in self.table

    @property
    def has_image(self) -> NDArray:
        """Who has a radiograph, bool (n,)."""
        return (self.table["image"] != "").to_numpy() if self.has_images else np.zeros(len(self), bool)

    @property
    def n_without_image(self) -> int:
        """Patients who have no radiograph where others have one; see `masks`."""
        return int((~self.has_image).sum()) if self.masks else 0

    @property
    def has_competing(self) -> bool:
        """Whether anybody had a competing event."""
        return "competing" in self.table

    @property
    def status(self) -> NDArray:
        """What the metrics take as `event` (n,): bool, or 0, 1 and 2 where anybody had a competing event."""
        event = self.table["event"].to_numpy()
        return np.where(self.table["competing"], 2, event) if self.has_competing else event

    @property
    def indicators(self) -> list[str]:
        """Of each covariate that is not known of everybody, the name of the column that says of whom not."""
        return [name + MISSING for name in self.covariates if self.table[name].isna().any()]

    @property
    def n_measured(self) -> int:
        """Patients of whom the six keypoints of any vertebra are known."""
        if self.vertebrae is None:
            return 0
        return int(self.vertebrae.loc[self.vertebrae[KEYPOINT_COLUMNS].notna().all(axis=1), "patient_id"].nunique())

    @property
    def has_keypoints(self) -> bool:
        """Whether that is so in enough patients (`MIN_SHARE_MEASURED`) for vertebral fractures to be covariates."""
        return self.n_measured >= MIN_SHARE_MEASURED * len(self)

    def with_boxes(self, vertebrae: pd.DataFrame, boxes_from: str) -> Cohort:
        """The cohort with these boxes, in which the corrected patients have their corrections and nothing else."""
        if self.corrections is None:
            return replace(self, vertebrae=vertebrae, boxes_from=boxes_from)
        theirs = vertebrae["patient_id"].isin(self.corrections["patient_id"])
        given = with_keypoints(self.corrections[self.corrections[BOX_COLUMNS].notna().all(axis=1)], vertebrae)
        return replace(
            self,
            vertebrae=pd.concat([vertebrae[~theirs], given], ignore_index=True),
            boxes_from=boxes_from,
            uncorrected=vertebrae[theirs].reset_index(drop=True),
        )

    def of_rows(self, rows: NDArray) -> Cohort:
        """These patients alone, with their boxes; the folder, and so the truth, stay the whole cohort's."""
        table = self.table.iloc[rows].reset_index(drop=True)
        boxes = self.vertebrae
        if boxes is not None:
            boxes = boxes[boxes["patient_id"].isin(table["patient_id"])].reset_index(drop=True)
        return replace(self, table=table, vertebrae=boxes, file_rows=tuple(self.file_rows[row] for row in rows))

    def with_image(self) -> Cohort:
        """Those who have a radiograph; the cohort itself where all have."""
        return self if self.has_image.all() else self.of_rows(np.flatnonzero(self.has_image))

    def truth(self) -> pd.DataFrame | None:
        """The simulator's truth, indexed by patient; None for a real cohort. For the evaluation alone.

        Raises
        ------
        UserError
            Where `truth.parquet` has no `patient_id` or `log_hazard`, or not one number for each patient.
        """
        faults: list[str] = []
        truth = read_truth(self.folder, self.table["patient_id"], faults)
        if faults:
            raise UserError(faults)
        return truth

    def true_vertebrae(self) -> pd.DataFrame | None:
        """Boxes, levels and keypoints as the simulator drew them, for the evaluation alone.

        None without `truth_vertebrae.csv`, and unless `truth.parquet` has the grades that belong to it. Rows of
        patients who are not in the cohort are left alone.
        """
        faults: list[str] = []
        table, truth = read_vertebrae(self.folder, None, faults, file="truth_vertebrae.csv"), self.truth()
        if faults:
            raise UserError(faults)
        graded = truth is not None and {f"grade_{level}" for level in LEVELS} <= set(truth)
        if table is None or not graded:
            return None
        return table[table["patient_id"].isin(self.table["patient_id"])].reset_index(drop=True)

    def fingerprint(self, *, boxes: bool = True) -> str:
        """SHA-256 over the table, the kinds of covariates and, unless they do not matter, the boxes (no pixels)."""
        digest = hashlib.sha256(repr((self.covariates, self.provenance, self.resolution)).encode())
        for table in (self.table, self.vertebrae if boxes else None):
            if table is not None:
                digest.update(",".join(table.columns).encode())
                digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
        return digest.hexdigest()[:16]

    def image_fingerprint(self) -> str:
        """SHA-256 over name, size and time of change of every radiograph: quick, and differs when one is replaced."""
        digest = hashlib.sha256(b"windowed" * self.windowed)
        for name in self.table.loc[self.has_image, "image"] if self.has_images else ():
            stat = (self.folder / name).stat()
            digest.update(repr((name, stat.st_size, stat.st_mtime_ns)).encode())
        return digest.hexdigest()


def horizons(cohort: Cohort) -> NDArray:
    """Days at which AUC and Brier are reported: the cohort's own, or 1, 3, 5 and 8 years."""
    return own_or_protocols(cohort.horizons)


def own_or_protocols(horizons: Sequence[float]) -> NDArray:
    """These horizons, or the protocol's if there are none."""
    return np.array(horizons or [round(DAYS_A_YEAR * year) for year in HORIZONS_YEARS], dtype=float)


def read_cohort(folder: str | Path, *, outcome: bool = True, learnt: bool = True) -> Cohort:
    """Read and check a cohort folder.

    Parameters
    ----------
    outcome : bool
        Whether the table must say what happened to the patients; if not, `time` is NaN and `event` False whatever it
        says.
    learnt : bool
        Whether models will be fitted to it, which takes radiographs of half of the patients at least.

    Raises
    ------
    UserError
        With every fault found: file, row (as a spreadsheet numbers it: the header is row 1), column,
        the value and what was expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such cohort folder; `fracsurv simulate {folder}` makes one")
    faults: list[str] = []
    settings = read_settings(folder, faults)
    read, file = read_patients(folder, faults)
    if read is None:
        raise UserError(faults)
    table = read.frame
    covariates = covariates_of(table, settings, file, faults)
    check_labels(covariates, settings.get("labels", {}), faults)
    if not outcome:
        columns = settings.get("columns", {})
        ours = [columns.get(name, name) for name in ("time_days", "event", "split")]
        table = table.drop(columns=ours, errors="ignore")
    others = unread_columns(table, settings, covariates)
    table = renamed(table, settings.get("columns", {}), covariates, file, faults, outcome=outcome)
    table = check_types(table, covariates, settings.get("columns", {}), file, faults)
    decimal = decimal_mark(table, ["time_days", *covariates], settings.get("columns", {}), file, faults)
    missing_images = settings.get("missing_images", "refuse") if "image" in table else "refuse"
    kept = kept_rows(table, missing_images, file, faults)
    # where columns are missing, those that are there are checked all the same
    values = check_values(
        table, covariates, settings.get("columns", {}), file, faults,
        decimal=decimal, empty_allowed=settings.get("missing_covariates") == "impute", kept=kept,
        competing=settings.get("competing_event", ""),
    )  # fmt: skip
    if masks := missing_images == "mask":
        has_image = has_image_entry(values)
        values["image"] = values["image"].where(has_image, "")
        check_masked(values, has_image, file, faults, learnt=learnt and outcome)
    check_images(folder, values, file, faults, empty_allowed=missing_images != "refuse")
    if "patient_id" not in values:
        raise UserError(faults)
    patients = set(values["patient_id"])
    vertebrae = read_vertebrae(folder, patients, faults)
    corrections = read_vertebrae(folder, patients, faults, file=CORRECTIONS, none_allowed=True)
    without = set(values.loc[~has_image, "patient_id"]) if masks else set()
    check_boxes_have_image(vertebrae, without, "vertebrae.csv", faults)
    check_boxes_have_image(corrections, without, CORRECTIONS, faults)
    if corrections is not None and "image" not in values:
        faults.append(f"{CORRECTIONS}: corrects boxes on radiographs, but the cohort has none (no column `image`)")
    if outcome and not faults:  # without sound patient ids its faults would be echoes
        read_truth(folder, values["patient_id"], faults)  # checked here, used by the evaluation alone
    if faults:
        raise UserError(faults)
    if not outcome:
        values = values.assign(time=np.nan, event=False)
    values = values[kept]
    vertebrae, corrections = (
        boxes if boxes is None else boxes[boxes["patient_id"].isin(values["patient_id"])].reset_index(drop=True)
        for boxes in (vertebrae, corrections)
    )
    corrections = None if corrections is None or corrections.empty else corrections
    how = [words for words in (read.read_as, "decimal commas" if decimal == "," else "") if words]
    keep = ["patient_id", "time", "event", *covariates]
    keep += [name for name in ("image", "split", "competing") if name in values]
    cohort = Cohort(
        folder=folder,
        table=values[keep].reset_index(drop=True),
        covariates=covariates,
        provenance=settings.get("provenance", "real"),
        resolution=float(settings.get("resolution", 1.0)),
        corrections=corrections,
        labels=settings.get("labels", {}),
        outcome=settings.get("outcome", "any fracture"),
        horizons=tuple(float(day) for day in settings.get("horizons", ())),
        description=settings.get("description", ""),
        time_unit=settings.get("time_unit", "days"),
        competing_event=settings.get("competing_event", ""),
        outcome_includes_death=settings.get("outcome_includes_death", False),
        n_excluded=int((~kept).sum()),
        masks=masks,
        windowed=settings.get("dicom_values", "stored") == "windowed",
        read_as=f"{file}: {', '.join(how)}" if how else "",
        unread_columns=others,
        file_rows=tuple(values.index.tolist()),
    )
    return cohort if vertebrae is None else cohort.with_boxes(vertebrae, written_by(folder))
