"""Train the keypoint network on vertebrae whose six keypoints are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fracsurv.detection.augment import turn
from fracsurv.detection.keypoints import (
    SIZE,
    KeypointNetwork,
    calibrate,
    keypoint_loss,
    vertebra_picture,
)
from fracsurv.detection.sources import Labelled
from fracsurv.utils.devices import precision_of, reproducible
from fracsurv.utils.errors import UserError

FEWEST = 200
"""Fewer vertebrae than this teach nothing that holds for another."""


@dataclass(frozen=True)
class KeypointRecipe:
    """How the keypoint network is trained.

    Attributes
    ----------
    epochs, batch_size, lr : AdamW with one cycle of the learning rate.
    jitter : standard deviation of the errors put on the boxes, as a share of their sides: a detector's boxes are not
        the annotator's.
    coarsest : every other vertebra, by chance, is shown as a radiograph of a lower resolution would show it, down to
        this share of the pixels in either direction: a finder meets radiographs of any resolution.
    """

    epochs: int = 12
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-4
    jitter: float = 0.05
    coarsest: float = 0.25
    seed: int = 0


def train_keypoints(
    train: Sequence[Labelled],
    held_out: tuple[np.ndarray, np.ndarray],
    recipe: KeypointRecipe,
    *,
    progress: bool = True,
) -> KeypointNetwork:
    """Train on the vertebrae that have keypoints; calibrated, in evaluation mode, on the CPU.

    Parameters
    ----------
    train : boxes as an annotator drew them; they are jittered.
    held_out : pictures and keypoints, as of `pictures_of`, of other radiographs' vertebrae with the boxes that the
        network will be given: the detector's. The scales are calibrated on them.

    Raises
    ------
    UserError
        Where fewer than `FEWEST` vertebrae to train on have keypoints.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(recipe.seed)
    pictures, keypoints = _pictures(train, rng, recipe, progress)
    if len(pictures) < FEWEST:
        raise UserError(f"{len(pictures)} vertebrae with keypoints to train on; at least {FEWEST} are needed")
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = KeypointNetwork().to(device, memory_format=torch.channels_last)
        _fit(model, pictures, keypoints, recipe, device, progress)
    pictures, keypoints = held_out
    if len(pictures):
        mean, scale = locate(model, pictures, precision="auto")
        calibrate(model.cpu(), mean, scale, torch.from_numpy(keypoints))
    return model.cpu()


def locate(
    model: KeypointNetwork, pictures: np.ndarray, *, batch_size: int = 256, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (n, 6, 2), in shares of the pictures (n, 48, 64), without augmentation.

    By default in float32 proper, as `detect`: keypoints are data.
    """
    device = next(model.parameters()).device
    dtype = precision_of(device, precision)
    model.eval()
    found = []
    with torch.no_grad(), reproducible(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for start in range(0, len(pictures), batch_size):
            batch = torch.from_numpy(pictures[start : start + batch_size]).unsqueeze(1).to(device)
            found.append(model(batch.contiguous(memory_format=torch.channels_last)))
    return tuple(torch.cat(part).cpu() for part in zip(*found, strict=True))


def _pictures(
    found: Sequence[Labelled], rng: np.random.Generator, recipe: KeypointRecipe, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 48, 64) and keypoints (n, 6, 2) in shares of them."""
    pictures, keypoints = [], []
    for each in tqdm(found, desc="vertebrae", unit="image", disable=not progress, leave=False):
        if not np.isfinite(each.keypoints).all(axis=(1, 2)).any():
            continue
        side = np.tile(each.boxes[:, 2:] - each.boxes[:, :2], 2)
        boxes = each.boxes + recipe.jitter * side * rng.normal(size=each.boxes.shape)
        coarse = np.where(rng.random(len(boxes)) < 0.5, recipe.coarsest ** rng.random(len(boxes)), 1.0)
        image = each.read()
        for picture, points in pictures_of(image, boxes, each.keypoints, coarse):
            pictures.append(picture)
            keypoints.append(points)
    return stacked(pictures, keypoints)


def pictures_of(
    image: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray, coarse: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Picture (48, 64) and keypoints (6, 2), in shares of it, of each box (n, 4) whose keypoints (n, 6, 2) are known.

    `coarse` (n,): below 1, as a radiograph with so many pixels in the place of one would show it.
    """
    coarse = np.ones(len(boxes)) if coarse is None else coarse
    for k in np.flatnonzero(np.isfinite(keypoints).all(axis=(1, 2))):
        picture, shown = vertebra_picture(image, boxes[k], coarse[k])
        yield picture, (keypoints[k] - shown[:2]) / (shown[2:] - shown[:2])


def stacked(pictures: list[np.ndarray], keypoints: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 48, 64) and keypoints (n, 6, 2), float32; n may be 0."""
    if not pictures:
        return np.zeros((0, *SIZE), np.float32), np.zeros((0, 6, 2), np.float32)
    return np.stack(pictures), np.stack(keypoints).astype(np.float32)


def _fit(
    model: KeypointNetwork,
    pictures: np.ndarray,
    keypoints: np.ndarray,
    recipe: KeypointRecipe,
    device: torch.device,
    progress: bool,
) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    n_batches = math.ceil(len(pictures) / recipe.batch_size)
    n_steps = recipe.epochs * n_batches
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=n_steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    dtype = precision_of(device, "auto")
    model.train()
    with tqdm(total=n_steps, desc="keypoints", unit="step", disable=not progress) as bar:
        for epoch in range(recipe.epochs):
            for rows in np.array_split(rng.permutation(len(pictures)), n_batches):
                picture, wanted = _turned(
                    torch.from_numpy(pictures[rows]).unsqueeze(1), torch.from_numpy(keypoints[rows]), generator
                )
                picture = picture.to(device).contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    mean, scale = model(picture)
                loss = keypoint_loss(mean, scale, wanted.to(device))
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                schedule.step()
                bar.update()
            bar.set_postfix(epoch=epoch + 1, loss=f"{loss.item():.3f}")


def _turned(picture: Tensor, keypoints: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turned by up to 15°, zoomed by up to 15 %, brighter or darker, noisy, sometimes inverted; keypoints alike."""
    moved, matrix, shift = turn(picture, generator, degrees=15.0, zoom=(0.87, 1.15), shift=0.05)
    size = torch.tensor([picture.shape[3], picture.shape[2]], dtype=torch.float32)
    points = (keypoints - 0.5) * size
    points = (points @ matrix.transpose(1, 2) + shift[:, None]) / size + 0.5
    n = len(picture)
    gain = torch.exp(0.3 * torch.randn((n, 1, 1, 1), generator=generator))
    offset = 0.2 * torch.randn((n, 1, 1, 1), generator=generator)
    sign = 1 - 2 * (torch.rand((n, 1, 1, 1), generator=generator) < 0.3).float()
    noise = torch.randn(picture.shape, generator=generator)
    noise *= 0.2 * torch.rand((n, 1, 1, 1), generator=generator)
    return sign * (gain * moved + offset) + noise, points
