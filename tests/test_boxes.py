"""Where boxes come from: given, found by the shipped finder, corrected by hand; and what graded vertebrae come to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.boxes import BOX_COLUMNS, KEYPOINT_COLUMNS, LEVELS, SCALE_COLUMNS, overlapping_pairs
from fracsurv.cohort.cohort import read_cohort
from fracsurv.detection import finder as finder_module
from fracsurv.detection import locate as module
from fracsurv.detection.locate import SHIPPED, boxes_line, correction_counts, locate_vertebrae
from fracsurv.detection.scores import compare
from fracsurv.images.plausibility import corrections_off_radiographs
from fracsurv.images.radiographs import with_slots
from fracsurv.simulate import simulate_cohort
from fracsurv.study.scaling import standardise
from fracsurv.utils.errors import UserError
from fracsurv.vertebrae.covariates import VERTEBRAL, vertebral_covariates
from fracsurv.vertebrae.morphometry import morphometry
from tests.conftest import tabular, write_cohort

CORRECTIONS = "vertebrae_corrections.csv"
HEADER = "patient_id,x_min,y_min,x_max,y_max\n"


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Twelve simulated patients with radiographs and without boxes."""
    folder = tmp_path_factory.mktemp("plain") / "cohort"
    simulate_cohort(folder, patients=12, seed=3, resolution=0.25, progress=False)
    return folder


@pytest.fixture(scope="module")
def located(plain, tmp_path_factory):
    """The same with boxes that the shipped finder found, and the folder in which they are kept."""
    out = tmp_path_factory.mktemp("located")
    return locate_vertebrae(read_cohort(plain), out, progress=False), out


def spine(n: int, top: float = 10.0) -> np.ndarray:
    """`n` boxes of 30×20 pixels below one another."""
    y = top + 25 * np.arange(n)
    return np.stack([np.full(n, 20.0), y, np.full(n, 50.0), y + 20], axis=1)


def block_of(cohort) -> np.ndarray:
    """Vertebral covariates, the slots decided anew."""
    return vertebral_covariates(with_slots(cohort))


def copied(folder: Path, to: Path) -> Path:
    """A copy of a cohort whose radiographs count as the same ones."""
    return shutil.copytree(folder, to, copy_function=shutil.copy2)


def of(patient: str, rows: pd.DataFrame) -> pd.DataFrame:
    """One patient's rows."""
    return rows[rows["patient_id"] == patient]


# corrections


def test_corrections_replace_all_boxes_of_the_patients_they_list(tmp_path):
    table = tabular(30)
    table["image"] = "i.png"
    folder = write_cohort(tmp_path / "c", table)
    Image.new("L", (60, 60)).save(folder / "i.png")
    (folder / "vertebrae.csv").write_text(HEADER + "P000,1,1,5,9\nP000,1,11,5,19\nP001,1,1,5,9\nP002,1,1,5,9\n")
    (folder / CORRECTIONS).write_text(HEADER + "P000,1,1,5,10\nP000,1,30,5,39\nP002,,,,\n")
    cohort = read_cohort(folder)
    assert cohort.vertebrae[["patient_id", *BOX_COLUMNS]].to_numpy().tolist() == [
        ["P001", 1, 1, 5, 9],
        ["P000", 1, 1, 5, 10],
        ["P000", 1, 30, 5, 39],
    ]
    assert cohort.uncorrected["patient_id"].tolist() == ["P000", "P000", "P002"]
    assert correction_counts(cohort) == {"patients": 2, "kept": 1, "moved": 0, "added": 1, "removed": 2}
    assert "patients 2; boxes kept 1, moved 0, added 1, removed 2." in boxes_line(cohort)
    without = read_cohort(folder).fingerprint()
    (folder / CORRECTIONS).unlink()
    assert read_cohort(folder).fingerprint() != without
    assert correction_counts(read_cohort(folder))["patients"] == 0


def test_faulty_corrections_are_listed_with_the_rest(tmp_path):
    folder = write_cohort(tmp_path / "c", tabular(30))
    (folder / CORRECTIONS).write_text(HEADER + "nobody,1,1,5,9\nP001,1,1,5,\nP002,5,1,5,9\n")
    with pytest.raises(UserError) as raised:
        read_cohort(folder)
    rows = [fault.partition(":")[0].partition(",")[0] for fault in raised.value.faults]
    assert rows == [*(f"{CORRECTIONS} row {row}" for row in (2, 3, 4)), CORRECTIONS]
    assert "'nobody'" in raised.value.faults[0]
    assert "no column `image`" in raised.value.faults[3]


