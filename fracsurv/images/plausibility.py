"""Faults and oddities of a cohort's radiographs: `fracsurv check` reads each once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from fracsurv.cohort.annotations import read_vertebrae
from fracsurv.cohort.boxes import BOX_COLUMNS, off_the_picture
from fracsurv.cohort.checks import Columns, is_inside
from fracsurv.cohort.cohort import CORRECTIONS, Cohort
from fracsurv.cohort.plausibility import MOST_ROWS
from fracsurv.cohort.settings import read_settings
from fracsurv.cohort.tables import read_table
from fracsurv.images.dicom import HeaderFacts, header_facts
from fracsurv.images.radiographs import EIGHT_TO_SIXTEEN, is_turned, read_radiograph, resize, source_kind
from fracsurv.utils.errors import UserError, format_rows
from fracsurv.utils.workers import mapped

THUMBNAIL = (24, 12)
FEWEST = 8
"""Radiographs of which a mean picture can be made that one of them is compared with."""
BETTER, ALIKE = 0.2, 0.4
"""A turned picture is reported if it correlates with the mean picture by that much better, and so well."""
SMALLEST_SIDE = 64
ASPECT = 2.0
SPACING = 1.5
USUAL_HEIGHT, MUCH, MEASURED = 1400, 2.0, 25
"""Pixels of the protocol's radiographs; how many times that is odd; how many radiographs are measured for it."""
USUAL_SPACING, APART = 0.33, 1.3
"""Millimetres of the protocol's pixels, of which 1,400 show some 46 cm; by what factor others may differ, which
leaves room for magnification, of about 1.2."""
FEW_WITHOUT = 0.1
"""Share of patients without boxes from which it is reported."""
BRIGHTER = 4.0
"""How many times brighter or darker than usual the brightest pixel is where the grey scale is another one."""
MOST_OF_ONE = 4
"""Radiographs that one person may have in a cohort; a number that more share is an anonymised export's."""
TURNS = [turn for turn in product((False, True), repeat=3) if any(turn)]
"""Mirrored, upside down, inverted, and their combinations."""
WORDS = ("mirrored", "upside down", "inverted (bone dark)")
_CHUNK = 16


class Seen(NamedTuple):
    """What is kept of a radiograph."""

    shape: tuple[int, int]
    digest: str
    thumbnail: np.ndarray
    header: HeaderFacts | None
    brightest: int
    dtype: np.dtype
    beyond: list[tuple[int, int]]
    """See `read_radiograph`."""
    turned: bool
    """Upright by the file's orientation, and not as its pixels lie there."""


Oddities = Iterator[tuple[Sequence[int], str]]
"""Numbers of radiographs, and what is odd about them."""


def implausible_radiographs(cohort: Cohort, *, workers: int = 1, progress: bool = False) -> list[str]:
    """One line for each thing that is odd about a cohort's radiographs; every one is read.

    Odd are: the same pixels under several ids, one value in all pixels, very small or unusually shaped pictures, some
    that fit the others better mirrored, upside down or inverted (none if all are), far brighter or darker ones than
    usual, a `resolution` that does not fit, patients without boxes where others have them, and boxes on pictures that
    are turned upright.

    Raises
    ------
    UserError
        For every radiograph that cannot be read, and boxes that lie beside their radiograph.
    """
    if not cohort.has_images:
        return []
    cohort = cohort.with_image()
    seen = _looked_at(cohort.folder, list(cohort.table["image"]), cohort.windowed, workers, progress)
    unread = [each for each in seen if isinstance(each, str)]
    if faults := unread or corrections_off_radiographs(cohort) or _boxes_off_radiographs(cohort, seen):
        raise UserError(faults)
    rows = np.array(cohort.file_rows)
    checks = (_shapes, _same_pixels, _headers, _grey_scales, _turned)
    odd = chain.from_iterable(check(seen) for check in checks)
    return [
        *resolution_warnings(cohort),
        *_patients_without_boxes(cohort),
        *_turned_upright(cohort, seen),
        *(f"{cohort.column('image')}, {format_rows(rows[list(which)], MOST_ROWS)}: {what}" for which, what in odd),
    ]


def unreadable(folder: Path, *, workers: int = 1, progress: bool = False) -> list[str]:
    """Why radiographs that a cohort's table names cannot be read, whatever else is wrong with the cohort."""
    settings = read_settings(folder, [])
    column = Columns("", settings.columns, {}).theirs("image")
    read = read_table(folder, [], [column])
    if read is None or column not in read.frame:
        return []
    names = [name for name in read.frame[column].fillna("").astype(str) if name.strip()]
    archive = settings.image_archive
    names = [name for name in dict.fromkeys(names) if is_inside(folder, name, archive) and (folder / name).is_file()]
    found = _looked_at(folder, names, settings.dicom_values == "windowed", workers, progress)
    return [*(each for each in found if isinstance(each, str)), *corrections_beside_faults(folder)]


