"""A store's pixels on their way to the training device: all of them there once, or a batch at a time, read ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from fracsurv.images.store import StoredArray
from fracsurv.utils.errors import UserError

SHARE_OF_FREE = 0.5
"""Of a GPU's free memory, what the pixels of a store may take; a training step needs the rest."""


class Pixels:
    """Rows of a stored array (n, …) of uint8 or uint16 as tensors on a device.

    Parameters
    ----------
    place : {'auto', 'resident', 'streamed'}
        Resident: copied to the device once, as integers. Streamed: a batch's own rows are read when they are asked
        for or, if `expect` announced them, meanwhile, by a thread; to a GPU they go from pinned memory. 'auto' is
        resident on a GPU if they fit into half of its free memory; on a CPU the memory map is as good, and costs no
        memory.

    Raises
    ------
    UserError
        Where resident is asked for and the pixels do not fit.
    """

    def __init__(self, source: StoredArray, device: torch.device, place: str = "auto") -> None:
        self._source, self._device, array = source, device, source.mapped
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        if place == "resident" and free and array.nbytes > free:
            raise UserError(
                f"feeding: resident: the images take {array.nbytes / 2**30:.1f} GiB, and the GPU has "
                f"{free / 2**30:.1f} free; set it to auto or streamed"
            )
        self.resident = place == "resident" or (place == "auto" and array.nbytes < SHARE_OF_FREE * free)
        self._all = torch.from_numpy(np.asarray(array).copy()).to(device) if self.resident else None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="pixels") if not self.resident else None
        self._ahead: tuple[bytes, Future[Tensor]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self._source.mapped.shape

    def expect(self, rows: np.ndarray) -> None:
        """Begin to read rows that will be asked for next."""
        if self._reader is not None:
            self._ahead = (rows.tobytes(), self._reader.submit(self._read, rows))

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """The pixels of `rows` (int array), on the device."""
        if self._all is not None:
            index = to_device(rows, self._device)
            if self._all.dtype == torch.uint16:  # whose rows not every device picks; as other 16 bits every one does
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
