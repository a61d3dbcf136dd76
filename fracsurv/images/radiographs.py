"""Radiograph files to arrays, and the shapes of the protocol's full image."""

from __future__ import annotations

import math
import mmap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from fracsurv.cohort.cohort import Cohort
from fracsurv.images.dicom import MAX_PIXELS, dicom_kind, is_dicom, read_dicom
from fracsurv.utils.errors import UserError
from fracsurv.vertebrae.slots import read_slots, slot_table, write_slots

FULL_SHAPE = (1024, 512)
"""Height and width of the protocol's full image before padding, pixels at scale 1."""
ROTATION_DEGREES = 15.0
"""Largest rotation the padding has room for."""
EIGHT_TO_SIXTEEN = 257
"""By what 8-bit pixels are multiplied where others have more bits: 255 becomes 65,535."""
_GREY_MODES = ("L", "LA", "RGB", "RGBA", "P", "PA", "1", "CMYK", "YCbCr")


def read_radiograph(
    path: str | Path,
    *,
    name: str | None = None,
    windowed: bool = False,
    beyond: list[tuple[int, int]] | None = None,
) -> np.ndarray:
    """Read a DICOM, PNG, TIFF or JPEG radiograph.

    Parameters
    ----------
    path : path
        The file. DICOM is told by its `DICM` mark or by the suffix `.dcm`, not by trust in the name.
    name : str, optional
        How messages name the file; by default the last part of `path`.
    windowed : bool
        DICOM as it is displayed: the first VOI table or window of the header is applied, and what it can give is
        stretched over 0 to 65535. Otherwise the values before that. Other formats are read as they are.
    beyond : list, optional
        Gets, of a DICOM file whose pixels have more bits than its header says, the stored value furthest beyond, and
        the last one that the header allows.

    Returns
    -------
    ndarray (H, W), uint8 or uint16
        Brighter = denser, as in MONOCHROME2. 8-bit files give uint8, all others uint16 with the values of the file
        (12 bits in 16 stay 0 to 4095). DICOM: unused bits are cleared, the modality's table or rescale slope and
        intercept applied, MONOCHROME1 or a presentation LUT shape INVERSE turned over within the range that this can
        give, and padding set to the least value of the picture. Where pixels have more bits than the header says,
        that range is of the fewest bits that hold them; a few that would not fit in 16 bits so are cut off.
        PNG, TIFF and JPEG: turned upright by their EXIF, XMP
        or TIFF orientation; colour is taken for a greyscale copy and reduced to its luma.

    Raises
    ------
    UserError
        Missing, unreadable or truncated file; several frames; DICOM in colour or with pixels that are not square;
        16-bit colour, signed 8-bit, 32-bit or floating point pixels; values outside 0 to 65535; over 100 million
        pixels. Never quotes a DICOM header.
    """
    path = Path(path)
    name = name or path.name
    dicom = is_dicom(path, name)
    try:
        return read_dicom(path, name, windowed=windowed, beyond=beyond) if dicom else _read_picture(path, name)
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly any type on damaged data
        # The decoder's own text may quote a DICOM header, so only its type is passed on.
        raise UserError(
            f"{name}: cannot be read as a radiograph ({type(error).__name__}); it may be truncated, "
            "damaged or compressed in a way this installation cannot decode: export it again as uncompressed "
            "DICOM or as PNG"
        ) from None


def read_patient_radiograph(cohort: Cohort, name: str) -> np.ndarray:
    """Pixels (H, W), uint8 or uint16, brighter = denser, of an entry of a cohort's column `image`."""
    return read_radiograph(cohort.folder / name, name=name, windowed=cohort.windowed)


def source_kind(
    path: str | Path, *, name: str | None = None, windowed: bool = False
) -> tuple[np.dtype, tuple[int, int]]:
    """The dtype and the shape (H, W) that `read_radiograph` would give, from the file's header if that tells it."""
    path = Path(path)
    name = name or path.name
    dicom = is_dicom(path, name)
    try:
        if dicom:
            return dicom_kind(path, name, windowed=windowed)
        with _opened(path, name) as picture:
            turned = _orientation_in_file(picture) > 4
            tags = getattr(picture, "tag_v2", {})
            width, height = tags.get(256, picture.width), tags.get(257, picture.height)  # as they lie in the file
            shape = (width, height) if turned else (height, width)
            return np.dtype(np.uint16 if picture.mode.startswith("I") else np.uint8), shape
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}: cannot be read as a radiograph ({type(error).__name__})") from None


def is_turned(path: Path, name: str) -> bool:
    """Whether `read_radiograph` turns the picture of a file that it can read upright."""
    if is_dicom(path, name):
        return False
    with _opened(path, name) as picture:
        return _orientation_in_file(picture) > 1


def radiograph_heights(cohort: Cohort) -> NDArray:
    """Heights (n,) float of a cohort's radiographs, pixels, from the files' headers; NaN where there is none.

    NaN too where the header cannot be read: who needs the pixels refuses it.
    """
    heights = np.full(len(cohort), np.nan)
    for row in np.flatnonzero(cohort.has_image):
        name = cohort.table["image"].iloc[row]
        with suppress(UserError):
            heights[row] = source_kind(cohort.folder / name, name=name, windowed=cohort.windowed)[1][0]
    return heights