def test_corrections_in_other_pixels_are_refused_before_anything_is_written(plain, tmp_path):
    folder = copied(plain, tmp_path / "cohort")
    (folder / CORRECTIONS).write_text(HEADER)
    assert read_cohort(folder).corrections is None  # an empty file corrects nothing
    rows = ["P00001,10,20,40,40", "P00001,900,1500,1000,1600", "P00002,,,,", "P00001,-40,0,30,30"]
    rows += ["P00001,-29,0,30,30"]  # just on it
    (folder / CORRECTIONS).write_text(HEADER + "\n".join(rows) + "\n")
    cohort = read_cohort(folder)
    faults = corrections_off_radiographs(cohort)
    assert [fault.partition(":")[0] for fault in faults] == [f"{CORRECTIONS} row {row}" for row in (3, 5)]
    assert corrections_off_radiographs(cohort.of_rows(np.arange(1, 5))) == []
    arguments = ["--profile", "tiny", "--out", str(tmp_path / "out")]
    for command in (["check"], ["prepare"], ["detect", "predict"]):
        about = arguments if command == ["prepare"] else []
        done = CliRunner().invoke(app, [*command, str(folder), *about])
        assert isinstance(done.exception, UserError)
        assert [fault for fault in done.exception.faults if CORRECTIONS in fault] == faults
    assert not (tmp_path / "out").exists()


