"""Explanations on networks whose answer is known, and on a tiny run's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fracsurv.cohort.boxes import LEVELS
from fracsurv.cohort.cohort import read_cohort
from fracsurv.explain.factors import factor_importance
from fracsurv.explain.fractures import fracture_auc, true_grades
from fracsurv.explain.images import attention_rollout, grad_cam, vertebra_contributions, vertebra_frames
from fracsurv.images.radiographs import read_radiograph, with_slots
from fracsurv.metrics import concordance_index
from fracsurv.models import build_model
from fracsurv.study.experiments import fitted_network, run_experiment
from fracsurv.study.explain import explain, explainable, read_explanation
from fracsurv.utils.errors import UserError


class SlotWeights(nn.Module):
    """A log hazard that is linear in each crop's sum, and in the first covariate."""

    def __init__(self):
        super().__init__()
        self.weight = torch.arange(13.0) - 3

    def forward(self, tabular, image):
        return tabular[:, 0] + image.sum(dim=(2, 3)) @ self.weight


def test_occlusion_of_crops_is_exact_for_a_linear_network():
    images = torch.rand(4, 13, 3, 5)
    images[1, 7] = 0  # an empty slot
    found = vertebra_contributions(SlotWeights(), torch.rand(4, 2), images, None)
    wanted = images.sum(dim=(2, 3)) * (torch.arange(13.0) - 3)
    wanted[1, 7] = torch.nan
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=1e-4, atol=1e-4)


def test_occlusion_of_a_full_image_blanks_the_box_with_what_is_beside_it():
    image = torch.full((1, 1, 20, 20), 2.0)
    image[0, 0, 4:8, 6:12] = 5.0
    frames = torch.full((1, 13, 4), torch.nan)
    frames[0, 3] = torch.tensor([6.0, 4.0, 12.0, 8.0])

    def call(tabular, images):
        return images.amax(dim=(1, 2, 3))

    found = vertebra_contributions(call, torch.zeros(1, 1), image, frames)
    # rows 4 to 7, columns 3 to 14: 6 of 12 are the box
    assert found[0, 3].item() == pytest.approx(5 - 3.5)
    assert torch.isnan(found).sum() == 12
    assert image.max() == 5


def test_grad_cam_finds_the_place_that_raises_the_risk():
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(layer.weight)
    mask = torch.zeros(8, 8)
    mask[2, 5] = 1.0

    def call(tabular, image):
        return (layer(image)[:, 0] * mask).sum(dim=(1, 2))

    image = torch.zeros(2, 1, 8, 8)
    image[:, 0, 2, 5] = 3.0
    found = grad_cam(call, layer, torch.zeros(2, 1), image)
    assert found.shape == (2, 8, 8)
    assert (found.flatten(1).argmax(dim=1) == 2 * 8 + 5).all()
    assert (grad_cam(lambda tabular, given: -call(tabular, given), layer, torch.zeros(2, 1), image) == 0).all()


def test_rollout_of_even_attention_is_even_and_of_marked_patches_is_not():
    torch.manual_seed(0)
    model = build_model(fusion="none", input="crops", encoder="vit_tiny", image_size=64).eval()
    transformer = model.encoder.backbone
    for block in transformer.encoder.layers:  # every query equal: all tokens are attended to alike
        nn.init.zeros_(block.self_attention.in_proj_weight)
        nn.init.zeros_(block.self_attention.in_proj_bias)
    size = transformer.image_size
    found = attention_rollout(transformer, torch.rand(3, 13, size, size))
    assert found.shape == (3, size, size)
    torch.testing.assert_close(found, found[:1, :1, :1].expand_as(found))
    # each layer: half stays, half spreads over 65 tokens
    shares, n = np.eye(65), 65
    for _ in range(3):
        shares = (0.5 * np.eye(n) + 0.5 * np.full((n, n), 1 / n)) @ shares
    assert found[0, 0, 0].item() == pytest.approx(shares[0, 1], rel=1e-5)


def test_rollout_is_the_product_of_the_layers_attention():
    torch.manual_seed(1)
    model = build_model(fusion="none", input="crops", encoder="vit_tiny", image_size=64).eval()
    transformer, image = model.encoder.backbone, torch.rand(2, 13, 64, 64)
    with torch.no_grad():
        tokens = transformer._process_input(image)
        tokens = torch.cat([transformer.class_token.expand(2, -1, -1), tokens], dim=1)
        tokens = tokens + transformer.encoder.pos_embedding
        wanted = torch.eye(65).expand(2, -1, -1)
        for block in transformer.encoder.layers:
            seen = block.ln_1(tokens)
            weights = block.self_attention(seen, seen, seen, need_weights=True)[1]
            wanted = (weights + torch.eye(65)) / 2 @ wanted
            tokens = block(tokens)
    found = attention_rollout(transformer, image)
    torch.testing.assert_close(found[:, ::8, ::8].flatten(1), wanted[:, 0, 1:], rtol=1e-4, atol=1e-6)


