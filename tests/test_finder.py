"""The vertebra finder as a whole: trained, saved, used on a cohort; what it cannot take is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.boxes import CHI2_90
from fracsurv.cohort.cohort import read_cohort
from fracsurv.detection.finder import (
    Finder,
    Vertebrae,
    calibration_pictures,
    find,
    load_finder,
    save_finder,
    score_finder,
    train_finder,
)
from fracsurv.detection.keypoints import (
    SIZE,
    KeypointNetwork,
    calibrate,
    keypoint_loss,
    predict_keypoints,
    train_keypoints,
    training_pictures,
    vertebra_picture,
)
from fracsurv.detection.locate import SHIPPED, find_vertebrae, graded_table
from fracsurv.detection.network import VertebraDetector
from fracsurv.detection.sources import read_all_labelled, read_labelled
from fracsurv.detection.training import DetectorRecipe, KeypointRecipe
from fracsurv.images.radiographs import read_radiograph
from fracsurv.simulate import simulate_cohort
from fracsurv.utils.errors import UserError

N = 24
RECIPE = DetectorRecipe(epochs=12, batch_size=6, held_out=0.2, average=0.8)


def write_yolo(src, n=N, seed=0):
    """Dark noisy pictures with a column of bright boxes, a little aslant."""
    rng = np.random.default_rng(seed)
    for part in ("images", "labels"):
        (src / part).mkdir(parents=True)
    for i in range(n):
        pixels = rng.integers(20, 70, (224, 128)).astype(np.uint8)
        rows = []
        for k in range(8):
            x, y = 56 + rng.integers(-4, 5) + k, 14 + 25 * k
            pixels[y : y + 17, x : x + 24] = rng.integers(180, 220, (17, 24))
            rows.append(f"0 {(x + 12) / 128} {(y + 8.5) / 224} {24 / 128} {17 / 224}")
        Image.fromarray(pixels).save(src / "images" / f"r{i:02d}.png")
        (src / "labels" / f"r{i:02d}.txt").write_text("\n".join(rows))
    return src


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_yolo(tmp_path_factory.mktemp("yolo") / "src")


@pytest.fixture(scope="module")
def finder(source) -> Finder:
    return train_finder(*read_labelled(source), RECIPE, progress=False)


def test_it_learns_to_find_what_it_has_not_seen(finder, tmp_path):
    found, _ = read_labelled(write_yolo(tmp_path / "other", seed=1))
    score = score_finder(finder, found, progress=False)
    assert (score["n_images"], score["n_vertebrae"]) == (N, 8 * N)
    assert min(score["ap50"], score["recall"], score["precision"]) > 0.9


def test_keypoints_are_calibrated_on_the_boxes_that_are_found(finder, tmp_path):
    found, _ = read_labelled(write_yolo(tmp_path / "other", seed=2))
    image = read_radiograph(found[0].path)
    (seen,) = find(finder, [image])
    annotated = found[0].boxes.copy()
    annotated[3] = [2, 2, 9, 9]  # nothing is found there
    points = np.linspace(10, 90, 96).reshape(8, 6, 2)
    points[5, 2] = np.nan  # unknown, so that vertebra is left out
    pictures, shares = calibration_pictures(finder, [replace(found[0], boxes=annotated, keypoints=points)])
    assert len(pictures) == len(shares) == 7
    for k, row in enumerate([0, 1, 2, 3, 4, 6, 7]):
        picture, shown = vertebra_picture(image, annotated[3] if row == 3 else seen.boxes[row])
        np.testing.assert_array_equal(pictures[k], picture)
        np.testing.assert_allclose(shares[k], (points[row] - shown[:2]) / (shown[2:] - shown[:2]), rtol=1e-5)


def test_another_finders_detector_gets_keypoints(finder, simulated, tmp_path, monkeypatch):
    monkeypatch.setattr("fracsurv.detection.finder.train_detector", None)  # must not be called
    found, provenance = read_labelled(simulated)
    made = train_finder(found[:60], provenance, RECIPE, KeypointRecipe(epochs=1), detector=finder, progress=False)
    assert made.detector is finder.detector
    assert made.threshold == finder.threshold
    of = made.about["keypoints_of"]
    assert (made.about["provenance"], of["provenance"], of["n_images"]) == ("real", "simulated", 60)
    save_finder(made, tmp_path / "w.safetensors")
    assert load_finder(tmp_path / "w.safetensors").summary() == made.summary()
    with pytest.raises(UserError, match="at least 200"):
        train_finder(found[:10], provenance, RECIPE, detector=finder, progress=False)


def test_keypoints_are_scored_where_they_were_annotated_and_their_vertebra_found(tmp_path):
    """Against a loop; by the shipped finder, which knows keypoints."""
    shipped = load_finder(SHIPPED)
    simulate_cohort(tmp_path / "c", patients=20, seed=6, boxes="true", progress=False)
    found = read_labelled(tmp_path / "c")[0][:4]
    half = [replace(each, keypoints=np.where(np.arange(len(each.boxes))[:, None, None] % 2, np.nan, each.keypoints))
            for each in found]  # fmt: skip
    score = score_finder(shipped, half, progress=False)
    assert score["recall"] == 1
    errors, shares, inside = [], [], []
    for each in half:
        (theirs,) = find(shipped, [read_radiograph(each.path)])
        for box, points in zip(each.boxes, each.keypoints, strict=True):
            if np.isnan(points).any():
                continue
            nearest = np.abs(theirs.boxes - box).sum(axis=1).argmin()
            height = np.mean([np.hypot(*(points[k] - points[k + 3])) for k in range(3)])
            for k in range(6):
                miss = theirs.keypoints[nearest, k] - points[k]
                errors.append(np.hypot(*miss))
                shares.append(errors[-1] / height)
                inside.append(((miss / theirs.scale[nearest, k]) ** 2).sum() <= CHI2_90)
    assert len(errors) > 100  # of some 26 vertebrae, six each
    assert score["keypoint_error_px_median"] == pytest.approx(np.median(errors))
    assert score["keypoint_error_px_mean"] == pytest.approx(np.mean(errors))
    assert score["keypoint_error_share_of_height_mean"] == pytest.approx(np.mean(shares))
    assert score["coverage_of_90_percent_ellipses"] == pytest.approx(np.mean(inside))
    blind = [replace(each, keypoints=np.full_like(each.keypoints, np.nan)) for each in found]
    assert "keypoint_error_px_mean" not in score_finder(shipped, blind, progress=False)


def test_a_seed_gives_one_finder_whatever_is_shown_and_leaves_the_global_generator_alone(source):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    recipe = DetectorRecipe(epochs=1, batch_size=12)
    one, two = (
        train_finder(*read_labelled(source), recipe, progress=progress).detector.state_dict()
        for progress in (False, True)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(before, torch.get_rng_state())


def test_saved_and_loaded_it_finds_the_same(finder, source, tmp_path):
    save_finder(finder, tmp_path / "w.safetensors")
    again = load_finder(tmp_path / "w.safetensors")
    assert (again.threshold, again.about, again.keypoints) == (finder.threshold, finder.about, None)
    image = np.asarray(Image.open(source / "images" / "r00.png"))
    (one,), (two,) = find(finder, [image]), find(again, [image])
    assert len(one.boxes) >= 6  # of eight; how many a short training finds depends on the processor
    np.testing.assert_allclose(one.boxes, two.boxes, atol=0.5)  # float16 weights
    assert (np.diff(one.boxes[:, 1]) > 0).all()
    assert np.isnan(one.keypoints).all()


def test_pictures_of_any_size_and_depth(finder, source):
    image = np.asarray(Image.open(source / "images" / "r01.png"))
    large = np.kron(image, np.ones((3, 3), np.uint8)).astype(np.uint16) * 200
    (small_found,), (large_found,) = find(finder, [image]), find(finder, [large])
    apart = np.abs(large_found.boxes[:, None] / 3 - small_found.boxes[None]).max(axis=2)
    assert (apart.min(axis=1) <= 1.5).all()
    assert len(large_found.boxes) >= 6
    assert (apart.min(axis=0) > 1.5).sum() <= 1  # after a short training one may lie close to the threshold
    (nothing,) = find(finder, [np.full((30, 20), 9, np.uint8)])
    assert nothing.boxes.shape == (0, 4)


# sources


def test_several_sources_are_one_and_all_their_faults_are_listed(source, simulated, tmp_path):
    found, provenance = read_all_labelled([source, simulated])
    assert len(found) == len(read_labelled(source)[0]) + len(read_labelled(simulated)[0])
    assert provenance == "real and simulated"
    assert read_all_labelled([source, source])[1] == "real"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as raised:
        read_all_labelled([tmp_path / "empty", source, tmp_path / "none"])
    assert len(raised.value.faults) >= 2


def test_a_cohorts_tall_boxes_are_left_out(simulated):
    found, provenance = read_labelled(simulated)
    cohort = read_cohort(simulated)
    assert provenance == "simulated"
    heights = np.concatenate([each.boxes[:, 3] - each.boxes[:, 1] for each in found])
    theirs = cohort.vertebrae["y_max"] - cohort.vertebrae["y_min"]
    np.testing.assert_array_equal(np.sort(heights), np.sort(theirs[theirs <= 230 * cohort.resolution]))
    assert np.isfinite(np.concatenate([each.keypoints for each in found])).all(axis=(1, 2)).mean() > 0.9


def test_too_few_radiographs_with_boxes_are_refused(tmp_path):
    with pytest.raises(UserError, match="5 radiographs with boxes"):
        read_labelled(write_yolo(tmp_path / "few", n=5))
    src = write_yolo(tmp_path / "src")
    for path in sorted((src / "labels").iterdir())[:10]:
        path.write_text("")
    with pytest.raises(UserError, match="14 radiographs with boxes"):
        read_labelled(src)
    with pytest.raises(UserError, match="images/"):
        read_labelled(tmp_path)


def test_a_file_that_is_no_finder_is_named(tmp_path):
    text, other = tmp_path / "notes.txt", tmp_path / "other.safetensors"
    text.write_text("no weights")
    save_file({"a": torch.zeros(2)}, other)
    for place in (text, other, tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(UserError) as raised:
            load_finder(place)
        assert str(raised.value).startswith(f"{place}: ")
        assert "delete" not in str(raised.value)  # the file may be anything


# keypoints


def test_keypoint_network_shapes_and_range():
    mean, scale = KeypointNetwork()(torch.randn(3, 1, *SIZE))
    assert mean.shape == scale.shape == (3, 6, 2)
    assert ((mean > 0) & (mean < 1)).all()
    assert (scale > 0).all()


def test_keypoint_loss_is_the_normal_likelihood_without_its_constant():
    generator = torch.Generator().manual_seed(0)
    mean, truth, scale = (torch.rand((4, 6, 2), generator=generator, dtype=torch.float64) for _ in range(3))
    scale += 0.1
    wanted = -torch.distributions.Normal(mean, scale).log_prob(truth).mean() - 0.5 * np.log(2 * np.pi)
    assert keypoint_loss(mean, scale, truth) == pytest.approx(wanted.item(), rel=1e-12)
    truth[0, 2] = torch.nan  # an unknown point neither counts nor spoils the gradient
    mean.requires_grad_()
    keypoint_loss(mean, scale, truth).backward()
    assert torch.isfinite(mean.grad).all()
    assert (mean.grad[0, 2] == 0).all()


def test_calibration_makes_nine_in_ten_fall_inside():
    truth = torch.zeros(4000, 6, 2)
    mean = 0.3 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    scale = torch.full_like(mean, 0.1)  # a third of what it should be
    network = KeypointNetwork()
    calibrate(network, mean, scale, truth)
    assert network.calibration[0].numpy() == pytest.approx(np.full(6, 3.0), rel=0.05)
    assert (network.calibration[1] == 1).all()  # all of one size: no slope
    inside = ((truth - mean) / (scale * network.calibration[0][:, None])).square().sum(dim=2) <= CHI2_90
    assert inside.double().mean().item() == pytest.approx(0.9, abs=0.002)


def test_calibration_holds_for_sharp_and_blurred_vertebrae_alike():
    """The network's scales of the blurred half are twice those of the sharp one; they should be four times."""
    blurred = torch.arange(8000) % 2 == 1
    truth = torch.zeros(8000, 6, 2)
    true_scale, predicted = (
        torch.where(blurred, large, 0.01)[:, None, None].expand_as(truth) for large in (0.04, 0.02)
    )
    mean = true_scale * torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))
    network = KeypointNetwork()
    calibrate(network, mean, predicted, truth)
    factor, exponent = network.calibration[:, :, None]
    scale = predicted * factor * predicted[..., :1] ** (exponent - 1)
    inside = ((truth - mean) / scale).square().sum(dim=2) <= CHI2_90
    for half in (blurred, ~blurred):
        assert inside[half].double().mean().item() == pytest.approx(0.9, abs=0.015)


