"""Real radiographs with vertebra boxes in YOLO format: read them, and make a semi-synthetic cohort of them.

No public radiographs come with fracture follow-up. So the clinical variables and the outcome are simulated, from what
is measured in each radiograph; the cohort's provenance is `semi-synthetic`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.stats import norm, rankdata

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.images.crops import CROP_SHAPE
from fracsurv.images.radiographs import read_radiograph
from fracsurv.simulate import DEFAULT, calibrated_scale, clinical_log_hazard, simulate_clinical, simulate_outcome
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_folder
from fracsurv.vertebrae.slots import MAX_HEIGHT, slots

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm")
PARTS = ("train", "valid", "val", "test")
_EDGE = 1e-3
MIN_BOXES = 3
"""A vertebra's height is compared with both neighbours', so fewer boxes measure nothing."""
FEATURES = ("brightness", "contrast", "height_width_ratio", "height_loss")


def import_yolo(src: str | Path, out: str | Path, *, seed: int = 0) -> None:
    """Write a cohort folder from a YOLO folder.

    Parameters
    ----------
    src : path
        See `read_yolo`. The source's own parts are not kept: patients are split anew.
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


@dataclass(frozen=True)
class YoloRadiograph:
    """One image of the source: its file, its boxes (n, 4) in pixels, its height and width."""

    path: Path
    boxes: np.ndarray
    shape: tuple[int, int]


def read_yolo(src: str | Path, *, min_boxes: int = 0) -> tuple[list[YoloRadiograph], list[str]]:
    """All radiographs of a YOLO folder, ordered by stem, and every fault.

    Parameters
    ----------
    src : path
        Holds `images/` and `labels/`, or `train/`, `valid/` (`val/`), `test/` holding them. Stems are unique over all
        parts. A label row is `class x_centre y_centre width height`, relative to the image, or a polygon
        `class x1 y1 x2 y2 …`, of which the enclosing box is taken. Every class counts as a vertebra.
    min_boxes : int
        Fewer boxes than this in a radiograph are a fault.
    """
    src = Path(src)
    if not src.is_dir():
        return [], [f"{src}: no such folder"]
    places = [src, *(src / part for part in PARTS)]
    places = [place for place in places if (place / "images").is_dir()]
    if not places:
        return [], [f"{src}: holds neither images/ nor train/images/, valid/images/ or test/images/"]
    found, faults, seen = [], [], {}
    for place in places:
        used = set()
        for path in sorted((place / "images").iterdir()):
            if path.name.startswith("."):
                continue
            name = path.relative_to(src).as_posix()
            label = place / "labels" / f"{path.stem}.txt"
            used.add(label.name)
            fault = _file_fault(src, path, label, seen)
            if fault:
                faults.append(f"{name}: {fault}")
                continue
            seen[path.stem] = name
            radiograph, wrong = _read_one(src, path, label, name, min_boxes)
            faults += wrong
            if radiograph is not None:
                found.append(radiograph)
        labels = sorted((place / "labels").glob("*.txt")) if (place / "labels").is_dir() else []
        faults += [f"{label.relative_to(src).as_posix()}: no image of that name" for label in labels
                   if label.name not in used]  # fmt: skip
    if not found and not faults:
        faults = [f"{src}: images/ is empty"]
    return sorted(found, key=lambda radiograph: radiograph.path.stem), faults


def _file_fault(src: Path, path: Path, label: Path, seen: dict[str, str]) -> str | None:
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return f"not a radiograph file; expected {', '.join(SUFFIXES)}"
    if not all(file.resolve().is_relative_to(src.resolve()) for file in (path, label)):
        return "the file or its label is a link out of the folder"
    if path.stem in seen:
        return f"same stem as {seen[path.stem]}; stems are patient ids and must be unique"
    if path.stem != path.stem.strip() or not path.stem.isprintable():
        return "its stem is no patient id: blanks at the ends or characters that cannot be printed"
    if not label.is_file():
        return f"no label file {label.relative_to(src).as_posix()}"
    return None


def _read_one(
    src: Path, path: Path, label: Path, name: str, min_boxes: int
) -> tuple[YoloRadiograph | None, list[str]]:
    faults = []
    rows = []
    where = label.relative_to(src).as_posix()
    try:
        text = label.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None, [f"{where}: not readable as text"]
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(relative_box(line))
        except ValueError as error:
            faults.append(f"{where} line {number}: {error}")
    if not faults and len(rows) < min_boxes:
        faults.append(f"{where}: {len(rows)} boxes; at least {min_boxes} vertebrae are needed")
    try:
        shape = read_radiograph(path, name=name).shape
    except UserError as error:
        faults += error.faults
    if faults:
        return None, faults
    # As they are written to vertebrae.csv: 37.0000001 would take in one more row of pixels than 37.
    boxes = (np.array(rows).reshape(-1, 4) * np.array([shape[1], shape[0]] * 2)).round(3)
    return YoloRadiograph(path, boxes, shape), []


def relative_box(line: str) -> tuple[float, float, float, float]:
    """A YOLO label row to x_min, y_min, x_max, y_max relative to the image.

    Five numbers are a box, seven or more (an odd count) a polygon. ValueError for anything else, for values
    outside [0, 1] by more than 0.001 (rounding of the exporter) and for a box without width or height.
    """
    try:
        values = np.array([float(word) for word in line.split()])
    except ValueError:
        raise ValueError(f"{line.strip()[:60]!r} holds something that is no number") from None
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        raise ValueError(f"{len(values)} numbers; expected 5 (box) or 1 + 2 a corner (polygon)")
    if not np.isfinite(values).all() or values[0] < 0 or values[0] != int(values[0]):
        raise ValueError("expected a class number 0, 1, 2 … and finite coordinates")
    if len(values) == 5:
        centre, half = values[1:3], values[3:5] / 2
        low, high = centre - half, centre + half
    else:
        corners = values[1:].reshape(-1, 2)
        low, high = corners.min(axis=0), corners.max(axis=0)
    if (low < -_EDGE).any() or (high > 1 + _EDGE).any():
        raise ValueError("box leaves the image; coordinates must be relative to it, 0 to 1")
    low, high = low.clip(0, 1), high.clip(0, 1)
    if (high <= low).any():
        raise ValueError("box without width or height")
    return (*low.tolist(), *high.tolist())
