"""Arrays in .npy files: one made to be filled, and one held open, mapped into memory and read row by row without."""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from fracsurv.utils.errors import UserError


def create_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """A new array of zeros in an .npy file, writable, all of its room taken on the disk at once (on Linux).

    Raises
    ------
    OSError
        Where the disk has not that much room. Without, whoever wrote to the array's map when the disk has run full
        would be killed by the system, without a word.
    """
    try:
        array = open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # macOS has none
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return array


class StoredArray:
    """The array (n, …) in an .npy file.

    Both ways of reading keep to the file as it was when it was opened, should another one take its name.

    Attributes
    ----------
    mapped : memmap
        Read-only. The pages that are looked at through it count as memory of this process, up to all of them.
    """

    def __init__(self, path: Path, directory: int | None = None) -> None:
        """`directory`: an open folder in which the file is looked up by its name."""
        name = path if directory is None else path.name
        self._path, self._number = path, os.open(name, os.O_RDONLY, dir_fd=directory)
        weakref.finalize(self, os.close, self._number)
        with os.fdopen(os.dup(self._number), "rb") as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, dtype = read(file)
            order = "F" if fortran else "C"
            if os.fstat(self._number).st_size < file.tell() + dtype.itemsize * math.prod(shape):
                raise UserError(f"{path}: shorter than it says; delete {path.parent} and run again")
            self.mapped = np.memmap(file, dtype, "r", offset=file.tell(), shape=shape, order=order)

    def read(self, rows: NDArray[np.integer]) -> NDArray:
        """These rows, from the file itself: they take no more memory than they are long."""
        pixels = np.empty((len(rows), *self.mapped.shape[1:]), self.mapped.dtype)
        for row, image in zip(rows, pixels, strict=True):
            start, rest = self.mapped.offset + int(row) * image.nbytes, memoryview(image).cast("B")
            while rest:  # a read may end early
                done = os.preadv(self._number, [rest], start)
                if not done:
                    raise UserError(f"{self._path}: shorter than it was; prepare it again")
                start, rest = start + done, rest[done:]
        return pixels
