"""Train the vertebra detector from scratch on radiographs with boxes."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fracsurv.detection.augment import DetectorAugment, augment
from fracsurv.detection.frames import into_frame
from fracsurv.detection.inference import (
    Detections,
    answer,
    as_input,
    decode,
)
from fracsurv.detection.network import FRAME, VertebraDetector
from fracsurv.detection.scores import best_threshold
from fracsurv.detection.sources import Labelled
from fracsurv.detection.targets import detection_loss
from fracsurv.images.store import create_array
from fracsurv.utils.devices import precision_of


@dataclass(frozen=True)
class DetectorRecipe:
    """How a detector is trained.

    Attributes
    ----------
    epochs, batch_size, lr : AdamW with one cycle of the learning rate, up to `lr` and down to nothing.
    average : decay of the running mean of the weights, which is what is kept.
    held_out : share of the radiographs that the threshold is chosen and the keypoints' scales are calibrated on; they
        are not trained on.
    """

    epochs: int = 30
    batch_size: int = 8
    lr: float = 2e-3
    weight_decay: float = 1e-4
    average: float = 0.995
    held_out: float = 0.1
    seed: int = 0


def train_detector(
    found: Sequence[Labelled], held: np.ndarray, recipe: DetectorRecipe, *, progress: bool = True
) -> tuple[VertebraDetector, float]:
    """Train on radiographs with boxes, all but those whose numbers are in `held`.

    Returns
    -------
    model : VertebraDetector
        The running mean of the weights over the last steps, in evaluation mode.
    threshold : float
        The score from which a box is taken for a vertebra: the one with the best F1 on the held-out radiographs.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = np.setdiff1d(np.arange(len(found)), held)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        frames, boxes = training_frames(found, Path(folder) / "frames.npy", progress)
        dtype = precision_of(device, "auto")
        model = VertebraDetector().to(device)

        def loss(image: Tensor, wanted: list[Tensor]) -> Tensor:
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                logits, sides = model(image)
            return detection_loss(logits, sides, wanted)

        model = fit(model, loss, frames, boxes, train, recipe, progress=progress)
        seen = []
        for start in range(0, len(held), recipe.batch_size):
            batch = as_input(frames[held[start : start + recipe.batch_size]]).to(device)
            seen += [Detections(*each) for each in decode(*answer(model, batch))]
        threshold = best_threshold(seen, [boxes[row].numpy() for row in held])
    return model.cpu(), threshold


def held_out(n: int, recipe: DetectorRecipe) -> np.ndarray:
    """Numbers, rising, of those of n radiographs that nothing is trained on."""
    order = np.random.default_rng(recipe.seed).permutation(n)
    return np.sort(order[: max(1, round(recipe.held_out * n))])


def training_frames(found: Sequence[Labelled], path: Path, progress: bool) -> tuple[np.ndarray, list[Tensor]]:
    """Every radiograph in its frame, on disk, and its boxes in frame pixels."""
    frames = create_array(path, np.uint8, (len(found), *FRAME))
    boxes = []
    for row, each in enumerate(tqdm(found, desc="radiographs", unit="image", disable=not progress, leave=False)):
        frames[row], placing = into_frame(each.read())
        boxes.append(torch.from_numpy(placing.to_frame(each.boxes)).float())
    return frames, boxes


def fit(
    model: nn.Module,
    loss_of: Callable[[Tensor, list[Tensor]], Tensor],
    frames: np.ndarray,
    boxes: list[Tensor],
    train: np.ndarray,
    recipe: DetectorRecipe,
    *,
    progress: bool = True,
) -> nn.Module:
    """Train any detector on frames (n, H, W) uint8; `loss_of` gives `model`'s loss for a batch and its boxes.

    Returns
    -------
    The running mean of the weights, in evaluation mode.
    """
    device = next(model.parameters()).device
    model.train().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    n_steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=n_steps, pct_start=0.15)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    how = DetectorAugment()
    with tqdm(total=n_steps, desc="detector", unit="step", disable=not progress) as bar:
        for epoch in range(recipe.epochs):
            for rows in np.array_split(rng.permutation(train), -(-len(train) // recipe.batch_size)):
                image, wanted = augment(
                    as_input(frames[rows]).to(device), [boxes[row].to(device) for row in rows], generator, how
                )
                loss = loss_of(image.contiguous(memory_format=torch.channels_last), wanted)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                schedule.step()
                _average(average, model, min(recipe.average, bar.n / (bar.n + 10)))
                bar.update()
            bar.set_postfix(epoch=epoch + 1, loss=f"{loss.item():.3f}")
    return average.eval()


def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)
