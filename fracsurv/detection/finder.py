"""A vertebra finder: the detector, its threshold and, where it could be learnt, the keypoint network; one file."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fracsurv import __version__
from fracsurv.detection.inference import Detections, detect
from fracsurv.detection.keypoint_training import (
    FEWEST,
    KeypointRecipe,
    locate,
    pictures_of,
    stacked,
    train_keypoints,
)
from fracsurv.detection.keypoints import KeypointNetwork, vertebra_picture
from fracsurv.detection.network import VertebraDetector
from fracsurv.detection.scores import KeypointErrors, matches, scores
from fracsurv.detection.sources import Labelled
from fracsurv.detection.training import DetectorRecipe, held_out, train_detector
from fracsurv.utils.errors import UserError
from fracsurv.utils.weights import load_weights, read_tensors, save_weights

FORMAT = "fracsurv vertebra finder"


@dataclass(frozen=True)
class Finder:
    """What finds vertebrae.

    Attributes
    ----------
    threshold : float
        Score from which a box counts as a vertebra.
    keypoints : KeypointNetwork or None
    about : dict
        provenance, n_images, n_vertebrae, recipe, version: where it comes from.
    """

    detector: VertebraDetector
    threshold: float
    keypoints: KeypointNetwork | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        """One line: what it was trained on, and whether it knows keypoints."""
        other = self.about.get("keypoints_of")
        what = "boxes and keypoints" if self.keypoints and not other else "boxes"
        return (
            f"{what}, from {self.about['n_vertebrae']:,} vertebrae of {self.about['n_images']:,} "
            f"{self.about['provenance']} radiographs; "
            + (
                f"keypoints, from {other['n_vertebrae']:,} of {other['n_images']:,} ({other['provenance']}); "
                if other
                else ""
            )
            + f"threshold {self.threshold:.2f}"
        )


@dataclass(frozen=True)
class Vertebrae:
    """One radiograph's vertebrae, top to bottom, in its pixels.

    `boxes` (n, 4), `score` (n,), `keypoints` and their standard deviations `scale` (n, 6, 2), NaN = unknown.
    """

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
    """Train a detector and, if enough of the vertebrae have keypoints, a keypoint network.

    The threshold and the keypoints' scales come from radiographs that neither was trained on (a `detector` that is
    given may have seen those of the scales).

    Parameters
    ----------
    detector : Finder, optional
        Take its detector and threshold, and train the keypoint network alone.

    Raises
    ------
    UserError
        With a detector, where fewer than `FEWEST` vertebrae to train on have keypoints.
    """
    held = held_out(len(found), recipe)
    train = [found[row] for row in np.setdiff1d(np.arange(len(found)), held)]
    about: dict[str, Any] = {
        "provenance": provenance,
        "n_images": len(found),
        "n_vertebrae": sum(len(each.boxes) for each in found),
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "fracsurv": __version__,
    }
    n_known = sum(int(np.isfinite(each.keypoints).all(axis=(1, 2)).sum()) for each in train)
    if detector is None:
        made = Finder(*train_detector(found, held, recipe, progress=progress), None, about)
        if n_known < FEWEST:
            return made
    else:
        keypoints_of = {name: about[name] for name in ("provenance", "n_images", "n_vertebrae", "seed", "fracsurv")}
        made = replace(detector, keypoints=None, about=detector.about | {"keypoints_of": keypoints_of})
    shown = calibration_pictures(made, [found[row] for row in held])
    how = keypoint_recipe or KeypointRecipe(seed=recipe.seed)
    return replace(made, keypoints=train_keypoints(train, shown, how, progress=progress))


def calibration_pictures(finder: Finder, found: Sequence[Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """What a keypoint network is given where this finder is used: pictures and keypoints as of `pictures_of`.

    The boxes are the detector's; a vertebra that it misses keeps the annotator's.
    """
    pictures, keypoints = [], []
    for each in found:
        image = each.read()
        (seen,) = detect(finder.detector, [image])
        column, boxes = seen.column(finder.threshold), each.boxes.copy()
        hit = matches(column, boxes, 0.5)
        boxes[hit[hit >= 0]] = column.boxes[hit >= 0]
        for picture, points in pictures_of(image, boxes, each.keypoints):
            pictures.append(picture)
            keypoints.append(points)
    return stacked(pictures, keypoints)


def find(finder: Finder, images: Sequence[np.ndarray]) -> list[Vertebrae]:
    """The column of vertebrae in each radiograph (uint8 or uint16, any size)."""
    found = []
    for image, seen in zip(images, detect(finder.detector, images), strict=True):
        column = seen.column(finder.threshold)
        points = find_keypoints(finder.keypoints, image, column.boxes)
        found.append(Vertebrae(column.boxes, column.score, *points))
    return found


def score_finder(finder: Finder, found: Sequence[Labelled], *, progress: bool = True) -> dict[str, float]:
    """Every score of a finder on radiographs with boxes; see `scores`.

    Where the finder knows keypoints and the radiographs have them, `KeypointErrors.summary` too, of the vertebrae
    that were found (IoU 0.5): keypoints are located in the boxes that the finder draws.
    """
    bar = tqdm(found, desc="radiographs", unit="image", disable=not progress, leave=False)
    read: deque[np.ndarray] = deque()  # those that the detector has taken and not yet answered: a batch

    def images() -> Iterator[np.ndarray]:
        for each in bar:
            read.append(each.read())
            yield read[-1]

    seen: list[Detections] = []
    located = []
    for each, detections in zip(found, detect(finder.detector, images()), strict=True):
        seen.append(detections)
        image = read.popleft()
        if finder.keypoints is None:
            continue
        column = detections.column(finder.threshold)
        hit = matches(column, each.boxes, 0.5)
        known = [row for row in np.flatnonzero(hit >= 0) if np.isfinite(each.keypoints[hit[row]]).all()]
        if known:
            mean, scale = find_keypoints(finder.keypoints, image, column.boxes[known])
            located.append(np.stack([mean, scale, each.keypoints[hit[known]]]))
    result = scores(seen, [each.boxes for each in found], finder.threshold)
    return result | (KeypointErrors.of(*np.concatenate(located, axis=1)).summary() if located else {})


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
    """Read what `save_finder` wrote; on the GPU if there is one.

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
    if about.get("format") != FORMAT:
        raise UserError(f"{path}: holds no vertebra finder, or is damaged; `fracsurv detect train` makes one")
    parts = nn.ModuleDict({"detector": VertebraDetector()})
    if about["keypoints"]:
        parts["keypoints"] = KeypointNetwork()
    load_weights(parts, path)
    parts.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    parts["detector"].to(memory_format=torch.channels_last)
    known = {name: value for name, value in about.items() if name not in ("format", "threshold", "keypoints")}
    finder = Finder(parts["detector"], about["threshold"], None, known)
    return replace(finder, keypoints=parts["keypoints"]) if about["keypoints"] else finder


def find_keypoints(
    network: KeypointNetwork | None, image: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints in boxes (n, 4) of a radiograph, and their standard deviations, (n, 6, 2) in its pixels."""
    unknown = np.full((len(boxes), 6, 2), np.nan)
    if network is None or len(boxes) == 0:
        return unknown, unknown
    pictures, shown = zip(*(vertebra_picture(image, box) for box in boxes), strict=True)
    mean, scale = (part.double().numpy() for part in locate(network, np.stack(pictures)))
    shown = np.stack(shown)
    side = (shown[:, 2:] - shown[:, :2])[:, None]
    return shown[:, None, :2] + mean * side, scale * side