def with_slots(cohort: Cohort, folder: Path | None = None) -> Cohort:
    """The cohort with its vertebra slots decided; the cohort itself without boxes.

    In `folder`, if given, they are kept, and taken from there while boxes and radiographs are the same.
    """
    if cohort.vertebrae is None:
        return cohort
    table = None if folder is None else read_slots(cohort, folder, radiograph_heights)
    if table is None:
        heights = radiograph_heights(cohort)
        table = slot_table(cohort, heights)
        if folder is not None:
            write_slots(cohort, table, heights, folder)
    return replace(cohort, slots=table)


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize to `shape` (height, width), bilinear, antialiased where it shrinks.

    uint8 or uint16 in, the same dtype out; values stay within the source's range, since every output pixel is
    a weighted mean with weights that are not negative.
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"image must be uint8 or uint16, got {image.dtype}")
    if min(shape) < 1:
        raise ValueError(f"shape must be positive, got {shape}")
    if image.shape == tuple(shape):
        return image.copy()
    size = (shape[1], shape[0])
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    # float32 holds every 16-bit value exactly.
    small = Image.fromarray(image.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.rint(np.asarray(small)).clip(image.min(), image.max()).astype(np.uint16)


def full_image_shape(scale: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shape of the resized full image and of the zero-padded one that loses nothing under ±15° rotation.

    Returns ((h, w), (H, W)); at scale 1 the protocol's 1024×512 and 1121×759.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    h, w = (max(1, round(side * scale)) for side in FULL_SHAPE)
    cos, sin = (f(math.radians(ROTATION_DEGREES)) for f in (math.cos, math.sin))
    # Rounded down as in the protocol, but a very small picture must not come out smaller than itself.
    return (h, w), (max(h, int(h * cos + w * sin)), max(w, int(w * cos + h * sin)))


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Image.Image]:
    with warnings.catch_warnings(), path.open("rb") as file:
        # Pillow warns at its own limit; ours is checked below, before any pixel is decoded. Odd EXIF is no fault.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", message=r".*EXIF")
        try:
            # not by its path: Pillow scrambles uncompressed TIFFs of orientation 5 to 8 where it may map the file
            picture = Image.open(file)
        except Image.DecompressionBombError:
            raise UserError(f"{name}: more than {MAX_PIXELS:,} pixels; not read") from None
        if picture.width * picture.height > MAX_PIXELS:
            size = f"{picture.width}×{picture.height}"
            raise UserError(f"{name}: {size} pixels; at most {MAX_PIXELS:,} are read")
        yield picture


def _orientation(picture: Image.Image) -> int:
    """How the picture lies in its file, by EXIF or XMP: 1 is upright; above 4 its rows are columns."""
    found = 1
    with suppress(Exception):  # odd EXIF is no fault
        found = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)  # a PNG's own would unpack the pixels
    return found if found in range(1, 9) else 1


def _orientation_in_file(picture: Image.Image) -> int:
    """The same of a picture that is not unpacked yet, which a PNG is where it has to be."""
    if picture.format == "PNG" and _has_text_behind(picture):
        picture.load()
    return _orientation(picture)


def _has_text_behind(picture: Image.Image) -> bool:
    """Whether EXIF or text stands behind a PNG's pixels: Pillow knows it once these are unpacked."""
    with mmap.mmap(picture.fp.fileno(), 0, access=mmap.ACCESS_READ) as data:
        behind = data[data.rfind(b"IDAT") :]
    return any(kind in behind for kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    pixels = pixels.T if orientation > 4 else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    return np.ascontiguousarray(pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels)


def _read_picture(path: Path, name: str) -> np.ndarray:
    with _opened(path, name) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise UserError(f"{name}: {frames} frames; expected a single radiograph: export one frame")
        # Pillow's names for the pixels as they lie in the file (`RGB;16B`), which it may reduce on reading
        raw = [tile[3] if isinstance(tile[3], str) else str(tile[3][0]) for tile in picture.tile]
        deep_colour = picture.mode in _GREY_MODES and any("16" in mode for mode in raw)
        # Pillow turns 8-bit TIFFs with "white is zero" over, 16-bit ones not.
        tags = getattr(picture, "tag_v2", {})
        white_is_zero = picture.mode.startswith("I") and tags.get(262) == 0
        top = 2 ** min(16, tags.get(258, (16,))[0]) - 1
        if deep_colour:
            raise UserError(f"{name}: 16-bit colour; expected one channel: save it as 16-bit greyscale")
        if picture.mode in _GREY_MODES and 2 in tags.get(339, ()):  # Pillow would take them for unsigned ones
            raise UserError(f"{name}: signed 8-bit pixels; expected unsigned ones: save it as 16-bit greyscale")
        picture.load()
        orientation = 1 if picture.format == "TIFF" else _orientation(picture)  # TIFFs are turned by Pillow
        if picture.mode in _GREY_MODES:
            grey = picture if picture.mode == "L" else picture.convert("RGB").convert("L")
            return _upright(np.array(grey), orientation)
        if not picture.mode.startswith("I"):
            raise UserError(f"{name}: pixel type {picture.mode}; expected 8- or 16-bit greyscale")
        values = np.array(picture)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(f"{name}: pixel values run from {low} to {high}; expected 0 to 65535")
    values = values.astype(np.uint16)
    return _upright(np.uint16(top) - values if white_is_zero else values, orientation)
