"""Rows of one's own, as docs/own-model.md has them: another rate, another encoder, risks from elsewhere."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from fracsurv import config
from fracsurv.config import ROOT, load_experiments, load_profile
from fracsurv.metrics import concordance_index
from fracsurv.study.experiments import run_experiment
from fracsurv.study.explain import explain
from fracsurv.study.own_models import read_risks, register_encoder
from fracsurv.study.prepare import prepare
from fracsurv.study.results import finished, read_predictions
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort

PAGE = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
RATE, ENCODER, THEIRS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
MODULE = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[1]


@pytest.fixture(autouse=True)
def no_folders(monkeypatch):
    monkeypatch.setattr(config, "OWN_FOLDERS", [])
    monkeypatch.setattr("fracsurv.study.own_models.OWN_FOLDERS", config.OWN_FOLDERS)


def profile(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_row_with_another_learning_rate_keeps_the_study_rows_as_they_are(tmp_path):
    mine, tiny = load_profile(profile(tmp_path, RATE)), load_profile("tiny")
    rows = load_experiments(own=mine.experiments)
    assert mine.apply(rows["cds_crops_if_slow"]).lr == 1e-5
    assert mine.apply(rows["cds_crops_if_slow"]).epochs == 2
    for name, row in load_experiments().items():
        assert mine.apply(rows[name]) == tiny.apply(row)
    assert config.as_record(mine)["scale"] == tiny.scale
    assert "experiments" not in config.as_record(tiny)  # so that the keys of fits stay as they were


def test_a_row_with_all_its_epochs_beside_cut_ones_is_refused(tmp_path):
    content = yaml.safe_load(RATE)
    del content["epochs"]
    with pytest.raises(UserError, match="has no 'cds_crops_if_slow', whose 200 epochs"):
        load_profile(profile(tmp_path, yaml.safe_dump(content)))
    content["base"] = "paper"  # cuts none
    assert load_profile(profile(tmp_path, yaml.safe_dump(content))).experiments


def test_a_profile_that_cuts_some_rows_cuts_all(tmp_path):
    settings = {"scale": 0.5, "n_folds": 3, "alphas": [0.3], "bootstrap_draws": 20, "epochs": {"cds_crops_if": 2}}
    with pytest.raises(UserError) as caught:
        load_profile(profile(tmp_path, yaml.safe_dump(settings)))
    assert len(caught.value.faults) == 7  # the other rows that train on images
    assert any("'cds_full', whose 150 epochs" in fault for fault in caught.value.faults)


def test_the_profile_read_last_has_its_own_files(tmp_path):
    folder = write_cohort(tmp_path / "c", tabular(120, 3), covariates={"age": "continuous"})
    for place, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / place).mkdir()
        run = prepare(folder, tmp_path / place / "out", profile(tmp_path / place, THEIRS))
        risks = pd.DataFrame({"patient_id": run.cohort.table["patient_id"], "risk": value})
        risks.to_csv(tmp_path / place / "risks.csv", index=False)
        assert (read_risks(run.experiments["theirs"], run.cohort, 0) == value).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(base="none"), "base: 'none' is no profile"),
        (lambda c: c["experiments"].update(cox_ph={"model": "cox_ph"}), "is a row of experiments.yaml already"),
        (lambda c: c["experiments"]["cds_crops_if_slow"].update(encoder="nodot"), "module.Class"),
        (lambda c: c["experiments"]["cds_crops_if_slow"].update(file="x.csv"), "only it takes one"),
    ],
)
def test_faulty_rows_of_a_profile_are_refused(tmp_path, change, words):
    content = yaml.safe_load(RATE)
    change(content)
    with pytest.raises(UserError) as caught:
        load_profile(profile(tmp_path, yaml.safe_dump(content)))
    assert any(words in fault for fault in caught.value.faults), caught.value.faults


def test_an_encoder_of_ones_own_is_fitted_evaluated_and_explained(simulated, tmp_path):
    (tmp_path / "small.py").write_text(MODULE)
    run = prepare(simulated, tmp_path / "out", profile(tmp_path, ENCODER), kinds=["crops"])
    run_experiment(run, "small_if", progress=False)
    assert "small_if" in finished(run)
    found = explain(run, "small_if", "test", patients=3)
    assert found.contributions is not None
    assert found.places is None
    before = run.key("small_if", 0)
    (tmp_path / "small.py").write_text(MODULE.replace("32, 5", "32, 3"))
    assert run.key("small_if", 0) != before  # another source, another fit
    assert "small_if" not in finished(run)


def test_an_encoder_of_ones_own_in_every_other_fusion(simulated, tmp_path):
    (tmp_path / "small.py").write_text(MODULE)
    content = yaml.safe_load(ENCODER)
    row = content["experiments"].pop("small_if") | {"epochs": 2}
    content["experiments"] = {
        "alone": row | {"fusion": "none"},
        "weighed": row | {"fusion": "alpha"},
        "late": row | {"fusion": "late", "pretrained": {"image": "alone", "tabular": "deepsurv"}},
    }
    content["epochs"] = dict.fromkeys(content["experiments"], 2)
    run = prepare(simulated, tmp_path / "out", profile(tmp_path, yaml.safe_dump(content)), kinds=["crops"])
    for name in ("deepsurv", *content["experiments"]):
        run_experiment(run, name, progress=False)
        assert np.isfinite(read_predictions(run, name, 0)["risk"]).all()
    assert set(finished(run)) >= set(content["experiments"])


def test_a_registered_encoder_and_one_that_is_not_there(simulated, tmp_path):
    names: dict = {}
    exec(MODULE, names)
    text = ENCODER.replace("small.SmallEncoder", "notebook.SmallEncoder")
    run = prepare(simulated, tmp_path / "out", profile(tmp_path, text), kinds=["crops"])
    with pytest.raises(UserError, match=r"encoder notebook\.SmallEncoder: No module named 'notebook'"):
        run_experiment(run, "small_if", progress=False)
    register_encoder("notebook.SmallEncoder", type("NoFeatures", (names["nn"].Identity,), {}))
    with pytest.raises(UserError, match="the attribute n_features"):
        run_experiment(run, "small_if", progress=False)
    register_encoder("notebook.SmallEncoder", names["SmallEncoder"])
    run_experiment(run, "small_if", progress=False)
    assert "small_if" in finished(run)
    before, after = (f"nn.{name}(),\n            nn.Conv2d(16" for name in ("ReLU", "GELU"))
    assert before in MODULE
    exec(MODULE.replace(before, after), names)  # the cell, changed
    register_encoder("notebook.SmallEncoder", names["SmallEncoder"])
    assert "small_if" not in finished(run)


def test_risks_from_elsewhere_are_evaluated_like_all_others(tmp_path):
    folder = write_cohort(tmp_path / "c", tabular(120, 3), covariates={"age": "continuous"})
    run = prepare(folder, tmp_path / "out", profile(tmp_path, THEIRS))
    table = run.cohort.table
    risks = pd.DataFrame({"patient_id": table["patient_id"], "risk": table["age"]}).sample(frac=1, random_state=0)
    risks.to_csv(tmp_path / "risks.csv", index=False)
    run_experiment(run, "theirs", progress=False)
    assert "theirs" in finished(run)
    judged = read_predictions(run, "theirs", 0).query("split == 'test'")
    ages = table.set_index("patient_id")["age"].loc[judged["patient_id"]]
    np.testing.assert_array_equal(judged["risk"], ages)
    assert np.isfinite(concordance_index(judged["event"], judged["time"], judged["risk"]))
    before = run.key("theirs", 0)
    risks.assign(risk=-risks["risk"]).to_csv(tmp_path / "risks.csv", index=False)
    assert run.key("theirs", 0) != before


def test_every_fault_of_risks_from_elsewhere_is_listed(tmp_path):
    folder = write_cohort(tmp_path / "c", tabular(120, 3), covariates={"age": "continuous"})
    run = prepare(folder, tmp_path / "out", profile(tmp_path, THEIRS))
    with pytest.raises(UserError, match="not there"):
        run_experiment(run, "theirs", progress=False)
    risks = pd.DataFrame({"patient_id": run.cohort.table["patient_id"], "risk": 1.0})
    risks.loc[0, "patient_id"], risks.loc[1, "risk"] = "stranger", np.inf
    pd.concat([risks, risks.tail(1)]).to_csv(tmp_path / "risks.csv", index=False)
    with pytest.raises(UserError) as caught:
        run_experiment(run, "theirs", progress=False)
    assert [fault.split(": ")[1] for fault in caught.value.faults] == [
        "no risk for", "unknown", "twice", "risk is no finite number",
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "out")
