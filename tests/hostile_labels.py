"""More hostile cohorts: names of files, columns, keys and ids that are nearly right; paths, links, faults alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile import Case, N, called, cell, column, edited, link, rows, setting


def renamed(old: str, new: str) -> Callable[[Path], None]:
    """Call a file or folder otherwise."""
    return lambda folder: (folder / old).rename(folder / new)


def both(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    """One change after the other."""
    return lambda folder: [change(folder) for change in changes]


def archived(folder: Path, to: str | None = None) -> None:
    """Radiographs in an archive beside the cohort, to which its folder `images` is a link that the settings allow."""
    archive = folder.parent / "archive"
    shutil.rmtree(archive, ignore_errors=True)
    shutil.move(folder / "images", archive)
    (folder / "images").symlink_to(archive)
    setting(image_archive=to or str(archive))(folder)


CASES = [
    Case("boxes in capitals", renamed("vertebrae.csv", "Vertebrae.csv"), "Vertebrae.csv: not read under this name; rename it to vertebrae.csv"),
    Case("boxes with a slip of the pen", renamed("vertebrae.csv", "vertebra.csv"), "rename it to vertebrae.csv"),
    Case("boxes downloaded twice", renamed("vertebrae.csv", "vertebrae (1).csv"), "rename it to vertebrae.csv"),
    Case("boxes in a workbook", renamed("vertebrae.csv", "vertebrae.xlsx"), "save it as vertebrae.csv"),
    Case("two files of boxes", lambda f: shutil.copy(f / "vertebrae.csv", f / "Vertebrae.csv"), "lies beside vertebrae.csv, which would be read; keep one"),
    Case("corrections with another dash", renamed("vertebrae.csv", "vertebrae-corrections.csv"), "rename it to vertebrae_corrections.csv"),
    Case("settings with a short suffix", renamed("cohort.yaml", "cohort.yml"), "cohort.yml: not read under this name; rename it to cohort.yaml"),
    Case("settings with a text editor's suffix", renamed("cohort.yaml", "cohort.yaml.txt"), "rename it to cohort.yaml"),
    Case("a table in capitals", renamed("cohort.csv", "Cohort.csv"), "holds no cohort.csv; Cohort.csv lies there: rename it to cohort.csv"),
    Case("a table of another name", renamed("cohort.csv", "patients.csv"), "holds no cohort.csv; patients.csv lies there: rename it to cohort.csv"),
    Case("a backup beside the table", lambda f: shutil.copy(f / "cohort.csv", f / "cohort_backup.csv"), "no faults", 0),
    Case("a key given twice inside another", edited(lambda t: t + "\nlabels: {age: A, smoker: S, age: B}\n", "cohort.yaml"), "'age': given twice"),
    Case("a key given twice in other words", edited(lambda t: t + "\nlabels: {yes: A, true: B}\n", "cohort.yaml"), "'true', also written 'yes': given twice"),
    Case("an id in other capitals", called("p004"), "'p004' and 'P004' differ only by capitals"),
    Case("an id with an invisible character", called("P004\u200b"), "'P004\\u200b' and 'P004' differ only by capitals"),
    Case("an id composed in another way", both(called("caf\u00e9"), lambda f: [rows(lambda t: t.replace({"patient_id": {"P004": "cafe\u0301"}}), file)(f) for file in ("cohort.csv", "vertebrae.csv")]), "'caf\\xe9' and 'cafe\\u0301' differ only by"),
    Case("an id that cannot be seen", cell("patient_id", "\u200b"), "must be given"),
    Case("boxes of patients in other capitals", rows(lambda t: t.assign(patient_id=t["patient_id"].str.lower()), "vertebrae.csv"), "not a patient of the cohort (is 'P000' meant?) (and 39 more like this: "),
    Case("the column of images in capitals", edited(lambda t: t.replace("image", "Image", 1)), "no column 'image' (for image); is 'Image' meant?"),
    Case("a column of images that is mapped to nothing", setting(columns={"image": "FILE"}), "no column 'FILE' (for image)"),
    Case("paths with backslashes", column("image", lambda t: t["image"].str.replace("/", "\\")), "with / in place of \\ (and 39 more like this: "),
    Case("a folder of images in capitals", renamed("images", "Images"), "is 'Images/0.png' meant? (and 39 more like this: "),
    Case("a path with another suffix", cell("image", "images/3.jpg"), "no such file in the cohort folder; is 'images/3.png' meant?"),
    Case("a link to an archive that nothing allows", both(archived, setting()), "name that folder in cohort.yaml as `image_archive`"),
    Case("a link to an archive that is allowed", archived, "no faults", 0),
    Case("a link to another place than the archive", both(archived, setting(image_archive="/usr/share")), "must not leave the cohort folder or /usr/share (image_archive)"),
    Case("a link to a file of the system beside an archive", both(archived, setting(image_archive="/usr/share"), lambda f: (f / "images").unlink(), lambda f: (f / "images").mkdir(), lambda f: link("/etc/passwd")(f / "images/3.png")), "must not leave the cohort folder or /usr/share (image_archive)"),
    Case("an archive that is everything", setting(image_archive="/"), "cohort.yaml, image_archive: '/'; must be the whole path of a folder"),
    Case("an archive by a path that is not whole", setting(image_archive="../archive"), "must be the whole path of a folder"),
    Case("forty ages that are words", column("age", lambda t: [f"age {k}" for k in range(N)]), "must be a number (and 39 more like this: 'age 1', 'age 2' …; all: rows 2 to 41)"),
    Case("forty radiographs that cannot be read", lambda f: [(f / f"images/{k}.png").write_text("x") for k in range(N)], "(and 39 more like this: images/1.png, images/2.png …)"),
    Case("y and n, told once", column("smoker", lambda t: np.where(t["smoker"] == 1, "y", "n")), "column smoker: holds n and y"),
]  # fmt: skip
