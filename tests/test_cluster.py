"""The pipeline's jobs on a cluster: which there are, that a dead one is done again, and Slurm itself where it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from fracsurv.config import CONFIGS, ROOT
from fracsurv.pipeline.cluster import jobs_at_once, read_profile
from fracsurv.study.experiments import fit_fold
from fracsurv.study.prepare import prepare
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import read_json
from tests.conftest import tabular, write_cohort

PROFILE = CONFIGS / "slurm" / "config.yaml"
KINDS = {"age": "continuous", "smoker": "binary"}


def has_slurm() -> bool:
    """Whether a Slurm answers here."""
    if shutil.which("sinfo") is None:
        return False
    said = subprocess.run(["sinfo", "--noheader", "--format", "%a"], capture_output=True, text=True, check=False)
    return said.returncode == 0 and "up" in said.stdout


def snakemake(folder: Path, cohort: Path, *arguments: object, experiments: str = "",
              per_fit: bool = True) -> str:  # fmt: skip
    """What Snakemake prints, called on the Snakefile as `fracsurv run --profile-dir` calls it."""
    config = folder / "config.json"
    prepare(cohort, folder / "out", "tiny")
    settings = {"cohort": str(cohort), "out": str(folder / "out"), "profile": "tiny", "per_fit": per_fit, "cores": 1}
    config.write_text(json.dumps({**settings, "experiments": experiments}))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder / "out",
         "--nolock", "--configfile", config, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_one_job_an_experiment_fold_and_alpha(simulated, tmp_path):
    names = "cox_ph,cds_crops_lf,vit_crops_alpha"
    printed = snakemake(tmp_path, simulated, "--profile", PROFILE.parent, "--dry-run", "--printshellcmds",
                        experiments=names)  # fmt: skip
    jobs = re.findall(r"fracsurv\.cli fit .*--experiment (\S+) --fold (\d+)(?: --alpha (\S+))? --threads 1 ", printed)
    run = prepare(simulated, tmp_path / "out", "tiny")
    wanted = {
        (name, str(fold), "" if alpha is None else f"{alpha:g}")
        for name in run.with_parts(names.split(","))
        for fold in range(run.profile.n_folds)
        for alpha in run.alphas(name)
    }
    assert len(wanted) == 2 * (4 + 2)  # by fold: Cox, late fusion and its two parts; α has two values
    assert len(jobs) == len(wanted)
    assert set(jobs) == wanted


@pytest.mark.parametrize("per_fit", [True, False])
def test_what_was_deleted_is_asked_for_though_the_report_stands(simulated, tmp_path, per_fit):
    names = "true_risk,cox_ph,cds_crops_alpha"
    asked = snakemake(tmp_path, simulated, "--profile", PROFILE.parent, "--dry-run", experiments=names,
                      per_fit=per_fit)  # fmt: skip
    wanted = re.search(r"rule all:\n    input: (.+)", asked)[1]
    made = {Path(path).relative_to(tmp_path / "out").as_posix() for path in wanted.split(", ")}
    shown = ["01_eda_kaplan_meier", "02_crop_extraction", "03_baselines", "04_fusion_training_cds_crops_alpha",
             "05_ablation_tables", "06_explanations"]  # fmt: skip
    fits = {f"experiments/true_risk/fold-{fold}/evaluation.complete" for fold in (0, 1)}
    if per_fit:
        fits |= {f"experiments/cox_ph/fold-{fold}/evaluation.complete" for fold in (0, 1)}
        alphas = prepare(simulated, tmp_path / "out", "tiny").profile.alphas
        fits |= {
            f"experiments/cds_crops_alpha/alpha-{a:g}/fold-{fold}/fit.complete" for a in alphas for fold in (0, 1)
        }
    notebooks = {f"notebooks/{name}.ipynb" for name in shown}
    results = {"index.html", "ablation.csv", "explanations/complete", "prepared/crops.complete"}
    assert made == notebooks | results | fits


@pytest.mark.parametrize(
    ("gpu", "experiments", "wanted"),
    [
        (0, "cox_ph,cds_crops_alpha", set()),
        (1, "cox_ph,cds_crops_alpha", {"fit_alpha", "explain", "training_notebook_cds_crops_alpha"}),
        (1, "cox_ph,deepsurv", set()),
    ],
)
def test_networks_with_images_ask_for_a_gpu_where_there_is_one(simulated, tmp_path, gpu, experiments, wanted):
    here = profile_of(tmp_path / "p", config=[f"gpu={gpu}"])
    printed = snakemake(tmp_path, simulated, "--profile", here, "--dry-run", experiments=experiments)
    jobs = re.split(r"\n(?=rule )", printed)
    assert {re.match(r"rule (\S+):", job)[1] for job in jobs if "gpu=1" in job} == wanted
    assert "rule explain:" in printed


def test_the_profile_tries_again_and_says_where_jobs_go():
    settings = read_profile(PROFILE) if shutil.which("sbatch") else yaml.safe_load(PROFILE.read_text())
    assert settings["executor"] == "slurm"
    assert settings["retries"] >= 1
    assert jobs_at_once(settings) == settings["jobs"] > 1
    assert {"runtime", "mem_mb"} <= settings["default-resources"].keys()


@pytest.mark.parametrize("text", [None, "executor: [", "- slurm", "executor: no-such-one"])
def test_a_faulty_profile_is_refused_by_its_path(tmp_path, text):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))) as caught:
        read_profile(tmp_path / "config.yaml")
    assert len(caught.value.faults) == 1


def test_slurm_without_its_commands_is_refused(monkeypatch):
    monkeypatch.setattr("fracsurv.pipeline.cluster.shutil.which", lambda name: None)
    monkeypatch.setattr("fracsurv.pipeline.cluster.find_spec", lambda name: name)
    with pytest.raises(UserError, match="sbatch"):
        read_profile(PROFILE)


@contextmanager
def killed_once(checkpoint: Path, *words: str) -> Iterator[list[int]]:
    """Kill the process whose command line has all of these words as soon as it has written a checkpoint.

    Its number goes into the list.
    """
    killed, ended = [], threading.Event()

    def look() -> None:
        while not killed and not ended.wait(0.01):
            for process in psutil.process_iter() if checkpoint.exists() else ():
                with suppress(psutil.Error):
                    line = process.cmdline()
                    if line[1:3] == ["-m", "fracsurv.cli"] and all(word in line for word in words):
                        process.kill()
                        killed.append(process.pid)
                        return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def profile_of(folder: Path, **changed: object) -> Path:
    """The shipped profile with some entries changed; None: left out."""
    settings = {**yaml.safe_load(PROFILE.read_text()), **changed}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
    return folder


def made_again(cohort: Path, folder: Path, profile: Path) -> tuple[str, Path]:
    """Have Snakemake make one fit whose process is killed the first time: what it prints, and the fit's folder."""
    fold = folder / "out" / "experiments" / "deepsurv" / "fold-0"
    with killed_once(fold / "resume.safetensors", "fit", "deepsurv", str(folder / "out")) as killed:
        printed = snakemake(
            folder, cohort, "--profile", profile, fold / "evaluation.complete", experiments="deepsurv"
        )
    assert len(killed) == 1
    return printed, fold


