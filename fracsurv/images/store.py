"""The memory-mapped image store: every radiograph read once, its crops and full image ready for training.

A store is a folder: `crops.npy` (n, 13, H, W), `crop_sizes.npy` (n, 13, 2), `full.npy` (n, h, w), `patients.parquet`
(ranges of pixels, states of the files) and `meta.json`. It is built in a temporary folder and renamed when whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from fracsurv.cohort.boxes import BOX_COLUMNS, N_SLOTS, off_the_picture
from fracsurv.cohort.cohort import Cohort
from fracsurv.images.crops import crop_shape, crop_stack
from fracsurv.images.radiographs import EIGHT_TO_SIXTEEN, full_image_shape, read_radiograph, resize, source_kind
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_folder, atomic_path, locked, read_json, remove_leftovers, write_json
from fracsurv.utils.workers import mapped

FORMAT = "fracsurv image store"
VERSION = 4
"""Raised whenever the same cohort would give other pixels."""
INPUTS = ("crops", "full")
RANGES = ["crops_min", "crops_max", "full_min", "full_max"]
FILE_COLUMNS = ["state", "sha256"]
_CHUNK = 16


class StoredArray:
    """The array (n, …) in an .npy file.

    Pages that are looked at through its read-only map, `mapped`, count as memory of this process, up to all of them.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.mapped = np.load(path, mmap_mode="r")
        except (ValueError, EOFError):
            raise UserError(f"{path}: shorter than it says; delete {path.parent} and run again") from None
        self._path, self._number = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)

    def read(self, rows: NDArray[np.integer]) -> NDArray:
        """These rows, from the file itself: they take no more memory than they are long."""
        pixels = np.empty((len(rows), *self.mapped.shape[1:]), self.mapped.dtype)
        for row, image in zip(rows, pixels, strict=True):
            start, rest = self.mapped.offset + int(row) * image.nbytes, memoryview(image).cast("B")
            while rest:  # a read may end early; threads read side by side, so that none may move the file's position
                done = os.preadv(self._number, [rest], start)
                if not done:
                    raise UserError(f"{self._path}: shorter than it was; prepare it again")
                start, rest = start + done, rest[done:]
        return pixels


@dataclass(frozen=True)
class ImageStore:
    """An open store; its arrays are memory-mapped, so a batch costs its own rows alone.

    Attributes
    ----------
    patient_ids : list of str
        Row order of everything here (the cohort's).
    crops : memmap (n, 13, H, W) or None
        uint8 or uint16, zero-padded to the CNN's frame. The ViT's square frame is the same stack, padded more.
    crop_sizes : memmap (n, 13, 2) int16 or None
        Height and width of each crop in its frame, 0 = empty slot.
    full : memmap (n, h, w) or None
        Resized, not padded.
    ranges : DataFrame, indexed by patient
        crops_min and crops_max over the pixels inside boxes, full_min and full_max; NaN where there are none.
        The row of a patient without a radiograph is all zeros, with no range and no crop.
    n_shrunk : Series of int, indexed by patient, or None
        Crops that were larger than their frame.
    meta : dict
        scale, provenance, resolution, bit_depth, fingerprint, settings, version.
    files : dict
        The same arrays by name, to be read without the map.
    """

    patient_ids: list[str]
    crops: np.ndarray | None
    crop_sizes: np.ndarray | None
    full: np.ndarray | None
    ranges: pd.DataFrame
    n_shrunk: pd.Series | None
    meta: dict[str, Any]
    files: dict[str, StoredArray] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> ImageStore:
        """Open a store made by `build_store`; UserError if it is none or of another version."""
        folder = Path(folder)
        meta = _read_meta(folder)
        if meta is None:
            raise UserError(f"{folder}: no image store; `fracsurv prepare` makes one")
        if meta["version"] != VERSION:
            raise UserError(f"{folder}: image store of version {meta['version']}, not {VERSION}; prepare it again")
        inputs = meta["settings"]["inputs"]
        names = [*inputs, *(["crop_sizes"] if "crops" in inputs else [])]
        files = {name: StoredArray(folder / f"{name}.npy") for name in names}
        patients = pd.read_parquet(folder / "patients.parquet").set_index("patient_id")
        return cls(
            patient_ids=patients.index.tolist(),
            ranges=patients[RANGES],
            n_shrunk=patients.get("n_shrunk"),
            meta=meta,
            files=files,
            **{name: files[name].mapped if name in files else None for name in ("crops", "crop_sizes", "full")},
        )

    def __len__(self) -> int:
        return len(self.patient_ids)


