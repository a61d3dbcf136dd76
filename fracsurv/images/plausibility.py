"""What of a cohort's radiographs cannot be read, or is possible, yet odd: each is read once by `fracsurv check`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fracsurv.cohort.boxes import BOX_COLUMNS, off_the_picture
from fracsurv.cohort.checks import is_inside
from fracsurv.cohort.cohort import CORRECTIONS, Cohort
from fracsurv.cohort.plausibility import named
from fracsurv.cohort.settings import read_settings
from fracsurv.cohort.tables import read_table
from fracsurv.images.dicom import HeaderFacts, header_facts
from fracsurv.images.radiographs import EIGHT_TO_SIXTEEN, read_radiograph, resize, source_kind
from fracsurv.utils.errors import UserError, format_rows
from fracsurv.utils.workers import mapped

THUMBNAIL = (24, 12)
FEWEST = 8
"""Radiographs of which a mean picture can be made that one of them is held against."""
BETTER, ALIKE = 0.2, 0.4
"""A turned picture is told if it correlates with the mean picture by that much better, and so well."""
SMALLEST_SIDE = 64
ASPECT = 2.0
SPACING = 1.5
USUAL_HEIGHT, MUCH, MEASURED = 1400, 2.0, 25
"""Pixels of the protocol's radiographs; how many times that is odd; at how many radiographs is looked for it."""
FEW_WITHOUT = 0.1
"""Share of patients without boxes from which that is told."""
BRIGHTER = 4.0
"""How many times brighter or darker than usual the brightest pixel is where the grey scale is another one."""
MOST_OF_ONE = 4
"""Radiographs that one person may have in a cohort."""
_CHUNK = 16


class Seen(NamedTuple):
    """What is kept of a radiograph."""

    shape: tuple[int, int]
    digest: str
    thumbnail: np.ndarray
    header: HeaderFacts | None
    brightest: int
    dtype: np.dtype


def implausible_radiographs(cohort: Cohort, *, workers: int = 1, progress: bool = False) -> list[str]:
    """Read every radiograph; one line for each thing that is odd.

    Told: the same pixels under several ids, one value in all pixels, very small or unusually shaped pictures, some
    that fit the others better mirrored, upside down or inverted (if all are mirrored, none is told), far brighter or
    darker ones than usual, a `resolution` that does not fit, and patients without boxes where others have them.

    Raises
    ------
    UserError
        For every radiograph that cannot be read, and boxes that lie beside their radiograph.
    """
    if not cohort.has_images:
        return []
    cohort = cohort.with_image()
    found = _looked_at(cohort.folder, list(cohort.table["image"]), cohort.windowed, workers, progress)
    faults = [each for each in found if isinstance(each, str)]
    faults += [] if faults else corrections_off_radiographs(cohort)
    seen = [each for each in found if isinstance(each, Seen)]
    rows = np.array(cohort.file_rows)
    told = resolution_warnings(cohort)
    if not faults:
        _boxes(cohort, [each.shape for each in seen], told, faults)
    if faults:
        raise UserError(faults)
    unusual = _shapes(seen, rows, told)
    _twice([each.digest for each in seen], rows, told)
    _headers([each.header for each in seen], rows, told)
    _grey_scales([each.brightest for each in seen], [each.dtype for each in seen], rows, told)
    _turned([each.thumbnail for each in seen], unusual, rows, told)
    return told


def unreadable(folder: Path, *, workers: int = 1, progress: bool = False) -> list[str]:
    """Why radiographs cannot be read which a cohort's table names, whatever else is wrong with the cohort."""
    settings = read_settings(folder, [])
    column = settings.columns.get("image", "image")
    read = read_table(folder, [])
    if read is None or column not in read.frame:
        return []
    names = [name for name in read.frame[column].fillna("").astype(str) if name.strip()]
    names = [name for name in dict.fromkeys(names) if is_inside(folder, name) and (folder / name).is_file()]
    found = _looked_at(folder, names, settings.dicom_values == "windowed", workers, progress)
    return [each for each in found if isinstance(each, str)]


