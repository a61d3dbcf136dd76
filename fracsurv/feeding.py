"""What one fit may look at: covariates standardised, and pixels scaled, on the training part of its fold."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fracsurv.augment import augment_full, normalise, pad_to
from fracsurv.cohort import Cohort
from fracsurv.crop_augment import augment_crops, change_crops, mask_padding
from fracsurv.pixels import Pixels, to_device
from fracsurv.radiographs import full_image_shape
from fracsurv.steps import compiled
from fracsurv.stopwatch import Stopwatch
from fracsurv.store import ImageStore
from fracsurv.vertebral import vertebral_covariates


def standardise(cohort: Cohort, train: np.ndarray, *, morphometry: bool = False) -> np.ndarray:
    """Covariates (n, p) float32; continuous ones have mean 0 and SD 1 over the rows `train`, others are as given.

    A covariate that is not known has the median of the rows `train` (binary: their most frequent value), and a
    column of 0 and 1 for each of `Cohort.indicators` says so. With `morphometry` the block of
    `vertebral_covariates` follows, standardised likewise; a patient whose vertebrae could not be measured gets the
    training patients' mean.
    """
    values = cohort.table[list(cohort.covariates)].to_numpy(float).copy()
    unknown = np.isnan(values)
    if unknown.any():
        values = np.where(unknown, _usual(values[train], list(cohort.covariates.values())), values)
    continuous = [i for i, kind in enumerate(cohort.covariates.values()) if kind == "continuous"]
    if continuous:
        scaler = StandardScaler().fit(values[np.ix_(train, continuous)])
        values[:, continuous] = scaler.transform(values[:, continuous])
    values = np.hstack([values, unknown[:, unknown.any(axis=0)]])
    if morphometry:
        block = vertebral_covariates(cohort)
        block = StandardScaler().fit(block[train]).transform(block)
        values = np.hstack([values, np.nan_to_num(block)])
    return values.astype(np.float32)


def _usual(values: np.ndarray, kinds: list[str]) -> np.ndarray:
    """A value for each column (n, p) to stand in for one that is not known; 0 where none is known."""
    usual = np.zeros(values.shape[1])
    for column, kind in enumerate(kinds):
        known = values[~np.isnan(values[:, column]), column]
        if known.size:
            usual[column] = float(known.mean() > 0.5) if kind == "binary" else np.median(known)
    return usual


class ImageFeed:
    """Batches of normalised, padded and, in training, augmented images from a memory-mapped store.

    Parameters
    ----------
    store : ImageStore
        Its rows must be the cohort's rows, in order.
    kind : {'full', 'crops'}
    train : ndarray of int
        Rows whose least and greatest pixel give the range that becomes [0, 1] (`normalise='fold'`).
    square : bool
        Pad crops to a square, as the vision transformer wants them.
    place : {'auto', 'resident', 'streamed'}
        Where the pixels lie; see `Pixels`.
    watch : Stopwatch, optional
        Told of the time that feeding and augmentation take.
    compiled_for : int
        Crops in batches of this size are augmented by compiled code; 0: none are.
    """

    def __init__(
        self,
        store: ImageStore,
        kind: str,
        train: np.ndarray,
        *,
        scale: float,
        how: str,
        square: bool,
        device: torch.device,
        place: str = "auto",
        watch: Stopwatch | None = None,
        compiled_for: int = 0,
    ) -> None:
        self.kind = kind
        self.device = device
        self.pixels = Pixels(store.files[kind], device, place)
        self.watch = watch or Stopwatch(device)
        low = store.ranges[f"{kind}_min"].to_numpy(float)
        high = store.ranges[f"{kind}_max"].to_numpy(float)
        if how == "fold" and not np.isnan(low[train]).all():  # who has no crop has no range
            low = np.full_like(low, np.nanmin(low[train]))
            high = np.full_like(high, np.nanmax(high[train]))
        self.low = torch.from_numpy(np.nan_to_num(low)).float().to(device)
        self.high = torch.from_numpy(np.nan_to_num(high, nan=1.0)).float().to(device)
        self.change = compiled(change_crops, compiled_for) if compiled_for else change_crops
        if kind == "full":
            self.frame = full_image_shape(scale)[1]
        else:
            self.sizes = torch.from_numpy(np.array(store.crop_sizes)).to(device)  # a few bytes a patient
            height, width = self.pixels.shape[2:]
            self.frame = (width, width) if square else (height, width)

    def __call__(self, rows: np.ndarray, generator: torch.Generator | None) -> Tensor:
        """(batch, channels, H, W) float32 images of `rows`, augmented if a generator is given."""
        with self.watch("feeding"):
            pixels, index = self.pixels[rows], to_device(rows, self.device)
            low, high = self.low[index], self.high[index]
        with self.watch("augmentation"):
            if self.kind == "full":
                image = normalise(pixels.unsqueeze(1), low, high)
                if generator is None:
                    return pad_to(image, *self.frame)
                return augment_full(image, generator, frame=self.frame)
            sizes = self.sizes[index]
            if generator is None:
                return pad_to(mask_padding(normalise(pixels, low, high), sizes), *self.frame)
            return augment_crops(pixels, sizes, low, high, generator, frame=self.frame, change=self.change)

    def expect(self, rows: np.ndarray) -> None:
        """Begin to read the images that will be asked for next."""
        self.pixels.expect(rows)


class NetworkInputs:
    """Calls a network with (covariates, images) of the rows asked for."""

    def __init__(self, tabular: np.ndarray, images: ImageFeed | None, device: torch.device) -> None:
        self.tabular = torch.from_numpy(tabular).to(device)
        self.images = images

    def __call__(self, rows: np.ndarray, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        tabular = self.tabular[to_device(rows, self.tabular.device)]
        return (tabular,) if self.images is None else (tabular, self.images(rows, generator))

    def expect(self, rows: np.ndarray) -> None:
        """Begin to read what will be asked for next."""
        if self.images is not None:
            self.images.expect(rows)


class RiskColumns:
    """Calls late fusion's last layer with the log hazards that its two frozen models gave, row by row.

    They are known from those models' own evaluation, without augmentation; nothing is computed again.
    """

    def __init__(self, tabular_risk: np.ndarray, image_risk: np.ndarray, device: torch.device) -> None:
        self.columns = torch.from_numpy(np.stack([tabular_risk, image_risk])).float().to(device)

    def __call__(self, rows: np.ndarray, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        chosen = self.columns[:, to_device(rows, self.columns.device)]
        return chosen[0], chosen[1]
