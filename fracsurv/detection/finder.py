"""A vertebra finder: the detector, its threshold and, where it could be trained, the keypoint network; one file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fracsurv import __version__
from fracsurv.detection.inference import BATCH_SIZE, Detections, detect
from fracsurv.detection.keypoints import (
    MIN_VERTEBRAE,
    KeypointNetwork,
    predict_keypoints,
    stack_pictures,
    train_keypoints,
    vertebra_picture,
    vertebra_pictures,
)
from fracsurv.detection.network import VertebraDetector
from fracsurv.detection.scores import detection_scores, keypoint_scores, matches
from fracsurv.detection.sources import Labelled
from fracsurv.detection.training import DetectorRecipe, KeypointRecipe, held_out, train_detector
from fracsurv.utils.errors import UserError
from fracsurv.utils.weights import load_weights, read_tensors, save_weights

FORMAT = "fracsurv vertebra finder"


@dataclass(frozen=True)
class Finder:
    """What finds vertebrae.

    `threshold` is the minimum score of a vertebra's box. `about` says where it comes from (provenance, n_images,
    n_vertebrae, epochs, seed, fracsurv's version) and, under `keypoints_of`, where keypoints of another source do.
    """

    detector: VertebraDetector
    threshold: float
    keypoints: KeypointNetwork | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        """One line: what it was trained on, and whether it finds keypoints."""
        about, other = self.about, self.about.get("keypoints_of")
        what = "boxes and keypoints" if self.keypoints and not other else "boxes"
        images = f"{about['n_images']:,} {about['provenance']} radiographs"
        parts = [f"{what}, from {about['n_vertebrae']:,} vertebrae of {images}"]
        if other:
            parts.append(f"keypoints, from {other['n_vertebrae']:,} of {other['n_images']:,} ({other['provenance']})")
        return "; ".join([*parts, f"threshold {self.threshold:.2f}"])


@dataclass(frozen=True)
class Vertebrae:
    """One radiograph's vertebrae, top to bottom: boxes, scores (n,), keypoints and their standard deviations."""

    boxes: np.ndarray
    score: np.ndarray
    keypoints: np.ndarray
    scale: np.ndarray


def train_finder(
    found: Sequence[Labelled],
    provenance: str,
    recipe: DetectorRecipe,
    keypoint_recipe: KeypointRecipe | None = None,
    *,
    detector: Finder | None = None,
    progress: bool = True,
) -> Finder:
    """A finder trained from scratch: a detector and, where enough vertebrae have keypoints, a keypoint network.

    The threshold and the keypoints' scales come from radiographs that neither was trained on (a `detector` that is
    given may have seen those of the scales).

    Parameters
    ----------
    detector : Finder, optional
        Take its detector and threshold, and train the keypoint network alone.

    Raises
    ------
    UserError
        With a detector, where fewer than `MIN_VERTEBRAE` vertebrae to train on have keypoints.
    """
    held = held_out(len(found), recipe)
    train = [found[row] for row in np.setdiff1d(np.arange(len(found)), held)]
    source = {
        "provenance": provenance,
        "n_images": len(found),
        "n_vertebrae": sum(len(each.boxes) for each in found),
        "seed": recipe.seed,
        "fracsurv": __version__,
    }
    if detector is None:
        about = source | {"epochs": recipe.epochs}
        finder = Finder(*train_detector(found, held, recipe, progress=progress), None, about)
        n_known = sum(int(np.isfinite(each.keypoints).all(axis=(1, 2)).sum()) for each in train)
        if n_known < MIN_VERTEBRAE:
            return finder
    else:
        finder = replace(detector, keypoints=None, about=detector.about | {"keypoints_of": source})
    calibration = calibration_pictures(finder, [found[row] for row in held])
    keypoint_recipe = keypoint_recipe or KeypointRecipe(seed=recipe.seed)
    return replace(finder, keypoints=train_keypoints(train, calibration, keypoint_recipe, progress=progress))