def test_vertebra_picture_shows_the_rectangle_that_it_returns():
    image, box = np.zeros((60, 80), np.uint16), np.array([30.0, 20, 50, 30])
    image[20:30, 30:50] = 4000
    picture, shown = vertebra_picture(image, box)
    assert picture.shape == SIZE
    assert picture.mean() == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(shown, [27, 18, 53, 32])
    y, x = np.nonzero(picture > 0)
    share = (box - np.tile(shown[:2], 2)) / np.tile(shown[2:] - shown[:2], 2)
    assert np.abs(np.array([x.min(), x.max() + 1]) / SIZE[1] - share[[0, 2]]).max() < 0.03
    assert np.abs(np.array([y.min(), y.max() + 1]) / SIZE[0] - share[[1, 3]]).max() < 0.03
    rough = vertebra_picture(image, box, 0.3)[0]
    assert rough.shape == SIZE
    assert np.abs(np.diff(rough, axis=1)).max() < np.abs(np.diff(picture, axis=1)).max()
    assert np.isfinite(vertebra_picture(image, np.array([-5.0, -4, 6, 5]))[0]).all()  # partly outside


def test_keypoints_are_learnt_from_a_simulated_cohort(simulated, tmp_path):
    found, _ = read_labelled(simulated)
    rng, exact = np.random.default_rng(0), KeypointRecipe(jitter=0.0, coarsest=1.0)
    calibration = training_pictures(found[60:70], rng, exact, False)
    network = train_keypoints(found[:60], calibration, KeypointRecipe(epochs=4, coarsest=1.0), progress=False)
    pictures, keypoints = training_pictures(found[70:100], rng, exact, False)
    mean, _ = predict_keypoints(network, pictures)
    error = np.abs(mean.numpy() - keypoints)
    assert error.mean() < 0.6 * np.abs(keypoints - keypoints.mean(axis=0)).mean()  # better than the mean shape
    untrained, _ = predict_keypoints(KeypointNetwork(), pictures)
    assert error.mean() < 0.5 * np.abs(untrained.numpy() - keypoints).mean()
    whole = Finder(VertebraDetector(), 0.5, network, {"provenance": "simulated", "n_images": 1, "n_vertebrae": 1})
    save_finder(whole, tmp_path / "k.safetensors")
    again, _ = predict_keypoints(load_finder(tmp_path / "k.safetensors").keypoints, pictures)
    np.testing.assert_allclose(again, mean, atol=0.02)


