"""The notebooks run on made-up cohorts, escape what cohorts write, and are committed without paths."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.config import ROOT
from fracsurv.report.notebook import names_of, text_of, whole_of
from fracsurv.study.prepare import prepare
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort
from tests.made_up import execute, made_up_baselines, made_up_run, texts_of


@pytest.mark.parametrize("stem", ["01_eda_kaplan_meier", "03_baselines"])
def test_notebooks_on_horizons_below_one_of_another_unit(tmp_path, stem, monkeypatch):
    table = tabular(n=120, seed=2)
    table["time_days"] = table["time_days"] / 1000  # events up to 3 months
    folder = write_cohort(
        tmp_path / "c", table, covariates={"age": "continuous"}, time_unit="months", horizons=[0.3333, 0.825, 1.602]
    )
    run = prepare(folder, tmp_path / "out", "tiny")
    made_up_baselines(run, np.random.default_rng(1))
    texts = " ".join(texts_of(execute(stem, folder, tmp_path / "out", monkeypatch)))
    assert re.search(r"\b1\.602 months", texts)
    assert "years" not in texts.replace("Age, years", "")
    if stem == "03_baselines":  # every horizon has its own value
        found = json.loads((run.folder("cox_ph", 0) / "metrics.json").read_text())["metrics"]
        assert len({row["value"] for row in found if row["metric"] == "brier" and row["split"] == "test"}) == 3


@pytest.mark.parametrize("deaths", [False, True])
def test_notebook_03_finds_the_studys_own_numbers_again(tmp_path, monkeypatch, deaths):
    """Coefficients, log hazards and metrics, computed in cells, are those that the run wrote."""
    table = tabular(n=120, seed=3).assign(constant=0)
    table["twice"] = 2 * table["age"]
    kinds = {"age": "continuous", "smoker": "binary", "constant": "binary", "twice": "continuous"}
    about = {"covariates": kinds}
    if deaths:
        table["event"] = np.where(np.random.default_rng(0).random(120) < 0.3, 2, table["event"])
        about["competing_event"] = "death"
    folder = write_cohort(tmp_path / "c", table, **about)
    texts = texts_of(execute("03_baselines", folder, tmp_path / "out", monkeypatch))
    said = " ".join(texts)
    assert "The three differ by at most 0.00000. Left out of 4 covariates: 2." in said
    assert "0.00000 for Cox regression, 0.00000 for DeepSurv" in said
    assert re.search(r"The study has 12 such means .* differ by at most 0\.000000", said)
    ratios = next(text for text in texts if "Hazard ratio [95 % interval]" in text)
    assert "smoker" in ratios
    assert "constant" not in ratios  # left out of every fold: absent, not 1
    assert "twice" not in ratios


@pytest.mark.parametrize("case", ["one event a fold", "nobody predicted", "nothing varies"])
def test_a_cohort_of_a_few_events_ends_in_a_report(tmp_path, monkeypatch, case):
    """What `check` accepts: folds in which nobody can be ranked, nobody with an event, no covariates."""
    table = tabular(n=80, seed=4).assign(rare=(np.arange(80) == 3).astype(int))
    table["event"] = (np.arange(80) < 3).astype(int)
    table["time_days"] = np.where(table["event"] == 1, 2000 + np.arange(80), 300 + 20 * np.arange(80))
    kinds = {"age": "continuous", "smoker": "binary"}
    if case == "nobody predicted":  # no event in training by the horizon of the answer, followed by one patient alone
        table.loc[[0, 1, 2], "time_days"] = [2990, 2900, 2995]
        table.loc[79, "time_days"] = 3000
    if case == "nothing varies":
        kinds = {"rare": "binary"}
    table["split"] = np.where(np.arange(80) >= 50, "external", np.where(np.arange(80) % 10 == 9, "test", "train"))
    folder = write_cohort(tmp_path / "c", table, covariates=kinds)
    assert CliRunner().invoke(app, ["check", str(folder)]).exit_code == 0
    profile = tmp_path / "few.yaml"
    profile.write_text("base: tiny\nnote: few\nn_folds: 3\nepochs: {deepsurv: 2, deepsurv_vf: 2}\n", encoding="utf-8")
    for stem in ("01_eda_kaplan_meier", "03_baselines", "05_ablation_tables", "06_explanations"):
        texts = " ".join(texts_of(execute(stem, folder, tmp_path / "out", monkeypatch, profile=str(profile))))
        assert not re.search(r"\bnan\b", texts, re.I)
        if stem == "05_ablation_tables" and case == "one event a fold":
            assert "No two validation patients can be ranked, so the last epoch was kept: DeepSurv, fold" in texts


def test_notebook_02_escapes_hostile_patient_ids(simulated, tmp_path, monkeypatch):
    folder = shutil.copytree(simulated, tmp_path / "c")
    patients = pd.read_csv(folder / "cohort.csv")["patient_id"][:40]
    for path in (folder / "cohort.csv", folder / "vertebrae.csv"):
        table = pd.read_csv(path)
        table = table[table["patient_id"].isin(patients)]
        table["patient_id"] = "<script>*" + table["patient_id"] + "*"
        table.to_csv(path, index=False)
    (folder / "truth.parquet").unlink()
    rows = pd.read_csv(folder / "vertebrae.csv")
    rows[rows["patient_id"] == rows["patient_id"][0]].iloc[1:].to_csv(
        folder / "vertebrae_corrections.csv", index=False
    )
    shown = execute("02_crop_extraction", folder, tmp_path / "out", monkeypatch)
    texts = texts_of(shown)
    assert not any("<script>" in text for text in texts)
    assert any("patients 1; boxes kept" in text and "removed 1." in text for text in texts)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


@pytest.mark.parametrize("stem", ["01_eda_kaplan_meier", "03_baselines", "05_ablation_tables"])
def test_notebooks_run_on_a_cohort_without_images(run, stem, monkeypatch):
    shown = execute(stem, run.cohort.folder, run.out, monkeypatch)
    assert sum(isinstance(s, dict) and "image/png" in s for s in shown) >= 2
    assert not any("<script>" in text for text in texts_of(shown))


def test_committed_notebooks_carry_no_paths_and_stay_small():
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(paths) == 7
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 1_000_000
        notebook = nbformat.reads(text, as_version=4)
        tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        assert len(tagged) == 1
        assert "| parameter | default" in notebook.cells[notebook.cells.index(tagged[0]) - 1].source
        outputs = json.dumps(
            [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" not in str(o)[:200]]
        )
        for planted in (f"{Path.home()}/", str(ROOT), "site-packages", "Warning"):
            assert planted not in outputs
        assert "NBVAL" not in text  # tags, not comments


def test_papermill_from_any_folder_with_any_kernel_and_names_that_are_numbers(tmp_path):
    write_cohort(tmp_path / "2024", tabular(), covariates={"age": "continuous"})
    kernel = tmp_path / "kernels" / "mine" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "Mine", "language": "python"}))
    command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / "01_eda_kaplan_meier.ipynb", "shown.ipynb"]
    command += ["-p", "cohort", "2024", "-p", "out", "5", "--kernel", "mine", "--no-progress-bar"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "JUPYTER_PATH": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "5" / "tables" / "cohort.csv").exists()
    assert "60 patients" in (tmp_path / "shown.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("stem", "parameters", "words"),
    [
        ("01_eda_kaplan_meier", {"profile": 1}, "profile '1': unknown"),
        ("02_crop_extraction", {"profile": 1.5}, r"profile '1\.5': unknown"),
        ("03_baselines", {"cohort": 2024}, "2024: no such cohort folder"),
        ("04_fusion_training", {"experiment": 5}, "experiment '5': unknown"),
        ("05_ablation_tables", {"experiments": 5}, "experiment '5': unknown"),
        ("05_ablation_tables", {"experiments": ["cox_ph", True]}, "experiment 'True': unknown"),
        ("06_explanations", {"patients": "many"}, "parameter patients: 'many'; must be a whole number"),
        ("07_external_validation", {"run": 5}, "5: no models to apply"),
        ("07_external_validation", {"draws": 99.5}, "parameter draws: 99.5; must be a whole number"),
    ],
)
def test_a_parameter_of_another_type_is_taken_as_text_or_refused_by_name(run, monkeypatch, stem, parameters, words):
    about = {"cohort": str(run.cohort.folder), "out": str(run.out), **parameters}
    with pytest.raises(UserError, match=words):
        execute(stem, about.pop("cohort"), about.pop("out"), monkeypatch, **about)


def test_parameters_as_text_names_and_whole_numbers():
    assert [text_of(each) for each in (2024, 1.5, True, None, "a", Path("b"))] == [
        "2024",
        "1.5",
        "True",
        "",
        "a",
        "b",
    ]
    assert [names_of(each) for each in ("a, b,", 5, None, "", ["a", 1])] == [["a", "b"], ["5"], [], [], ["a", "1"]]
    assert [whole_of("n", each) for each in (3, 1e3, "7", True)] == [3, 1000, 7, 1]
    for odd in ("x", None, 0.5, float("inf"), float("nan"), []):
        with pytest.raises(UserError, match="parameter n: "):
            whole_of("n", odd)