@dataclass(frozen=True)
class Task:
    """One patient's row; `name`, how messages call the radiograph, is '' where there is none."""

    row: int
    patient_id: str
    path: Path
    name: str
    boxes: np.ndarray  # (n, 4)
    index: np.ndarray  # (13,), the box of each slot
    windowed: bool


@dataclass(frozen=True)
class _Plan:
    """What a store is made from and how; `files` holds the radiographs' states and SHA-256, row by row."""

    tasks: list[Task]
    settings: dict[str, Any]
    files: pd.DataFrame
    fingerprint: str


def build_store(
    cohort: Cohort,
    folder: str | Path,
    *,
    scale: float,
    inputs: Sequence[str] | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Make the image store of a cohort, or keep the one that is there if nothing has changed.

    "Nothing" is a SHA-256 over the bytes of every radiograph, the boxes and their slots, the settings and the
    format's version. A radiograph of the size and time of change that the store there knows is not read again for it.
    Memory stays constant: each row is written as soon as it is made. The source's bit depth is kept: uint8
    if all radiographs have 8 bits; else uint16, with the 8-bit ones times 257 (255 becomes 65535).

    Parameters
    ----------
    cohort : Cohort
        With its slots (`images.radiographs.with_slots`) where crops are asked for.
    scale : float
        Size of the result relative to the protocol's: 1 gives 1024×512 and 230×272. Crops are resized by
        scale / cohort.resolution, full images to the fixed shape whatever their proportions (as the protocol).
    inputs : 'crops' and/or 'full'
        By default both, or 'full' alone for a cohort without boxes.
    workers : int
        Processes, each writing its own rows.

    Raises
    ------
    UserError
        Unknown inputs, crops without boxes, a folder with something else in it; every radiograph that cannot be
        read and every box outside its radiograph, all at once.
    """
    folder = Path(folder)
    plan = _plan(cohort, folder, scale, inputs)
    remove_leftovers(folder.parent)
    # several processes may ask for it at once: one builds it, the others wait
    with locked(folder.with_name(f".{folder.name}.lock")):
        if stored_fingerprint(folder) != plan.fingerprint or not _update_states(folder, plan.files):
            with atomic_folder(folder, replace=True) as temporary:
                _write(temporary, plan, workers=workers, progress=progress)
    return folder


def store_fingerprint(cohort: Cohort, folder: Path, *, scale: float, inputs: Sequence[str] | None = None) -> str:
    """The fingerprint of the store that `build_store` would find or make there; errors as there."""
    return _plan(cohort, folder, scale, inputs).fingerprint


def stored_fingerprint(folder: Path) -> str | None:
    """The fingerprint of the store that lies there; None without one."""
    return (_read_meta(folder) or {}).get("fingerprint")


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


def _plan(cohort: Cohort, folder: Path, scale: float, inputs: Sequence[str] | None) -> _Plan:
    inputs = _checked_inputs(cohort, inputs, folder)
    if not scale > 0:
        raise UserError(f"scale must be above 0, got {scale}")
    settings = {
        "scale": float(scale),
        "inputs": list(inputs),
        "resolution": cohort.resolution,
        "provenance": cohort.provenance,
        "crop_shape": list(crop_shape(scale)),
        "full_shape": list(full_image_shape(scale)[0]),
        "scale_factor": scale / cohort.resolution,
    }
    if cohort.windowed:
        settings["dicom_values"] = "windowed"
    tasks = _tasks(cohort, with_boxes="crops" in inputs)
    files = _file_states(tasks, folder)
    return _Plan(tasks, settings, files, _fingerprint(tasks, settings, files["sha256"]))


def _checked_inputs(cohort: Cohort, inputs: Sequence[str] | None, folder: Path) -> tuple[str, ...]:
    if not cohort.has_images:
        raise UserError("the cohort has no radiographs (no column `image`); only its tabular models can be run")
    if inputs is None:
        inputs = INPUTS if cohort.vertebrae is not None else ("full",)
    faults = [f"input {name!r}; must be one of {', '.join(INPUTS)}" for name in inputs if name not in INPUTS]
    if not inputs:
        faults.append(f"no inputs; give one or both of {', '.join(INPUTS)}")
    if "crops" in inputs and cohort.vertebrae is None:
        faults.append("crops need vertebra boxes, and the cohort has no vertebrae.csv; ask for 'full' alone")
    if folder.exists() and _read_meta(folder) is None and any(folder.iterdir()):
        faults.append(f"{folder}: holds something other than an image store; give another folder")
    if faults:
        raise UserError(faults)
    return tuple(name for name in INPUTS if name in inputs)


def _read_meta(folder: Path) -> dict[str, Any] | None:
    """A store's meta data; None where there is none."""
    try:
        meta = read_json(folder / "meta.json")
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and meta.get("format") == FORMAT else None


def _tasks(cohort: Cohort, *, with_boxes: bool) -> list[Task]:
    table, none = cohort.table, np.zeros((0, 4))
    boxes: dict[str, np.ndarray] = {}
    index = np.full((len(cohort), N_SLOTS), -1)
    if with_boxes:
        of = cohort.vertebrae.groupby("patient_id", sort=False)
        boxes, index = {patient: rows[BOX_COLUMNS].to_numpy(float) for patient, rows in of}, cohort.slot_index
    return [
        Task(row, patient, cohort.folder / image, image, boxes.get(patient, none), index[row], cohort.windowed)
        for row, (patient, image) in enumerate(zip(table["patient_id"], table["image"], strict=True))
    ]


def _file_states(tasks: Sequence[Task], folder: Path) -> pd.DataFrame:
    """Every radiograph's state (its name, size and time of change) and SHA-256 ('' where it cannot be read).

    Those that the store there knows are not read: to open it, every job would read a whole cohort otherwise. The
    state is kept as a digest, since a hospital's file names may tell who the patient is.
    """
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):  # no store, or a damaged one
        there = pd.read_parquet(folder / "patients.parquet", columns=FILE_COLUMNS)
        known = dict(zip(there["state"], there["sha256"], strict=True))
    rows = []
    for task in tasks:
        try:
            with task.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                of = json.dumps([task.name, stat.st_size, stat.st_mtime_ns])
                state = hashlib.sha256(of.encode()).hexdigest()
                rows.append((state, known.get(state) or hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError:  # reported, with all others, when it is read
            rows.append(("", ""))
    return pd.DataFrame(rows, columns=FILE_COLUMNS)


def _update_states(folder: Path, files: pd.DataFrame) -> bool:
    """Keep the files' present states in the store there (a copied cohort has other dates); False if it is damaged."""
    path = folder / "patients.parquet"
    try:
        there = pd.read_parquet(path)
    except (OSError, ValueError):
        return False
    now = there.assign(**files)
    if not now.equals(there):
        with atomic_path(path) as temporary:
            now.to_parquet(temporary, index=False)
    return True


def _fingerprint(tasks: list[Task], settings: dict[str, Any], digests: pd.Series) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, VERSION, settings], sort_keys=True).encode())
    for task, content in zip(tasks, digests, strict=True):
        # Lengths first, so that no two different cohorts give the same run of bytes.
        digest.update(json.dumps([task.patient_id, task.name, len(task.boxes)]).encode())
        digest.update(task.boxes.tobytes() + task.index.tobytes())
        digest.update(bytes.fromhex(content) or b"missing")
    return digest.hexdigest()