# a cohort's vertebrae.csv


def test_grades_are_written_where_keypoints_are_known():
    """A wedge, known exactly, and a body whose anterior height may or may not be a fifth lower."""
    upper = [[0.0, 0], [15, 0], [30, 0]]
    keypoints = np.array([[*upper, [0.0, 14], [15, 19], [30, 20]], [*upper, [0.0, 16], [15, 20], [30, 20]]])
    scale = np.full((2, 6, 2), 1e-9)
    scale[1, 3, 1] = 1.0
    boxes = np.array([[0.0, 0, 30, 20], [0, 30, 30, 50]])
    table = graded_table("P1", Vertebrae(boxes, np.array([0.9, 0.8]), keypoints, scale), 400, 1.0)
    assert table["level"].tolist() == ["L3", "L4"]  # the stack hangs on its lowest box
    assert table["grade"].tolist() == [2, 1]
    assert table["p_fracture"][0] == table["p_grade_2_or_more"][0] == 1
    assert table["p_fracture"][1] == pytest.approx(0.5, abs=0.1)
    assert table["patient_id"].tolist() == ["P1", "P1"]


def test_a_vertebra_that_lost_height_all_over_is_seen_beside_its_neighbours():
    body = np.array([[0.0, 0], [15, 0], [30, 0], [0, 20], [15, 20], [30, 20]])
    keypoints = np.stack([body + np.array([0, 30 * k]) for k in range(5)])
    keypoints[2, 3:, 1] -= 6  # 30 % of every height
    boxes = np.stack([keypoints.min(axis=1), keypoints.max(axis=1)], axis=1).reshape(-1, 4)
    table = graded_table("P1", Vertebrae(boxes, np.ones(5), keypoints, np.full((5, 6, 2), 1e-9)), 400, 1.0)
    assert table["grade"].tolist() == [0, 0, 2, 0, 0]
    assert table["p_grade_2_or_more"].tolist() == [0, 0, 1, 0, 0]


