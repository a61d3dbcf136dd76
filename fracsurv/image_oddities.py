"""What of a cohort's radiographs cannot be read, or is possible, yet odd: each is read once by `fracsurv check`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fracsurv.cohort import Cohort
from fracsurv.dicom import HeaderFacts, header_facts
from fracsurv.errors import UserError
from fracsurv.oddities import named
from fracsurv.radiographs import resize
from fracsurv.workers import mapped

THUMBNAIL = (24, 12)
FEWEST = 8
"""Radiographs of which a mean picture can be made that one of them is held against."""
BETTER, ALIKE = 0.2, 0.4
"""A turned picture is told if it correlates with the mean picture by that much better, and so well."""
SMALLEST_SIDE = 64
ASPECT = 2.0
SPACING = 1.5
MOST_OF_ONE = 4
"""Radiographs that one person may have in a cohort."""
_CHUNK = 16


class Seen(NamedTuple):
    """What is kept of a radiograph."""

    shape: tuple[int, int]
    digest: str
    thumbnail: np.ndarray
    header: HeaderFacts | None


def image_oddities(cohort: Cohort, *, workers: int = 1, progress: bool = False) -> list[str]:
    """Read every radiograph; one line for each thing that is odd.

    Told: the same pixels under several ids, one value in all pixels, very small or unusually shaped pictures, and
    pictures that fit the others better mirrored, upside down or inverted. If all are mirrored, none is told.

    Raises
    ------
    UserError
        For every radiograph that cannot be read.
    """
    if not cohort.has_images:
        return []
    seen = _all_seen(cohort, workers, progress)
    told: list[str] = []
    unusual = _shapes(seen, told)
    _twice([each.digest for each in seen], told)
    _headers([each.header for each in seen], told)
    _turned([each.thumbnail for each in seen], unusual, told)
    return told


def _all_seen(cohort: Cohort, workers: int, progress: bool) -> list[Seen]:
    names = list(cohort.table["image"])
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    part = cohort.of_rows([0])  # what a process needs of it is small
    seen: list[Seen] = []
    faults: list[str] = []
    with tqdm(total=len(names), desc="radiographs", unit="image", disable=None if progress else True) as bar:
        for found in mapped(workers, _look, [part] * len(chunks), chunks):
            seen += [each for each in found if isinstance(each, Seen)]
            faults += [each for each in found if isinstance(each, str)]
            bar.update(len(found))
    if faults:
        raise UserError(faults)
    return seen


def _look(cohort: Cohort, names: Sequence[str]) -> list[Seen | str]:
    """What is kept of each radiograph, or why it cannot be read."""
    found: list[Seen | str] = []
    for name in names:
        try:
            image = cohort.radiograph(name)
        except UserError as error:
            found += error.faults
            continue
        digest = hashlib.sha256(repr((image.shape, image.dtype.str)).encode() + image.tobytes()).hexdigest()
        small = resize(image, THUMBNAIL).astype(np.float32)
        found.append(Seen(image.shape, digest, small, header_facts(cohort.folder / name, name)))
    return found


def _shapes(seen: Sequence[Seen], told: list[str]) -> np.ndarray:
    """Returns which radiographs have other proportions than most."""
    shapes = np.array([each.shape for each in seen])
    ratio = shapes[:, 0] / shapes[:, 1]
    usual = float(np.median(ratio))
    small = np.flatnonzero(shapes.min(axis=1) < SMALLEST_SIDE)
    if small.size:
        height, width = shapes[small[0]]
        told.append(
            f"column image, {named(small)}: {height}×{width} pixels; no vertebra can be seen under {SMALLEST_SIDE}"
        )
    unusual = (ratio > ASPECT * usual) | (ratio < usual / ASPECT)
    odd = np.flatnonzero(unusual)
    if odd.size:
        told.append(
            f"column image, {named(odd)}: {ratio[odd[0]]:.2g} times as high as wide, the usual one here "
            f"{usual:.2g}; another view, or cut? Full images are resized to one shape whatever theirs"
        )
    flat = [row for row, each in enumerate(seen) if np.ptp(each.thumbnail) == 0]
    if flat:
        told.append(f"column image, {named(flat)}: all pixels alike; was the exposure lost in the export?")
    return unusual


def _headers(headers: Sequence[HeaderFacts | None], told: list[str]) -> None:
    known = [(row, header) for row, header in enumerate(headers) if header is not None]
    if frontal := [row for row, header in known if header.frontal]:
        told.append(f"column image, {named(frontal)}: a frontal view by its header; lateral ones are expected")
    if burnt_in := [row for row, header in known if header.burnt_in]:
        told.append(
            f"column image, {named(burnt_in)}: text is burnt into the picture by its header; a name would be shown "
            "in the report"
        )
    spacing = {row: header.spacing for row, header in known if header.spacing}
    usual = float(np.median(list(spacing.values()))) if spacing else 0.0
    if other := [row for row, size in spacing.items() if not usual / SPACING < size < usual * SPACING]:
        told.append(
            f"column image, {named(other)}: {spacing[other[0]]:.3g} mm a pixel, the usual one here {usual:.3g}; "
            "crops are scaled by one number for all, so vertebrae would differ in size"
        )
    # a number that very many have is none: anonymised exports give everybody the same
    persons = [rows for rows in _shared([header and header.person for header in headers]) if len(rows) <= MOST_OF_ONE]
    _tell_shared(persons, "the same person by their headers,", "She may be trained on and judged", told)


def _twice(digests: Sequence[str], told: list[str]) -> None:
    _tell_shared(
        _shared(digests), "the same pixels", "If these are one person, she may be trained on and judged", told
    )


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


def _turned(thumbnails: Sequence[np.ndarray], unusual: np.ndarray, told: list[str]) -> None:
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
        rows = kept[best == number]
        if rows.size:
            how = " and ".join(word for word, is_so in zip(WORDS, turn, strict=True) if is_so)
            told.append(
                f"column image, {named(rows)}: fits the other radiographs better {how}; turn it back, or the network "
                "learns two kinds of picture"
            )
