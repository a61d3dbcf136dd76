"""Experiments and profiles: the protocol's numbers, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from fracsurv.config import load_experiments, load_profile
from fracsurv.errors import UserError

# protocol, Table A.1: lr, scheduler, epochs, batch size. The thesis marks the scheduler in both image-only rows.
TABLE_A1 = {
    "cds_full_if": (1e-4, "cosine", 200, 32),
    "cds_crops_if": (7e-5, "none", 200, 128),
    "cds_crops_alpha": (1e-4, "cosine", 100, 128),
    "cds_full_lf": (2e-2, "none", 20, 32),
    "cds_crops_lf": (2e-2, "none", 20, 128),
    "cds_crops_alpha_tab": (1e-4, "cosine", 50, 128),
    "vit_crops_if": (1e-5, "cosine", 150, 64),
    "vit_crops_alpha": (1e-5, "cosine", 50, 64),
    "cds_full": (1e-4, "cosine", 150, 32),
    "cds_crops": (1e-4, "cosine", 200, 128),
    "deepsurv": (1e-3, "none", 10, 32),
}


def test_table_a1():
    rows = load_experiments()
    assert set(rows) == {*TABLE_A1, "cox_ph"}
    found = {name: (row.lr, row.scheduler, row.epochs, row.batch_size) for name, row in rows.items()}
    del found["cox_ph"]
    assert found == TABLE_A1


def test_the_paper_profile_changes_nothing():
    paper = load_profile("paper")
    assert [paper.apply(row) for row in load_experiments().values()] == list(load_experiments().values())
    assert (paper.scale, paper.full_scale, paper.n_folds, paper.test_fraction) == (1.0, 1.0, 3, 0.1)
    assert paper.alphas == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_smaller_profiles_change_epochs_and_encoder_alone(name):
    profile = load_profile(name)
    for row in load_experiments().values():
        small = profile.apply(row)
        changed = {key for key, value in vars(row).items() if getattr(small, key) != value}
        assert changed <= {"epochs", "encoder"}
        assert (small.encoder == "none") == (row.encoder == "none")


def test_a_new_row_is_a_new_entry(tmp_path):
    path = tmp_path / "experiments.yaml"
    row = {"input": "crops", "encoder": "resnet18", "lr": 0.01, "epochs": 3, "batch_size": 8}
    path.write_text(yaml.safe_dump({"mine": row}))
    assert load_experiments(path)["mine"].title == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnet99"}, "encoder: 'resnet99'; must be one of"),
        ({"input": "none"}, "an image input needs an encoder"),
        ({"fusion": "late"}, "late fusion needs `pretrained"),
        ({"lr": 0}, "a network needs lr > 0"),
        ({"epoch": 3}, "unknown epoch"),
        ({"pretrained": {"tabular": "deepsurv"}, "fusion": "alpha"}, "no experiment 'deepsurv'"),
    ],
)
def test_faulty_experiments(tmp_path, change, message):
    path = tmp_path / "experiments.yaml"
    row = {"input": "crops", "encoder": "resnet18", "lr": 0.01, "epochs": 3, "batch_size": 8}
    path.write_text(yaml.safe_dump({"mine": {**row, **change}}))
    with pytest.raises(UserError) as caught:
        load_experiments(path)
    assert any(message in fault for fault in caught.value.faults)


def test_unknown_and_faulty_profiles(tmp_path):
    with pytest.raises(UserError, match="profile 'huge': unknown; choose demo, paper"):
        load_profile("huge")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"scale": 2, "n_folds": 1, "alphas": [], "bootstrap_draws": 20}))
    with pytest.raises(UserError) as caught:
        load_profile(str(path))
    assert len(caught.value.faults) == 3
