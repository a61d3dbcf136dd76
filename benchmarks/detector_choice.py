"""Why the detector is our own: what torchvision's reach in the same time, from scratch, on the same radiographs.

    python -m benchmarks.detector_choice [--data FOLDER] [--minutes 8]

Every model gets the frames of `spine-region/train` without every eighth radiograph, on which it is judged; the part
`valid` is not touched. Each trains for as many epochs as fit into the minutes, timed by a few steps, through the same
training loop: one cycle of the learning rate, the same augmentation, the running mean of the weights. torchvision's
have a ResNet-18 and a pyramid of 64 channels from stride 4 on (with the usual 256 a step takes five times as long).
Prints a table and writes `benchmarks/results/detector_choice.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from benchmarks.detection import RESULTS, ROOT
from fracsurv.detection.inference import Detections, as_input, predict_frames
from fracsurv.detection.network import FRAME, VertebraDetector, detection_loss
from fracsurv.detection.scores import best_threshold, detection_scores
from fracsurv.detection.sources import read_labelled
from fracsurv.detection.training import DetectorRecipe, fit_detector, training_frames
from fracsurv.models import count_parameters
from fracsurv.utils.files import write_json

STRIDES = (4, 8, 16, 32, 64)
SHOWN = ("epochs", "train_s", "images_per_s", "ap50", "ap50_95", "sensitivity_at_half")


class Ours(nn.Module):
    """The package's detector behind two calls that torchvision's share: a loss, and detections."""

    lr = DetectorRecipe().lr

    def __init__(self) -> None:
        super().__init__()
        self.model = VertebraDetector()

    def loss(self, image: Tensor, boxes: list[Tensor]) -> Tensor:
        """Scalar, for a batch (n, 1, H, W) and its boxes."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, sides = self.model(image)
        return detection_loss(logits, sides, boxes)

    def found(self, frames: np.ndarray) -> list[Detections]:
        """What it sees in uint8 frames (n, H, W)."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return predict_frames(self.model, frames)


class Torchvision(nn.Module):
    """One of torchvision's detectors."""

    lr = 5e-4

    def __init__(self, kind: str) -> None:
        super().__init__()
        levels = {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
        backbone = BackboneWithFPN(resnet18(weights=None), levels, [64, 128, 256, 512], 64)
        size = {"min_size": FRAME[1], "max_size": FRAME[0], "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
        if kind == "FCOS":
            anchors = AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * len(STRIDES))
            self.model = FCOS(backbone, 2, anchor_generator=anchors, **size)
        else:
            anchors = AnchorGenerator(tuple((4 * s,) for s in STRIDES), ((0.35, 0.5, 0.8),) * len(STRIDES))
            if kind == "RetinaNet":
                self.model = RetinaNet(backbone, 2, anchor_generator=anchors, **size)
            else:
                self.model = FasterRCNN(backbone, 2, rpn_anchor_generator=anchors, **size)

    def loss(self, image: Tensor, boxes: list[Tensor]) -> Tensor:
        """Sum of the model's own losses."""
        wanted = [{"boxes": each, "labels": torch.ones(len(each), dtype=torch.int64)} for each in boxes]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return sum(self.model(list(image.expand(-1, 3, -1, -1)), wanted).values())

    def found(self, frames: np.ndarray) -> list[Detections]:
        """What it sees in uint8 frames (n, H, W), highest score first."""
        image = as_input(frames)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            seen = self.model(list(image.expand(-1, 3, -1, -1)))
        return [Detections(each["boxes"].double().numpy(), each["scores"].double().numpy()) for each in seen]


def trained(name: str, frames: np.ndarray, boxes: list[Tensor], train: np.ndarray, minutes: float):
    """A model trained for about so many minutes, and what that took."""

    def new() -> Ours | Torchvision:
        torch.manual_seed(0)
        return Ours() if name == "ours" else Torchvision(name)

    model = new()
    recipe = replace(DetectorRecipe(), lr=model.lr, epochs=1)
    few = train[: 6 * recipe.batch_size]
    fit_detector(
        model, model.loss, frames, boxes, few[: recipe.batch_size], recipe, progress=False
    )  # kernels are chosen
    start = time.perf_counter()
    fit_detector(model, model.loss, frames, boxes, few, recipe, progress=False)
    per_image = (time.perf_counter() - start) / len(few)
    model, recipe = new(), replace(recipe, epochs=max(1, round(60 * minutes / per_image / len(train))))
    start = time.perf_counter()
    average = fit_detector(model, model.loss, frames, boxes, train, recipe)
    seconds = time.perf_counter() - start
    return average, {"parameters": count_parameters(model), "epochs": recipe.epochs, "train_s": seconds}


def main() -> None:
    default = Path(os.environ.get("FRACSURV_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default, help="folder with spine-region/")
    parser.add_argument("--minutes", type=float, default=8.0)
    arguments = parser.parse_args()
    labelled, _ = read_labelled(arguments.data / "spine-region" / "train")
    held = np.arange(0, len(labelled), 8)
    train = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(labelled)), held))
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        frames, boxes = training_frames(labelled, Path(folder) / "frames.npy", True)
        truth = [boxes[row].numpy() for row in held]
        for name in ("ours", "FCOS", "RetinaNet", "Faster R-CNN"):
            model, about = trained(name, frames, boxes, train, arguments.minutes)
            start = time.perf_counter()
            seen = [each for rows in np.array_split(held, len(held) // 8) for each in model.found(frames[rows])]
            about["images_per_s"] = len(held) / (time.perf_counter() - start)
            result[name] = about | detection_scores(seen, truth, best_threshold(seen, truth))
            print(f"{name:<14}" + "".join(f"{key} {result[name][key]:.4g}  " for key in SHOWN), flush=True)
    write_json(RESULTS / "detector_choice.json", {"minutes": arguments.minutes, "models": result})


if __name__ == "__main__":
    main()