def calibration_pictures(finder: Finder, found: Sequence[Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and keypoints, as `stack_pictures`, of vertebrae in the boxes that the detector finds.

    A vertebra that it misses keeps the annotator's box.
    """
    pairs = []
    for each in found:
        image = each.read()
        (seen,) = detect(finder.detector, [image])
        column, boxes = seen.column(finder.threshold), each.boxes.copy()
        hit = matches(column, boxes, 0.5)
        boxes[hit[hit >= 0]] = column.boxes[hit >= 0]
        pairs += vertebra_pictures(image, boxes, each.keypoints)
    return stack_pictures(pairs)


def find(finder: Finder, images: Sequence[np.ndarray]) -> list[Vertebrae]:
    """The column of vertebrae in each radiograph."""
    found = []
    for image, seen in zip(images, detect(finder.detector, images), strict=True):
        column = seen.column(finder.threshold)
        points = find_keypoints(finder.keypoints, image, column.boxes)
        found.append(Vertebrae(column.boxes, column.score, *points))
    return found


def find_keypoints(
    network: KeypointNetwork | None, image: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints in boxes of a radiograph, and their standard deviations, in its pixels."""
    if network is None or len(boxes) == 0:
        unknown = np.full((len(boxes), 6, 2), np.nan)
        return unknown, unknown
    pictures, shown = map(np.stack, zip(*(vertebra_picture(image, box) for box in boxes), strict=True))
    mean, scale = (part.double().numpy() for part in predict_keypoints(network, pictures))
    side = (shown[:, 2:] - shown[:, :2])[:, None]
    return shown[:, None, :2] + mean * side, scale * side


def score_finder(finder: Finder, found: Sequence[Labelled], *, progress: bool = True) -> dict[str, float]:
    """Every score of a finder on radiographs with boxes; see `detection_scores`.

    Where the finder knows keypoints and the radiographs have them, `keypoint_scores` too, of the vertebrae that were
    found (IoU 0.5): keypoints are located in the boxes that the finder draws.
    """
    seen: list[Detections] = []
    located = []
    with tqdm(total=len(found), desc="radiographs", unit="image", disable=not progress, leave=False) as bar:
        for start in range(0, len(found), BATCH_SIZE):
            batch = found[start : start + BATCH_SIZE]
            images = [each.read() for each in batch]
            for each, image, detections in zip(batch, images, detect(finder.detector, images), strict=True):
                seen.append(detections)
                bar.update()
                if finder.keypoints is None:
                    continue
                column = detections.column(finder.threshold)
                hit = matches(column, each.boxes, 0.5)
                known = [row for row in np.flatnonzero(hit >= 0) if np.isfinite(each.keypoints[hit[row]]).all()]
                if known:
                    mean, scale = find_keypoints(finder.keypoints, image, column.boxes[known])
                    located.append(np.stack([mean, scale, each.keypoints[hit[known]]]))
    result = detection_scores(seen, [each.boxes for each in found], finder.threshold)
    return result | (keypoint_scores(*np.concatenate(located, axis=1)) if located else {})


def save_finder(finder: Finder, path: Path) -> None:
    """Write a finder, its convolutions in float16 (half the size)."""
    parts = nn.ModuleDict({"detector": copy.deepcopy(finder.detector)})
    if finder.keypoints is not None:
        parts["keypoints"] = copy.deepcopy(finder.keypoints)
    for module in parts.modules():
        if isinstance(module, nn.Conv2d):
            module.half()
    about = {"format": FORMAT, "threshold": finder.threshold, "keypoints": finder.keypoints is not None}
    save_weights(parts, path, about | finder.about)


def load_finder(path: Path) -> Finder:
    """The finder that `save_finder` wrote; on the GPU if there is one.

    Raises
    ------
    UserError
        Where the file is missing, damaged, or holds something else.
    """
    try:
        _, about = read_tensors(path)
    except UserError:
        if not path.exists():
            raise
        about = {}
    if about.pop("format", None) != FORMAT:
        raise UserError(f"{path}: holds no vertebra finder, or is damaged; `fracsurv detect train` makes one")
    parts = nn.ModuleDict({"detector": VertebraDetector()})
    has_keypoints = about.pop("keypoints")
    if has_keypoints:
        parts["keypoints"] = KeypointNetwork()
    load_weights(parts, path)
    parts.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    parts["detector"].to(memory_format=torch.channels_last)
    keypoints = parts["keypoints"] if has_keypoints else None
    return Finder(parts["detector"], about.pop("threshold"), keypoints, about)
