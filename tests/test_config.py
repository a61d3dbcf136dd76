"""Experiments and profiles: the protocol's numbers, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from fracsurv.config import load_experiments, load_profile
from fracsurv.study.thesis_results import published_hyperparameters
from fracsurv.utils.errors import UserError

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
    beyond = {name for name, row in rows.items() if row.morphometry}
    assert beyond == {"cox_ph_vf", "deepsurv_vf"}
    assert set(rows) - beyond == {*TABLE_A1, "cox_ph"}
    found = {name: (row.lr, row.scheduler, row.epochs, row.batch_size) for name, row in rows.items()}
    assert {name: found[name] for name in TABLE_A1} == TABLE_A1
    assert found["deepsurv_vf"] == found["deepsurv"]
    shown = {name: published_hyperparameters(name) for name in rows}  # what a report has beside a run's own
    assert {name for name in shown if shown[name]} == set(TABLE_A1)
    for name, (lr, scheduler, epochs, batch) in TABLE_A1.items():
        encoder = rows[name].encoder
        wanted = {"encoder": encoder, "lr": lr, "cosine": scheduler == "cosine", "epochs": epochs, "batch": batch}
        assert shown[name] == wanted


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
        ({"lr": "1e-4"}, "lr: '1e-4'; must be a number: write 1.0e-4"),
        ({"lr": "3E5"}, "lr: '3E5'; must be a number: write 3.0e+5"),
        ({"lr": "fast"}, "lr: 'fast'; must be a number"),
        ({"lr": float("inf")}, "lr: inf; must be a number"),
        ({"epochs": "3"}, "epochs: '3'; must be a whole number: write 3"),
        ({"batch_size": 8.5}, "batch_size: 8.5; must be a whole number"),
        ({"epochs": True}, "epochs: True; must be a whole number"),
        ({"title": 3}, "title: 3; must be text"),
        ({"encoder": ["resnet18"]}, "encoder: ['resnet18']; must be text"),
        ({"pretrained": "deepsurv"}, "pretrained: 'deepsurv'; must hold `name: text` pairs"),
        ({"input": "full", "encoder": "vit_tiny"}, "a vision transformer takes crops alone"),
        ({"fusion": "alpha", "pretrained": {"image": "mine"}}, "alpha fusion takes a pretrained tabular part alone"),
        (
            {"fusion": "late", "pretrained": {"image": "mine", "tabular": "mine"}},
            "mine → mine: pretrained goes in a circle",
        ),
        ({"fusion": "alpha", "pretrained": {"tabular": "mine"}}, "pretrained tabular model 'mine' is not a network"),
        ({"model": "cox_ph"}, "cox_ph takes no image"),
        ({"bank": 2, "spread_events": True}, "unknown bank, spread_events"),
        ({"morphometry": True}, "an image model without fusion takes no covariates"),
        ({"morphometry": 1}, "morphometry: 1; must be true or false"),
    ],
)
def test_faulty_experiments(tmp_path, change, message):
    path = tmp_path / "experiments.yaml"
    row = {"input": "crops", "encoder": "resnet18", "lr": 0.01, "epochs": 3, "batch_size": 8}
    path.write_text(yaml.safe_dump({"mine": {**row, **change}}))
    with pytest.raises(UserError) as caught:
        load_experiments(path)
    assert any(message in fault for fault in caught.value.faults)


@pytest.mark.parametrize("fusion", ["late", "alpha"])
def test_a_tabular_part_taken_over_has_the_same_covariates(tmp_path, fusion):
    path = tmp_path / "experiments.yaml"
    image = {"input": "crops", "encoder": "resnet18", "lr": 0.01, "epochs": 3, "batch_size": 8}
    parts = {"tabular": "tab"} | ({"image": "img"} if fusion == "late" else {})
    rows = {
        "tab": {"lr": 0.01, "epochs": 3, "batch_size": 8, "morphometry": True},
        "img": image,
        "mine": {**image, "fusion": fusion, "pretrained": parts},
    }
    path.write_text(yaml.safe_dump(rows))
    with pytest.raises(UserError, match="'tab' has other covariates; let `morphometry` agree"):
        load_experiments(path)
    rows["mine"]["morphometry"] = True
    path.write_text(yaml.safe_dump(rows))
    assert load_experiments(path)["mine"].morphometry


@pytest.mark.parametrize("row", [None, 3, ["lr"]])
def test_a_row_that_holds_nothing(tmp_path, row):
    path = tmp_path / "experiments.yaml"
    path.write_text(yaml.safe_dump({"mine": row}))
    with pytest.raises(UserError, match="mine: must hold `name: value` pairs"):
        load_experiments(path)


@pytest.mark.parametrize("name", ["true_risk", "a/b", "a b", 3])
def test_names_that_cannot_be_folders(tmp_path, name):
    path = tmp_path / "experiments.yaml"
    path.write_text(yaml.safe_dump({name: {"model": "cox_ph"}}))
    with pytest.raises(UserError, match=f"experiments.yaml, {name}: must be called by letters, digits"):
        load_experiments(path)


def test_a_circle_of_three(tmp_path):
    path = tmp_path / "experiments.yaml"
    row = {"input": "crops", "encoder": "resnet18", "lr": 0.01, "epochs": 3, "batch_size": 8, "fusion": "alpha"}
    others = {"a": "b", "b": "c", "c": "a", "d": "a"}
    path.write_text(yaml.safe_dump({name: {**row, "pretrained": {"tabular": o}} for name, o in others.items()}))
    with pytest.raises(UserError) as caught:
        load_experiments(path)
    circles = [fault for fault in caught.value.faults if "circle" in fault]
    assert circles == [
        "experiments.yaml, a: a → b → c → a: pretrained goes in a circle",
        "experiments.yaml, b: b → c → a → b: pretrained goes in a circle",
        "experiments.yaml, c: c → a → b → c: pretrained goes in a circle",
    ]


PROFILE = {"scale": 0.5, "n_folds": 3, "alphas": [0.3], "bootstrap_draws": 20}


def test_the_faulty_profiles_are_faulty_by_the_change_alone(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PROFILE))
    assert load_profile(str(path)).alphas == (0.3,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_folds": "3"}, "n_folds: '3'; must be a whole number: write 3"),
        ({"n_folds": 2.5}, "n_folds: 2.5; must be a whole number"),
        ({"n_folds": True}, "n_folds: True; must be a whole number"),
        ({"alphas": 0.5}, "alphas: 0.5; must be a list of numbers"),
        ({"alphas": ["a"]}, "alphas: ['a']; must be a list of numbers"),
        ({"alphas": [0.3, 0.3]}, "alphas: [0.3, 0.3]; must be distinct numbers from 0 to 1"),
        ({"alphas": [0.12345678]}, "alphas: [0.12345678]; must be distinct numbers from 0 to 1"),
        ({"scale": None}, "scale: None; must be a number"),
        ({"epochs": None}, "epochs: None; must hold `name: whole number` pairs"),
        ({"epochs": {"cds_full": 0}}, "epochs: {'cds_full': 0}; must be at least 1"),
        ({"epochs": {"cds_ful": 3}}, "epochs: no experiment 'cds_ful'"),
        ({"epochs": {"cds_full": "3"}}, "epochs: {'cds_full': '3'}; must hold"),
        ({"validate_every": 0}, "validate_every: 0; must be at least 1"),
        ({"test_fraction": 0}, "test_fraction: 0; must be between 0 and 1"),
        ({"test_fraction": 1.0}, "test_fraction: 1.0; must be between 0 and 1"),
        ({"seed": -1}, "seed: -1; must be at least 0"),
        ({"seed": 1.5}, "seed: 1.5; must be a whole number"),
        ({"permute_outcomes": "no"}, "permute_outcomes: 'no'; must be true or false"),
        ({"encoders": {"resnet50": "vit_tiny"}}, "encoders: {'resnet50': 'vit_tiny'}; must map"),
        ({"encoders": {"vit_b_32": "resnet18"}}, "encoders: {'vit_b_32': 'resnet18'}; must map"),
        ({"encoders": {"resnet99": "resnet18"}}, "encoders: {'resnet99': 'resnet18'}; must map"),
        ({"simulate": {"patients": "90"}}, "simulate: {'patients': '90'}; must hold"),
        ({"simulate": {"women": 90}}, "simulate: {'women': 90}; takes patients, external and seed"),
        ({"note": ["a"]}, "note: ['a']; must be text"),
        ({3: 4}, "unknown 3"),
    ],
)
def test_faulty_profiles(tmp_path, change, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**PROFILE, **change}))
    with pytest.raises(UserError) as caught:
        load_profile(str(path))
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(f"mine.yaml: {message}")


def test_faults_of_type_and_of_rule_are_listed_at_once(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"scale": "0.5", "n_folds": 1, "alphas": None, "speed": 3}))
    with pytest.raises(UserError) as caught:
        load_profile(str(path))
    assert [fault.split(";")[0] for fault in caught.value.faults] == [
        "mine.yaml: missing bootstrap_draws",
        "mine.yaml: unknown speed",
        "mine.yaml: scale: '0.5'",
        "mine.yaml: alphas: None",
        "mine.yaml: n_folds: 1",
    ]


def test_latin_1_is_not_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("note: Å".encode("latin-1"))
    with pytest.raises(UserError, match="not readable as YAML"):
        load_profile(str(path))


def test_unknown_and_faulty_profiles(tmp_path):
    with pytest.raises(UserError, match="profile 'huge': unknown; choose demo, paper"):
        load_profile("huge")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"scale": 2, "n_folds": 1, "alphas": [], "bootstrap_draws": 20}))
    with pytest.raises(UserError) as caught:
        load_profile(str(path))
    assert len(caught.value.faults) == 3
