"""Radiographs with boxes in YOLO format, as object detectors' annotation tools export them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fracsurv.images.radiographs import read_radiograph
from fracsurv.utils.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm")
PARTS = ("train", "valid", "val", "test")
_EDGE = 1e-3


@dataclass(frozen=True)
class YoloRadiograph:
    """One image of the source: its file, its boxes (n, 4) in pixels, its height and width."""

    path: Path
    boxes: np.ndarray
    shape: tuple[int, int]


def read_yolo(src: str | Path, *, min_boxes: int = 0) -> tuple[list[YoloRadiograph], list[str]]:
    """All radiographs, ordered by stem, and every fault.

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