def as_undisturbed(cohort: Path, fold: Path, out: Path) -> bool:
    run, threads = prepare(cohort, out, "tiny"), torch.get_num_threads()
    torch.set_num_threads(1)  # as the job's
    fit_fold(run, "deepsurv", 0, progress=False)
    torch.set_num_threads(threads)
    other = run.folder("deepsurv", 0)
    assert read_json(fold / "metrics.json")["key"] == run.evaluation_key("deepsurv", 0)
    return (other / "best.safetensors").read_bytes() == (fold / "best.safetensors").read_bytes()


def test_a_killed_job_is_done_again(tmp_path):
    cohort = write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    slurms = {name: None for name in yaml.safe_load(PROFILE.read_text()) if name.startswith("slurm-")}
    here = profile_of(tmp_path / "p", executor="local", jobs=None, cores=1, **slurms)
    printed, fold = made_again(cohort, tmp_path, here)
    assert "Trying to restart job" in printed
    assert as_undisturbed(cohort, fold, tmp_path / "undisturbed")


@pytest.mark.skipif(not has_slurm(), reason="no Slurm answers here")
def test_slurm_does_a_killed_job_again(tmp_path):
    cohort = write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    slurm = profile_of(tmp_path / "p", **{"latency-wait": 5, "set-resources": {"fit": {"gpu": 0, "mem_mb": 2000}}})
    printed, fold = made_again(cohort, tmp_path, slurm)
    assert len(re.findall(r"has been submitted with SLURM jobid (\d+)", printed)) == 2
    assert as_undisturbed(cohort, fold, tmp_path / "undisturbed")
