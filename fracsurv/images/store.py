"""The memory-mapped image store: every radiograph read once, its crops and full image ready for training.

A store is a folder: `crops.npy` (n, 13, H, W), `crop_sizes.npy` (n, 13, 2), `full.npy` (n, h, w), `patients.parquet`
(ranges and slot counts) and `meta.json`. It is built in a temporary folder and renamed when whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from fracsurv.cohort.boxes import BOX_COLUMNS, N_SLOTS
from fracsurv.cohort.cohort import Cohort
from fracsurv.images.crops import crop_shape
from fracsurv.images.radiographs import full_image_shape
from fracsurv.images.store_files import files_of, lock_of, remember
from fracsurv.images.store_rows import (
    COUNTS,
    INPUTS,
    RANGES,
    Task,
    common_dtype,
    write_rows,
)
from fracsurv.images.stored_array import StoredArray, create_array
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import (
    atomic_folder,
    locked,
    remove_leftovers,
    write_json,
)
from fracsurv.utils.workers import mapped
from fracsurv.vertebrae.slots import MAX_HEIGHT

FORMAT = "fracsurv image store"
VERSION = 2
"""Raised whenever the same cohort would give other pixels."""
OPENING_TRIES, OPENING_PAUSE_S = 5, 0.05
_CHUNK = 16


@dataclass(frozen=True)
class ImageStore:
    """An open store; its arrays are memory-mapped, so a batch costs its own rows alone.

    Attributes
    ----------
    patient_ids : list of str
        Row order of everything here (the cohort's).
    crops : memmap (n, 13, H, W) or None
        uint8 or uint16, zero-padded to the CNN's frame. The ViT's square frame is the same stack, padded more.
    crop_sizes : ndarray (n, 13, 2) int16 or None
        Height and width of each crop in its frame, 0 = empty slot.
    full : memmap (n, h, w) or None
        Resized, not padded.
    ranges : DataFrame, indexed by patient
        crops_min and crops_max over the pixels inside boxes, full_min and full_max; NaN where there are none.
        The row of a patient without a radiograph is all zeros, with no range and no crop.
    slots : DataFrame, indexed by patient
        How many boxes each slot rule touched, and n_shrunk; empty without crops.
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
    slots: pd.DataFrame
    meta: dict[str, Any]
    files: dict[str, StoredArray] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> ImageStore:
        """Open a store made by `build_store`; UserError if it is none or of another version."""
        folder = Path(folder)
        for _ in range(OPENING_TRIES):
            with suppress(FileNotFoundError):  # no store, or one that is being replaced: the next look shows which
                return cls._opened(folder)
            time.sleep(OPENING_PAUSE_S)
        raise UserError(f"{folder}: no image store; `fracsurv prepare` makes one")

    @classmethod
    def _opened(cls, folder: Path) -> ImageStore:
        """All files looked up in one folder held open, so that they are of one store should it be replaced."""
        directory = os.open(folder, os.O_RDONLY)
        try:
            meta = _read_meta(folder, directory)
            if meta is None:
                raise FileNotFoundError
            if meta["version"] != VERSION:
                raise UserError(
                    f"{folder}: image store of version {meta['version']}, not {VERSION}; prepare it again"
                )
            inputs = meta["settings"]["inputs"]
            names = [*inputs, *(["crop_sizes"] if "crops" in inputs else [])]
            files = {name: StoredArray(folder / f"{name}.npy", directory) for name in names}
            with os.fdopen(os.open("patients.parquet", os.O_RDONLY, dir_fd=directory), "rb") as file:
                patients = pd.read_parquet(file).set_index("patient_id")
        finally:
            os.close(directory)
        arrays = {name: files[name].mapped if name in files else None for name in ("crops", "crop_sizes", "full")}
        return cls(
            patient_ids=patients.index.tolist(),
            ranges=patients[RANGES],
            slots=patients[[name for name in COUNTS if name in patients]],
            meta=meta,
            files=files,
            **arrays,
        )

    def __len__(self) -> int:
        return len(self.patient_ids)


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

    "Nothing" is a SHA-256 over the bytes of every radiograph, the boxes, the settings and the format's version. A
    radiograph of the size and time of change that the store there knows is not read again for it.
    Memory stays constant: each row is written as soon as it is made. The source's bit depth is kept: uint8
    if all radiographs have 8 bits; else uint16, with the 8-bit ones times 257 (255 becomes 65535).

    Parameters
    ----------
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
    tasks, settings, files, fingerprint = _plan(cohort, folder, scale, inputs)
    remove_leftovers(folder.parent)
    if _is_current(folder, files, fingerprint):
        return folder
    # several processes may ask for it at once: one builds it, the others wait
    with locked(lock_of(folder)):
        if _is_of(folder, fingerprint):
            return folder
        with atomic_folder(folder, replace=True) as temporary:
            meta = {"format": FORMAT, "version": VERSION, "fingerprint": fingerprint, "settings": settings}
            meta |= {name: settings[name] for name in ("scale", "resolution", "provenance")}
            _write(temporary, tasks, settings, files, meta, workers=workers, progress=progress)
    return folder


def fingerprint_of(cohort: Cohort, folder: str | Path, *, scale: float, inputs: Sequence[str] | None = None) -> str:
    """The fingerprint of the store that `build_store` would find or make there; errors as there."""
    _, _, files, fingerprint = _plan(cohort, Path(folder), scale, inputs)
    _is_current(Path(folder), files, fingerprint)
    return fingerprint


def is_built(cohort: Cohort, folder: str | Path, *, scale: float, inputs: Sequence[str] | None = None) -> bool:
    """Whether `build_store` would find its store there; errors as there."""
    return _is_of(Path(folder), fingerprint_of(cohort, folder, scale=scale, inputs=inputs))


def _is_current(folder: Path, files: pd.DataFrame, fingerprint: str) -> bool:
    """Whether the store there is of this fingerprint; if so, it remembers its files' states."""
    if current := _is_of(folder, fingerprint):
        remember(folder, files, lambda: _is_of(folder, fingerprint))
    return current


def _plan(
    cohort: Cohort, folder: Path, scale: float, inputs: Sequence[str] | None
) -> tuple[list[Task], dict[str, Any], pd.DataFrame, str]:
    """What a store is made from and how, its files (`files_of`), and the fingerprint of all."""
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
        "max_height": MAX_HEIGHT * cohort.resolution,
        "scale_factor": scale / cohort.resolution,
    }
    if cohort.windowed:
        settings["dicom_values"] = "windowed"
    tasks = _tasks(cohort, with_boxes="crops" in inputs)
    files = files_of(tasks, folder)
    return tasks, settings, files, _fingerprint(tasks, settings, files["sha256"])


