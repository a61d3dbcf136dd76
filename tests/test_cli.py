"""The command line: what it prints, and how it ends when the user is mistaken."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from fracsurv import cli
from fracsurv.cohort import read_cohort
from tests.conftest import tabular, write_cohort

KINDS = {"age": "continuous", "smoker": "binary"}


def call(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Run `fracsurv ARGUMENTS` in this process; exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["fracsurv", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    output = capsys.readouterr()
    return end.value.code or 0, output.out, output.err


def test_check_a_sound_cohort(monkeypatch, capsys, tmp_path):
    write_cohort(tmp_path, tabular(), covariates=KINDS)
    code, out, _ = call(monkeypatch, capsys, "check", str(tmp_path))
    assert code == 0
    assert "60 patients (real)" in out
    assert "no faults; real; without radiographs" in out


def test_check_lists_every_fault_and_ends_with_2(monkeypatch, capsys, tmp_path):
    table = tabular().astype(object)
    table.loc[0, "age"], table.loc[1, "event"] = "old", "yes"
    write_cohort(tmp_path, table, covariates=KINDS)
    code, out, err = call(monkeypatch, capsys, "check", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: cohort.csv row 2, column age: 'old'; must be a number",
        "error: cohort.csv row 3, column event: 'yes'; must be 1 (fracture) or 0 (censored)",
        "2 faults",
    ]


def test_simulate_then_check(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "cohort"
    arguments = ("--patients", "6", "--seed", "3", "--resolution", "0.1", "--format", "dicom")
    assert call(monkeypatch, capsys, "simulate", str(folder), *arguments)[0] == 0
    cohort = read_cohort(folder)
    assert (len(cohort), cohort.provenance, cohort.resolution) == (6, "simulated", 0.1)
    assert cohort.table["image"].str.endswith(".dcm").all()
    code, _, err = call(monkeypatch, capsys, "simulate", str(folder), *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_fit_refuses_what_the_profile_has_not(monkeypatch, capsys, tmp_path):
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    base = ("fit", str(tmp_path / "c"), "--profile", "tiny", "--out", str(tmp_path / "r"), "--experiment", "deepsurv")
    code, _, err = call(monkeypatch, capsys, *base, "--fold", "7", "--alpha", "0.3")
    assert code == 2
    assert err.splitlines() == [
        "error: --fold 7: folds are 0 to 1 in profile tiny",
        "error: --alpha 0.3: deepsurv takes none",
        "2 faults",
    ]


def test_fit_writes_the_folds_files(monkeypatch, capsys, tmp_path):
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    base = ("fit", str(tmp_path / "c"), "--profile", "tiny", "--out", str(tmp_path / "r"), "--experiment", "deepsurv")
    assert call(monkeypatch, capsys, *base, "--fold", "1")[0] == 0
    assert sorted(path.name for path in (tmp_path / "r" / "experiments" / "deepsurv" / "fold-1").iterdir()) == [
        "best.safetensors", "fit.json", "history.csv", "last.safetensors", "metrics.json", "predictions.parquet",
    ]  # fmt: skip


def test_run_refuses_an_experiment_that_the_cohort_cannot_feed(monkeypatch, capsys, tmp_path):
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    arguments = ("run", str(tmp_path / "c"), "--profile", "tiny", "--out", str(tmp_path / "r"))
    code, _, err = call(monkeypatch, capsys, *arguments, "--experiments", "cox_ph,cds_full")
    assert code == 2
    assert "'cds_full' is unknown or needs radiographs" in err


def test_pipeline_on_a_cohort_without_images(monkeypatch, capsys, tmp_path):
    """The Snakefile end to end: notebooks, table, report; and a second call finds everything done."""
    write_cohort(tmp_path / "c", tabular(120), covariates=KINDS)
    out = tmp_path / "r"
    arguments = ("run", str(tmp_path / "c"), "--profile", "tiny", "--out", str(out))
    code, printed, err = call(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert f"report: {out / 'index.html'}" in printed
    assert set(pd.read_csv(out / "ablation.csv")["experiment"]) == {"cox_ph", "deepsurv"}
    for name in ("01_eda_kaplan_meier", "03_baselines", "05_ablation_tables"):
        assert (out / "notebooks" / f"{name}.html").exists()
    assert not (out / "notebooks" / "02_crop_extraction.ipynb").exists()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert call(monkeypatch, capsys, *arguments)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
