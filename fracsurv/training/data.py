"""What a fit is fed: covariates, and pixels scaled on the training part of its fold, augmented."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fracsurv.images.radiographs import full_image_shape
from fracsurv.images.store import ImageStore
from fracsurv.training.augment import augment_full, normalise, pad_to
from fracsurv.training.crop_augment import augment_crops, change_crops, mask_padding
from fracsurv.training.pixels import Pixels, to_device
from fracsurv.training.sampler import Share
from fracsurv.training.steps import compiled
from fracsurv.training.stopwatch import Stopwatch


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
    limits : (float, float), optional
        Of an earlier training the range that becomes [0, 1]; `train` and `how` do not count then.
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
        limits: tuple[float, float] | None = None,
        compiled_for: int = 0,
    ) -> None:
        self.kind = kind
        self.device = device
        self.pixels = Pixels(store.files[kind], device, place)
        self.watch = watch or Stopwatch(device)
        low = store.ranges[f"{kind}_min"].to_numpy(float)
        high = store.ranges[f"{kind}_max"].to_numpy(float)
        self.limits = limits
        if self.limits is None and how == "fold" and not np.isnan(low[train]).all():  # who has no crop has no range
            self.limits = float(np.nanmin(low[train])), float(np.nanmax(high[train]))
        if self.limits is not None:
            low, high = (np.full_like(low, limit) for limit in self.limits)
        self.low = torch.from_numpy(np.nan_to_num(low)).float().to(device)
        self.high = torch.from_numpy(np.nan_to_num(high, nan=1.0)).float().to(device)
        self.change = compiled(change_crops, compiled_for) if compiled_for else change_crops
        if kind == "full":
            self.frame = full_image_shape(scale)[1]
        else:
            self.sizes = torch.from_numpy(np.array(store.crop_sizes)).to(device)  # a few bytes a patient
            height, width = self.pixels.shape[2:]
            self.frame = (width, width) if square else (height, width)

    def __call__(self, rows: np.ndarray, generator: torch.Generator | None, mine: slice | None = None) -> Tensor:
        """(batch, channels, H, W) float32 images of `rows`, augmented if a generator is given.

        With `mine` those of a batch's rows alone, just as they would be in the whole of it.
        """
        share = Share.all_of(len(rows)) if mine is None else Share(len(rows), mine)
        rows = rows[share.mine]
        with self.watch("feeding"):
            pixels, index = self.pixels[rows], to_device(rows, self.device)
            low, high = self.low[index], self.high[index]
        with self.watch("augmentation"):
            if self.kind == "full":
                image = normalise(pixels.unsqueeze(1), low, high)
                if generator is None:
                    return pad_to(image, *self.frame)
                return augment_full(image, generator, frame=self.frame, share=share)
            sizes = self.sizes[index]
            if generator is None:
                return pad_to(mask_padding(normalise(pixels, low, high), sizes), *self.frame)
            how = {"frame": self.frame, "change": self.change, "share": share}
            return augment_crops(pixels, sizes, low, high, generator, **how)

    def expect(self, rows: np.ndarray) -> None:
        """Begin to read the images that will be asked for next."""
        self.pixels.expect(rows)


class NetworkInputs:
    """Calls a network with (covariates, images) of the rows asked for.

    Parameters
    ----------
    tabular : ndarray (n, p) float32
        Of all patients.
    images : ImageFeed or None
    has_image : ndarray (n,) of bool, optional
        Who has a picture, where some may have none: images are then of those alone, and a third thing says who of the
        rows asked for they are (bool, on the host; whatever `mine` is, of all of the batch), for `MaskedEncoder`.
    """

    def __init__(
        self,
        tabular: np.ndarray,
        images: ImageFeed | None,
        device: torch.device,
        has_image: np.ndarray | None = None,
    ) -> None:
        self.tabular = torch.from_numpy(tabular).to(device)
        self.images = images
        self.has_image = has_image

    def __call__(
        self, rows: np.ndarray, generator: torch.Generator | None, mine: slice | None = None
    ) -> tuple[Tensor, ...]:
        tabular = self.tabular[to_device(rows if mine is None else rows[mine], self.tabular.device)]
        if self.images is None:
            return (tabular,)
        if self.has_image is None:
            return tabular, self.images(rows, generator, mine)
        there = self.has_image[rows]
        if mine is not None:  # the same share of the pictures, which are fewer
            mine = slice(int(there[: mine.start].sum()), int(there[: mine.stop].sum()))
        return tabular, self.images(rows[there], generator, mine), torch.from_numpy(there)

    def expect(self, rows: np.ndarray) -> None:
        """Begin to read what will be asked for next."""
        if self.images is not None:
            self.images.expect(rows if self.has_image is None else rows[self.has_image[rows]])


class RiskColumns:
    """Calls late fusion's last layer with the log hazards that its two frozen models gave, row by row.

    They are known from those models' own evaluation, without augmentation; nothing is computed again.
    """

    def __init__(self, tabular_risk: np.ndarray, image_risk: np.ndarray, device: torch.device) -> None:
        self.columns = torch.from_numpy(np.stack([tabular_risk, image_risk])).float().to(device)

    def __call__(
        self, rows: np.ndarray, generator: torch.Generator | None, mine: slice | None = None
    ) -> tuple[Tensor, ...]:
        chosen = self.columns[:, to_device(rows if mine is None else rows[mine], self.columns.device)]
        return chosen[0], chosen[1]
