"""NHANES's readings of lateral spine DXA in the cohort format."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.boxes import KEYPOINT_COLUMNS, LEVELS
from fracsurv.cohort.cohort import read_cohort
from fracsurv.importers.nhanes import POINTS, import_nhanes
from fracsurv.utils.errors import UserError

SHARED = Path(os.environ.get("FRACSURV_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = SHARED / "nhanes-vfa"
ANSWERS = {
    "RIAGENDR": 2, "RIDAGEYR": 61, "BMXBMI": 25.0, "DXXNKBMD": 0.738, "DXXAAC24": 3.0, "DXXVFAST": 1, "OSQ010A": 2,
    "OSQ010B": 2, "OSQ010C": 2, "OSQ130": 2, "OSQ170": 2, "OSQ200": 2, "SMQ040": np.nan, "MCQ160A": 2,
    "MCQ195": np.nan, "MORTSTAT": 0, "PERMTH_EXM": 60,
}  # fmt: skip


@pytest.fixture
def source(tmp_path) -> Path:
    """Six people with the codes of NHANES, and thirteen vertebrae each, drawn as it draws them (x grows forwards)."""
    changes = [
        {}, {"OSQ010B": 1, "OSQ170": 1, "SMQ040": 2, "OSQ130": 1, "MCQ160A": 1, "MCQ195": 2, "MORTSTAT": 1},
        {"OSQ010A": 9, "OSQ010B": 9, "OSQ010C": 9, "OSQ130": 9, "OSQ170": 9, "OSQ200": 7, "DXXNKBMD": np.nan},
        {"DXXVFAST": 3}, {"PERMTH_EXM": np.nan}, {"RIAGENDR": 1, "MORTSTAT": 1, "OSQ200": 1, "OSQ010C": 2},
    ]  # fmt: skip
    people = pd.DataFrame([{"SEQN": 100 + k, **ANSWERS, **change} for k, change in enumerate(changes)])
    points = np.array([[40.0, 0], [20, 1], [0, 2], [40, 30], [20, 29], [0, 32]])  # superior, inferior: a, m, p
    rows = [
        {"SEQN": person, "level": level, "genant_vfa": 0.0}
        | dict(zip(POINTS, (points + np.array([0, 40 * k])).ravel(), strict=True))
        for person in people["SEQN"]
        for k, level in enumerate(LEVELS)
    ]
    folder = tmp_path / "nhanes"
    folder.mkdir()
    people.to_csv(folder / "people.csv.gz", index=False)
    vertebrae = pd.DataFrame(rows)
    vertebrae.loc[3, "sm_x"] = np.nan
    vertebrae.to_csv(folder / "vertebrae.csv.gz", index=False)
    return folder


def test_people_and_points_become_a_cohort(source, tmp_path):
    out = tmp_path / "cohort"
    done = CliRunner().invoke(app, ["import", "nhanes-vfa", str(source), str(out)])
    assert done.exit_code == 0, done.output
    cohort = read_cohort(out)
    table = cohort.table.set_index("patient_id")
    assert (cohort.provenance, cohort.outcome, cohort.outcome_includes_death) == (
        "real",
        "death from any cause",
        True,
    )
    assert list(table.index) == ["S100", "S101", "S102", "S105"]  # who was readable and followed
    assert table["time"].tolist() == [round(60 * 365.25 / 12)] * 4
    assert table["event"].tolist() == [False, True, False, True]
    assert table["woman"].tolist() == [1, 1, 1, 0]
    assert table["t_score"].tolist() == pytest.approx([-1, -1, np.nan, -1], nan_ok=True)  # (0.738 − 0.858) / 0.120
    of = ["prior_fracture", "parental_hip_fracture", "smoker", "glucocorticoids", "rheumatoid_arthritis"]
    assert table.loc["S100", of].tolist() == [0] * 5
    assert table.loc["S101", of].tolist() == [1] * 5
    unknown = table.loc["S102", of].isna()
    assert unknown[unknown].index.tolist() == ["prior_fracture", "parental_hip_fracture", "glucocorticoids"]
    assert table.loc["S105", of].tolist() == [0, 1, 0, 0, 0]
    assert cohort.vertebrae.groupby("patient_id").size().tolist() == [12, 13, 13, 13]  # one lacks a coordinate
    first = cohort.vertebrae[KEYPOINT_COLUMNS].to_numpy().reshape(-1, 6, 2)[0]
    np.testing.assert_array_equal(first[:3], [[0, 0], [20, 1], [40, 2]])  # anterior at the left
    assert cohort.has_keypoints


def test_what_is_missing_or_taken_is_refused(source, tmp_path):
    (source / "people.csv.gz").unlink()
    with pytest.raises(UserError, match=r"people\.csv\.gz: not there"):
        import_nhanes(source, tmp_path / "cohort")
    with pytest.raises(UserError, match="not empty"):
        import_nhanes(source, source)


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data/nhanes-vfa (or $FRACSURV_SHARED_DATA)")
def test_the_real_readings(tmp_path):
    import_nhanes(REAL, tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    assert (len(cohort), int(cohort.table["event"].sum()), len(cohort.vertebrae)) == (2253, 194, 28880)