@pytest.fixture
def cohort_folder(tmp_path):
    """Twenty patients with radiographs and no boxes."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    (write_yolo(tmp_path / "yolo", n=20, seed=2) / "images").rename(folder / "images")
    ids = pd.Series([f"r{i:02d}" for i in range(20)])
    table = pd.DataFrame({"patient_id": ids, "time_days": 100.0, "event": 1, "age": 70.0})
    table.assign(image="images/" + ids + ".png").to_csv(folder / "cohort.csv", index=False)
    return folder


def test_a_cohort_gets_its_boxes_from_the_command_line(finder, cohort_folder, tmp_path):
    weights, path = tmp_path / "w.safetensors", cohort_folder / "vertebrae.csv"
    save_finder(finder, weights)

    def predict(*options):
        command = ["detect", "predict", str(cohort_folder), "--weights", str(weights), *options]
        return CliRunner().invoke(app, command, catch_exceptions=False).exit_code

    assert predict() == 0
    assert pd.read_csv(path)[["grade", "p_fracture", "x1", "sx1"]].isna().all(axis=None)  # it never learnt keypoints
    found = read_cohort(cohort_folder).vertebrae
    assert found["patient_id"].nunique() == 20
    assert (found["score"] >= round(finder.threshold, 4)).all()
    assert found.groupby("patient_id")["y_min"].is_monotonic_increasing.all()
    with pytest.raises(UserError, match="--replace"):
        predict()
    assert predict("--replace") == 0
    assert not list(cohort_folder.glob("vertebrae_before*"))  # a finder's boxes can be found again
    for name in ("vertebrae_before.csv", "vertebrae_before_2.csv"):
        by_hand = path.read_text().replace("r03", "r04")
        path.write_text(by_hand)
        assert predict("--replace") == 0
        assert (cohort_folder / name).read_text() == by_hand
    save_finder(replace(finder, threshold=2.0), weights)  # finds nothing
    before = path.read_bytes()
    with pytest.raises(UserError, match="no vertebra in any radiograph"):
        predict("--replace")
    assert path.read_bytes() == before


def test_unreadable_radiographs_are_all_named(finder, cohort_folder):
    for image in (cohort_folder / "images").iterdir():
        image.write_bytes(b"no picture")
    with pytest.raises(UserError) as raised:
        find_vertebrae(finder, read_cohort(cohort_folder), progress=False)
    assert len(raised.value.faults) == 20
