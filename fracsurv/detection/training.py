"""Train the vertebra detector from scratch on radiographs with boxes: recipes, the loop, augmentation."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from fracsurv.detection.inference import as_input, letterbox, predict_frames
from fracsurv.detection.network import FRAME, VertebraDetector, detection_loss
from fracsurv.detection.scores import best_threshold
from fracsurv.detection.sources import Labelled
from fracsurv.images.store import create_array
from fracsurv.utils.devices import precision_of


@dataclass(frozen=True)
class DetectorRecipe:
    """How a detector is trained: AdamW with one cycle of the learning rate, up to `lr` and down to nothing."""

    epochs: int = 30
    batch_size: int = 8
    lr: float = 2e-3
    weight_decay: float = 1e-4
    average: float = 0.995
    """Decay of the running mean of the weights, which is what is kept."""
    held_out: float = 0.1
    """Share of the radiographs, not trained on, that set the threshold and calibrate the keypoints' scales."""
    seed: int = 0


@dataclass(frozen=True)
class KeypointRecipe:
    """How the keypoint network is trained; see `DetectorRecipe`."""

    epochs: int = 12
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-4
    jitter: float = 0.05
    """SD of the errors put on the boxes, in shares of their sides: a detector's boxes are not the annotator's."""
    coarsest: float = 0.25
    """Minimum share of the pixels, in either direction, that a random half of the vertebrae is shown with: a finder
    meets radiographs of any resolution."""
    seed: int = 0


def train_detector(
    found: Sequence[Labelled], held: np.ndarray, recipe: DetectorRecipe, *, progress: bool = True
) -> tuple[VertebraDetector, float]:
    """A detector trained on all radiographs but those whose numbers are in `held`, and its threshold.

    The threshold is the score with the best F1 on the held-out radiographs; boxes below it are not taken.
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

        model = fit_detector(model, loss, frames, boxes, train, recipe, progress=progress)
        batches = [held[start : start + recipe.batch_size] for start in range(0, len(held), recipe.batch_size)]
        seen = [each for rows in batches for each in predict_frames(model, frames[rows])]
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
        frames[row], placement = letterbox(each.read())
        boxes.append(torch.from_numpy(placement.to_frame(each.boxes)).float())
    return frames, boxes


def fit_detector(
    model: nn.Module,
    loss_of: Callable[[Tensor, list[Tensor]], Tensor],
    frames: np.ndarray,
    boxes: list[Tensor],
    train: np.ndarray,
    recipe: DetectorRecipe,
    *,
    progress: bool = True,
) -> nn.Module:
    """Running mean of the weights of any detector, trained on frames (n, H, W) uint8; in evaluation mode.

    `loss_of` gives the loss of `model` for a batch of pictures and their boxes.
    """
    device = next(model.parameters()).device
    average = copy.deepcopy(model.to(memory_format=torch.channels_last)).requires_grad_(False)
    generator = torch.Generator(device).manual_seed(recipe.seed)

    def loss_of_rows(rows: np.ndarray) -> Tensor:
        wanted = [boxes[row].to(device) for row in rows]
        image, wanted = augment(as_input(frames[rows]).to(device), wanted, generator)
        return loss_of(image.contiguous(memory_format=torch.channels_last), wanted)

    def after_step(step: int) -> None:
        _update_mean(average, model, min(recipe.average, step / (step + 10)))

    fit(model, loss_of_rows, train, recipe, "detector", after_step, progress=progress)
    return average.eval()


def fit(
    model: nn.Module,
    loss_of_rows: Callable[[np.ndarray], Tensor],
    train: np.ndarray,
    recipe: DetectorRecipe | KeypointRecipe,
    label: str,
    after_step: Callable[[int], None] | None = None,
    *,
    progress: bool,
) -> None:
    """Train a model in place by AdamW with one cycle of the learning rate; `train` holds the rows to draw from."""
    n_batches = math.ceil(len(train) / recipe.batch_size)
    n_steps = recipe.epochs * n_batches
    optimiser = torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=n_steps, pct_start=0.15)
    rng = np.random.default_rng(recipe.seed)
    model.train()
    with tqdm(total=n_steps, desc=label, unit="step", disable=not progress) as bar:
        for epoch in range(recipe.epochs):
            for step, rows in enumerate(np.array_split(rng.permutation(train), n_batches), epoch * n_batches):
                loss = loss_of_rows(rows)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                schedule.step()
                if after_step is not None:
                    after_step(step)
                bar.update()
            bar.set_postfix(epoch=epoch + 1, loss=f"{loss.item():.3f}")


def _update_mean(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)


@dataclass(frozen=True)
class DetectorAugment:
    """Strengths of the augmentation; pairs are a minimum and a maximum factor, log-uniform."""

    degrees: float = 12.0  # maximum rotation to either side
    zoom: tuple[float, float] = (0.85, 1.18)
    shift: float = 0.06  # maximum, as a share of the frame
    flip: float = 0.5  # probability of a left-right flip
    invert: float = 0.2  # probability of dark bone on a bright ground
    gamma: tuple[float, float] = (0.6, 1.6)
    contrast: tuple[float, float] = (0.7, 1.4)  # of the distance from the mean
    noise_sd: float = 0.03  # maximum, in units of the grey range
    blur: float = 0.15  # probability of half the resolution
    implants: float = 0.15  # probability of a bright bar over part of the picture


def augment(
    image: Tensor, boxes: list[Tensor], generator: torch.Generator, how: DetectorAugment = DetectorAugment()
) -> tuple[Tensor, list[Tensor]]:
    """A changed batch (n, 1, H, W), float32 in [0, 1], and its boxes, n tensors (k, 4).

    A rotated box becomes the upright one around the ellipse within it (around its corners it would be too large).
    Boxes whose centre has left the frame are removed; others end at it.
    """
    moved, matrix, shift = transform(
        image, generator, degrees=how.degrees, zoom=how.zoom, shift=how.shift, flip=how.flip
    )
    size = _size(image)
    placed = [_move(each, m, s, size) for each, m, s in zip(boxes, matrix, shift, strict=True)]
    return _change_grey_levels(moved, placed, generator, how), placed


def transform(
    image: Tensor,
    generator: torch.Generator,
    *,
    degrees: float,
    zoom: tuple[float, float],
    shift: float,
    flip: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of pictures (n, 1, H, W), each rotated, zoomed, shifted and flipped at random; dark outside.

    Also the transforms of pixels counted from the middle: new = matrix (n, 2, 2) · old + shift (n, 2).
    """
    angle = math.radians(degrees) * _uniform(image, generator, -1, 1)
    factor = _log_uniform(image, generator, zoom)
    mirror = 1 - 2 * (_uniform(image, generator) < flip).float()
    size = _size(image)
    moved_by = torch.stack([_uniform(image, generator, -1, 1) for _ in size], dim=1) * shift * size
    cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
    matrix = torch.stack([torch.stack([cos * mirror, -sin], 1), torch.stack([sin * mirror, cos], 1)], 1)
    back, half = torch.linalg.inv(matrix), size / 2
    theta = torch.cat(
        [back * half[None, None] / half[None, :, None], -(back @ moved_by[:, :, None]) / half[:, None]], 2
    )
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, align_corners=False), matrix, moved_by


