"""A whole simulated cohort folder, written by any number of workers with the same result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from tqdm import tqdm

from fracsurv.cohort.boxes import LEVELS
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.simulate.anatomy import simulate_spine
from fracsurv.simulate.boxes import COLUMNS, list_boxes
from fracsurv.simulate.outcome import DeathSettings, image_log_hazard, simulate_outcome, with_death
from fracsurv.simulate.patients import simulate_clinical, simulate_fractures
from fracsurv.simulate.render import render
from fracsurv.simulate.settings import DEFAULT, SimulationSettings, stream
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_folder
from fracsurv.utils.workers import mapped

BOXES = ("none", "true", "faulty")
SUFFIX = {"png": ".png", "dicom": ".dcm"}


def simulate_cohort(
    out: Path | str,
    *,
    patients: int,
    external: int = 0,
    seed: int = 0,
    resolution: float = 0.25,
    image_format: str = "png",
    boxes: str = "none",
    settings: SimulationSettings = DEFAULT,
    death: DeathSettings | None = None,
    workers: int = 1,
    progress: bool = True,
) -> None:
    """Write a simulated cohort folder: cohort.csv, cohort.yaml, images/, truth.parquet, truth_vertebrae.csv.

    Patient i is the same whatever the number of patients, of workers, or the format of the images.

    Parameters
    ----------
    out : path
        New or empty folder; it appears whole or not at all.
    patients, external : int
        Women with an empty `split` and, after them, women with `split` external.
    seed : int
        Non-negative.
    resolution : float
        Picture pixels a protocol pixel, above 0 and at most 1 (1 = 1,200 to 1,600 × 600 pixels).
    image_format : str
        "png" (16 bit) or "dicom".
    boxes : str
        What vertebrae.csv holds: "none", there is no such file, and a finder has to be asked; "true", every vertebra
        with level and keypoints, to train a finder on; "faulty", as a detector with `settings`' faults lists them.
    settings : SimulationSettings
    death : DeathSettings, optional
        With it women die, and `event` is 2 for whom that comes first; all else stays as it is without.
    workers : int
        Processes that draw the pictures.
    progress : bool
        Show a progress bar on standard error.

    Raises
    ------
    UserError
        Every argument out of its range, and a folder that is not empty.
    """
    out = Path(out)
    is_taken = out.is_file() or (out.is_dir() and any(out.iterdir()))
    rules = (
        (patients >= 1, f"patients: expected at least 1, got {patients}"),
        (external >= 0, f"external: expected 0 or more, got {external}"),
        (seed >= 0, f"seed: expected 0 or more, got {seed}"),
        (0.05 <= resolution <= 1, f"resolution: expected 0.05 to 1 pixels a protocol pixel, got {resolution}"),
        (image_format in SUFFIX, f"image format: expected {' or '.join(SUFFIX)}, got {image_format!r}"),
        (boxes in BOXES, f"boxes: expected {', '.join(BOXES)}, got {boxes!r}"),
        (workers >= 1, f"workers: expected at least 1, got {workers}"),
        (not is_taken, f"{out}: is there already and not an empty folder; name a new one"),
    )
    if faults := [fault for holds, fault in rules if not holds]:
        raise UserError(faults)
    table, truth = simulate_tables(patients + external, seed, settings, death)
    table["image"] = "images/" + table["patient_id"] + SUFFIX[image_format]
    table["split"] = np.where(np.arange(len(table)) < patients, "", "external")
    with atomic_folder(out) as folder:
        (folder / "images").mkdir()
        task = _Task(folder, seed, resolution, image_format, settings)
        true, faulty = _draw_all(task, truth, table["t_score"], workers, progress)
        table.to_csv(folder / "cohort.csv", index=False)
        true.to_csv(folder / "truth_vertebrae.csv", index=False)
        if boxes != "none":
            (true if boxes == "true" else faulty).to_csv(folder / "vertebrae.csv", index=False)
        truth.to_parquet(folder / "truth.parquet", index=False)
        _describe(folder, patients, external, seed, resolution, settings, death)


def simulate_tables(
    n: int, seed: int = 0, settings: SimulationSettings = DEFAULT, death: DeathSettings | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cohort and truth of `n` women without their pictures.

    Returns
    -------
    (table, truth) : `table` has patient_id, time_days, event (2 = death came first, with `death`) and the ten
    covariates; `truth` has patient_id, log_hazard (up to a constant, higher = riskier), bone_quality, grade_sum,
    grade_* and type_*.
    """
    clinical = simulate_clinical(n, seed, settings)
    fractures = simulate_fractures(clinical, seed, settings)
    image = image_log_hazard(clinical["bone_quality"], fractures["grade_sum"], settings)
    outcome = simulate_outcome(clinical, image, seed, settings)
    if death is not None:
        outcome = with_death(outcome, clinical, seed, death)
    ids = pd.Series([f"P{i + 1:05d}" for i in range(n)], name="patient_id")
    table = pd.concat([ids, outcome[["time_days", "event"]], clinical[list(PROTOCOL_COVARIATES)]], axis=1)
    truth = pd.concat([ids, outcome["log_hazard"], clinical["bone_quality"], fractures], axis=1)
    return table, truth


