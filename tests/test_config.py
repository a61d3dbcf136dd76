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
ROW = {"input": "crops", "encoder": "resnet18", "lr": 0.01, "epochs": 3, "batch_size": 8}
PROFILE = {"scale": 0.5, "n_folds": 3, "alphas": [0.3], "bootstrap_draws": 20}


def written(path, content):
    """A YAML file's path."""
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def faults_of(load, path) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(path if load is load_experiments else str(path))
    assert all(fault.startswith(path.name) for fault in caught.value.faults)
    return caught.value.faults


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


def test_defaults(tmp_path):
    row = load_experiments(written(tmp_path / "experiments.yaml", {"mine": ROW}))["mine"]
    assert (row.name, row.title) == ("mine", "mine")
    profile = load_profile(str(written(tmp_path / "mine.yaml", PROFILE)))
    assert (profile.name, profile.alphas, profile.scale, profile.full_scale) == ("mine", (0.3,), 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnet99"}, "encoder: 'resnet99'"),
        ({"input": "none"}, "image input"),
        ({"fusion": "late"}, "late fusion needs `pretrained"),
        ({"lr": 0}, "lr > 0"),
        ({"epoch": 3}, "'epoch' (is epochs meant?)"),
        ({"pretrained": {"tabular": "deepsurv"}, "fusion": "alpha"}, "no experiment 'deepsurv'"),
        ({"lr": "1e-4"}, "lr: '1e-4'; must be a number: write 0.0001"),
        ({"lr": float("inf")}, "lr: inf"),
        ({"epochs": "3"}, "epochs: '3'; must be a whole number: write 3"),
        ({"epochs": True}, "epochs: True; must be a whole number"),
        ({"title": 3}, "title: 3; must be text"),
        ({"pretrained": "deepsurv"}, "pretrained: 'deepsurv'"),
        ({"input": "full", "encoder": "vit_tiny"}, "vision transformer"),
        ({"fusion": "alpha", "pretrained": {"image": "mine"}}, "tabular part alone"),
        ({"fusion": "late", "pretrained": {"image": "mine", "tabular": "mine"}}, "mine → mine"),
        ({"fusion": "alpha", "pretrained": {"tabular": "mine"}}, "'mine' is not a network"),
        ({"model": "cox_ph"}, "cox_ph takes no image"),
        ({"morphometry": True}, "no `morphometry`"),
        ({"morphometry": 1}, "morphometry: 1; must be true or false"),
    ],
)
def test_faulty_experiments(tmp_path, change, message):
    faults = faults_of(load_experiments, written(tmp_path / "experiments.yaml", {"mine": ROW | change}))
    assert any("mine" in fault and message in fault for fault in faults)


@pytest.mark.parametrize("fusion", ["late", "alpha"])
def test_a_tabular_part_taken_over_has_the_same_covariates(tmp_path, fusion):
    parts = {"tabular": "tab"} | ({"image": "img"} if fusion == "late" else {})
    rows = {
        "tab": {"lr": 0.01, "epochs": 3, "batch_size": 8, "morphometry": True},
        "img": ROW,
        "mine": {**ROW, "fusion": fusion, "pretrained": parts},
    }
    path = written(tmp_path / "experiments.yaml", rows)
    assert "'tab' has other covariates" in faults_of(load_experiments, path)[0]
    rows["mine"]["morphometry"] = True
    assert load_experiments(written(path, rows))["mine"].morphometry


def test_rows_that_hold_nothing_and_names_that_cannot_be_folders(tmp_path):
    path = tmp_path / "experiments.yaml"
    for row in (None, 3, ["lr"]):
        assert "mine" in faults_of(load_experiments, written(path, {"mine": row}))[0]
    for name in ("true_risk", "a/b", "a b", 3):
        (fault,) = faults_of(load_experiments, written(path, {name: {"model": "cox_ph"}}))
        assert f"name: {name!r}" in fault


def test_a_circle_of_three(tmp_path):
    rows = {
        name: {**ROW, "fusion": "alpha", "pretrained": {"tabular": other}}
        for name, other in {"a": "b", "b": "c", "c": "a", "d": "a"}.items()
    }
    faults = faults_of(load_experiments, written(tmp_path / "experiments.yaml", rows))
    circles = [fault for fault in faults if "circle" in fault]
    assert [circle.split(": ")[1] for circle in circles] == ["a → b → c → a", "b → c → a → b", "c → a → b → c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_folds": "3"}, "n_folds: '3'; must be a whole number: write 3"),
        ({"n_folds": 1}, "n_folds: 1; must be at least 2"),
        ({"alphas": 0.5}, "alphas: 0.5; must be a list"),
        ({"alphas": []}, "alphas: []"),
        ({"alphas": [0.3, 0.3]}, "alphas: [0.3, 0.3]; must be distinct"),
        ({"alphas": [1.5]}, "alphas: [1.5]"),
        ({"scale": None}, "scale: None; must be a number"),
        ({"scale": 2}, "scale: 2; must be at most 1"),
        ({"epochs": {"cds_full": 0}}, "epochs, cds_full: 0; must be at least 1"),
        ({"epochs": {"cds_ful": 3}}, "epochs: no experiment 'cds_ful' (is cds_full meant?)"),
        ({"test_fraction": 0}, "test_fraction: 0; must be above 0"),
        ({"test_fraction": 1.0}, "test_fraction: 1.0; must be below 1"),
        ({"seed": -1}, "seed: -1; must be at least 0"),
        ({"bootstrap_draws": 19}, "bootstrap_draws: 19; must be at least 20"),
        ({"permute_outcomes": "no"}, "permute_outcomes: 'no'; must be true or false"),
        ({"encoders": {"resnet50": "vit_tiny"}}, "encoders: {'resnet50': 'vit_tiny'}; must map"),
        ({"simulate": {"patients": "90"}}, "simulate, patients: '90'; must be a whole number"),
        ({"feeding": "fast"}, "feeding: 'fast'"),
        ({3: 4}, "unknown setting '3'"),
    ],
)
def test_faulty_profiles(tmp_path, change, message):
    (fault,) = faults_of(load_profile, written(tmp_path / "mine.yaml", PROFILE | change))
    assert message in fault


def test_all_faults_of_a_file_are_listed_at_once(tmp_path):
    path = written(tmp_path / "mine.yaml", {"scale": "0.5", "n_folds": 1, "alphas": None, "speed": 3})
    faults = faults_of(load_profile, path)
    assert len(faults) == 5
    for key in ("bootstrap_draws", "speed", "scale", "alphas", "n_folds"):
        assert sum(key in fault.split(";")[0] for fault in faults) == 1


def test_broken_files_and_unknown_profiles(tmp_path):
    path = written(
        tmp_path / "twice.yaml", yaml.safe_dump(PROFILE) + "scale: 0.25\nepochs: {deepsurv: 1, deepsurv: 2}\n"
    )
    scale, epochs = faults_of(load_profile, path)
    assert "scale" in scale
    assert "deepsurv" in epochs
    for content in ("note: Å".encode("latin-1"), b"scale: [", b"- 1"):
        path.write_bytes(content)
        assert len(faults_of(load_profile, path)) == 1
    with pytest.raises(UserError, match=r"'huge'.*demo, paper"):
        load_profile("huge")
    with pytest.raises(UserError, match=rf"unknown \(is {path} meant\?\)"):
        load_profile(str(path.with_name("Twice.yml")))
