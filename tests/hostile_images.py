"""Radiographs as cameras, scanners and archives write them, each in the place of one in a sound cohort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid

from tests.hostile import Case, N, column, dicom_with, picture
from tests.test_radiographs import WIDE, compressed, exif, with_restarts, write_dicom

PIXELS = np.random.default_rng(2).integers(0, 60000, (160, 90), dtype=np.uint16)
SIDEWAYS = np.ascontiguousarray(np.rot90(PIXELS))
EIGHT = (PIXELS >> 8).astype(np.uint8)


def dicom(**extra: object) -> Callable[[Path], None]:
    """A DICOM file with these header values."""
    return picture(lambda path: write_dicom(path, PIXELS, **extra), "images/x.dcm")


def encoded(syntax: str, encode: Callable[..., bytes], stored: int = 16) -> Callable[[Path], None]:
    """A DICOM file with this stream."""
    return picture(lambda path: compressed(path, PIXELS, stored, syntax, encode), "images/x.dcm")


def image(name: str, pixels: np.ndarray, **options: object) -> Callable[[Path], None]:
    """A picture saved by Pillow."""
    return picture(lambda path: Image.fromarray(pixels).save(path, **options), f"images/{name}")


def big_endian(path: Path) -> None:
    """A DICOM file whose bytes lie the other way round."""
    header = pydicom.dcmread(write_dicom(path, PIXELS))
    header.PixelData = PIXELS.astype(">u2").tobytes()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    pydicom.dcmwrite(path, header, little_endian=False, implicit_vr=False, force_encoding=True)


def all_of_spacing(spacing: str) -> Callable[[Path], None]:
    """Every radiograph a DICOM file, whose header says how many millimetres a pixel has."""

    def change(folder: Path) -> None:
        for k in range(N):
            pixels = np.array(Image.open(folder / f"images/{k}.png"))
            write_dicom(folder / f"images/{k}.dcm", pixels, PixelSpacing=[spacing] * 2, PatientName=f"P{k}")
        column("image", lambda _: [f"images/{k}.dcm" for k in range(N)])(folder)

    return change


TWICE = Image.fromarray(EIGHT)
RESTARTS = with_restarts(PIXELS[:8], 16, 20)
LOST = RESTARTS[: RESTARTS.index(b"\xff\xd3")] + RESTARTS[RESTARTS.index(b"\xff\xd6") :]
CASES = [
    Case("a JPEG that its EXIF turns away from its boxes", image("t.jpg", EIGHT, exif=exif(6)), "are they in other pixels?"),
    Case("a PNG that its EXIF turns upright", image("t.png", SIDEWAYS, exif=exif(6)), "no faults", 0),
    Case("an uncompressed TIFF on its side", image("t.tif", SIDEWAYS, tiffinfo={274: 6}), "no faults", 0),
    Case("EXIF that is none", image("t.jpg", EIGHT, exif=b"Exif\0\0junk"), "no faults", 0),
    Case("a TIFF of signed bytes", image("t.tif", EIGHT, tiffinfo={339: 2}), "signed 8-bit pixels"),
    Case("a moving PNG", image("t.png", EIGHT, save_all=True, append_images=[TWICE.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]), "2 frames"),
    Case("two JPEGs in one file", image("t.jpg", EIGHT, format="MPO", save_all=True, append_images=[TWICE]), "2 frames"),
    Case("a PNG of black and white alone", image("t.png", EIGHT > 127), "no faults", 0),
    Case("16 bits of JPEG 2000 under a header of 12", encoded(*WIDE["JPEG 2000"], stored=12), "at most 4,095 by its header", 0),
    Case("16 bits under a header of 12, uncompressed", dicom(stored=12), "at most 4,095 by its header", 0),
    Case("JPEG Lossless with restarts", encoded(uid.JPEGLosslessSV1, lambda *_: RESTARTS), "no faults", 0),
    Case("JPEG Lossless with a part lost", encoded(uid.JPEGLosslessSV1, lambda *_: LOST), "images/x.dcm: cannot be read as a radiograph"),
    Case("half of a JPEG of 12 bits", encoded(uid.JPEGExtended12Bit, lambda pixels, _: imagecodecs.jpeg8_encode(pixels >> 4, bitspersample=12)[:3000], stored=12), "images/x.dcm: cannot be read as a radiograph"),
    Case("pixels twice as high as wide", dicom(PixelSpacing=["0.2", "0.1"]), "images/x.dcm: its pixels are 2 times as high as wide"),
    Case("pixels half as high as wide, as a ratio alone", dicom(PixelAspectRatio=["1", "2"]), "images/x.dcm: its pixels are 0.5 times as high as wide"),
    Case("a pixel of no size", dicom(PixelSpacing=["0", "0"]), "no faults", 0),
    Case("pixels that do not fit the resolution", all_of_spacing("2.2"), "cohort.yaml, resolution: 0.1 but 2.2 mm a pixel by DICOM headers", 0),
    Case("an inverse presentation", dicom(PresentationLUTShape="INVERSE"), "no faults", 0),
    Case("a DICOM of big-endian words", picture(big_endian, "images/x.dcm"), "no faults", 0),
    Case("a DICOM with a palette", dicom_with(PhotometricInterpretation="PALETTE COLOR"), "colour DICOM"),
    Case("a DICOM with the bits at the upper end", dicom(stored=12, HighBit=15), "the highest bit is 15 of 12"),
]  # fmt: skip
