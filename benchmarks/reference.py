"""The obvious program, to measure against: PNG files, torchvision's transforms one patient at a time, a DataLoader.

Same networks, batches, optimiser, loss and augmentation as fracsurv, in float32 and without any of its care: each
crop is a PNG file, read, decoded, padded and turned by itself in a worker process, and copied to the device when its
batch is asked for. `benchmarks.training` times it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import functional

from fracsurv.losses import cox_nll
from fracsurv.training.augmentation import CropAugment, FullAugment

CROPS, FULL = CropAugment(), FullAugment()


def write_pictures(pixels: np.ndarray, rows: np.ndarray, folder: Path) -> None:
    """Every channel of these patients' images, rows of (n, C, H, W), as a PNG file."""
    folder.mkdir(parents=True)
    for row in rows:
        for channel, picture in enumerate(pixels[row]):
            Image.fromarray(picture).save(folder / f"{row:05d}-{channel:02d}.png")


class Pictures(Dataset):
    """Patients' images as float32 tensors (C, *frame), augmented; `low` and `high` become 0 and 1."""

    def __init__(
        self, folder: Path, rows: np.ndarray, channels: int, frame: tuple[int, int], low: float, high: float
    ) -> None:
        self.folder, self.rows, self.channels = folder, rows, channels
        self.low, self.high, self.frame = low, high, frame
        self.zoom = transforms.RandomAffine(0, scale=CROPS.zoom, interpolation=transforms.InterpolationMode.BILINEAR)
        self.turn = transforms.RandomRotation(FULL.degrees, interpolation=transforms.InterpolationMode.BILINEAR)
        self.vertical = transforms.RandomVerticalFlip(FULL.vertical_flip)
        self.horizontal = transforms.RandomHorizontalFlip(CROPS.horizontal_flip)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        row = int(self.rows[item])
        files = [self.folder / f"{row:05d}-{channel:02d}.png" for channel in range(self.channels)]
        pixels = np.stack([np.asarray(Image.open(file)) for file in files]).astype(np.float32)
        image = (torch.from_numpy(pixels) - self.low) / (self.high - self.low)
        return (self._full(image) if self.channels == 1 else self._crops(image)), row

    def _crops(self, image: Tensor) -> Tensor:
        inside = image > image.min()
        factor = torch.empty(1).uniform_(*CROPS.contrast)
        mean = image[inside].mean() if inside.any() else 0.0
        image = torch.where(inside, mean + factor * (image - mean) + CROPS.noise_sd * torch.randn(image.shape), 0.0)
        return self._padded(self.horizontal(self.vertical(self.zoom(image))))

    def _full(self, image: Tensor) -> Tensor:
        drawn = torch.rand(image.shape)
        image = torch.where(drawn < FULL.dropout, (drawn < FULL.dropout / 2).float(), image)
        return self.vertical(self.turn(self._padded(image)))

    def _padded(self, image: Tensor) -> Tensor:
        down, right = self.frame[0] - image.shape[1], self.frame[1] - image.shape[2]
        return functional.pad(image, [right // 2, down // 2, right - right // 2, down - down // 2])


def train(
    model: nn.Module,
    pictures: Pictures,
    tabular: Tensor,
    event: Tensor,
    time: Tensor,
    *,
    batch_size: int,
    lr: float,
    workers: int,
) -> Iterator[int]:
    """Train without end; yields after each step how many patients it took."""
    device = next(model.parameters()).device
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    loader = DataLoader(
        pictures, batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True,
        pin_memory=device.type == "cuda", persistent_workers=workers > 0,
    )  # fmt: skip
    model.train()
    while True:
        for images, rows in loader:
            risk = model(tabular[rows].to(device), images.to(device))
            loss = cox_nll(event[rows].to(device), time[rows].to(device), risk)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
            yield len(rows)