def test_factor_importance_is_the_loss_of_concordance():
    rng = np.random.default_rng(0)
    tabular = rng.normal(size=(300, 3))
    time, event = rng.exponential(np.exp(-tabular[:, 0])), np.ones(300, bool)
    found, drawn = factor_importance(lambda x: x[:, 0], tabular, event, time, ["a", "b", "c"], seed=1)
    assert found["factor"].tolist() == ["a", "b", "c"]
    # permuted, the only factor that the model reads leaves C = 0.5
    whole = concordance_index(event, time, tabular[:, 0])
    assert found["loss"].iloc[0] == pytest.approx(whole - 0.5, abs=0.02)
    assert (found["loss"].iloc[1:] == 0).all()
    assert drawn.shape == (200, 3)
    assert drawn[:, 0].mean() == pytest.approx(found["loss"].iloc[0], abs=0.01)
    assert 0.005 < drawn[:, 0].std() < 0.05
    # a factor that the model takes the wrong way round loses less than nothing
    wrong, _ = factor_importance(lambda x: -x[:, 0], tabular, event, time, ["a", "b", "c"], seed=1)
    assert wrong["loss"].iloc[0] == pytest.approx(0.5 - whole, abs=0.02)


class TestFractureAuc:
    def test_is_the_share_of_pairs_within_a_patient(self):
        grade = np.array([[0, 1, 2, 0], [0, 0, 3, np.nan], [0, 0, 0, 0], [0, 0, 0, 0]], float)
        value = np.array([[0.1, 0.5, 0.05, 0.1], [0.0, 0.0, 0.0, 99.0], [-0.1, 0, 1.0, -0.1], [0, 0, -1.0, 0]])
        # sound vertebrae contribute 0 at each level: nothing is taken away
        found = fracture_auc(value, grade, n_draws=50)
        # the first: 0.5 beats both, 0.05 neither; the second: two ties
        assert found["auc"] == pytest.approx((0.5 + 0.5) / 2)
        assert (found["n_patients"], found["n_fractured"]) == (2, 3)
        # from grade 2 on, grade 1 is neither fractured nor sound: as a sound one, 0.5 would not beat it either
        value[0, 1:3] = 0.01, 0.05
        assert fracture_auc(value, grade, least=2, n_draws=50)["auc"] == pytest.approx((0.0 + 0.5) / 2)
        value[0, 2] = 0.2  # beats all three
        value[0, 1] = 0.3  # and would not beat this
        assert fracture_auc(value, grade, least=2, n_draws=50)["auc"] == pytest.approx((1.0 + 0.5) / 2)

    def test_what_sound_vertebrae_of_a_level_contribute_is_taken_away(self):
        """A network that weighs levels, and the levels that fracture most, is blind all the same."""
        rng = np.random.default_rng(0)
        level = np.arange(13) / 13
        auc = []
        for _ in range(20):
            grade = (rng.random((200, 13)) < 0.3 * level) * 1.0
            auc.append(fracture_auc(level + 0.3 * rng.normal(size=(200, 13)), grade, n_draws=2)["auc"])
        assert np.mean(auc) == pytest.approx(0.5, abs=0.02)
        # one that sees fractures, and weighs other levels more, does see them
        seeing = -level + 0.5 * grade + 0.3 * rng.normal(size=(200, 13))
        assert fracture_auc(seeing, grade, n_draws=2)["auc"] > 0.8

    def test_interval_is_the_bootstraps_of_patients(self):
        rng = np.random.default_rng(2)
        grade = np.zeros((60, 13))
        grade[:, 4] = 1
        value = rng.normal(size=(60, 13)) + 0.5 * grade
        found = fracture_auc(value, grade)
        assert np.isnan(found["auc"])  # nobody's vertebra at this level is sound: left out
        grade[:30, 4] = 0
        found = fracture_auc(value, grade)
        usual = np.where(np.arange(13) == 4, value[:30].mean(axis=0), value.mean(axis=0))
        sound = np.delete(value - usual, 4, axis=1)[30:]
        shares = (sound < (value - usual)[30:, [4]]).mean(axis=1)
        assert found["auc"] == pytest.approx(shares.mean())
        width = 2 * 1.96 * shares.std() / np.sqrt(30)
        assert found["ci_high"] - found["ci_low"] == pytest.approx(width, rel=0.1)

    def test_of_several_models_is_their_mean(self):
        rng = np.random.default_rng(1)
        grade = (rng.random((40, 13)) < 0.2) * 1.0
        values = rng.normal(size=(2, 40, 13)) + grade
        both = fracture_auc(values, grade)
        each = [fracture_auc(value, grade)["auc"] for value in values]
        assert both["auc"] == pytest.approx(np.mean(each))
        assert both["ci_low"] < both["auc"] < both["ci_high"]
        assert min(each) > 0.6
        assert abs(fracture_auc(rng.normal(size=(40, 13)), grade)["auc"] - 0.5) < 0.15

    def test_without_a_fracture_there_is_none(self):
        assert np.isnan(fracture_auc(np.ones((2, 13)), np.zeros((2, 13)))["auc"])


