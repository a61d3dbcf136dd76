"""NHANES 2013–2014, vertebral fracture assessment by DXA with deaths until 2019, in the cohort format. No pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_folder

POINTS = [f"{point}_{axis}" for point in ("sa", "sm", "sp", "ia", "im", "ip") for axis in "xy"]
"""The software's six points in the order of our keypoints: superior, inferior; each anterior, middle, posterior."""
DAYS_A_MONTH = 365.25 / 12
YOUNG_WOMEN_NECK = (0.858, 0.120)
"""Mean and SD of the femoral neck's density, g/cm², of white women of 20 to 29 (NHANES III), T-score's reference."""
READABLE = (1, 2)
COVARIATES = {
    "age": "continuous", "woman": "binary", "bmi": "continuous", "t_score": "normalised", "prior_fracture": "binary",
    "parental_hip_fracture": "binary", "smoker": "binary", "glucocorticoids": "binary",
    "rheumatoid_arthritis": "binary", "aortic_calcification": "continuous",
}  # fmt: skip
LABELS = {
    "woman": "Woman",
    "t_score": "Femoral neck density, T-score",
    "aortic_calcification": "Aortic calcification, 0–24",
}


def read_nhanes(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """People, indexed by SEQN, and vertebrae as they are published, but x grows from anterior to posterior.

    Raises
    ------
    UserError
        Where a file is missing.
    """
    files = [folder / "people.csv.gz", folder / "vertebrae.csv.gz"]
    if missing := [f"{path}: not there" for path in files if not path.is_file()]:
        raise UserError(missing)
    people, vertebrae = (pd.read_csv(path) for path in files)
    vertebrae[POINTS[::2]] *= -1
    return people.set_index("SEQN"), vertebrae


def import_nhanes(source: str | Path, out: str | Path) -> None:
    """Write NHANES's readings as a cohort folder: who was readable and followed, with death as the event.

    Parameters
    ----------
    source : path
        Folder with `people.csv.gz` and `vertebrae.csv.gz`.
    out : path
        New or empty folder.

    Notes
    -----
    Survey weights are not used: figures describe the sample. Age is top-coded at 80. 'Prior fracture' is a fracture
    of hip, wrist or spine that the person recalls. Glucocorticoids: prednisone or cortisone ever taken daily. Smoker:
    every day or some days. Rheumatoid arthritis: the kind of arthritis that was named. T-score: femoral neck against
    `YOUNG_WOMEN_NECK`, men too, as the WHO has it. A vertebra of which a coordinate is missing is left out.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already and not empty; give a new folder")
    people, vertebrae = read_nhanes(Path(source))
    followed = people["MORTSTAT"].isin((0, 1)) & (people["PERMTH_EXM"] > 0)
    people = people[followed & people["DXXVFAST"].isin(READABLE)]
    table = pd.DataFrame({"patient_id": "S" + people.index.astype(str)}, index=people.index)
    table["time_days"] = (people["PERMTH_EXM"] * DAYS_A_MONTH).round()
    table["event"] = people["MORTSTAT"].astype(int)
    table["age"], table["bmi"] = people["RIDAGEYR"], people["BMXBMI"]
    table["woman"] = (people["RIAGENDR"] == 2).astype(int)
    mean, sd = YOUNG_WOMEN_NECK
    table["t_score"] = ((people["DXXNKBMD"] - mean) / sd).round(2)
    fractures = people[["OSQ010A", "OSQ010B", "OSQ010C"]]
    table["prior_fracture"] = (fractures == 1).any(axis=1).astype(float).mask((fractures > 2).all(axis=1))
    table["parental_hip_fracture"] = _hip_of_a_parent(people)
    table["smoker"] = people["SMQ040"].isin((1, 2)).astype(int)
    table["glucocorticoids"] = _yes(people["OSQ130"])
    table["rheumatoid_arthritis"] = ((people["MCQ160A"] == 1) & (people["MCQ195"] == 2)).astype(int)
    table["aortic_calcification"] = people["DXXAAC24"]
    about = {
        "provenance": "real",
        "outcome": "death from any cause",
        "outcome_includes_death": True,
        "covariates": COVARIATES,
        "labels": LABELS,
        "missing_covariates": "impute",
        "description": "NHANES 2013–2014: readings of lateral spine DXA, no pixels; deaths until 2019; unweighted",
    }
    with atomic_folder(out) as temporary:
        table.to_csv(temporary / "cohort.csv", index=False)
        _boxes(vertebrae, people.index).to_csv(temporary / "vertebrae.csv", index=False)
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        (temporary / "cohort.yaml").write_text(text, encoding="utf-8")


def _yes(answers: pd.Series) -> pd.Series:
    """1 for yes, 0 for no, NaN where it is not known."""
    return answers.map({1: 1.0, 2: 0.0})


def _hip_of_a_parent(people: pd.DataFrame) -> pd.Series:
    """OSQ150 asks whether a parent had osteoporosis, OSQ170 and OSQ200 whether mother and father broke a hip."""
    asked = people[["OSQ170", "OSQ200"]]
    return (asked == 1).any(axis=1).astype(float).mask((asked > 2).all(axis=1))


def _boxes(vertebrae: pd.DataFrame, people: pd.Index) -> pd.DataFrame:
    """`vertebrae.csv` in the software's pixels, from above and the left of each person's own points."""
    rows = vertebrae[vertebrae["SEQN"].isin(people) & vertebrae[POINTS].notna().all(axis=1)].reset_index(drop=True)
    points = rows[POINTS].to_numpy(float).reshape(-1, 6, 2)
    points -= pd.DataFrame(points.min(axis=1)).groupby(rows["SEQN"]).transform("min").to_numpy()[:, None]
    table = pd.DataFrame({"patient_id": "S" + rows["SEQN"].astype(str), "level": rows["level"]})
    table[BOX_COLUMNS] = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).round(1)
    table["score"] = 1.0
    table[KEYPOINT_COLUMNS] = points.reshape(-1, 12).round(1)
    return table
