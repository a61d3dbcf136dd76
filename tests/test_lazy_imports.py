"""torch takes seconds to import: whatever only reads a cohort or a finished run does without it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pandas as pd

from fracsurv.config import ENCODERS, ROOT, VITS
from fracsurv.models.vit_deepsurv import VIT_SIZES
from fracsurv.study.experiments import run_experiment
from fracsurv.study.labels import ENCODERS as LABELLED
from fracsurv.study.prepare import prepare

WITHOUT = (
    "cli", "cohort.cohort", "images.store", "study.run", "study.prepare", "study.ablation", "study.explain",
    "pipeline.progress",
    "pipeline.pipeline", "report.notebook", "report.report",
)  # fmt: skip


def loaded_by(program: str, *arguments: object) -> set[str]:
    """Which of the heavy packages a program has imported when it ends."""
    end = "; import sys; print(*({'torch', 'torchvision', 'captum'} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", program + end, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


def test_what_reads_alone_imports_no_torch():
    assert "torch" in loaded_by("import fracsurv.training.loop")  # the look into modules finds what is there
    assert loaded_by("; ".join(f"import fracsurv.{name}" for name in WITHOUT)) == set()
    assert set(VITS) == set(VIT_SIZES)  # written twice for that reason
    assert set(LABELLED) == set(ENCODERS)


def test_check_prepare_and_report_import_no_torch(simulated, tmp_path):
    program = "import sys; from fracsurv.cli import app; app(sys.argv[1:], standalone_mode=False)"
    options = ["--profile", "tiny", "--out", tmp_path / "run"]
    assert loaded_by(program, "check", simulated) == set()
    assert loaded_by(program, "prepare", simulated, *options, "--kind", "full") == set()
    run_experiment(prepare(simulated, tmp_path / "run", "tiny"), "cox_ph", progress=False)
    (tmp_path / "run" / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "05_ablation_tables.ipynb", tmp_path / "run" / "notebooks")
    assert loaded_by(program, "report", simulated, *options) == set()
    assert (tmp_path / "run" / "index.html").exists()


def test_boxes_that_were_found_before_are_taken_without_torch(simulated, tmp_path):
    cohort, out = tmp_path / "cohort", tmp_path / "run"
    shutil.copytree(simulated, cohort)
    for name in ("vertebrae.csv", "truth.parquet"):
        (cohort / name).unlink()
    pd.read_csv(simulated / "cohort.csv").head(24).to_csv(cohort / "cohort.csv", index=False)
    program = "import sys; from fracsurv.study.prepare import prepare; prepare(*sys.argv[1:], 'tiny')"
    assert "torch" in loaded_by(program, cohort, out)
    assert loaded_by(program, cohort, out) == set()