def test_true_grades_are_of_the_vertebra_in_the_slot(simulated):
    cohort = with_slots(read_cohort(simulated))
    truth, boxes, rows = cohort.truth(), cohort.true_vertebrae(), np.arange(20)
    found = true_grades(cohort, rows)
    assert found.shape == (20, 13)
    checked = 0
    for row in rows:
        patient = cohort.table["patient_id"].iloc[row]
        levels = boxes.loc[boxes["patient_id"] == patient, "level"]
        n_found = (cohort.vertebrae["patient_id"] == patient).sum()
        if n_found == 13 and levels.isin(LEVELS).sum() == 13 and np.isfinite(found[row]).all():
            # boxes as they should be: slots are levels
            wanted = truth.loc[patient, [f"grade_{level}" for level in LEVELS]].to_numpy(float)
            np.testing.assert_array_equal(found[row], wanted)
            checked += 1
    assert checked >= 3


def test_frames_follow_the_picture_through_resizing_and_padding(simulated):
    cohort = with_slots(read_cohort(simulated))
    patient, name = cohort.table.loc[4, ["patient_id", "image"]]
    boxes = cohort.vertebrae[cohort.vertebrae["patient_id"] == patient]
    frames = vertebra_frames(cohort, np.array([4]), (100, 50), (120, 70))[0]
    height, width = read_radiograph(cohort.folder / name).shape
    shown = frames[np.isfinite(frames).all(axis=1)]
    assert len(shown) >= 12
    for column, at in (("x_min", (shown[:, 0] - 10) * width / 50), ("y_min", (shown[:, 1] - 10) * height / 100)):
        assert np.isclose(boxes[column].to_numpy()[:, None], at, atol=1e-6).any(axis=0).all()


ROWS = ["cox_ph", "deepsurv", "cds_crops_if", "vit_crops_if", "cds_full_if"]


@pytest.fixture(scope="module")
def explained(tiny_run):
    for name in ROWS:
        run_experiment(tiny_run, name, progress=False)
    return tiny_run


def test_one_row_an_encoder_is_explained(explained):
    assert set(ROWS) <= set(explainable(explained))


@pytest.mark.parametrize("name", ["cds_crops_if", "vit_crops_if", "cds_full_if"])
def test_an_explanation_is_written_whole_and_found_again(explained, name):
    found = explain(explained, name, "external")
    assert len(found.patients) == 60
    assert found.contributions.shape == (2, 60, 13)
    assert np.isfinite(found.contributions).mean() > 0.8
    assert found.places.mean() == pytest.approx(1)
    assert set(found.factors["factor"]) == set(explained.cohort.covariates)
    path = explained.out / "explanations" / name / "explanation.json"
    before = path.stat().st_mtime_ns
    again = explain(explained, name, "external")
    assert path.stat().st_mtime_ns == before  # nothing was computed anew
    np.testing.assert_array_equal(again.contributions, found.contributions)
    pd.testing.assert_frame_equal(again.factors, found.factors)


def test_contributions_are_differences_of_the_networks_own_risks(explained):
    found = explain(explained, "cds_crops_if", "external")
    model, _, inputs = fitted_network(explained, "cds_crops_if", 1)
    row = pd.Index(explained.cohort.table["patient_id"]).get_loc(found.patients[3])
    tabular, image = inputs(np.array([row]), None)
    slot = int(np.flatnonzero(np.isfinite(found.contributions[1, 3]))[0])
    without = image.clone()
    without[:, slot] = 0
    model.eval()
    with torch.no_grad():
        wanted = (model(tabular, image) - model(tabular, without)).item()
    assert found.contributions[1, 3, slot] == pytest.approx(wanted, abs=1e-5)


def test_an_explanation_of_other_models_is_not_taken(explained):
    explain(explained, "cox_ph", "external")
    assert read_explanation(explained, "cox_ph") is not None
    path = explained.out / "explanations" / "cox_ph" / "explanation.json"
    path.write_text(path.read_text().replace('"key": "', '"key": "x'))
    assert read_explanation(explained, "cox_ph") is None
    assert explain(explained, "cox_ph", "external").contributions is None


def test_factors_of_cox_are_those_of_its_coefficients(explained):
    found = explain(explained, "cox_ph", "external").factors
    coefficients = pd.read_csv(explained.folder("cox_ph", 0) / "coefficients.csv").set_index("covariate")
    loss = found[found["fold"] == 0].set_index("factor")["loss"]
    none = coefficients.index[coefficients["log_hazard_ratio"] == 0]
    assert (loss[none] == 0).all()
    assert loss.max() > 0


def test_what_cannot_be_explained_is_named(explained):
    with pytest.raises(UserError, match="cds_full_lf"):
        explain(explained, "cds_full_lf", "external")