def _size(image: Tensor) -> Tensor:
    return torch.tensor([image.shape[3], image.shape[2]], dtype=torch.float32, device=image.device)


def _move(boxes: Tensor, matrix: Tensor, shift: Tensor, size: Tensor) -> Tensor:
    if len(boxes) == 0:
        return boxes
    centre = ((boxes[:, :2] + boxes[:, 2:]) - size) / 2
    side = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = centre @ matrix.T + shift + size / 2
    side = torch.sqrt((matrix.square()[None] * side.square()[:, None]).sum(dim=2))
    kept = ((centre > 0) & (centre < size)).all(dim=1)
    low, high = (centre - side)[kept], (centre + side)[kept]
    return torch.cat([low.clamp_min(0), torch.minimum(high, size)], dim=1)


def _change_grey_levels(
    image: Tensor, boxes: list[Tensor], generator: torch.Generator, how: DetectorAugment
) -> Tensor:
    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    image = _add_implants(image, boxes, generator, how)
    image = image.clamp(0, 1) ** each(_log_uniform(image, generator, how.gamma))
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * each(_log_uniform(image, generator, how.contrast))
    inverted = each(_uniform(image, generator) < how.invert)
    image = torch.where(inverted, 1 - image, image)
    half = functional.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
    half = functional.interpolate(half, scale_factor=2.0, mode="bilinear")
    image = torch.where(each(_uniform(image, generator) < how.blur), half, image)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return image + noise * each(_uniform(image, generator) * how.noise_sd)


def _add_implants(image: Tensor, boxes: list[Tensor], generator: torch.Generator, how: DetectorAugment) -> Tensor:
    """A bright bar through up to three vertebrae of some radiographs, as screws and rods are; their boxes stay."""
    image = image.clone()
    chosen = (_uniform(image, generator) < how.implants).tolist()
    draws = torch.rand((len(boxes), 4), generator=generator, device=image.device).tolist()
    for row, (wanted, found, (which, width, x, length)) in enumerate(zip(chosen, boxes, draws, strict=True)):
        if not wanted or len(found) == 0:
            continue
        order = found[:, 1].argsort()
        first = int(which * len(found))
        covered = found[order[first : first + 1 + int(3 * length)]]
        left, top = covered[:, :2].amin(dim=0).tolist()
        right, bottom = covered[:, 2:].amax(dim=0).tolist()
        bar = (right - left) * (0.15 + 0.35 * width)
        start = left + x * (right - left - bar)
        image[row, :, int(top) : int(bottom) + 1, int(start) : int(start + bar) + 1] = 1.0
    return image


def _uniform(like: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(len(like), generator=generator, device=like.device)


def _log_uniform(like: Tensor, generator: torch.Generator, bounds: tuple[float, float]) -> Tensor:
    return torch.exp(_uniform(like, generator, math.log(bounds[0]), math.log(bounds[1])))
