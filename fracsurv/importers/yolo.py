"""Real radiographs with vertebra boxes (YOLO format) to a semi-synthetic cohort.

No public radiographs come with fracture follow-up. So the clinical variables and the outcome are simulated, but
from what is truly measured in each radiograph, and the cohort says so (provenance `semi-synthetic`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.stats import norm, rankdata

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.images.crops import CROP_SHAPE
from fracsurv.images.radiographs import read_radiograph
from fracsurv.importers.yolo_labels import YoloRadiograph, read_yolo
from fracsurv.simulate import (
    calibrated_scale,
    clinical_log_hazard,
    simulate_clinical,
    simulate_outcome,
)
from fracsurv.simulate.settings import DEFAULT
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_folder
from fracsurv.vertebrae.slots import MAX_HEIGHT, slots

MIN_BOXES = 3
"""A vertebra's height is compared with both neighbours', so fewer boxes measure nothing."""
FEATURES = ("brightness", "contrast", "height_width_ratio", "height_loss")


def import_yolo(src: str | Path, out: str | Path, *, seed: int = 0) -> None:
    """Turn a YOLO-format folder into a cohort folder.

    Parameters
    ----------
    src : path
        Holds `images/` and `labels/`, or `train/`, `valid/` (`val/`), `test/` holding them. A label row is
        `class x_centre y_centre width height`, relative to the image, or a polygon `class x1 y1 x2 y2 …`, of
        which the enclosing box is taken. Every class counts as a vertebra. The source's own parts are not kept:
        patients are split anew.
    out : path
        New cohort folder: images are copied, `patient_id` is the file's stem. It appears whole or not at all.
    seed : int
        Of the clinical variables and the outcome.

    Notes
    -----
    `resolution` comes from the boxes: the protocol's frame of 272 × 230 pixels holds 99.5 % of their widths and of
    their heights. `truth.parquet` keeps what was measured over the 13 vertebrae that the slot rules choose:

    - brightness: mean grey level inside the boxes against the whole radiograph's, in its standard deviations;
    - contrast: mean of a box's middle half against its top and bottom sixth (end plates, discs), in standard
      deviations inside the boxes;
    - height_width_ratio: the mean of the boxes';
    - height_loss: the largest share by which a box is lower than the mean of its two neighbours.

    Bone quality is the rank-normalised sum of the first three, standardised; the burden is height_loss,
    rank-normalised. They enter the hazard as in the simulated cohort (`image_strength`, `image_balance`), and
    the baseline is set so that the protocol's share of events is expected. These are measures of the pictures,
    not of bone: the outcome is a test of the pipeline and says nothing about patients.

    Raises
    ------
    UserError
        Every fault of the source at once: missing or stray labels, two files of one stem, label rows that
        cannot be read or leave the image, unreadable images, links out of the folder, fewer than three boxes.
    """
    src, out = Path(src), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already and not empty; give a new folder")
    found, faults = read_yolo(src, min_boxes=MIN_BOXES)
    if faults:
        raise UserError(faults)
    resolution = _resolution([radiograph.boxes for radiograph in found])
    measured = pd.DataFrame([_measure(radiograph, resolution) for radiograph in found], columns=FEATURES)
    table, truth = _simulate(measured, seed)
    table.insert(0, "patient_id", [radiograph.path.stem for radiograph in found])
    truth.insert(0, "patient_id", table["patient_id"])
    table["image"] = [f"images/{radiograph.path.name}" for radiograph in found]
    table["split"] = ""
    with atomic_folder(out) as temporary:
        (temporary / "images").mkdir()
        for radiograph in found:
            shutil.copyfile(radiograph.path, temporary / "images" / radiograph.path.name)
        table.to_csv(temporary / "cohort.csv", index=False)
        _vertebrae(found).to_csv(temporary / "vertebrae.csv", index=False)
        truth.to_parquet(temporary / "truth.parquet", index=False)
        settings = _settings(resolution, seed, len(found))
        (temporary / "cohort.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def _resolution(boxes: list[np.ndarray]) -> float:
    """Image pixels per protocol pixel, such that its crop frame holds 99.5 % of the widths and of the heights."""
    sides = np.concatenate([box[:, 2:] - box[:, :2] for box in boxes])
    width, height = np.percentile(sides, 99.5, axis=0)
    return round(float(max(width / CROP_SHAPE[1], height / CROP_SHAPE[0])), 4)


def _measure(radiograph: YoloRadiograph, resolution: float) -> tuple[float, ...]:
    """`FEATURES` of one radiograph, over the vertebrae that fill its slots."""
    image = read_radiograph(radiograph.path).astype(float)
    chosen = slots(radiograph.boxes, max_height=MAX_HEIGHT * resolution, image_height=image.shape[0]).index
    boxes = radiograph.boxes[chosen[chosen >= 0]]
    crops = []
    for x_min, y_min, x_max, y_max in boxes:
        crops.append(image[int(y_min) : int(np.ceil(y_max)), int(x_min) : int(np.ceil(x_max))])
    inside = np.concatenate([crop.ravel() for crop in crops])
    steps = []
    for crop in crops:
        quarter, sixth = len(crop) // 4, max(1, len(crop) // 6)
        ends = np.concatenate([crop[:sixth], crop[-sixth:]])
        steps.append(crop[quarter : len(crop) - quarter].mean() - ends.mean())
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    loss = 1 - height[1:-1] / ((height[:-2] + height[2:]) / 2)
    return (
        (inside.mean() - image.mean()) / (image.std() + 1e-9),  # a uniform picture has no contrast: 0
        np.mean(steps) / (inside.std() + 1e-9),
        np.mean(height / width),
        loss.max(initial=0.0),
    )


def _simulate(measured: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cohort's clinical variables with time and event, and the truth."""
    shown = measured[["brightness", "contrast", "height_width_ratio"]]
    quality = rank_normal(((shown - shown.mean()) / (shown.std(ddof=0) + 1e-9)).sum(axis=1).to_numpy())
    burden = rank_normal(measured["height_loss"].to_numpy())
    share = DEFAULT.image_balance
    signal = -np.sqrt(share) * quality + np.sqrt(1 - share) * burden
    image = DEFAULT.image_strength * signal / (signal.std() + 1e-9)
    clinical = simulate_clinical(len(measured), seed, bone_quality=quality)
    settings = calibrated_scale(clinical_log_hazard(clinical) + image)
    outcome = simulate_outcome(clinical, image, seed, settings)
    table = pd.concat([outcome[["time_days", "event"]], clinical[list(PROTOCOL_COVARIATES)]], axis=1)
    truth = pd.DataFrame({"log_hazard": outcome["log_hazard"], "bone_quality": quality, "burden": burden})
    return table, pd.concat([truth, measured], axis=1)


def rank_normal(values: np.ndarray) -> np.ndarray:
    """Values to standard-normal scores by rank (Blom's positions; ties share their mean rank)."""
    return norm.ppf((rankdata(values) - 0.375) / (len(values) + 0.25))


def _vertebrae(found: list[YoloRadiograph]) -> pd.DataFrame:
    tables = []
    for radiograph in found:
        rows = pd.DataFrame(radiograph.boxes, columns=BOX_COLUMNS)
        rows.insert(0, "patient_id", radiograph.path.stem)
        rows.insert(1, "level", "")
        tables.append(rows.assign(score=1.0).reindex(columns=[*rows.columns, "score", *KEYPOINT_COLUMNS]))
    return pd.concat(tables, ignore_index=True)


def _settings(resolution: float, seed: int, n: int) -> dict[str, object]:
    return {
        "provenance": "semi-synthetic",
        "resolution": resolution,
        "covariates": dict(PROTOCOL_COVARIATES),
        "description": (
            f"{n} real radiographs with vertebra boxes; clinical variables and outcome are simulated (seed {seed}) "
            "from brightness, contrast and box geometry measured in the radiographs"
        ),
    }
