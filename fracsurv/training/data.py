"""What a fit is fed: batches of rows, covariates, and normalised, augmented images."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from fracsurv.images.radiographs import full_image_shape
from fracsurv.images.store import ImageStore, StoredArray
from fracsurv.training.augmentation import (
    augment_crops,
    augment_full,
    change_crops,
    mask_padding,
    normalise,
    pad_to,
)
from fracsurv.training.compilation import compiled
from fracsurv.training.monitor import Stopwatch
from fracsurv.utils.errors import UserError

MAX_SHARE_OF_FREE = 0.5
"""Share of a GPU's free memory that the pixels of a store may take; a training step needs the rest."""


def draw_batches(train: np.ndarray, batch_size: int, seed: int) -> list[np.ndarray]:
    """An epoch's batches of the rows `train` (int), in an order drawn from `seed`.

    A last batch of one patient is left out: a risk set of one has no gradient, and BatchNorm refuses it.
    """
    order = np.random.default_rng(seed).permutation(train)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [rows for rows in batches if len(rows) > 1]


class ImageFeed:
    """Batches of normalised, padded and, in training, augmented images from a memory-mapped store.

    Parameters
    ----------
    store : ImageStore
        Its rows must be the cohort's rows, in order.
    kind : {'full', 'crops'}
    train : ndarray of int
        Rows whose minimum and maximum pixel become 0 and 1 (`how='fold'`).
    scale : float
        Stored pixels per protocol pixel.
    how : {'fold', 'patient'}
        Whether the pixel range is the training rows' or each patient's own.
    square : bool
        Pad crops to a square, as the vision transformer takes them.
    place : {'auto', 'resident', 'streamed'}
        Where the pixels lie; see `Pixels`.
    watch : Stopwatch, optional
        Times feeding and augmentation.
    limits : (float, float), optional
        The pixel range of an earlier training, in place of `train` and `how`.
    compiled_for : int
        Batch size whose crops are augmented by compiled code; 0: none.
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
        # a patient without a crop has no range
        if self.limits is None and how == "fold" and not np.isnan(low[train]).all():
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
        """Begin to read the next batch's images."""
        self.pixels.expect(rows)


class NetworkInputs:
    """Maps rows to what a network is called with: (covariates, images) on the device.

    Parameters
    ----------
    tabular : ndarray (n, p) float32
        Of all patients.
    images : ImageFeed or None
    has_image : ndarray (n,) of bool, optional
        Who has an image, where some may lack one. Images are then only of those who have one, and `has_image` of the
        rows (bool, on the host) is given as a third argument, for `MaskedEncoder`.
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

    def __call__(self, rows: np.ndarray, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        tabular = self.tabular[to_device(rows, self.tabular.device)]
        if self.images is None:
            return (tabular,)
        if self.has_image is None:
            return tabular, self.images(rows, generator)
        has_image = self.has_image[rows]
        return tabular, self.images(rows[has_image], generator), torch.from_numpy(has_image)

    def expect(self, rows: np.ndarray) -> None:
        """Begin to read the next batch's images."""
        if self.images is not None:
            self.images.expect(rows if self.has_image is None else rows[self.has_image[rows]])


class RiskColumns:
    """Maps rows to the log hazards of late fusion's two frozen models, known from their own evaluation."""

    def __init__(self, tabular_risk: np.ndarray, image_risk: np.ndarray, device: torch.device) -> None:
        self.columns = torch.from_numpy(np.stack([tabular_risk, image_risk])).float().to(device)

    def __call__(self, rows: np.ndarray, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        chosen = self.columns[:, to_device(rows, self.columns.device)]
        return chosen[0], chosen[1]


class Pixels:
    """Rows of a stored array (n, …) of uint8 or uint16 as tensors on a device.

    Parameters
    ----------
    place : {'auto', 'resident', 'streamed'}
        Resident: copied to the device once, as integers. Streamed: a batch's rows are read when they are needed, or
        earlier by a thread if `expect` announced them. 'auto' is resident on a GPU if the pixels fit into half of its
        free memory, and streamed on a CPU.

    Raises
    ------
    UserError
        For 'resident' where the pixels do not fit.
    """

    def __init__(self, source: StoredArray, device: torch.device, place: str = "auto") -> None:
        self._source, self._device, array = source, device, source.mapped
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        if place == "resident" and free and array.nbytes > free:
            raise UserError(
                f"feeding: resident: the images take {array.nbytes / 2**30:.1f} GiB, and the GPU has "
                f"{free / 2**30:.1f} free; set it to auto or streamed"
            )
        self.resident = place == "resident" or (place == "auto" and array.nbytes < MAX_SHARE_OF_FREE * free)
        self._all = torch.from_numpy(np.asarray(array).copy()).to(device) if self.resident else None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="pixels") if not self.resident else None
        self._ahead: tuple[bytes, Future[Tensor]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self._source.mapped.shape

    def expect(self, rows: np.ndarray) -> None:
        """Begin to read the rows of the next batch."""
        if self._reader is not None:
            self._ahead = (rows.tobytes(), self._reader.submit(self._read, rows))

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """The pixels of `rows` (int array), on the device."""
        if self._all is not None:
            index = to_device(rows, self._device)
            if self._all.dtype == torch.uint16:  # not every device can index uint16
                return self._all.view(torch.int16)[index].view(torch.uint16)
            return self._all[index]
        ahead, self._ahead = self._ahead, None
        batch = ahead[1].result() if ahead is not None and ahead[0] == rows.tobytes() else self._read(rows)
        return batch.to(self._device, non_blocking=True)

    def _read(self, rows: np.ndarray) -> Tensor:
        batch = torch.from_numpy(self._source.read(rows))
        return batch.pin_memory() if self._device.type == "cuda" else batch


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device; to a GPU from pinned memory, so that nothing waits for the copy."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