def _is_of(folder: Path, fingerprint: str) -> bool:
    meta = _read_meta(folder)
    return meta is not None and meta["fingerprint"] == fingerprint


def _checked_inputs(cohort: Cohort, inputs: Sequence[str] | None, folder: Path) -> tuple[str, ...]:
    if "image" not in cohort.table:
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


def _read_meta(folder: Path, directory: int | None = None) -> dict[str, Any] | None:
    """A store's meta data; None where there is none. `directory`: the folder, held open."""
    try:
        name = folder / "meta.json" if directory is None else "meta.json"
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=directory), encoding="utf-8") as file:
            meta = json.load(file)
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and meta.get("format") == FORMAT else None


def _tasks(cohort: Cohort, *, with_boxes: bool) -> list[Task]:
    boxes: dict[str, np.ndarray] = {}
    if with_boxes and cohort.vertebrae is not None:
        for patient, rows in cohort.vertebrae.groupby("patient_id", sort=False):
            boxes[str(patient)] = rows[BOX_COLUMNS].to_numpy(float)
    none = np.zeros((0, 4))
    return [
        Task(row, patient, cohort.folder / image, image, boxes.get(patient, none), cohort.windowed)
        for row, (patient, image) in enumerate(zip(cohort.table["patient_id"], cohort.table["image"], strict=True))
    ]


def _fingerprint(tasks: list[Task], settings: dict[str, Any], digests: pd.Series) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, VERSION, settings], sort_keys=True).encode())
    for task, content in zip(tasks, digests, strict=True):
        # Lengths first, so that no two different cohorts give the same run of bytes.
        digest.update(json.dumps([task.patient_id, task.name, len(task.boxes)]).encode())
        digest.update(task.boxes.tobytes())
        digest.update(bytes.fromhex(content) or b"missing")
    return digest.hexdigest()


def _write(
    folder: Path,
    tasks: list[Task],
    settings: dict[str, Any],
    files: pd.DataFrame,
    meta: dict[str, Any],
    *,
    workers: int,
    progress: bool,
) -> None:
    dtype = common_dtype(tasks)
    if "crops" in settings["inputs"]:
        shape = (len(tasks), N_SLOTS, *settings["crop_shape"])
        create_array(folder / "crops.npy", dtype, shape)
        create_array(folder / "crop_sizes.npy", np.int16, (len(tasks), N_SLOTS, 2))
    if "full" in settings["inputs"]:
        shape = (len(tasks), *settings["full_shape"])
        create_array(folder / "full.npy", dtype, shape)
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    with tqdm(total=len(tasks), desc="radiographs", unit="image", disable=None if progress else True) as bar:
        n = len(chunks)
        for done, wrong in mapped(workers, write_rows, [folder] * n, chunks, [settings] * n):
            rows += done
            faults += wrong
            bar.update(len(done) + len(wrong))
    if faults:
        raise UserError(faults)
    pd.concat([pd.DataFrame(rows), files], axis=1).to_parquet(folder / "patients.parquet", index=False)
    write_json(folder / "meta.json", meta | {"bit_depth": dtype.itemsize * 8, "n_patients": len(tasks)})