def resolution_warnings(cohort: Cohort) -> list[str]:
    """Whether the cohort's `resolution` makes its radiographs far smaller or larger than the protocol's, by a few."""
    names = list(cohort.table.loc[cohort.has_image, "image"]) if cohort.has_images else []
    heights = []
    for name in names[:: -(-len(names) // MEASURED)] if names else ():
        with suppress(UserError):  # told when it is read
            heights.append(source_kind(cohort.folder / name, name=name, windowed=cohort.windowed)[1][0])
    usual = float(np.median(heights)) / cohort.resolution if heights else USUAL_HEIGHT
    if USUAL_HEIGHT / MUCH < usual < USUAL_HEIGHT * MUCH:
        return []
    return [
        f"cohort.yaml, resolution: {cohort.resolution:g} makes the radiographs {usual:,.0f} pixels tall where the "
        "protocol's are 1,200 to 1,600, so crops would come out of another size than the models are made for; "
        f"{np.median(heights) / USUAL_HEIGHT:.2g}, if they show as much of the spine?"
    ]


def corrections_off_radiographs(cohort: Cohort) -> list[str]:
    """Faults of corrected boxes of which less than half lies on the radiograph: they are in other pixels.

    Each names the row of `vertebrae_corrections.csv`. Radiographs are looked at by their headers alone.
    """
    if cohort.corrections is None or not cohort.has_images:
        return []
    images = cohort.table.set_index("patient_id")["image"]
    faults: list[str] = []
    for patient, rows in cohort.corrections.dropna(subset=BOX_COLUMNS).groupby("patient_id"):
        name = images[patient]
        try:
            height, width = source_kind(cohort.folder / name, name=name, windowed=cohort.windowed)[1]
        except UserError as error:
            faults += error.faults
            continue
        faults += [
            f"{CORRECTIONS} row {row}: less than half of the box lies on the radiograph of {width}×{height} pixels"
            for row in rows.index[off_the_picture(rows[BOX_COLUMNS].to_numpy(float), (height, width))]
        ]
    return faults


def _boxes(cohort: Cohort, shapes: Sequence[tuple[int, int]], told: list[str], faults: list[str]) -> None:
    if cohort.vertebrae is None:
        return
    of = dict(list(cohort.vertebrae.groupby("patient_id")))
    patients = list(cohort.table["patient_id"])
    off = [
        row
        for row, patient, shape in zip(cohort.file_rows, patients, shapes, strict=True)
        if patient in of and off_the_picture(of[patient][BOX_COLUMNS].to_numpy(float), shape).any()
    ]
    if off:
        file = "vertebrae.csv" if cohort.corrections is None else "vertebrae.csv or vertebrae_corrections.csv"
        faults.append(
            f"{file}: boxes of which less than half lies on the radiograph, in {len(off):,} of "
            f"{len(patients):,} patients ({format_rows(off)} of the cohort's table); are they in other pixels?"
        )
    none = [row for row, patient in zip(cohort.file_rows, patients, strict=True) if patient not in of]
    if len(none) > FEW_WITHOUT * len(patients):
        told.append(
            f"vertebrae.csv: no box for {len(none):,} of {len(patients):,} patients ({format_rows(none)} of the "
            "cohort's table); networks of crops see nothing of them. Without the file, a finder looks for all"
        )


def _looked_at(folder: Path, names: Sequence[str], windowed: bool, workers: int, progress: bool) -> list[Seen | str]:
    """What is kept of each radiograph, or why it cannot be read."""
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    found: list[Seen | str] = []
    with tqdm(total=len(names), desc="radiographs", unit="image", disable=None if progress else True) as bar:
        for part in mapped(workers, _look, [folder] * len(chunks), chunks, [windowed] * len(chunks)):
            found += part
            bar.update(len(part))
    return found


def _look(folder: Path, names: Sequence[str], windowed: bool) -> list[Seen | str]:
    found: list[Seen | str] = []
    for name in names:
        try:
            image = read_radiograph(folder / name, name=name, windowed=windowed)
        except UserError as error:
            found.append("; ".join(error.faults))
            continue
        digest = hashlib.sha256(repr((image.shape, image.dtype.str)).encode() + image.tobytes()).hexdigest()
        small = resize(image, THUMBNAIL).astype(np.float32)
        header = header_facts(folder / name, name)
        found.append(Seen(image.shape, digest, small, header, int(image.max()), image.dtype))
    return found


def _shapes(seen: Sequence[Seen], rows: np.ndarray, told: list[str]) -> np.ndarray:
    """Returns which radiographs have other proportions than most."""
    shapes = np.array([each.shape for each in seen])
    ratio = shapes[:, 0] / shapes[:, 1]
    usual = float(np.median(ratio))
    small = np.flatnonzero(shapes.min(axis=1) < SMALLEST_SIDE)
    if small.size:
        height, width = shapes[small[0]]
        told.append(
            f"column image, {named(rows[small])}: {height}×{width} pixels; under {SMALLEST_SIDE} no vertebra can be "
            "seen"
        )
    unusual = (ratio > ASPECT * usual) | (ratio < usual / ASPECT)
    odd = np.flatnonzero(unusual)
    if odd.size:
        told.append(
            f"column image, {named(rows[odd])}: {ratio[odd[0]]:.2g} times as high as wide, the usual one here "
            f"{usual:.2g}; another view, or cut? Full images are resized to one shape whatever theirs"
        )
    flat = [row for row, each in enumerate(seen) if np.ptp(each.thumbnail) == 0]
    if flat:
        told.append(f"column image, {named(rows[flat])}: all pixels alike; was the exposure lost in the export?")
    return unusual


def _headers(headers: Sequence[HeaderFacts | None], rows: np.ndarray, told: list[str]) -> None:
    known = [(row, header) for row, header in enumerate(headers) if header is not None]
    if frontal := [row for row, header in known if header.frontal]:
        told.append(f"column image, {named(rows[frontal])}: a frontal view by its header; lateral ones are expected")
    if burnt_in := [row for row, header in known if header.burnt_in]:
        told.append(
            f"column image, {named(rows[burnt_in])}: text is burnt into the picture by its header; a name would be "
            "shown in the report"
        )
    spacing = {row: header.spacing for row, header in known if header.spacing}
    usual = float(np.median(list(spacing.values()))) if spacing else 0.0
    if other := [row for row, size in spacing.items() if not usual / SPACING < size < usual * SPACING]:
        told.append(
            f"column image, {named(rows[other])}: {spacing[other[0]]:.3g} mm a pixel, the usual one here {usual:.3g}"
            "; crops are scaled by one number for all, so vertebrae would differ in size"
        )
    # a number that very many have is none: anonymised exports give everybody the same
    groups = _shared([header and header.person for header in headers])
    persons = [rows[group] for group in groups if len(group) <= MOST_OF_ONE]
    _tell_shared(persons, "the same person by their headers,", "She may be trained on and judged", told)


def _grey_scales(brightest: Sequence[int], dtypes: Sequence[np.dtype], rows: np.ndarray, told: list[str]) -> None:
    values, mixed = np.array(brightest, float), len(set(dtypes)) > 1
    if mixed:  # as a store of both kinds holds them
        values *= np.where([dtype == np.uint8 for dtype in dtypes], EIGHT_TO_SIXTEEN, 1)
    odd = np.flatnonzero(other_grey_scale(values))
    if odd.size:
        told.append(
            f"column image, {named(rows[odd])}: the brightest pixel has {values[odd[0]]:,.0f}, the usual one here "
            f"{np.median(values):,.0f}{' (8 bits counted as 16)' * mixed}; another "
            "grey scale, such as 12 bits in 16? One range becomes 0 to 1 for all, so a network could tell such "
            "radiographs apart; export all alike, or have a profile say `normalise: patient`"
        )


def other_grey_scale(brightest: np.ndarray) -> np.ndarray:
    """Which radiographs (n,), bool, are on another grey scale by their brightest pixels than most; NaN is none."""
    usual = np.nanmedian(brightest) if np.isfinite(brightest).any() else np.nan
    with np.errstate(invalid="ignore"):
        return (brightest > 0) & ((brightest * BRIGHTER <= usual) | (brightest >= usual * BRIGHTER))


def _twice(digests: Sequence[str], rows: np.ndarray, told: list[str]) -> None:
    groups = [rows[group] for group in _shared(digests)]
    _tell_shared(groups, "the same pixels", "If these are one person, she may be trained on and judged", told)


def _shared(keys: Sequence[str | None]) -> list[list[int]]:
    """Rows that have a key in common, each group in order; who has none shares nothing."""
    where: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if key:
            where.setdefault(key, []).append(row)
    return [rows for rows in where.values() if len(rows) > 1]


def _tell_shared(groups: Sequence[Sequence[int]], what: str, so: str, told: list[str]) -> None:
    if groups:
        more = f"; so in {len(groups):,} groups" if len(groups) > 1 else ""
        told.append(f"column image, {named(groups[0])}: {what} under several ids{more}. {so}")


TURNS = [turn for turn in product((False, True), repeat=3) if any(turn)]
"""Mirrored, upside down, inverted, and what these make together."""
WORDS = ("mirrored", "upside down", "inverted (bone dark)")


def _turn(picture: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    mirrored, upside_down, inverted = turn
    result = picture[..., ::-1] if mirrored else picture
    result = result[..., ::-1, :] if upside_down else result
    return -result if inverted else result


def _turned(thumbnails: Sequence[np.ndarray], unusual: np.ndarray, rows: np.ndarray, told: list[str]) -> None:
    """Hold each picture, as it is and turned, against the mean of all, which is made anew with those turned back.

    Those of unusual proportions, which show another part of the body, are left out.
    """
    kept = np.flatnonzero(~unusual)
    if len(kept) < FEWEST:
        return
    pictures = np.stack([thumbnails[row] for row in kept])
    pictures -= pictures.mean(axis=(1, 2), keepdims=True)
    pictures /= np.maximum(np.sqrt((pictures**2).sum(axis=(1, 2), keepdims=True)), 1e-12)
    ways = np.stack([pictures, *(_turn(pictures, turn) for turn in TURNS)])  # (8, n, h, w)
    best = np.zeros(len(kept), int)
    for _ in range(5):
        upright = ways[best, np.arange(len(kept))]
        total = upright.sum(axis=0)
        # each against the others: with itself in it, a picture would resemble the mean
        others = total - upright
        others /= np.maximum(np.sqrt((others**2).sum(axis=(1, 2), keepdims=True)), 1e-12)
        fit = (ways * others).sum(axis=(2, 3))
        top = fit.argmax(axis=0)
        clear = (fit.max(axis=0) > fit[0] + BETTER) & (fit.max(axis=0) > ALIKE)
        chosen = np.where(clear, top, 0)
        if (chosen == best).all():
            break
        best = chosen
    for number, turn in enumerate(TURNS, start=1):
        turned = rows[kept[best == number]]
        if turned.size:
            how = " and ".join(word for word, is_so in zip(WORDS, turn, strict=True) if is_so)
            told.append(
                f"column image, {named(turned)}: fits the other radiographs better {how}; turn it back, or the "
                "network learns two kinds of picture"
            )