def test_half_given_and_broken_keypoints_are_faults(tmp_path):
    folder = write_cohort(tmp_path / "c", tabular(30))
    points = ",".join(KEYPOINT_COLUMNS)
    rows = ["P000,1,1,5,9,0.9" + ",3" * 12, "P001,1,1,5,9,high" + ",3" * 12, "P002,1,1,5,9,," + ",3" * 11]
    rows.append("P003,1,1,5,9," + ",3" * 11 + ",1;5")
    (folder / "vertebrae.csv").write_text(f"{HEADER.strip()},score,{points}\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError) as raised:
        read_cohort(folder)
    assert [fault.partition(";")[0] for fault in raised.value.faults] == [
        "vertebrae.csv row 3, column score: 'high'",
        "vertebrae.csv row 5, column y6: '1",
        *(f"vertebrae.csv row {row}: 11 of the 12 keypoint columns are filled" for row in (4, 5)),
    ]


def test_corrected_boxes_keep_the_keypoints_of_the_vertebra_that_they_show(simulated, tmp_path):
    """Else a patient whose boxes were looked after would lose what was measured."""
    folder = copied(simulated, tmp_path / "cohort")
    before = read_cohort(folder)
    first = before.table["patient_id"][0]
    theirs = of(first, before.vertebrae)
    boxes = theirs[["patient_id", *BOX_COLUMNS]].copy()
    boxes[["x_min", "x_max"]] += 1  # moved a little
    boxes.iloc[:-1].to_csv(folder / CORRECTIONS, index=False)  # and the lowest taken out
    after = read_cohort(folder)
    mine = of(first, after.vertebrae)
    np.testing.assert_array_equal(mine[KEYPOINT_COLUMNS], theirs[KEYPOINT_COLUMNS].iloc[:-1])
    np.testing.assert_allclose(block_of(after)[1:], block_of(before)[1:])
    assert np.isfinite(block_of(after)[0]).all()


def test_measured_is_what_has_all_six_points_and_a_height(simulated):
    cohort = read_cohort(simulated)
    whole = block_of(cohort)
    rows = cohort.vertebrae.copy()
    rows.loc[rows.index[::2], ["x2", "y2"]] = np.nan  # the middle point of every other one
    some = block_of(replace(cohort, vertebrae=rows))
    assert np.abs(some[:, 2:] - whole[:, 2:]).max() < 0.2  # means over fewer vertebrae, not sums over fewer
    flat = cohort.vertebrae.copy()
    flat.loc[flat.index[5], ["x6", "y6"]] = flat.loc[flat.index[5], ["x3", "y3"]].to_numpy()
    assert np.isfinite(block_of(replace(cohort, vertebrae=flat))).all()


def test_rows_with_vertebral_fractures_need_most_patients_measured(simulated):
    cohort = read_cohort(simulated)
    for n, enough in ((150, True), (120, True), (119, False)):
        known = cohort.vertebrae["patient_id"].isin(cohort.table["patient_id"][:n])
        some = replace(cohort, vertebrae=cohort.vertebrae[known])
        assert (some.n_measured, some.has_keypoints) == (n, enough)
        assert ("30 patients" in boxes_line(some)) == (n == 120)


def test_a_moved_box_is_neither_added_nor_kept(tmp_path):
    before = pd.DataFrame(spine(3), columns=BOX_COLUMNS).assign(patient_id="P000")
    after = pd.DataFrame(spine(3) + np.array([0, 4, 0, 4]), columns=BOX_COLUMNS).assign(patient_id="P000")
    cohort = replace(read_cohort(write_cohort(tmp_path, tabular(30))), corrections=after, uncorrected=before)
    assert correction_counts(cohort) == {"patients": 1, "kept": 0, "moved": 3, "added": 0, "removed": 0}


def test_overlapping_pairs_are_one_to_one_and_the_best_first():
    first = np.array([[0.0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]])
    second = np.array([[0.0, 1, 10, 11], [0, 0, 10, 10.5], [0, 6, 10, 16]])
    assert overlapping_pairs(first, second) == [(1, 0), (0, 1)]
    assert overlapping_pairs(first, np.zeros((0, 4))) == []


# the shipped finder


def test_the_shipped_finder_is_small_and_says_where_it_comes_from():
    assert SHIPPED.stat().st_size <= 20e6
    finder = finder_module.load_finder(SHIPPED)
    assert finder.keypoints is not None
    assert finder.about["provenance"] == "simulated"
    assert "simulated radiographs" in finder.summary()
    readme = (SHIPPED.parent / "README.md").read_text()
    assert "fracsurv detect train" in readme
    assert f"{finder.about['n_images']:,}" in readme


def test_vertebrae_are_found_once_and_nearly_all_right(located, plain, tmp_path, monkeypatch):
    cohort, out = located
    out = shutil.copytree(out, tmp_path / "out")
    given = read_cohort(plain)
    assert given.vertebrae is None
    result = compare(with_slots(cohort), given.true_vertebrae(), given.truth()).summary()
    assert result["vertebrae_found"] > 0.97
    assert result["patients_with_13_right_slots"] >= 0.75  # 12 patients
    assert result["keypoint_error_share_of_height_mean"] < 0.02
    assert 0.8 < result["coverage_of_90_percent_ellipses"] < 0.98
    assert cohort.boxes_from.startswith("finder that ships with fracsurv (boxes, from ")
    assert set(cohort.vertebrae["level"]) - {""} == set(LEVELS)
    assert cohort.has_keypoints

    def never(*_, **__):
        raise AssertionError("looked again")

    monkeypatch.setattr("fracsurv.detection.locate.find_vertebrae", never)
    again = locate_vertebrae(given, out, progress=False)
    pd.testing.assert_frame_equal(again.vertebrae, cohort.vertebrae)
    assert again.fingerprint() == cohort.fingerprint()
    (out / "vertebrae.csv").unlink()  # an interrupted run leaves no such state, a tidy user may
    with pytest.raises(AssertionError, match="looked again"):
        locate_vertebrae(given, out, progress=False)


def test_a_search_that_was_stopped_goes_on_to_the_same_table(located, plain, tmp_path, monkeypatch):
    _, whole = located
    monkeypatch.setattr("fracsurv.detection.locate.PART", 8)
    find, seen = finder_module.find, []

    def stopped(finder, images):
        seen.append(len(images))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return find(finder, images)

    monkeypatch.setattr("fracsurv.detection.finder.find", stopped)
    other = tmp_path / ".vertebrae.parts.0123456789abcdef"
    other.mkdir()  # of radiographs that are no more
    with pytest.raises(KeyboardInterrupt):
        locate_vertebrae(read_cohort(plain), tmp_path, progress=False)
    assert not (tmp_path / "vertebrae.csv").exists()
    assert len(list(tmp_path.glob(".vertebrae.*/*.parquet"))) == 1
    locate_vertebrae(read_cohort(plain), tmp_path, progress=False)
    assert seen == [8, 4, 4]  # the first eight are not looked at again
    for name in ("vertebrae.csv", "vertebrae.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".vertebrae.lock", "vertebrae.csv", "vertebrae.json"]


def test_a_lesser_processor_finds_the_same_boxes(located, plain, tmp_path):
    find = (
        "import sys; from pathlib import Path; from fracsurv.detection.locate import locate_vertebrae as find; "
        "from fracsurv.cohort.cohort import read_cohort as read; "
        "find(read(sys.argv[1]), Path(sys.argv[2]), progress=False)"
    )
    # oneDNN computes as a processor without AVX-512 and bfloat16 would
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", find, plain, tmp_path], env=environment, check=True)
    theirs = pd.read_csv(tmp_path / "vertebrae.csv").sort_values(["patient_id", "y_min"])
    ours = located[0].vertebrae.sort_values(["patient_id", "y_min"])
    assert list(theirs["patient_id"]) == list(ours["patient_id"])
    sides = [*BOX_COLUMNS, *KEYPOINT_COLUMNS]
    np.testing.assert_allclose(theirs[sides], ours[sides], atol=0.02)


def test_other_radiographs_are_looked_at_anew(located, plain, tmp_path, monkeypatch):
    _, out = located
    folder = copied(plain, tmp_path / "cohort")
    shutil.copytree(out, tmp_path / "out")
    picture = folder / read_cohort(folder).table["image"][0]
    picture.write_bytes((folder / read_cohort(folder).table["image"][1]).read_bytes())
    seen = []

    def record(finder, cohort, **_):
        seen.append(len(cohort))
        return pd.DataFrame({"patient_id": ["P00001"], "x_min": 1, "y_min": 1, "x_max": 5, "y_max": 5})

    monkeypatch.setattr("fracsurv.detection.locate.find_vertebrae", record)
    assert len(locate_vertebrae(read_cohort(folder), tmp_path / "out", progress=False).vertebrae) == 1
    assert seen == [12]


def test_corrected_boxes_are_measured_and_override_what_was_found(located, plain, tmp_path):
    cohort, out = located
    folder = copied(plain, tmp_path / "cohort")
    first, second = cohort.table["patient_id"][:2]
    theirs = of(first, read_cohort(plain).true_vertebrae())[["patient_id", *BOX_COLUMNS]]
    pd.concat([theirs, pd.DataFrame({"patient_id": [second]})]).to_csv(folder / CORRECTIONS, index=False)
    corrected = locate_vertebrae(read_cohort(folder), shutil.copytree(out, tmp_path / "out"), progress=False)
    rows = corrected.vertebrae
    mine = of(first, rows)
    np.testing.assert_allclose(mine[BOX_COLUMNS], theirs[BOX_COLUMNS], atol=1e-3)
    assert mine[KEYPOINT_COLUMNS].notna().all(axis=None)  # the finder measured them
    others = cohort.vertebrae[~cohort.vertebrae["patient_id"].isin([first, second])]  # the second has no box
    pd.testing.assert_frame_equal(
        rows[rows["patient_id"] != first].reset_index(drop=True), others.reset_index(drop=True)
    )
    assert "patients 2; boxes kept" in boxes_line(corrected)
    assert np.isnan(block_of(corrected)[1]).all()


def test_an_annotators_keypoints_are_taken_as_they_are(located, plain, tmp_path):
    cohort, out = located
    folder = copied(plain, tmp_path / "cohort")
    first = cohort.table["patient_id"][0]
    theirs = of(first, read_cohort(plain).true_vertebrae())
    theirs.drop(columns="level").to_csv(folder / CORRECTIONS, index=False)
    corrected = locate_vertebrae(read_cohort(folder), shutil.copytree(out, tmp_path / "out"), progress=False)
    known = theirs[KEYPOINT_COLUMNS].notna().all(axis=1).to_numpy()
    mine = of(first, corrected.vertebrae)[known]
    np.testing.assert_allclose(mine[KEYPOINT_COLUMNS], theirs[KEYPOINT_COLUMNS][known])
    assert (mine[SCALE_COLUMNS] == 0).all(axis=None)


def test_a_real_cohort_is_warned_of_a_finder_that_only_knows_simulated_ones(located):
    for provenance, warned in (("simulated", False), ("real", True), ("semi-synthetic", True)):
        line = boxes_line(replace(located[0], provenance=provenance))
        assert ("nothing shows that it finds vertebrae in real ones" in line) == warned


def test_no_box_at_all_is_told_before_anything_is_run(plain, tmp_path, monkeypatch):
    folder = copied(plain, tmp_path / "cohort")
    (folder / "vertebrae.csv").write_text(HEADER)
    with pytest.raises(UserError, match=r"vertebrae\.csv: no boxes; delete it, and fracsurv's own finder looks"):
        read_cohort(folder)
    (folder / "vertebrae.csv").unlink()
    nothing = read_cohort(plain).true_vertebrae().iloc[:0]
    monkeypatch.setattr("fracsurv.detection.locate.find_vertebrae", lambda *_, **__: nothing)
    with pytest.raises(UserError, match="saw no vertebra in any radiograph; give boxes"):
        locate_vertebrae(read_cohort(folder), tmp_path / "out", progress=False)


def test_boxes_are_not_passed_on_to_other_patients(located, plain, tmp_path):
    """The same radiographs under other ids, and a kept table that its record does not speak of."""
    cohort, out = located
    folder = copied(plain, tmp_path / "cohort")
    table = pd.read_csv(folder / "cohort.csv")
    first, second = table["patient_id"][:2]
    table.loc[[0, 1], "patient_id"] = [second, first]
    table.to_csv(folder / "cohort.csv", index=False)
    swapped = locate_vertebrae(read_cohort(folder), shutil.copytree(out, tmp_path / "out"), progress=False).vertebrae
    np.testing.assert_array_equal(of(second, swapped)[BOX_COLUMNS], of(first, cohort.vertebrae)[BOX_COLUMNS])


def test_an_interrupted_correction_is_not_taken_for_the_next_one(located, plain, tmp_path, monkeypatch):
    _, out = located
    folder, place = copied(plain, tmp_path / "cohort"), shutil.copytree(out, tmp_path / "out")

    def corrected(*box):
        (folder / CORRECTIONS).write_text(HEADER + f"P00001,{','.join(map(str, box))}\n")
        return locate_vertebrae(read_cohort(folder), place, progress=False).vertebrae

    corrected(20, 20, 50, 40)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            corrected(60, 90, 90, 110)
    rows = corrected(20, 20, 50, 40)
    assert rows.loc[rows["patient_id"] == "P00001", BOX_COLUMNS].to_numpy().tolist() == [[20, 20, 50, 40]]


def test_a_finders_file_says_so_until_it_is_changed(plain, tmp_path):
    folder = copied(plain, tmp_path / "cohort")
    settings = (folder / "cohort.yaml").read_text().replace("provenance: simulated", "provenance: real")
    (folder / "cohort.yaml").write_text(settings)
    done = CliRunner().invoke(app, ["detect", "predict", str(folder)], catch_exceptions=False)
    assert "warning: this finder was trained on simulated radiographs" in done.output
    assert "nothing shows that it finds vertebrae in real ones" in boxes_line(read_cohort(folder))
    with open(folder / "vertebrae.csv", "a") as file:
        file.write("P00001,,1,1,5,9\n")
    assert read_cohort(folder).boxes_from == "vertebrae.csv"


def test_unreadable_radiographs_are_named_and_nothing_is_kept(plain, tmp_path):
    folder = copied(plain, tmp_path / "cohort")
    (folder / read_cohort(folder).table["image"][4]).write_bytes(b"no picture")
    with pytest.raises(UserError) as raised:
        locate_vertebrae(read_cohort(folder), tmp_path / "out", progress=False)
    assert len(raised.value.faults) == 1
    assert not list((tmp_path / "out").glob("*.csv"))


def test_given_boxes_and_cohorts_without_radiographs_are_left_alone(simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "absent")
    for cohort in (read_cohort(simulated), read_cohort(write_cohort(tmp_path / "c", tabular(30)))):
        assert locate_vertebrae(cohort, tmp_path, progress=False) is cohort


# vertebrae as covariates


def test_vertebral_covariates_are_those_of_each_patient_alone(simulated):
    cohort = read_cohort(simulated)
    block = block_of(cohort)
    truth = cohort.truth()
    for row in (0, 7, 40, 101):
        patient = cohort.table["patient_id"][row]
        one = replace(cohort, table=cohort.table.iloc[[row]].reset_index(drop=True))
        np.testing.assert_array_equal(block_of(one)[0], block[row])
        points = np.full((13, 6, 2), np.nan)
        mine = cohort.vertebrae[cohort.vertebrae["patient_id"] == patient]
        for slot, i in enumerate(with_slots(one).slot_index[0]):
            if i >= 0:
                points[slot] = mine[KEYPOINT_COLUMNS].to_numpy()[i].reshape(6, 2)
        measured = morphometry(points, ordered=True)
        ratios = measured.apr.numpy(), measured.mpr.numpy()
        wanted = [measured.grade.max(), (measured.grade > 0).sum(), *(np.nanmean(ratio) for ratio in ratios)]
        np.testing.assert_allclose(block[row], wanted)
    # drawn keypoints give back the drawn grades, but for vertebrae that have no box
    has = np.array([truth[f"grade_{level}"] for level in LEVELS]).max(axis=0)
    assert (block[:, 0] == has).mean() > 0.95
    assert roc_auc_score(has > 0, np.nan_to_num(block[:, 1])) > 0.95


def test_the_block_is_scaled_on_the_training_rows_and_unknown_is_their_mean(simulated):
    cohort = read_cohort(simulated)
    first = cohort.table["patient_id"][3]
    cohort = with_slots(replace(cohort, vertebrae=cohort.vertebrae[cohort.vertebrae["patient_id"] != first]))
    train = np.arange(40)
    values = standardise(cohort, train, morphometry=True)
    plain_values = standardise(cohort, train)
    p = len(cohort.covariates)
    np.testing.assert_array_equal(values[:, :p], plain_values)
    block = values[:, p:]
    assert block.shape == (len(cohort), len(VERTEBRAL))
    assert (block[3] == 0).all()
    known = np.delete(train, 3)
    np.testing.assert_allclose(block[known].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(block[known, 2:].std(axis=0), 1, atol=1e-5)
    # nothing of the other patients moves the training rows
    moved = cohort.vertebrae.copy()
    theirs = ~moved["patient_id"].isin(cohort.table["patient_id"][:40])
    moved.loc[theirs, KEYPOINT_COLUMNS[::2]] *= 1.7
    again = standardise(replace(cohort, vertebrae=moved), train, morphometry=True)
    np.testing.assert_array_equal(again[:40], values[:40])


# against the truth


def test_comparison_counts_what_is_wrong(plain):
    cohort = read_cohort(plain)
    truth = cohort.true_vertebrae()
    perfect = compare(with_slots(cohort.with_boxes(truth, "truth")), truth, cohort.truth())
    assert perfect.right.all()
    assert (perfect.vertebrae["grade"] == perfect.vertebrae["true_grade"]).mean() > 0.99
    assert np.array_equal(perfect.keypoints[0], perfect.keypoints[2])
    first, second, third = cohort.table["patient_id"][:3]
    lost = truth[~((truth["patient_id"] == first) & (truth["level"] == "T9"))]
    lost = lost[lost["patient_id"] != second]
    away = lost["patient_id"] == third
    lost.loc[away, KEYPOINT_COLUMNS[::2]] += 3.0  # every point of the third three pixels aside
    lost.loc[away, SCALE_COLUMNS] = 1.0
    found = compare(with_slots(cohort.with_boxes(lost, "truth")), truth, cohort.truth())
    assert found.right.tolist() == [False, False] + [True] * 10
    rows = found.vertebrae
    assert not rows.loc[rows["patient_id"] == second, "found"].any()
    assert (rows.loc[rows["patient_id"] == second, "grade"] == 0).all()
    n_missing = 1 + (truth["patient_id"] == second).sum()
    assert (~rows["found"]).sum() == n_missing
    error = np.linalg.norm(found.keypoints[0] - found.keypoints[2], axis=-1)
    assert error.max() == pytest.approx(3.0)
    n_moved = truth.loc[truth["patient_id"] == third, "x1"].notna().sum()
    assert np.isclose(error, 3.0).sum() == (found.keypoints[1] > 0).all(axis=-1).sum() == 6 * n_moved
    assert found.summary()["coverage_of_90_percent_ellipses"] == 0  # 3 SD aside; the ellipse ends at 2.15
    lost.loc[away, KEYPOINT_COLUMNS[::2]] -= 1.0
    found = compare(with_slots(cohort.with_boxes(lost, "truth")), truth, cohort.truth())
    assert found.summary()["coverage_of_90_percent_ellipses"] == 1  # 2 SD aside