def _write(folder: Path, plan: _Plan, *, workers: int, progress: bool) -> None:
    tasks, settings = plan.tasks, plan.settings
    dtype = _common_dtype(tasks)
    if "crops" in settings["inputs"]:
        create_array(folder / "crops.npy", dtype, (len(tasks), N_SLOTS, *settings["crop_shape"]))
        create_array(folder / "crop_sizes.npy", np.int16, (len(tasks), N_SLOTS, 2))
    if "full" in settings["inputs"]:
        create_array(folder / "full.npy", dtype, (len(tasks), *settings["full_shape"]))
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    rows, faults = [], []
    with tqdm(total=len(tasks), desc="radiographs", unit="image", disable=None if progress else True) as bar:
        n = len(chunks)
        for done, wrong in mapped(workers, _write_rows, [folder] * n, chunks, [settings] * n):
            rows += done
            faults += wrong
            bar.update(len(done) + len(wrong))
    if faults:
        raise UserError(faults)
    pd.concat([pd.DataFrame(rows), plan.files], axis=1).to_parquet(folder / "patients.parquet", index=False)
    meta = {"format": FORMAT, "version": VERSION, "fingerprint": plan.fingerprint, "settings": settings}
    meta |= {name: settings[name] for name in ("scale", "resolution", "provenance")}
    write_json(folder / "meta.json", meta | {"bit_depth": dtype.itemsize * 8, "n_patients": len(tasks)})


