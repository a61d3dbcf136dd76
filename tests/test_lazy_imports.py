"""torch takes seconds to import: whatever only reads a cohort or a finished run does without it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pandas as pd
import pytest

from fracsurv.config import ENCODERS, VITS
from fracsurv.models.vit_deepsurv import VIT_SIZES
from fracsurv.study.experiments import run_experiment
from fracsurv.study.labels import ENCODERS as TOLD
from fracsurv.study.prepare import prepare

WITHOUT = (
    "cli", "cohort.cohort", "images.store", "study.run", "study.prepare", "study.ablation", "study.explain",
    "pipeline.progress",
    "pipeline.pipeline", "report.notebook", "report.findings", "report.report",
)  # fmt: skip


def loaded_by(program: str, *arguments: object) -> set[str]:
    """Which of the heavy packages a program has imported when it ends."""
    end = "; import sys; print(*({'torch', 'torchvision', 'captum'} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", program + end, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


def test_the_look_into_modules_finds_what_is_there():
    assert "torch" in loaded_by("import fracsurv.training.loop")


def test_what_reads_alone_imports_no_torch():
    assert loaded_by("; ".join(f"import fracsurv.{name}" for name in WITHOUT)) == set()


@pytest.mark.parametrize("command", ["check", "prepare"])
def test_commands_on_a_cohort_with_boxes_import_no_torch(simulated, tmp_path, command):
    given = {
        "check": [simulated],
        "prepare": [simulated, "--profile", "tiny", "--out", tmp_path / "run", "--kind", "full"],
    }[command]
    program = f"import sys; from fracsurv.cli import app; app(['{command}', *sys.argv[1:]], standalone_mode=False)"
    assert loaded_by(program, *given) == set()


def test_the_report_of_a_finished_run_imports_no_torch(simulated, tmp_path):
    run = prepare(simulated, tmp_path / "run", "tiny")
    run_experiment(run, "cox_ph", progress=False)
    program = "import sys; from fracsurv.cli import app; app(sys.argv[1:], standalone_mode=False)"
    assert loaded_by(program, "report", simulated, "--profile", "tiny", "--out", run.out) == set()
    assert (run.out / "index.html").exists()


def test_boxes_that_were_found_before_are_taken_without_torch(simulated, tmp_path):
    cohort, out = tmp_path / "cohort", tmp_path / "run"
    shutil.copytree(simulated, cohort)
    (cohort / "vertebrae.csv").unlink()
    for name in ("cohort.csv", "truth.parquet"):
        (cohort / name).unlink()
    pd.read_csv(simulated / "cohort.csv").head(24).to_csv(cohort / "cohort.csv", index=False)
    program = "import sys; from fracsurv.study.prepare import prepare; prepare(*sys.argv[1:], 'tiny')"
    assert "torch" in loaded_by(program, cohort, out)
    assert loaded_by(program, cohort, out) == set()


def test_the_encoders_names_are_those_of_the_networks():
    assert set(VITS) == set(VIT_SIZES)
    assert set(TOLD) == set(ENCODERS)
