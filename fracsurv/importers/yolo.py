"""Real radiographs with vertebra boxes in YOLO format: read them, and make a semi-synthetic cohort of them.

No public radiographs come with fracture follow-up. So the clinical variables and the outcome are simulated, from what
is measured in each radiograph; the cohort's provenance is `semi-synthetic`.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import yaml
from scipy.stats import norm, rankdata

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.images.crops import CROP_SHAPE
from fracsurv.images.radiographs import read_radiograph
from fracsurv.simulate import DEFAULT, calibrated_scale, clinical_log_hazard, simulate_clinical, simulate_outcome
from fracsurv.utils.errors import UserError, shorten
from fracsurv.utils.files import atomic_folder
from fracsurv.utils.names import canonical
from fracsurv.utils.yaml_files import read_yaml
from fracsurv.vertebrae.slots import MAX_HEIGHT, slots

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm")
LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon", "__macosx", "@eadir", "$recycle.bin")
"""What operating systems and network drives leave in folders, besides names with a point at the start."""
LISTS = re.compile(r"((predefined_)?classes|obj|train|valid|val|test|autosplit_\w+|readme.*)\.txt", re.IGNORECASE)
"""Text files that programs put beside labels: names of classes, lists of images, a README."""
FEW_ROWS = 0.1
"""Share of the rows below which longer ones are an exception among boxes."""
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


class LabelKind(NamedTuple):
    """What label rows of more than five numbers are, and how many numbers they have, 0 if that is open.

    'polygon', 'pose' (a box and keypoints), or 'box': there are none.
    """

    name: Literal["box", "polygon", "pose"]
    count: int = 0


POLYGON = LabelKind("polygon")
OBB = 9
"""Numbers of an oriented box's row: a class and four corners."""


def read_yolo(src: str | Path, *, min_boxes: int = 0) -> tuple[list[YoloRadiograph], list[str]]:
    """All radiographs of a YOLO folder, ordered by stem, and every fault.

    Parameters
    ----------
    src : path
        Holds `images/` and `labels/`, each with or without parts (`images/train`, `labels/train`), or parts that hold
        them (`train/images`, `train/labels`), or images with their labels beside them. Stems are unique over all
        parts. A label row is `class x_centre y_centre width height`, relative to the image. Longer rows are what
        data.yaml says: with `task: segment` or `obb` a polygon `class x1 y1 x2 y2 …`, of which the enclosing box is
        taken; with `kpt_shape` a box and keypoints, which are not read. Without either they are refused, but for a
        few polygons among boxes, each of which ends with its first corner. Every class counts as a vertebra.
    min_boxes : int
        Fewer boxes than this in a radiograph are a fault.
    """
    src = Path(src)
    if not src.is_dir():
        return [], [f"{src}: {'is a file; give the folder that holds it' if src.is_file() else 'no such folder'}"]
    faults: list[str] = []
    kind = _told_kind(src, faults)
    is_told = bool(kind or faults)
    pairs = _pairs(src, faults)
    rows = {path: _label_rows(label, label.relative_to(src).as_posix(), faults) for path, label in pairs.items()}
    if not is_told:
        try:
            kind = label_kind([numbers for each in rows.values() for _, numbers in each or ()])
        except ValueError as error:
            faults.append(f"{src}: {error}")
    found = []
    for path, label in pairs.items():
        radiograph, wrong = _read_one(src, path, label, rows[path], kind, min_boxes)
        faults += wrong
        if radiograph is not None:
            found.append(radiograph)
    return sorted(found, key=lambda radiograph: radiograph.path.stem), faults


def _told_kind(src: Path, faults: list[str]) -> LabelKind | None:
    """What the YAML files of a YOLO folder say of its labels."""
    for path in sorted(each for each in src.iterdir() if each.suffix.lower() in (".yaml", ".yml")):
        content = {} if _is_litter(path.name) else read_yaml(path, faults) or {}
        task, shape = content.get("task"), content.get("kpt_shape")
        if task == "classify":
            faults.append(f"{path.name}, task: classify; such labels hold no boxes")
        if task in ("detect", "segment", "obb"):
            return LabelKind("box" if task == "detect" else "polygon", OBB if task == "obb" else 0)
        if shape is not None or task == "pose":
            is_shape = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)
            if is_shape and shape[1] in (2, 3):
                return LabelKind("pose", 5 + shape[0] * shape[1])
            faults.append(f"{path.name}, kpt_shape: {shorten(shape)}; must be [number of keypoints, 2 or 3]")
    return None


