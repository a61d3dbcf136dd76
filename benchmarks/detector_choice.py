"""Why the detector is our own: what torchvision's reach in the same time, from scratch, on the same radiographs.

    python -m benchmarks.detector_choice [--data FOLDER] [--minutes 8]

Every model gets the frames of `spine-region/train` without every eighth radiograph, on which it is judged; the part
`valid` is not touched. Each trains for as many epochs as fit into the minutes, timed by its first steps, one cycle of
the learning rate, the same augmentation. Prints a table and writes `benchmarks/results/detector_choice.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from tqdm import tqdm

from benchmarks.detection import RESULTS, ROOT
from fracsurv.detection import Detections, VertebraDetector, read_labelled
from fracsurv.detection.augment import augment
from fracsurv.detection.inference import answer, as_input, decode
from fracsurv.detection.network import FRAME
from fracsurv.detection.scores import scores
from fracsurv.detection.targets import detection_loss
from fracsurv.detection.training import training_frames
from fracsurv.files import write_json
from fracsurv.models import count_parameters

BATCH = 8
STRIDES = (4, 8, 16, 32, 64)


class Ours(nn.Module):
    """The package's detector, called as torchvision's are: images and boxes to a loss, images alone to detections."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = VertebraDetector()

    def forward(self, image: torch.Tensor, boxes: list[torch.Tensor] | None = None):
        """Loss (scalar), or a list of `Detections`."""
        if boxes is None:
            return [Detections(*each) for each in decode(*answer(self.detector, image, torch.bfloat16))]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, sides = self.detector(image)
        return detection_loss(logits, sides, boxes)


class Torchvision(nn.Module):
    """One of torchvision's detectors with a ResNet-18 and a pyramid from stride 4 on."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        backbone = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
        )
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

    def forward(self, image: torch.Tensor, boxes: list[torch.Tensor] | None = None):
        """Loss (scalar), or a list of `Detections`."""
        pictures = list(image.expand(-1, 3, -1, -1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if boxes is not None:
                wanted = [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in boxes]
                return sum(self.model(pictures, wanted).values())
            with torch.no_grad():
                found = self.model(pictures)
        return [Detections(each["boxes"].double().numpy(), each["scores"].double().numpy()) for each in found]


def trained(
    model: nn.Module, frames: np.ndarray, boxes: list[torch.Tensor], train: np.ndarray, minutes: float
) -> dict:
    """Train for about so many minutes; how fast it went, and for how many epochs."""
    model.train().to(memory_format=torch.channels_last)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3 if isinstance(model, Ours) else 5e-4, weight_decay=1e-4)

    def step(rows: np.ndarray) -> None:
        image, wanted = augment(as_input(frames[rows]), [boxes[row] for row in rows], generator)
        loss = model(image.contiguous(memory_format=torch.channels_last), wanted)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()

    for group in optimiser.param_groups:
        group["lr"] = 0.0  # to be timed, not to learn
    step(train[:BATCH])
    start = time.perf_counter()
    for k in range(1, 5):
        step(train[k * BATCH : (k + 1) * BATCH])
    per_step = (time.perf_counter() - start) / 4
    per_epoch = per_step * -(-len(train) // BATCH)
    epochs = max(1, round(60 * minutes / per_epoch))
    n_steps = epochs * -(-len(train) // BATCH)
    lr = 2e-3 if isinstance(model, Ours) else 5e-4
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=n_steps, pct_start=0.15)
    start = time.perf_counter()
    with tqdm(total=n_steps, disable=None) as bar:
        for _ in range(epochs):
            for rows in np.array_split(rng.permutation(train), -(-len(train) // BATCH)):
                step(rows)
                schedule.step()
                bar.update()
    seconds = time.perf_counter() - start
    return {"epochs": epochs, "train_s": seconds, "train_images_per_s": epochs * len(train) / seconds}


def main() -> None:
    default = Path(os.environ.get("FRACSURV_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default, help="folder with spine-region/")
    parser.add_argument("--minutes", type=float, default=8.0)
    arguments = parser.parse_args()
    found, _ = read_labelled(arguments.data / "spine-region" / "train")
    held = np.arange(0, len(found), 8)
    train = np.setdiff1d(np.arange(len(found)), held)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        frames, boxes = training_frames(found, Path(folder) / "frames.npy", True)
        for name in ("ours", "FCOS", "RetinaNet", "Faster R-CNN"):
            torch.manual_seed(0)
            model = Ours() if name == "ours" else Torchvision(name)
            about = {"parameters": count_parameters(model)} | trained(model, frames, boxes, train, arguments.minutes)
            model.eval()
            start = time.perf_counter()
            seen = [
                each for at in range(0, len(held), BATCH) for each in model(as_input(frames[held[at : at + BATCH]]))
            ]
            about["images_per_s"] = len(held) / (time.perf_counter() - start)
            judged = scores(seen, [boxes[row].numpy() for row in held], 0.4)
            result[name] = about | {key: judged[key] for key in ("ap50", "ap50_95", "sensitivity_at_half")}
            print(name, {key: round(value, 3) for key, value in result[name].items()}, flush=True)
    write_json(RESULTS / "detector_choice.json", {"minutes": arguments.minutes, "models": result})


if __name__ == "__main__":
    main()
