"""The simulated spine, its boxes, the radiographs and the cohort folder."""

from __future__ import annotations

import filecmp
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from PIL import Image

from benchmarks.simulator import trabecular_contrast
from fracsurv.cohort.boxes import KEYPOINT_COLUMNS, LEVELS
from fracsurv.simulate import DEFAULT, simulate_cohort, simulate_tables
from fracsurv.simulate.anatomy import FIRST, LAST, simulate_spine
from fracsurv.simulate.boxes import list_boxes
from fracsurv.simulate.render import render
from fracsurv.simulate.settings import stream
from fracsurv.utils.errors import UserError

SMALL = 0.125


def _spine(truth: pd.DataFrame, i: int, seed: int = 0):
    grades = truth.loc[i, [f"grade_{level}" for level in LEVELS]].to_numpy()
    types = truth.loc[i, [f"type_{level}" for level in LEVELS]].to_numpy()
    return simulate_spine(stream(seed, i, "anatomy"), grades, types, DEFAULT)


@pytest.fixture(scope="module")
def women():
    table, truth = simulate_tables(600, seed=0)
    return table, truth, [_spine(truth, i) for i in range(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "png"
    simulate_cohort(out, patients=20, external=4, resolution=SMALL, boxes="faulty", progress=False)
    return out


def _grade_and_type(points: np.ndarray) -> tuple[int, str]:
    """Genant's grade from six keypoints: how much lower the lowest height is than the highest."""
    heights = [float(np.hypot(*(points[i] - points[i + 3]))) for i in range(3)]
    loss = 1 - min(heights) / max(heights)
    grade = 3 if loss >= 0.40 else 2 if loss >= 0.25 else 1 if loss >= 0.20 else 0
    kind = ("wedge", "biconcave", "crush")[heights.index(min(heights))]
    return grade, kind if grade else "normal"


def test_height_ratios_are_those_of_the_stated_grade_and_type(women):
    _, truth, spines = women
    seen = set()
    for i, spine in enumerate(spines):
        for level, points in zip(LEVELS, spine.keypoints()[FIRST : LAST + 1], strict=True):
            stated = truth.loc[i, f"grade_{level}"], truth.loc[i, f"type_{level}"]
            assert _grade_and_type(points) == stated, (i, level)
            seen.add(stated)
    assert len(seen) == 10  # normal, and each of three grades of three types


def test_bodies_stand_in_order_and_the_picture_holds_them_but_for_a_few(women):
    cut = 0
    for spine in women[2]:
        points = spine.keypoints()[FIRST : LAST + 1]
        assert (np.diff(spine.centre[FIRST : LAST + 1, 1]) > 0).all()
        # Along each body's own axis, the next one's superior endplate lies below its inferior one.
        axis = np.stack([-np.sin(spine.tilt), np.cos(spine.tilt)], axis=1)[FIRST : LAST + 1]
        gap = points[1:, [0, 2]] - points[:-1, [3, 5]]
        assert ((gap * axis[:-1, None]).sum(axis=-1) > 0).all()
        assert 1_200 <= spine.height <= 1_600
        assert points.min() >= 0
        assert points[..., 0].max() <= 600
        assert points[:-1, :, 1].max() <= spine.height, "only L4 may run out"
        cut += points[..., 1].max() > spine.height
    assert 1 <= cut < 0.03 * len(women[2])


def _boxes(spines, resolution=1.0, seed=0, **changes):
    settings = replace(DEFAULT, **changes)
    return [list_boxes(s, stream(seed, i, "boxes"), resolution, settings) for i, s in enumerate(spines)]


def test_boxes_hold_their_keypoints_and_keep_the_protocols_limits(women):
    for spine, rows in zip(women[2], _boxes(women[2]), strict=True):
        assert rows == sorted(rows, key=lambda r: r["y_min"])
        for row in rows:
            points = np.array([row[k] for k in KEYPOINT_COLUMNS]).reshape(6, 2)
            assert 0 <= row["x_min"] < row["x_max"] <= 600
            assert 0 <= row["y_min"] < row["y_max"] <= spine.height
            assert row["score"] == 1.0
            merged = row["level"] == ""
            assert (row["y_max"] - row["y_min"] > 230) == merged
            assert np.isnan(points).all() if merged else row["x_max"] - row["x_min"] < 272
            if not np.isnan(points).any():
                assert row["x_min"] < points[:, 0].min() < points[:, 0].max() < row["x_max"]
                assert row["y_min"] <= points[:, 1].min() < points[:, 1].max() <= row["y_max"]


def test_levels_are_the_thirteen_where_nothing_is_wrong(women):
    for spine, rows in zip(women[2], _boxes(women[2], box_faults=0.0, neck_boxes=0.0), strict=True):
        levels = [row["level"] for row in rows]
        assert levels in ([*LEVELS], [*LEVELS[:-1]])
        if levels[-1] != "L4":
            assert spine.keypoints()[LAST, :, 1].max() > spine.height


def test_a_missing_and_a_merged_box_in_their_shares_of_women(women):
    plain = _boxes(women[2], box_faults=0.0)
    faulty = _boxes(women[2], box_faults=0.2)
    missing = merged = 0
    for before, after in zip(plain, faulty, strict=True):
        if any(row["level"] == "" for row in after):
            merged += 1
            assert 1 <= len(before) - len(after) <= 3
        elif len(after) < len(before):
            missing += 1
            gone = {r["level"] for r in before} - {r["level"] for r in after}
            assert len(gone) == 1
            assert gone < set(LEVELS)
        else:
            assert before == after or str(before) == str(after)  # NaN keypoints are not equal
    # 600 women, 20 % each: SD 9.8.
    assert abs(missing - 120) < 45
    assert abs(merged - 120) < 45


def test_neck_boxes_come_on_top_in_their_share(women):
    rows = _boxes(women[2], box_faults=0.0, neck_boxes=1.0)
    assert {r[0]["level"] for r in rows} == {"T2", "T3"}
    some = sum(r[0]["level"] != "T4" for r in _boxes(women[2], box_faults=0.0))
    assert 0.08 * 600 < some < 0.22 * 600


def test_bone_quality_shows_in_the_picture_but_not_perfectly(women):
    table, truth, spines = women
    value = []
    for i in range(120):
        picture = render(spines[i], truth["bone_quality"][i], table["t_score"][i], 0, i, 0.25)
        points = spines[i].keypoints()[FIRST:LAST] * 0.25
        value.append(trabecular_contrast(picture, points))
    assert 0.55 < np.corrcoef(value, truth["bone_quality"][:120])[0, 1] < 0.95
    # exposure does not move the statistic
    assert trabecular_contrast(0.4 * picture.astype(float) + 70, points) == pytest.approx(value[-1])


def test_small_picture_looks_like_the_large_one_scaled_down(women):
    spine = women[2][1]
    small = render(spine, 0.5, -1.6, 0, 1, 0.25).astype(float)
    large = render(spine, 0.5, -1.6, 0, 1, 1.0).astype(float)
    scaled = large.reshape(small.shape[0], 4, small.shape[1], 4).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), scaled.ravel())[0, 1] > 0.985
    assert abs(small.mean() - scaled.mean()) < 0.01 * scaled.mean()
    # Noise of a flat part behind the skin line, after differencing: the same within a tenth or so.
    noise = [np.diff(p[: p.shape[0] // 4, 20:60], axis=0).std() for p in (small, scaled)]
    assert noise[0] == pytest.approx(noise[1], rel=0.25)


def test_grey_values_use_twelve_bits_without_much_clipping(women):
    table, truth, spines = women
    for i in range(25):
        picture = render(spines[i], truth["bone_quality"][i], table["t_score"][i], 0, i, SMALL)
        assert picture.dtype == np.uint16
        assert picture.max() <= 4_095
        assert (picture == 4_095).mean() < 0.002
        assert np.ptp(picture) > 1_000


def test_workers_and_totals_do_not_change_a_woman(folder, tmp_path):
    simulate_cohort(
        tmp_path / "two", patients=20, external=4, resolution=SMALL, boxes="faulty", workers=2, progress=False
    )
    ours, theirs = (sorted(str(p.relative_to(at)) for p in at.rglob("*.*")) for at in (folder, tmp_path / "two"))
    assert ours == theirs
    assert len(ours) == 24 + 6
    assert filecmp.cmpfiles(folder, tmp_path / "two", ours, shallow=False) == (ours, [], [])
    simulate_cohort(tmp_path / "part", patients=6, resolution=SMALL, boxes="faulty", progress=False)
    pictures = [f"images/P{i:05d}.png" for i in range(1, 7)]
    assert filecmp.cmpfiles(folder, tmp_path / "part", pictures, shallow=False)[0] == pictures
    for name in ("cohort.csv", "vertebrae.csv", "truth_vertebrae.csv"):
        part = (tmp_path / "part" / name).read_text().splitlines()
        assert (folder / name).read_text().splitlines()[: len(part)] == part


def test_folder_has_what_a_cohort_needs_and_the_truth_apart(folder):
    table = pd.read_csv(folder / "cohort.csv", keep_default_na=False)
    truth = pd.read_parquet(folder / "truth.parquet")
    assert table["split"].value_counts().to_dict() == {"": 20, "external": 4}
    assert (table["split"][-4:] == "external").all()
    assert all((folder / name).is_file() for name in table["image"])
    assert not {"log_hazard", "bone_quality", "grade_sum"} & set(table.columns)
    assert {"patient_id", "log_hazard", "bone_quality", "grade_sum", "grade_T4", "type_L4"} <= set(truth.columns)
    description = yaml.safe_load((folder / "cohort.yaml").read_text())
    assert description["provenance"] == "simulated"
    assert description["resolution"] == SMALL
    assert set(description["covariates"]) <= set(table.columns)
    boxes = pd.read_csv(folder / "vertebrae.csv")
    assert set(boxes["patient_id"]) == set(table["patient_id"])


def test_boxes_are_left_out_true_or_faulty(folder, tmp_path):
    """Without being asked no vertebrae.csv: whoever has radiographs has no boxes yet. The truth is always apart."""
    for boxes in ("none", "true"):
        simulate_cohort(tmp_path / boxes, patients=20, resolution=SMALL, boxes=boxes, progress=False)
    assert not (tmp_path / "none" / "vertebrae.csv").exists()
    truth = (tmp_path / "none" / "truth_vertebrae.csv").read_text()
    assert (tmp_path / "true" / "vertebrae.csv").read_text() == truth
    assert (folder / "truth_vertebrae.csv").read_text().startswith(truth)
    true = pd.read_csv(tmp_path / "true" / "vertebrae.csv")
    assert set(true["level"]) == set(LEVELS)
    assert not true.duplicated(["patient_id", "level"]).any()
    assert true["x1"].notna().mean() > 0.95


def test_dicom_holds_the_same_pixels_and_no_name(folder, tmp_path):
    simulate_cohort(tmp_path / "dicom", patients=3, resolution=SMALL, image_format="dicom", progress=False)
    for i in range(1, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = pydicom.dcmread(tmp_path / "dicom" / f"images/P{i:05d}.dcm")
        png = np.asarray(Image.open(folder / f"images/P{i:05d}.png"))
        assert png.dtype == np.uint16
        np.testing.assert_array_equal(image.pixel_array, png)
        assert (image.PhotometricInterpretation, image.BitsAllocated, image.BitsStored) == ("MONOCHROME2", 16, 12)
        assert str(image.PatientName) == ""
        assert image.PatientID == f"P{i:05d}"


def test_every_wrong_argument_is_named_at_once(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("kept")
    wrong = {"patients": 0, "external": -1, "seed": -1, "resolution": 2, "image_format": "bmp", "boxes": "all"}
    with pytest.raises(UserError) as error:
        simulate_cohort(tmp_path / "old", **wrong, workers=0)
    named = [fault.split(":")[0].rsplit("/")[-1] for fault in error.value.faults]
    assert named == ["patients", "external", "seed", "resolution", "image format", "boxes", "workers", "old"]
    assert (tmp_path / "old" / "file").read_text() == "kept"


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError):
        simulate_cohort(tmp_path / "new", patients=2, settings=replace(DEFAULT, image_balance=2.0), progress=False)
    assert list(tmp_path.iterdir()) == []
