"""What is checked of a cohort's other files: the radiographs it names, and a simulated cohort's truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fracsurv.utils.errors import row_faults

MIN_SHARE_WITH_IMAGE = 0.5
"""Share of the patients that must have a radiograph where the others are masked."""


def check_images(
    folder: Path, values: pd.DataFrame, file: str, faults: list[str], *, empty_allowed: bool = False
) -> None:
    """Every patient has a file inside the folder, or none if that is allowed, or there is no column `image`."""
    if "image" not in values:
        return
    wrong: list[tuple[int, str]] = []
    for row, path in values["image"].fillna("").astype(str).items():
        if not path.strip():
            if not empty_allowed:
                what = (
                    "empty; give every patient an image, leave the column out, or set `missing_images` to exclude or "
                    "mask in cohort.yaml"
                )
                wrong.append((row, what))
        elif not is_inside(folder, path):
            wrong.append((row, f"{path!r}; must not leave the cohort folder"))
        elif not (folder / path).is_file():
            wrong.append((row, f"{path!r}; no such file in the cohort folder"))
    faults += row_faults(file, ((row, f"column image: {what}") for row, what in wrong))


def has_image_entry(table: pd.DataFrame) -> pd.Series:
    """Whose field `image` is filled, bool."""
    return table["image"].fillna("").astype(str).str.strip() != ""


def kept_rows(table: pd.DataFrame, missing_images: str, file: str, faults: list[str]) -> pd.Series:
    """Who stays in the cohort, bool: everybody, or if the others are to be excluded, who has a radiograph."""
    if missing_images == "exclude":
        kept = has_image_entry(table)
        if kept.any():
            return kept
        faults.append(f"{file}, column image: empty for every patient; leave the column out")
    return pd.Series(True, table.index)


def check_masked(values: pd.DataFrame, has_image: pd.Series, file: str, faults: list[str], *, learnt: bool) -> None:
    """Enough patients have a radiograph for the others to be masked: half of all, and of those to train on.

    Where nothing is learnt from these patients, one radiograph is enough.
    """
    if not has_image.any():
        faults.append(f"{file}, column image: empty for every patient; leave the column out")
        return
    held_out = values["split"].isin(["test", "external"]) if "split" in values else pd.Series(False, values.index)
    for who, among in (("patients", has_image), ("patients to train on", has_image[~held_out])):
        if learnt and len(among) and among.mean() < MIN_SHARE_WITH_IMAGE:
            faults.append(
                f"{file}, column image: filled for {among.sum():,} of {len(among):,} {who}; with `missing_images: "
                "mask` at least half must have a radiograph; set it to exclude, and the others are left out"
            )
            return


def check_boxes_have_image(boxes: pd.DataFrame | None, without: set[str], file: str, faults: list[str]) -> None:
    """Nobody who has no radiograph has boxes; the index of `boxes` is the row of the file."""
    if boxes is None:
        return
    rows = boxes.index[boxes["patient_id"].isin(without)]
    faults += row_faults(
        file,
        (
            (row, f"column patient_id: {boxes['patient_id'][row]!r}; has no radiograph for a box to lie on: give the "
             "image, or take the row out")
            for row in rows
        ),
    )  # fmt: skip


def is_inside(folder: Path, path: str) -> bool:
    """Whether a cohort's path stays in its folder."""
    try:
        return (folder / path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file can have
        return False


def read_truth(folder: Path, patients: pd.Series, faults: list[str]) -> pd.DataFrame | None:
    """`truth.parquet` in the order of `patients`, indexed by them; None without the file, or with faults."""
    path = folder / "truth.parquet"
    if not path.exists():
        return None
    try:
        truth = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        faults.append(f"truth.parquet: not readable ({type(error).__name__})")
        return None
    if missing := [name for name in ("patient_id", "log_hazard") if name not in truth]:
        faults.append(f"truth.parquet: no column {', '.join(missing)}")
        return None
    truth = truth.set_index(truth["patient_id"].astype(str).str.strip()).drop(columns="patient_id")
    truth = truth[truth.index.isin(patients)]
    twice = truth.index[truth.index.duplicated()]
    absent = patients[~patients.isin(truth.index)]
    if len(twice):
        faults.append(f"truth.parquet: patient_id {twice[0]!r} stands in more than one row")
    elif len(absent):
        faults.append(f"truth.parquet: no row for {len(absent)} of the cohort's patients, {absent.iloc[0]} first")
    elif not np.isfinite(pd.to_numeric(truth["log_hazard"], errors="coerce").astype(float)).all():
        faults.append("truth.parquet: log_hazard must be a number in every row")
    else:
        return truth.loc[patients]
    return None
