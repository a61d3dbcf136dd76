"""DICOM radiographs as hospitals have them: grey values with the header's transformations, and nothing else of it."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import pydicom
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_windowing
from pydicom.pixels.utils import get_j2k_parameters

from fracsurv.utils.errors import UserError

MAX_PIXELS = 100_000_000
"""A larger picture is taken for a decompression bomb: real whole-spine radiographs have under 20 million."""
FEW_BEYOND = 0.01
"""Share of the pixels up to which values beyond the header's bits may be cut off where they would not fit."""
UNSQUARE = 1.05
"""How many times as high as wide, or as wide as high, pixels may be."""
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
NO_FRAME_HEADERS = (0xC4, 0xC8, 0xCC)
"""Markers among JPEG's frame headers (C0 to CF) that are none."""
RESTART_INTERVAL, SCAN = 0xDD, 0xDA


def is_dicom(path: Path, name: str) -> bool:
    """By its mark or its suffix; a UserError where it cannot be opened."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be opened ({error.strerror})") from None
    if not start:
        raise UserError(f"{name}: the file is empty")
    return start[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def read_dicom(
    path: Path, name: str, *, windowed: bool = False, beyond: list[tuple[int, int]] | None = None
) -> np.ndarray:
    """A single greyscale frame, uint8 or uint16 (H, W), brighter = denser; see `radiographs.read_radiograph`."""
    with _quiet():
        header = pydicom.dcmread(path)
        _check(header, name)
        stored, padding = _stored(header, name, [] if beyond is None else beyond)
        if windowed:
            values, low, high = _windowed(header, stored, name)
        else:
            values, low, high = _modality(header, stored)
    if _is_inverted(header):
        values = low + high - values
    if padding.any() and not padding.all():
        values = np.where(padding, values[~padding].min(), values)
    if windowed:
        if high <= low:
            raise UserError(f"{name}: the VOI table of its header gives one value alone; export it again")
        return np.rint((values - low) * (65535 / (high - low))).astype(np.uint16)
    return _as_integers(header, values, (low, high), name)


def _is_inverted(header: Any) -> bool:
    """A header that says both means one inversion: the standard asks for INVERSE with MONOCHROME1."""
    return header.PhotometricInterpretation == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE"


def dicom_kind(path: Path, name: str, *, windowed: bool = False) -> tuple[np.dtype, tuple[int, int]]:
    """The dtype and the shape (H, W) of what `read_dicom` would give, from the header where that can tell it."""
    with _quiet():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        dtype = np.dtype(np.uint16) if windowed else _dtype(header)
        deep = header.file_meta.TransferSyntaxUID in (*DECODERS, *uid.JPEG2000TransferSyntaxes)
        if dtype == np.uint8 and (header.BitsAllocated > 8 or deep):
            dtype = read_dicom(path, name).dtype  # there may be more bits than the header says
        return dtype, (int(header.Rows), int(header.Columns))


class HeaderFacts(NamedTuple):
    """What a header says that a check of a cohort needs, and no text of it: nothing here identifies anybody."""

    frontal: bool
    """An anteroposterior or posteroanterior view."""
    burnt_in: bool
    """Text is burnt into the picture."""
    spacing: float | None
    """Of rows, mm a pixel."""
    person: str
    """A hash of the patient's number, name and date of birth; '' where there are none."""


def header_facts(path: Path, name: str) -> HeaderFacts | None:
    """The facts of a DICOM file; None of any other."""
    if not is_dicom(path, name):
        return None
    with _quiet():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        who = [str(header.get(name, "")).strip() for name in ("PatientID", "PatientName", "PatientBirthDate")]
        return HeaderFacts(
            str(header.get("ViewPosition", "")).strip().upper() in ("AP", "PA"),
            str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES",
            (_height_and_width(header, *SPACINGS) or (None,))[0],
            hashlib.sha256(repr(who).encode()).hexdigest() if any(who) else "",
        )


def _height_and_width(header: Any, *names: str) -> tuple[float, float] | None:
    """Of a pixel, by the first of these elements that holds two positive numbers."""
    for name in names:
        with suppress(TypeError, ValueError, AttributeError):  # whatever else stands there
            height, width = (float(each) for each in header[name].value) if name in header else (0.0, 0.0)
            if 0 < height < math.inf and 0 < width < math.inf:
                return height, width
    return None


@contextmanager
def _quiet():
    with warnings.catch_warnings():
        # pydicom warns about odd header values and quotes them: a patient's name could reach the terminal.
        warnings.filterwarnings("ignore", module=r"pydicom")
        yield