def resolution_warnings(cohort: Cohort) -> list[str]:
    """Whether `resolution` fits how tall radiographs are, and how large their pixels by DICOM headers; by a few."""
    names = list(cohort.table.loc[cohort.has_image, "image"]) if cohort.has_images else []
    heights, spacings = [], []
    for name in names[:: -(-len(names) // MEASURED)] if names else ():
        with suppress(UserError):  # reported when it is read
            heights.append(source_kind(cohort.folder / name, name=name, windowed=cohort.windowed)[1][0])
            facts = header_facts(cohort.folder / name, name)
            spacings += [facts.spacing] if facts and facts.spacing else []
    usual = float(np.median(heights)) / cohort.resolution if heights else USUAL_HEIGHT
    most = len(spacings) > len(heights) / 2
    spacing = float(np.median(spacings)) if most else USUAL_SPACING / cohort.resolution
    if not USUAL_HEIGHT / MUCH < usual < USUAL_HEIGHT * MUCH:
        wrong = f"makes the radiographs {usual:,.0f} pixels tall where the protocol's are 1,200 to 1,600"
        advice = f"{np.median(heights) / USUAL_HEIGHT:.2g}, if they show as much of the spine?"
    elif not 1 / APART < spacing * cohort.resolution / USUAL_SPACING < APART:
        wrong = f"but {spacing:.2g} mm a pixel by DICOM headers where the protocol's have about {USUAL_SPACING:g}"
        advice = f"{USUAL_SPACING / spacing:.2g}?"
    else:
        return []
    return [
        f"cohort.yaml, resolution: {cohort.resolution:g} {wrong}, so crops would come out of another size than the "
        f"models are made for; {advice}"
    ]


def corrections_off_radiographs(cohort: Cohort) -> list[str]:
    """Faults of corrected boxes of which less than half lies on the radiograph: they are in other pixels.

    Each names the row of `vertebrae_corrections.csv`. Radiographs are looked at by their headers alone.
    """
    if cohort.corrections is None or not cohort.has_images:
        return []
    images = cohort.table.set_index("patient_id")["image"]
    return _off_radiographs(cohort.folder, cohort.corrections, images, windowed=cohort.windowed)


def corrections_beside_faults(folder: Path) -> list[str]:
    """The same faults in a cohort that has other ones too, for patients and radiographs that are clear."""
    if not folder.is_dir():
        return []
    settings = read_settings(folder, [])
    column, patient = (Columns("", settings.columns, {}).theirs(name) for name in ("image", "patient_id"))
    read = read_table(folder, [], [column, patient])
    corrections = read_vertebrae(folder, None, [], file=CORRECTIONS, none_allowed=True)
    if read is None or corrections is None or not {column, patient} <= set(read.frame):
        return []
    images = read.frame[[patient, column]].fillna("").astype(str).drop_duplicates(patient, keep=False)
    images = images.assign(**{patient: images[patient].str.strip()}).set_index(patient)[column]
    archive = settings.image_archive
    images = images[[is_inside(folder, name, archive) and (folder / name).is_file() for name in images]]
    boxes = corrections[BOX_COLUMNS].to_numpy(float)
    sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    corrections = corrections[sound & corrections["patient_id"].isin(images.index)]
    return _off_radiographs(folder, corrections, images, windowed=settings.dicom_values == "windowed")


def _off_radiographs(folder: Path, corrections: pd.DataFrame, images: pd.Series, *, windowed: bool) -> list[str]:
    faults: list[str] = []
    for patient, rows in corrections.dropna(subset=BOX_COLUMNS).groupby("patient_id"):
        name = images[patient]
        try:
            height, width = source_kind(folder / name, name=name, windowed=windowed)[1]
        except UserError as error:
            faults += error.faults
            continue
        faults += [
            f"{CORRECTIONS} row {row}: less than half of the box lies on the radiograph of {width}×{height} pixels"
            for row in rows.index[off_the_picture(rows[BOX_COLUMNS].to_numpy(float), (height, width))]
        ]
    return faults


def _boxes_off_radiographs(cohort: Cohort, seen: Sequence[Seen]) -> list[str]:
    """At most one fault: the patients some of whose boxes lie beside their radiograph."""
    if cohort.vertebrae is None:
        return []
    shape_of = dict(zip(cohort.table["patient_id"], (each.shape for each in seen), strict=True))
    row_of = dict(zip(cohort.table["patient_id"], cohort.file_rows, strict=True))
    off = sorted(
        row_of[patient]
        for patient, rows in cohort.vertebrae.groupby("patient_id")
        if off_the_picture(rows[BOX_COLUMNS].to_numpy(float), shape_of[patient]).any()
    )
    if not off:
        return []
    file = "vertebrae.csv" if cohort.corrections is None else "vertebrae.csv or vertebrae_corrections.csv"
    return [
        f"{file}: boxes of which less than half lies on the radiograph, in {len(off):,} of {len(cohort):,} patients "
        f"({format_rows(off)} of the cohort's table); are they in other pixels?"
    ]


def _patients_without_boxes(cohort: Cohort) -> Iterator[str]:
    if cohort.vertebrae is None:
        return
    none = np.array(cohort.file_rows)[~cohort.table["patient_id"].isin(cohort.vertebrae["patient_id"])]
    if len(none) > FEW_WITHOUT * len(cohort):
        yield (
            f"vertebrae.csv: no box for {len(none):,} of {len(cohort):,} patients ({format_rows(none)} of the "
            "cohort's table); networks of crops see nothing of them. Without the file, a finder looks for all"
        )


def _turned_upright(cohort: Cohort, seen: Sequence[Seen]) -> Iterator[str]:
    if cohort.vertebrae is None:
        return
    boxed = cohort.table["patient_id"].isin(cohort.vertebrae["patient_id"])
    if n := sum(each.turned and has for each, has in zip(seen, boxed, strict=True)):
        yield (
            f"{n:,} radiograph{' is' if n == 1 else 's are'} turned upright by {'its' if n == 1 else 'their'} EXIF "
            "orientation; boxes in vertebrae.csv must be in the upright picture's pixels"
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
        beyond: list[tuple[int, int]] = []
        try:
            image = read_radiograph(folder / name, name=name, windowed=windowed, beyond=beyond)
        except UserError as error:
            found.append("; ".join(error.faults))
            continue
        digest = hashlib.sha256(repr((image.shape, image.dtype.str)).encode() + image.tobytes()).hexdigest()
        small = resize(image, THUMBNAIL).astype(np.float32)
        header = header_facts(folder / name, name)
        turned = is_turned(folder / name, name)
        found.append(Seen(image.shape, digest, small, header, int(image.max()), image.dtype, beyond, turned))
    return found


def _has_usual_shape(seen: Sequence[Seen]) -> tuple[np.ndarray, np.ndarray]:
    """Height by width of each radiograph, float (n,), and whether it is near the median, bool (n,)."""
    ratio = np.array([each.shape[0] / each.shape[1] for each in seen])
    usual = np.median(ratio)
    return ratio, (ratio <= ASPECT * usual) & (ratio >= usual / ASPECT)


def _shapes(seen: Sequence[Seen]) -> Oddities:
    if small := [row for row, each in enumerate(seen) if min(each.shape) < SMALLEST_SIDE]:
        height, width = seen[small[0]].shape
        yield small, f"{height}×{width} pixels; under {SMALLEST_SIDE} no vertebra can be seen"
    ratio, usual = _has_usual_shape(seen)
    if (odd := np.flatnonzero(~usual)).size:
        yield (
            odd,
            f"{ratio[odd[0]]:.2g} times as high as wide, the usual one here {np.median(ratio):.2g}; another view, or "
            "cut? Full images are resized to one shape whatever theirs",
        )
    if flat := [row for row, each in enumerate(seen) if np.ptp(each.thumbnail) == 0]:
        yield flat, "all pixels alike; was the exposure lost in the export?"


def _same_pixels(seen: Sequence[Seen]) -> Oddities:
    groups = _shared([each.digest for each in seen])
    return _under_several_ids(groups, "the same pixels", "If these are one person, she may be trained on and judged")


def _headers(seen: Sequence[Seen]) -> Oddities:
    known = {row: each.header for row, each in enumerate(seen) if each.header is not None}
    if frontal := [row for row, header in known.items() if header.frontal]:
        yield frontal, "a frontal view by its header; lateral ones are expected"
    if burnt_in := [row for row, header in known.items() if header.burnt_in]:
        yield burnt_in, "text is burnt into the picture by its header; a name would be shown in the report"
    if beyond := [row for row, each in enumerate(seen) if each.beyond]:
        value, last = seen[beyond[0]].beyond[0]
        yield (
            beyond,
            f"a pixel of {value:,}, and at {'most' if value > last else 'least'} {last:,} by its header; they are "
            "read as they are, where they fit in 16 bits: are overlays or a border among them?",
        )
    spacing = {row: header.spacing for row, header in known.items() if header.spacing}
    usual = float(np.median(list(spacing.values()))) if spacing else 0.0
    if other := [row for row, size in spacing.items() if not usual / SPACING < size < usual * SPACING]:
        yield (
            other,
            f"{spacing[other[0]]:.3g} mm a pixel, the usual one here {usual:.3g}; crops are scaled by one number for "
            "all, so vertebrae would differ in size",
        )
    groups = _shared([each.header and each.header.person for each in seen])
    groups = [group for group in groups if len(group) <= MOST_OF_ONE]
    yield from _under_several_ids(groups, "the same person by their headers,", "She may be trained on and judged")


def _shared(keys: Sequence[str | None]) -> list[list[int]]:
    """Numbers of the radiographs that have a key in common, each group in order; None and '' are no keys."""
    where: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if key:
            where.setdefault(key, []).append(row)
    return [rows for rows in where.values() if len(rows) > 1]


def _under_several_ids(groups: Sequence[Sequence[int]], what: str, so: str) -> Oddities:
    if groups:
        more = f"; so in {len(groups):,} groups" if len(groups) > 1 else ""
        yield groups[0], f"{what} under several ids{more}. {so}"


def _grey_scales(seen: Sequence[Seen]) -> Oddities:
    brightest, dtypes = np.array([each.brightest for each in seen], float), [each.dtype for each in seen]
    mixed = len(set(dtypes)) > 1
    if mixed:  # as a store of both kinds holds them
        brightest *= np.where([dtype == np.uint8 for dtype in dtypes], EIGHT_TO_SIXTEEN, 1)
    if (odd := np.flatnonzero(other_grey_scale(brightest))).size:
        yield (
            odd,
            f"the brightest pixel has {brightest[odd[0]]:,.0f}, the usual one here {np.median(brightest):,.0f}"
            f"{' (8 bits counted as 16)' * mixed}; another grey scale, such as 12 bits in 16? One range becomes 0 to "
            "1 for all, so a network could tell such radiographs apart; export all alike, or have a profile say "
            "`normalise: patient`",
        )


def other_grey_scale(brightest: np.ndarray) -> np.ndarray:
    """Which radiographs (n,), bool, are on another grey scale by their brightest pixels than most; NaN is none."""
    usual = np.nanmedian(brightest) if np.isfinite(brightest).any() else np.nan
    with np.errstate(invalid="ignore"):
        return (brightest > 0) & ((brightest * BRIGHTER <= usual) | (brightest >= usual * BRIGHTER))


def _turn(picture: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    mirrored, upside_down, inverted = turn
    result = picture[..., ::-1] if mirrored else picture
    result = result[..., ::-1, :] if upside_down else result
    return -result if inverted else result


def _unit(pictures: np.ndarray) -> np.ndarray:
    """Pictures (n, h, w) of length 1."""
    return pictures / np.maximum(np.sqrt((pictures**2).sum(axis=(1, 2), keepdims=True)), 1e-12)


def _turned(seen: Sequence[Seen]) -> Oddities:
    """Compare each picture, as it is and turned, with the mean of all, which is made anew with those turned back.

    Those of unusual proportions, which show another part of the body, are left out.
    """
    kept = np.flatnonzero(_has_usual_shape(seen)[1])
    if len(kept) < FEWEST:
        return
    pictures = np.stack([seen[row].thumbnail for row in kept])
    pictures = _unit(pictures - pictures.mean(axis=(1, 2), keepdims=True))
    ways = np.stack([pictures, *(_turn(pictures, turn) for turn in TURNS)])  # (8, n, h, w)
    best = np.zeros(len(kept), int)
    for _ in range(5):
        upright = ways[best, np.arange(len(kept))]
        # each against the others: with itself in it, a picture would resemble the mean
        fit = (ways * _unit(upright.sum(axis=0) - upright)).sum(axis=(2, 3))
        clear = (fit.max(axis=0) > fit[0] + BETTER) & (fit.max(axis=0) > ALIKE)
        chosen = np.where(clear, fit.argmax(axis=0), 0)
        if (chosen == best).all():
            break
        best = chosen
    for number, turn in enumerate(TURNS, start=1):
        if (found := kept[best == number]).size:
            how = " and ".join(word for word, is_so in zip(WORDS, turn, strict=True) if is_so)
            yield (
                found,
                f"fits the other radiographs better {how}; turn it back, or the network learns two kinds of picture",
            )