def _common_dtype(tasks: list[Task]) -> np.dtype:
    """uint8 if every radiograph has 8 bits, uint16 otherwise."""
    dtype = np.dtype(np.uint8)
    for task in tasks:
        if not task.name:
            continue
        with suppress(UserError):  # reported, with all others, when it is read
            dtype = np.promote_types(dtype, source_kind(task.path, name=task.name, windowed=task.windowed)[0])
    return dtype


def _write_rows(folder: Path, tasks: list[Task], settings: dict[str, Any]) -> tuple[list[dict], list[str]]:
    """Fill these tasks' rows of the arrays; returns a table row for each, and the faults found."""
    rows, faults = [], []
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r+")
        for name in ("crops", "crop_sizes", "full")
        if (folder / f"{name}.npy").exists()
    }
    for task in tasks:
        try:
            rows.append(_write_row(arrays, task, settings))
        except UserError as error:
            faults += error.faults
    return rows, faults


def _write_row(arrays: dict[str, np.ndarray], task: Task, settings: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"patient_id": task.patient_id} | dict.fromkeys(RANGES, np.nan)
    if not task.name:  # the arrays are zeros from the start
        return row | ({"n_shrunk": 0} if "crops" in arrays else {})
    image = read_radiograph(task.path, name=task.name, windowed=task.windowed)
    dtype = next(arrays[name].dtype for name in INPUTS if name in arrays)
    if image.dtype == np.uint8 and dtype == np.uint16:
        image = image.astype(np.uint16) * np.uint16(EIGHT_TO_SIXTEEN)
    if "full" in arrays:
        full = arrays["full"][task.row] = resize(image, tuple(settings["full_shape"]))
        row |= {"full_min": float(full.min()), "full_max": float(full.max())}
    if "crops" in arrays:
        if n_off := int(off_the_picture(task.boxes, image.shape).sum()):
            raise UserError(
                f"boxes of patient {task.patient_id}: less than half of {n_off} of {len(task.boxes)} lies on the "
                f"radiograph of {image.shape[1]}×{image.shape[0]} pixels; are they in other pixels?"
            )
        frame, factor = tuple(settings["crop_shape"]), settings["scale_factor"]
        cut = crop_stack(image, task.boxes, task.index, scale_factor=factor, frame=frame)
        arrays["crops"][task.row], arrays["crop_sizes"][task.row] = cut.stack, cut.sizes
        inside = [_pasted(crop, size) for crop, size in zip(cut.stack, cut.sizes, strict=True) if size[0]]
        if inside:
            row["crops_min"] = float(min(crop.min() for crop in inside))
            row["crops_max"] = float(max(crop.max() for crop in inside))
        row["n_shrunk"] = cut.n_shrunk
    return row


def _pasted(crop: np.ndarray, size: np.ndarray) -> np.ndarray:
    top, left = (crop.shape[0] - size[0]) // 2, (crop.shape[1] - size[1]) // 2
    return crop[top : top + size[0], left : left + size[1]]
