"""A simulated radiograph as 16-bit PNG or as DICOM; both hold the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

SUFFIX = {"png": ".png", "dicom": ".dcm"}


def write_picture(path: Path, pixels: np.ndarray, patient_id: str, study: str, spacing: float) -> None:
    """Write `pixels` (uint16, 12 bits used) in the format that the suffix of `path` names.

    `study` seeds the DICOM identifiers, so that the same simulation writes the same bytes; `spacing` is mm a
    pixel.
    """
    if path.suffix == SUFFIX["dicom"]:
        _dicom(pixels, patient_id, study, spacing).save_as(path, enforce_file_format=True)
    else:
        Image.fromarray(pixels).save(path, compress_level=3)


def _dicom(pixels: np.ndarray, patient_id: str, study: str, spacing: float) -> FileDataset:
    """A Secondary Capture object, MONOCHROME2, 12 bits stored in 16; no name, no dates."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[study, patient_id, "instance"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = generate_uid(entropy_srcs=[study, patient_id, "study"])
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[study, patient_id, "series"])
    image.Modality, image.ConversionType, image.PatientSex = "OT", "SYN", "F"
    image.PatientID, image.StudyID, image.SeriesNumber, image.InstanceNumber = patient_id, "1", 1, 1
    # Required to be there, allowed to be empty.
    for keyword in ("PatientName", "PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber"):
        setattr(image, keyword, "")
    image.ReferringPhysicianName = ""
    image.PatientOrientation = ["P", "F"]  # rows run backwards, columns towards the feet
    image.BurnedInAnnotation = "NO"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.PixelSpacing = [f"{spacing:.5f}"] * 2
    image.PixelData = pixels.astype("<u2").tobytes()
    return image