@dataclass(frozen=True)
class _Task:
    """What a worker needs besides its patient."""

    folder: Path
    seed: int
    resolution: float
    image_format: str
    settings: SimulationSettings


def _draw_all(
    task: _Task, truth: pd.DataFrame, t_score: pd.Series, workers: int, progress: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw every picture; all the true and all the faulty boxes, patients in order."""
    grades = truth[[f"grade_{level}" for level in LEVELS]].to_numpy()
    types = truth[[f"type_{level}" for level in LEVELS]].to_numpy()
    women = list(
        zip(range(len(truth)), truth["patient_id"], truth["bone_quality"], t_score, grades, types, strict=True)
    )
    draw = partial(_draw, task)
    each = mapped(workers, draw, women, chunksize=16)
    drawn = list(tqdm(each, total=len(women), desc="radiographs", unit="image", disable=not progress))
    tables = (pd.DataFrame([row for rows in part for row in rows]) for part in zip(*drawn, strict=True))
    true, faulty = (table[["patient_id", *COLUMNS]] for table in tables)
    return true, faulty


def _draw(task: _Task, woman: tuple) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Write one woman's picture and return her boxes, true and faulty."""
    patient, patient_id, bone_quality, t_score, grades, types = woman
    spine = simulate_spine(stream(task.seed, patient, "anatomy"), grades, types, task.settings)
    pixels = render(spine, bone_quality, t_score, task.seed, patient, task.resolution)
    path = task.folder / "images" / (patient_id + SUFFIX[task.image_format])
    _write_picture(path, pixels, patient_id, f"fracsurv {task.seed}", 1 / (spine.scale * task.resolution))
    true = replace(task.settings, box_faults=0.0, neck_boxes=0.0)
    listed = (
        list_boxes(spine, stream(task.seed, patient, "boxes"), task.resolution, settings)
        for settings in (true, task.settings)
    )
    first, second = ([{"patient_id": patient_id, **box} for box in boxes] for boxes in listed)
    return first, second


def _describe(
    folder: Path,
    patients: int,
    external: int,
    seed: int,
    resolution: float,
    settings: SimulationSettings,
    death: DeathSettings | None,
) -> None:
    """cohort.yaml, and simulation.json with every coefficient."""
    description = f"Simulated by fracsurv: {patients} women and {external} external ones, seed {seed}."
    cohort = {
        "provenance": "simulated",
        "covariates": PROTOCOL_COVARIATES,
        "resolution": resolution,
        "description": description,
    }
    if death is not None:
        cohort["competing_event"] = "death"
    (folder / "cohort.yaml").write_text(yaml.safe_dump(cohort, sort_keys=False), encoding="utf-8")
    values = asdict(settings)
    values["correlation"] = {f"{a}, {b}": value for (a, b), value in settings.correlation.items()}
    record = {"seed": seed, "patients": patients, "external": external, "settings": values}
    if death is not None:
        record["death"] = asdict(death)
    (folder / "simulation.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _write_picture(path: Path, pixels: np.ndarray, patient_id: str, study: str, spacing: float) -> None:
    """Write `pixels` (uint16, 12 bits used) in the format that the suffix of `path` names.

    `study` seeds the DICOM identifiers, so that the same simulation writes the same bytes; `spacing` is mm a
    pixel.
    """
    if path.suffix == SUFFIX["dicom"]:
        _dicom(pixels, patient_id, study, spacing).save_as(path, enforce_file_format=True)
    else:
        Image.fromarray(pixels).save(path, compress_level=3)


def _dicom(pixels: np.ndarray, patient_id: str, study: str, spacing: float) -> FileDataset:
    """A Secondary Capture object, MONOCHROME2, 12 bits stored in 16; no name, no dates."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[study, patient_id, "instance"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = generate_uid(entropy_srcs=[study, patient_id, "study"])
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[study, patient_id, "series"])
    image.Modality, image.ConversionType, image.PatientSex = "OT", "SYN", "F"
    image.PatientID, image.StudyID, image.SeriesNumber, image.InstanceNumber = patient_id, "1", 1, 1
    # Required to be there, allowed to be empty.
    for keyword in ("PatientName", "PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber"):
        setattr(image, keyword, "")
    image.ReferringPhysicianName = ""
    image.PatientOrientation = ["P", "F"]  # rows run backwards, columns towards the feet
    image.BurnedInAnnotation = "NO"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.PixelSpacing = [f"{spacing:.5f}"] * 2
    image.PixelData = pixels.astype("<u2").tobytes()
    return image