def _is_litter(name: str) -> bool:
    """Whether a file or folder comes from an operating system or is another program's cache."""
    return name.startswith(".") or name.lower().strip() in LITTER or name.lower().endswith((".cache", ".npy"))


def _below(folder: Path) -> list[Path]:
    """All files below a folder, in order, without litter; a link to a folder counts as a file."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path for path in paths if not any(map(_is_litter, path.relative_to(folder).parts)))


def _places(src: Path) -> list[tuple[Path, Path]]:
    """The folders that hold a source's images and labels; the same folder where they lie side by side."""
    places = []
    for place in [src, *sorted(path for path in src.iterdir() if path.is_dir() and not _is_litter(path.name))]:
        inner = {path.name.lower(): path for path in sorted(place.iterdir()) if path.is_dir()}
        if images := inner.get("images"):
            beside = "labels" not in inner and any(path.suffix.lower() == ".txt" for path in _below(images))
            places.append((images, images if beside else inner.get("labels", place / "labels")))
    return places or [(src, src)]


def _pairs(src: Path, faults: list[str]) -> dict[Path, Path]:
    """Each image's label file; faults of images and label files without the other are appended."""
    pairs: dict[Path, Path] = {}
    wrong, unused, seen, n_images = [], [], {}, 0
    places = _places(src)
    for images, folder in places:
        labels: dict[str, list[Path]] = {}
        for label in _below(folder) if folder.is_dir() else ():
            if label.suffix.lower() == ".txt":
                labels.setdefault(canonical(label.relative_to(folder).with_suffix("").as_posix()), []).append(label)
        for path in _below(images):
            is_image = path.suffix.lower() in SUFFIXES
            if not is_image and (
                images == folder or path.suffix.lower() in (".xml", ".json") or LISTS.fullmatch(path.name)
            ):
                continue
            n_images += is_image
            name = path.relative_to(images).with_suffix("")
            there, label = labels.get(canonical(name.as_posix()), []), folder / f"{name.as_posix()}.txt"
            label = label if label in there or len(there) != 1 else there[0]
            if label in there:
                there.remove(label)
            if fault := _file_fault(src, path, label, seen):
                wrong.append(f"{path.relative_to(src).as_posix()}: {fault}")
            else:
                pairs[path] = label
            seen.setdefault(canonical(path.stem), path.relative_to(src).as_posix())
        unused += [label for each in labels.values() for label in each if not LISTS.fullmatch(label.name)]
    if n_images > 1 and not pairs and not unused and all("no label file" in fault for fault in wrong):
        wrong = [
            f"{src}: {n_images:,} images, but no label file for any ({wrong[0].split('no label file ')[1]}, say)"
        ]
    elif not n_images and not wrong:
        none = "holds neither images/ nor train/images/, nor images beside their labels"
        wrong = [f"{src}: {none if places == [(src, src)] else 'images/ is empty'}"]
    faults += wrong
    faults += [f"{label.relative_to(src).as_posix()}: no image of that name" for label in unused]
    return pairs


def _file_fault(src: Path, path: Path, label: Path, seen: dict[str, str]) -> str | None:
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return f"not a radiograph file; expected {', '.join(SUFFIXES)}"
    if not all(file.resolve().is_relative_to(src.resolve()) for file in (path, label)):
        return "the file or its label is a link out of the folder"
    if other := seen.get(canonical(path.stem)):
        return f"same stem as {other}, or nearly; stems are patient ids and must be unique"
    if path.stem != path.stem.strip() or not path.stem.isprintable():
        return "its stem is no patient id: blanks at the ends or characters that cannot be printed"
    if not label.is_file():
        return f"no label file {label.relative_to(src).as_posix()}"
    return None


def _label_rows(label: Path, where: str, faults: list[str]) -> list[tuple[str, np.ndarray]] | None:
    """Where each row of a label file stands, and its numbers; None, with faults appended, if it cannot be read."""
    try:
        lines = label.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        faults.append(f"{where}: not readable as text; it must be UTF-8")
        return None
    rows, n = [], len(faults)
    for number, line in enumerate(lines, start=1):
        try:
            rows += [(f"{where} line {number}", _numbers(line))] if line.strip() else []
        except ValueError as error:
            faults.append(f"{where} line {number}: {error}")
    return rows if len(faults) == n else None


