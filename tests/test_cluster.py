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
from fracsurv.study.results import is_done
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort

PROFILE = CONFIGS / "slurm" / "config.yaml"
KINDS = {"age": "continuous", "smoker": "binary"}


def has_slurm() -> bool:
    """Whether a Slurm answers here."""
    if shutil.which("sinfo") is None:
        return False
    said = subprocess.run(["sinfo", "--noheader", "--format", "%a"], capture_output=True, text=True, check=False)
    return said.returncode == 0 and "up" in said.stdout


def snakemake(folder: Path, cohort: Path, *arguments: object, experiments: str = "") -> str:
    """What Snakemake prints, called on the Snakefile as `fracsurv run --profile-dir` calls it."""
    config = folder / "config.json"
    prepare(cohort, folder / "out", "tiny")
    settings = {"cohort": str(cohort), "out": str(folder / "out"), "profile": "tiny", "per_fit": True, "cores": 1}
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


@pytest.mark.parametrize(
    ("gpu", "names", "rules"),
    [
        (1, "cox_ph,cds_crops_alpha", {"fit_alpha", "explain", "training_notebook_cds_crops_alpha"}),
        (0, "cox_ph,cds_crops_alpha", set()),
        (1, "cox_ph,deepsurv", set()),
    ],
)
def test_image_networks_alone_ask_for_a_gpu_where_there_is_one(simulated, tmp_path, gpu, names, rules):
    here = profile_of(tmp_path / "p", config=[f"gpu={gpu}"])
    printed = snakemake(tmp_path, simulated, "--profile", here, "--dry-run", experiments=names)
    jobs = [job for job in re.split(r"\n(?=rule )", printed) if "resources: " in job]
    assert any(job.startswith("rule explain:") for job in jobs)
    assert {re.match(r"rule (\S+):", job)[1] for job in jobs if "gpu=1" in job} == rules


def test_the_profile_tries_again_and_says_where_jobs_go():
    settings = read_profile(PROFILE) if shutil.which("sbatch") else yaml.safe_load(PROFILE.read_text())
    assert settings["executor"] == "slurm"
    assert settings["retries"] >= 1
    assert jobs_at_once(settings) == settings["jobs"] > 1
    assert {"runtime", "mem_mb"} <= settings["default-resources"].keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "has no config.yaml"),
        ("executor: [", "cannot be read as YAML"),
        ("- slurm", "must be a mapping"),
        ("executor: no-such-one", "executor 'no-such-one' is not installed"),
    ],
)
def test_a_faulty_profile_is_one_fault(tmp_path, monkeypatch, text, said):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_profile(tmp_path / "config.yaml")
    assert len(caught.value.faults) == 1
    assert str(tmp_path) in caught.value.faults[0]
    monkeypatch.setattr("fracsurv.pipeline.cluster.shutil.which", lambda name: None)
    monkeypatch.setattr("fracsurv.pipeline.cluster.find_spec", lambda name: name)
    with pytest.raises(UserError, match="no `sbatch`"):
        read_profile(PROFILE)


@contextmanager
def killed_once(checkpoint: Path, *words: str) -> Iterator[list[int]]:
    """Kill the process with all of these words in its call once it has written a checkpoint; list its number."""
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


def killed_and_done_again(folder: Path, profile: Path) -> str:
    """What Snakemake prints of a fit that is killed the first time, and in the end is as if undisturbed."""
    cohort = write_cohort(folder / "c", tabular(), covariates=KINDS)
    fold = folder / "out" / "experiments" / "deepsurv" / "fold-0"
    with killed_once(fold / "resume.safetensors", "fit", "deepsurv", str(folder / "out")) as killed:
        wanted = fold / "evaluation.complete"
        printed = snakemake(folder, cohort, "--profile", profile, wanted, experiments="deepsurv")
    assert len(killed) == 1
    run, threads = prepare(cohort, folder / "undisturbed", "tiny"), torch.get_num_threads()
    torch.set_num_threads(1)  # as the job's
    fit_fold(run, "deepsurv", 0, progress=False)
    torch.set_num_threads(threads)
    assert is_done(fold / "metrics.json", run.evaluation_key("deepsurv", 0))
    weights = [each / "best.safetensors" for each in (fold, run.folder("deepsurv", 0))]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    return printed


def test_a_killed_job_is_done_again(tmp_path):
    slurms = {name: None for name in yaml.safe_load(PROFILE.read_text()) if name.startswith("slurm-")}
    here = profile_of(tmp_path / "p", executor="local", jobs=None, cores=1, **slurms)
    assert "Trying to restart job" in killed_and_done_again(tmp_path, here)


@pytest.mark.skipif(not has_slurm(), reason="no Slurm answers here")
def test_slurm_does_a_killed_job_again(tmp_path):
    slurm = profile_of(tmp_path / "p", **{"latency-wait": 5, "set-resources": {"fit": {"gpu": 0, "mem_mb": 2000}}})
    printed = killed_and_done_again(tmp_path, slurm)
    assert len(re.findall(r"has been submitted with SLURM jobid (\d+)", printed)) == 2