def _check(header: Any, name: str) -> None:
    """Refuse what is no single greyscale frame, before decoding anything."""
    if "PixelData" not in header:
        raise UserError(f"{name}: this DICOM file holds no picture")
    frames = int(header.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise UserError(f"{name}: {frames} frames; expected a single radiograph: export one frame")
    if header.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(f"{name}: colour DICOM; expected MONOCHROME1 or MONOCHROME2: export it as greyscale")
    if int(header.Rows) * int(header.Columns) > MAX_PIXELS:
        raise UserError(f"{name}: {header.Columns}×{header.Rows} pixels; at most {MAX_PIXELS:,} are read")
    if (high := header.get("HighBit", header.BitsStored - 1)) != header.BitsStored - 1:
        raise UserError(f"{name}: the highest bit is {high} of {header.BitsStored}; export it again")
    height, width = _height_and_width(header, *SPACINGS, "PixelAspectRatio") or (1, 1)
    if not 1 / UNSQUARE <= height / width <= UNSQUARE:
        raise UserError(
            f"{name}: its pixels are {height / width:.3g} times as high as wide; resample it to square pixels, and "
            "give boxes in those"
        )


def _decoded(header: Any, name: str) -> np.ndarray:
    """Stored values, (H, W)."""
    syntax = header.file_meta.TransferSyntaxUID
    decode = DECODERS.get(syntax)
    frame = next(generate_frames(header.PixelData, number_of_frames=1)) if syntax.is_encapsulated else b""
    if decode is None:
        if syntax in uid.JPEG2000TransferSyntaxes and get_j2k_parameters(frame).get("precision", 0) > 8:
            header.BitsAllocated = 16  # whatever it says
        header.pixel_array_options(correct_unused_bits=False)
        stored = header.pixel_array
    else:
        if _frame_shape(frame) != (header.Rows, header.Columns):  # before room is made for it
            raise UserError(f"{name}: its header and its compressed picture are not of the same size")
        stored = decode(frame)
        if header.PixelRepresentation:
            stored = stored.view(f"i{stored.dtype.itemsize}")
    if stored.ndim != 2:
        raise UserError(f"{name}: expected one greyscale frame, got pixel data of shape {stored.shape}")
    return stored


def _segments(frame: bytes) -> dict[int, bytes]:
    """What stands before the pixels of a JPEG or JPEG-LS stream, by marker."""
    at, found = 2, {}
    while at + 4 <= len(frame) and frame[at] == 0xFF and SCAN not in found:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:  # may be repeated before a marker
            at += 1
        else:
            found[marker] = frame[at + 4 : at + 2 + length]
            at += 2 + length
    return found


def _frame_shape(frame: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG or JPEG-LS stream says it has."""
    for marker, data in _segments(frame).items():
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in NO_FRAME_HEADERS):
            return int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big")
    return None


def _whole_jpeg(frame: bytes) -> np.ndarray:
    """By libjpeg-turbo, which would make up what a stream that is cut off lacks."""
    if b"\xff\xd9" not in frame[-16:]:
        raise ValueError("no end")
    return imagecodecs.jpeg8_decode(frame)


def _lossless_jpeg(frame: bytes) -> np.ndarray:
    """By the decoder that sees damage best; by the other where the stream has restarts, unknown to that one."""
    interval = int.from_bytes(_segments(frame).get(RESTART_INTERVAL, b""), "big")
    if not interval:
        return imagecodecs.jpegsof3_decode(frame)
    if len(re.findall(rb"\xff[\xd0-\xd7]", frame)) + 1 < math.prod(_frame_shape(frame)) / interval:
        raise ValueError("a part is missing")
    return _whole_jpeg(frame)


DECODERS: dict[str, Callable[[bytes], np.ndarray]] = {
    uid.JPEGExtended12Bit: _whole_jpeg,
    uid.JPEGLossless: _lossless_jpeg,
    uid.JPEGLosslessSV1: _lossless_jpeg,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
}
"""Compressions that pydicom cannot decode with Pillow alone."""


def _stored(header: Any, name: str, told: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Stored values (H, W), and which of them are padding, bool.

    Where they have more bits than `header` says, its BitsStored becomes the fewest that hold them, and `told` gets
    the value furthest beyond and the last one that the header allows. A few such pixels become that one where what
    is read would not fit in 16 bits otherwise.
    """
    decoded = _decoded(header, name)
    stored = _kept_bits(header, decoded)
    signed = bool(header.PixelRepresentation)
    padding = _is_padding(header, decoded)
    if signed:  # which may lie in the file without their sign carried on
        padding |= _is_padding(header, stored)
    beyond = (decoded != stored) & ~padding
    if not beyond.any() or not _have_more_bits(header, decoded[~padding]):
        return stored, padding | _is_padding(header, stored)
    said, low, high = header.BitsStored, int(decoded[~padding].min()), int(decoded[~padding].max())
    bottom, top = -signed * 2 ** (said - 1), 2 ** (said - signed) - 1
    told.append((high, top) if high > top else (low, bottom))
    fitted = _fits(header, bottom, top)
    header.BitsStored = max(high, ~low).bit_length() + signed
    padding = _is_padding(header, decoded)
    if fitted and not _fits(header, low, high) and beyond.mean() <= FEW_BEYOND:
        header.BitsStored = said
        return decoded.clip(bottom, top), padding
    return decoded, padding


def _fits(header: Any, *stored: int) -> bool:
    """Whether stored values fit in 16 bits once they are rescaled and turned over."""
    slope, intercept = _rescale(header)
    ends = [end * slope + intercept for end in stored]
    if _is_inverted(header):
        ends = [sum(_possible(header)) - end for end in ends]
    return min(ends) >= -0.5 and max(ends) < 65535.5


def _kept_bits(header: Any, stored: np.ndarray) -> np.ndarray:
    """The bits that the header calls stored; for signed values, the sign is taken along."""
    spare = stored.dtype.itemsize * 8 - int(header.BitsStored)
    return (stored << spare) >> spare if spare > 0 else stored


def _have_more_bits(header: Any, decoded: np.ndarray) -> bool:
    """Whether bits above those that the header calls stored are part of the values: no overlays, not all alike."""
    overlays = (header.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))  # of old files, each in one bit
    if any(each is not None and (each.value or 0) >= header.BitsStored for each in overlays):
        return False
    above = decoded >> int(header.BitsStored)
    return not 0 <= above.min() == above.max()


def _is_padding(header: Any, stored: np.ndarray) -> np.ndarray:
    """Pixels that the header calls padding: what surrounds the picture, often at an extreme value."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    # the header may have them unsigned where pixels are signed; of more bits than pixels have, they are kept apart
    ends = np.array([value, value if limit is None else limit], dtype=np.int64).astype(stored.dtype)
    kept = _kept_bits(header, ends)
    within = (ends == kept) | ((ends >= 0) & (ends < 2 ** int(header.BitsStored)))
    low, high = sorted(np.where(within, kept, ends).tolist())
    return (stored >= low) & (stored <= high)


def _modality(header: Any, stored: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Values after the modality's transformation, and the range that they can take."""
    if header.get("ModalityLUTSequence"):
        return _looked_up(header, header.ModalityLUTSequence[0], stored)
    slope, intercept = _rescale(header)
    values = stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept
    return values, *_possible(header)


def _possible(header: Any) -> tuple[float, float]:
    """The least and the greatest value that BitsStored and the rescaling allow."""
    slope, intercept = _rescale(header)
    signed = bool(header.PixelRepresentation)
    top = 2 ** (header.BitsStored - signed)
    low, high = sorted(float(end * slope + intercept) for end in (-top * signed, top - 1))
    return low, high


def _windowed(header: Any, stored: np.ndarray, name: str) -> tuple[np.ndarray, float, float]:
    """Values as the header has them displayed, by its first VOI table or window, and the range that they can take."""
    values, _, _ = _modality(header, stored)
    if header.get("VOILUTSequence"):
        return _looked_up(header, header.VOILUTSequence[0], np.rint(values))
    if header.get("WindowCenter") is None or header.get("WindowWidth") is None:
        raise UserError(
            f"{name}: no window or VOI table in its header; leave `dicom_values: windowed` out of cohort.yaml, or "
            "export it as it is displayed"
        )
    # by itself pydicom takes the range of its answer from the header's bits and slope, which may be negative
    window = Dataset()
    window.BitsStored, window.PixelRepresentation, window.PhotometricInterpretation = 16, 0, "MONOCHROME2"
    for element in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if element in header:
            setattr(window, element, header[element].value)
    return apply_windowing(values, window, index=0).astype(np.float64), 0.0, 65535.0


def _as_integers(header: Any, values: np.ndarray, possible: tuple[float, float], name: str) -> np.ndarray:
    if _dtype(header) == np.uint8:
        return values.astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if low < -0.5 or high >= 65535.5:
        raise UserError(
            f"{name}: rescaled pixel values run from {low:g} to {high:g}; expected 0 to 65535: export "
            "it again as unsigned 16 bit"
        )
    if possible[1] - possible[0] < 255:
        raise UserError(
            f"{name}: rescale slope {_rescale(header)[0]:g} leaves fewer than 256 grey levels; export it with slope 1"
        )
    return np.rint(values, dtype=np.result_type(values, np.float32)).clip(0, 65535).astype(np.uint16)


def _looked_up(header: Any, table: Any, values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Values through a table of the header, and the table's range.

    Not pydicom's own: of version 3.0, the modality's tables of 10 to 15 bits fail there, and VOI tables of 8 bits are
    read at the wrong places.
    """
    number, first, _ = table.LUTDescriptor
    entries = table.LUTData
    if isinstance(entries, bytes):  # words, as they lie in the file
        if len(entries) in (n := number or 65536, n + n % 2):  # eight bits, a byte each, filled up to an even number
            entries = np.frombuffer(entries, dtype=np.uint8)
        else:
            entries = np.frombuffer(entries, dtype="<u2" if header.original_encoding[1] else ">u2")
    entries = np.asarray(entries, dtype=np.float64)[: number or 65536]
    if len(entries) != (number or 65536):
        raise ValueError("a table of another length than its descriptor says")
    found = entries[(values.astype(np.int64) - first).clip(0, len(entries) - 1)]
    return found, float(entries.min()), float(entries.max())


def _rescale(header: Any) -> tuple[float, float]:
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _dtype(header: Any) -> np.dtype:
    plain = header.BitsStored <= 8 and not header.PixelRepresentation and _rescale(header) == (1.0, 0.0)
    return np.dtype(np.uint8 if plain and not header.get("ModalityLUTSequence") else np.uint16)