def _read_one(
    src: Path,
    path: Path,
    label: Path,
    rows: list[tuple[str, np.ndarray]] | None,
    kind: LabelKind | None,
    min_boxes: int,
) -> tuple[YoloRadiograph | None, list[str]]:
    faults: list[str] = []
    found = []
    for where, numbers in rows or () if kind else ():
        try:
            found.append(_box(numbers, kind))
        except ValueError as error:
            faults.append(f"{where}: {error}")
    if kind and rows is not None and not faults and len(rows) < min_boxes:
        where = label.relative_to(src).as_posix()
        faults.append(f"{where}: {len(rows)} boxes; at least {min_boxes} vertebrae are needed")
    try:
        shape = read_radiograph(path, name=path.relative_to(src).as_posix()).shape
    except UserError as error:
        faults += error.faults
    if faults or kind is None or rows is None:
        return None, faults
    # As they are written to vertebrae.csv: 37.0000001 would take in one more row of pixels than 37.
    boxes = (np.array(found).reshape(-1, 4) * np.array([shape[1], shape[0]] * 2)).round(3)
    return YoloRadiograph(path, boxes, shape), []


def _numbers(line: str) -> np.ndarray:
    """The numbers of a label row; ValueError where there is something else, or no class first."""
    try:
        values = np.array([float(word) for word in line.split()])
    except ValueError:
        raise ValueError(f"{line.strip()[:60]!r} holds something that is no number") from None
    if not np.isfinite(values).all() or values[0] < 0 or values[0] != int(values[0]):
        raise ValueError("expected a class number 0, 1, 2 … and finite coordinates")
    return values


def label_kind(rows: Sequence[np.ndarray]) -> LabelKind:
    """What the label rows of a folder are, where no YAML file says it; ValueError where they may be of several kinds.

    Rows of five numbers are boxes. Among them, fewer longer rows are polygons if each ends with the corner that it
    began with, as closed outlines do: an export with keypoints or confidences has them in all rows.
    """
    longer = [row for row in rows if len(row) > 5]
    if not longer:
        return LabelKind("box")
    if len(longer) < FEW_ROWS * len(rows) and all(map(_is_closed, longer)):
        return POLYGON
    n = Counter(map(len, longer)).most_common(1)[0][0]
    raise ValueError(
        f"label rows of {n} numbers may be polygons, boxes with keypoints, or with a confidence, an angle or a "
        "track's number. Put `task: segment` (or obb), or `task: pose` with `kpt_shape: [number of keypoints, 2 or "
        "3]`, into data.yaml, or keep the first 5 numbers of boxes alone"
    )


def _is_closed(row: np.ndarray) -> bool:
    """Whether a row is an outline of three corners or more that ends where it began."""
    return len(row) >= 9 and len(row) % 2 == 1 and bool((row[1:3] == row[-2:]).all())


def _corners(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper left and lower right corner of a centre and a size."""
    return box[:2] - box[2:] / 2, box[:2] + box[2:] / 2


def _is_on_image(low: np.ndarray, high: np.ndarray) -> bool:
    return bool((low >= -_EDGE).all() and (high <= 1 + _EDGE).all())


def relative_box(line: str, kind: LabelKind = POLYGON) -> tuple[float, float, float, float]:
    """A YOLO label row to x_min, y_min, x_max, y_max relative to the image.

    Five numbers are a box; more are what `kind` says: a polygon (an odd count from seven on), or a box with
    keypoints. ValueError for anything else, for values outside [0, 1] by more than 0.001 (rounding of the
    exporter) and for a box without width or height.
    """
    return _box(_numbers(line), kind)


def _box(values: np.ndarray, kind: LabelKind) -> tuple[float, float, float, float]:
    n = len(values)
    if kind.count and n not in (5, kind.count):
        key = "kpt_shape" if kind.name == "pose" else "task: obb"
        raise ValueError(f"{n} numbers; with data.yaml's `{key}` expected 5 or {kind.count}")
    if n != 5 and kind.name != "pose" and (kind.name == "box" or n < 7 or n % 2 == 0):
        raise ValueError(
            f"{n} numbers; expected 5 (box) or 1 + 2 a corner (polygon). For keypoints put `kpt_shape` into "
            "data.yaml; a confidence, an angle or a track's number take out"
        )
    if n == 5 or kind.name == "pose":
        low, high = _corners(values[1:5])
    else:
        corners = values[1:].reshape(-1, 2)
        low, high = corners.min(axis=0), corners.max(axis=0)
    if not _is_on_image(low, high):
        raise ValueError(
            "box leaves the image; expected class, centre and size (not two corners), relative to it, 0 to 1"
        )
    low, high = low.clip(0, 1), high.clip(0, 1)
    if (high <= low).any():
        raise ValueError("box without width or height")
    return (*low.tolist(), *high.tolist())
