"""What the networks are given: a few radiographs with their boxes, and the stacks of crops of the same patients."""

from __future__ import annotations

import numpy as np

from fracsurv import plots
from fracsurv.cohort.boxes import BOX_COLUMNS, N_SLOTS
from fracsurv.config import derive_seed
from fracsurv.detection.locate import boxes_line
from fracsurv.images.radiographs import read_patient_radiograph, resize
from fracsurv.report.findings.finding import Finding
from fracsurv.study.labels import stamp
from fracsurv.study.run import Run
from fracsurv.utils.formatting import counted
from fracsurv.vertebrae.slots import MAX_HEIGHT

N_SHOWN = 3
HIGHEST = 600
"""Pixels: a radiograph is shown no higher, or a page would carry megabytes of it."""


def radiographs(run: Run) -> Finding | None:
    """A few radiographs with the boxes of their vertebrae and the slots they take; None without radiographs."""
    if not run.cohort.has_images:
        return None
    rows = _drawn(run)
    images = [read_patient_radiograph(run.cohort, run.cohort.table["image"].iloc[row]) for row in rows]
    ids = run.cohort.table["patient_id"].iloc[rows]
    found = run.cohort.vertebrae
    boxes = [found.loc[found["patient_id"] == patient, BOX_COLUMNS].to_numpy(float) for patient in ids]
    limit = MAX_HEIGHT * run.cohort.resolution
    index = run.cohort.slot_index[rows]
    smaller = min(1.0, HIGHEST / max(map(len, images)))
    shapes = [(max(1, round(smaller * img.shape[0])), max(1, round(smaller * img.shape[1]))) for img in images]
    figure = plots.radiograph_with_slots(
        [resize(image, shape) for image, shape in zip(images, shapes, strict=True)],
        [smaller * box for box in boxes],
        index,
        smaller * limit,
        _titles(rows),
        provenance=stamp(run),
    )
    filled = ", ".join(str((slot >= 0).sum()) for slot in index)
    said = (
        f"{counted(len(rows), 'patient')} drawn at random. A vertebra stands in {filled} of their {N_SLOTS} slots. "
        f"{boxes_line(run.cohort)}"
    )
    return Finding("radiographs", figure, "Radiographs of a few patients with the boxes of their vertebrae", said)


def crops(run: Run) -> Finding:
    """The stacks of 13 crops of the same patients, as they are stored."""
    rows, store = _drawn(run), run.store("crops")
    figure = plots.crop_montage(store.files["crops"].read(rows), _titles(rows), provenance=stamp(run))
    height, width = store.crops.shape[2:]
    said = (
        f"Of the same patients, what a network on crops is given, before augmentation: {N_SLOTS} frames of "
        f"{height}×{width} pixels, T4 at the left to L4 at the right, {store.meta['scale']:g} of the protocol's "
        "resolution."
    )
    return Finding("crops", figure, "Stacks of 13 vertebral crops of a few patients", said)


def _drawn(run: Run) -> np.ndarray:
    rows = np.flatnonzero(run.cohort.has_image)
    rng = np.random.default_rng(derive_seed(run.profile.seed, "shown"))
    return rng.choice(rows, min(N_SHOWN, len(rows)), replace=False)


def _titles(rows: np.ndarray) -> list[str]:
    """Without the patients' ids, which are nobody's business who reads a report."""
    return [f"patient {chr(ord('A') + i)}" for i in range(len(rows))]
