"""The command line: what it prints, and how it ends when the user is mistaken."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml

from fracsurv import cli
from fracsurv.cohort.cohort import read_cohort
from fracsurv.config import CONFIGS, ROOT
from fracsurv.pipeline.pipeline import _call, _failures, _last_words, _locked
from fracsurv.pipeline.progress import Progress
from fracsurv.study.prepare import prepare
from fracsurv.study.results import finished
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import is_alive
from tests.conftest import tabular, write_cohort
from tests.test_environment import foreign_settings

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
    assert "no faults; real; radiographs: none" in out


def test_check_warns_of_what_is_odd_unless_a_summary_is_asked_for(monkeypatch, capsys, tmp_path):
    table = tabular()
    table.loc[4, "age"] = 28490
    write_cohort(tmp_path, table, covariates=KINDS)
    code, out, _ = call(monkeypatch, capsys, "check", str(tmp_path))
    assert (code, "28490" in out) == (0, True)
    assert "warning: column age, row 6: 28490" in out
    code, short, _ = call(monkeypatch, capsys, "check", str(tmp_path), "--summary")
    assert (code, "28490" in short) == (0, False)
    assert re.search(r"boxes: none; \d+ warnings?$", short.strip())
    table.loc[4, "smoker"] = 28490
    write_cohort(tmp_path, table, covariates=KINDS)
    code, out, err = call(monkeypatch, capsys, "check", str(tmp_path), "--summary")
    assert (code, out, err.splitlines()[0]) == (2, "", "error: faults: 1; call without --summary to see them")


def test_check_lists_every_fault_and_ends_with_2(monkeypatch, capsys, tmp_path):
    table = tabular().astype(object)
    table.loc[0, "age"], table.loc[1, "event"] = "old", "yes"
    write_cohort(tmp_path, table, covariates=KINDS)
    code, out, err = call(monkeypatch, capsys, "check", str(tmp_path))
    assert (code, out) == (2, "")
    starts = [
        "error: cohort.csv row 2, column age: 'old'",
        "error: cohort.csv row 3, column event: 'yes'",
        "2 faults",
    ]
    assert [line[: len(start)] for line, start in zip(err.splitlines(), starts, strict=True)] == starts


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
    about = (str(tmp_path / "c"), "--profile", "tiny", "--out", str(tmp_path / "r"))
    base = ("fit", *about, "--experiment", "deepsurv")
    code, _, err = call(monkeypatch, capsys, *base, "--fold", "0")
    assert (code, "fracsurv prepare" in err) == (2, True)
    assert call(monkeypatch, capsys, "prepare", *about)[0] == 0
    code, _, err = call(monkeypatch, capsys, *base, "--fold", "7", "--alpha", "0.3")
    assert code == 2
    assert [line.partition(": ")[2][:13] for line in err.splitlines()] == ["--fold 7: fol", "--alpha 0.3: ", ""]


def test_fit_writes_the_folds_files(monkeypatch, capsys, tmp_path):
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    about = (str(tmp_path / "c"), "--profile", "tiny", "--out", str(tmp_path / "r"))
    assert call(monkeypatch, capsys, "prepare", *about)[0] == 0
    assert call(monkeypatch, capsys, "fit", *about, "--experiment", "deepsurv", "--fold", "1")[0] == 0
    assert sorted(path.name for path in (tmp_path / "r" / "experiments" / "deepsurv" / "fold-1").iterdir()) == [
        "best.safetensors", "fit.json", "history.csv", "last.safetensors", "metrics.json", "model.json",
        "predictions.parquet", "timing.csv",
    ]  # fmt: skip


def test_run_refuses_an_experiment_that_the_cohort_cannot_feed(monkeypatch, capsys, tmp_path):
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    arguments = ("run", str(tmp_path / "c"), "--profile", "tiny", "--out", str(tmp_path / "r"))
    code, _, err = call(monkeypatch, capsys, *arguments, "--experiments", "cox_ph,cds_full,true_risk")
    assert code == 2
    assert "'cds_full' needs radiographs" in err
    assert "'true_risk' needs radiographs, boxes, keypoints or a known true risk, which " in err
    # a misspelt one before vertebrae are looked for, or anything is written
    again = tmp_path / "again"
    code, _, err = call(
        monkeypatch, capsys, *arguments[:-1], str(again), "--experiments", "cox_ph,cds_crop_if,what,true_risk"
    )
    assert code == 2
    assert "'cds_crop_if' is unknown (is cds_crops_if meant?)" in err
    assert "'what' is unknown" in err
    assert not again.exists()


@pytest.mark.parametrize("braced", ["cohort", "out"])
def test_run_refuses_braces_before_anything_is_written(monkeypatch, capsys, tmp_path, braced):
    cohort, out = (tmp_path / (name + "{a}" * (name == braced)) for name in ("cohort", "out"))
    write_cohort(cohort, tabular(), covariates=KINDS)
    code, _, err = call(monkeypatch, capsys, "run", str(cohort), "--profile", "tiny", "--out", str(out))
    assert code == 2
    assert "braces in a path" in err
    assert len(err.splitlines()) == 1
    assert not out.exists()


def dry_run(tmp_path, **settings):
    """The Snakefile's jobs as (rule, log's name), without running them."""
    config, settings = tmp_path / "config.json", {"profile": "tiny", "experiments": "", **settings}
    prepare(settings["cohort"], tmp_path / "out", settings["profile"])
    config.write_text(json.dumps({"out": str(tmp_path / "out"), **settings}))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path / "out",
         "--cores", "1", "--nolock", "--dry-run", "--printshellcmds", "--configfile", config],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_notebook_waits_for_the_true_risk(tmp_path):
    table = tabular()
    write_cohort(tmp_path / "c", table, covariates=KINDS, provenance="simulated")
    table[["patient_id"]].assign(log_hazard=table["age"]).to_parquet(tmp_path / "c" / "truth.parquet")
    printed = dry_run(tmp_path, cohort=str(tmp_path / "c"))
    rule = printed.split("rule baselines_notebook:")[1].split("output:")[0]
    assert all(f"true_risk/fold-{fold}/evaluation.complete" in rule for fold in (0, 1))


def test_braces_in_a_profiles_note_are_text(tmp_path):
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    profile = tmp_path / "mine.yaml"
    settings = yaml.safe_load((CONFIGS / "tiny.yaml").read_text(encoding="utf-8"))
    profile.write_text(yaml.safe_dump({**settings, "note": "{anything} goes"}))
    assert "baselines_notebook" in dry_run(tmp_path, cohort=str(tmp_path / "c"), profile=str(profile))


@pytest.fixture
def run(tmp_path):
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    return prepare(tmp_path / "c", tmp_path / "a b", "tiny")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("radiographs: 10 %\nerror: a.png: torn\nerror: b.png: torn\n2 faults\n", "a.png: torn; b.png: torn"),
        ("error: a.png: torn\nerror: b.png: torn\n2 faults\n", "a.png: torn; b.png: torn"),
        ("".join(f"error: {i}\n" for i in range(9)) + "9 faults\n", "0; 1; 2; 3; 4; and 4 more"),
        ("error: met early, and went on\nValueError: died\n", "ValueError: died"),
        ("", "none, so the system ended it (for memory, perhaps)"),
        ("a\nyaml.ScannerError: no end\n  in 'a', line 3\n    b: [\n       ^\n", "no end; in 'a', line 3; b: [; ^"),
        ("\x1b[31mKeyError\x1b[39m: 'x'\nshutting down\n\n", "KeyError: 'x'; shutting down"),
        ("ImportError: no y\nRuntimeError: Kernel died\n", "RuntimeError: Kernel died (after ImportError: no y)"),
        ("a: 10 %\rb: 20 %\n", "b: 20 %"),
    ],
)
def test_last_words_are_the_faults_or_the_exception_or_the_last_line(tmp_path, log, words):
    (tmp_path / "log").write_text(log, newline="")
    assert _last_words(tmp_path / "log").endswith(words)


JOB = """RuleException:
CalledProcessError in file "Snakefile", line 203:
Command 'set -euo pipefail;  python -m x > {log} 2>&1' {end}
[Tue Dec  1 06:30:42 2026]
Error in rule fit:
    message: {message}
    jobid: 3
    log: {log} (check log file(s) for error details)
    shell:
        python -m x > {log} 2>&1
"""


@pytest.mark.parametrize(
    ("written", "message", "end", "words"),
    [
        ("", "Job submission failed with exception: No such file: 'sacct'For further error details see the log", "",
         "none; Job submission failed with exception: No such file: 'sacct'"),
        ("", "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. For further error details see", "",
         "none; SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'"),
        ("10 %\n", "None", "died with <Signals.SIGKILL: 9>.", "10 %; the system ended it (for memory, perhaps)"),
        ("", "None", "returned non-zero exit status 137.", "none; the system ended it (for memory, perhaps)"),
        ("", "None", "returned non-zero exit status 139.", "none; SIGSEGV ended it"),
        ("KeyError: 'x'\n", "None", "returned non-zero exit status 1.", "KeyError: 'x'"),
    ],
)  # fmt: skip
def test_a_failed_steps_cause_is_reported(tmp_path, capsys, written, message, end, words):
    log = tmp_path / "it's.log"
    log.write_text(written)
    told = tmp_path / "snakemake.log"
    quoted = JOB.replace("> {log}", f"> {shlex.quote(str(log))}").format(log=log, message=message, end=end)
    told.write_text(f"Building DAG\n{quoted}{quoted}Exiting\n")
    assert _failures(told, tmp_path) == [f"step failed; its last words: {words} (all of them: {log})"]
    shown = capsys.readouterr().err
    assert shown == (f"\n{log} ends with:\n    {written}" if written else "")


@pytest.mark.parametrize("behind", ["", ", {out}/.snakemake/slurm_logs/rule_fit/7.log"])
def test_a_failed_steps_log_is_found_in_a_path_with_spaces(run, behind):
    log = run.out / "logs" / "my step.log"
    log.parent.mkdir()
    log.write_text("started\ndied\n")
    logs = f"{log}{behind.format(out=run.out.resolve())}"
    said = f"print('    log: {log.parent}/sound.log'); print('    log: {logs} (check log file(s) for error details)')"
    with open(run.out / ".lock", "w") as lock, pytest.raises(UserError) as caught:
        _call([sys.executable, "-c", f"{said}; raise SystemExit(1)"], run, Progress(run, [], 1), lock)
    assert caught.value.faults == [f"step failed; its last words: died (all of them: {log})"]


STUBBORN = (
    "import os, pathlib, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGINT, lambda *_: (pathlib.Path('interrupted').touch(), sys.exit(1)))\n"
    "job = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "pathlib.Path('half').write_text(f'{os.getpid()} {job.pid}'); os.rename('half', 'family')\n"
    "time.sleep(600)\n"
)


@pytest.mark.parametrize("on_cluster", [False, True])
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_run_started_ends_with_it_and_frees_the_folder(run, told, on_cluster):
    """Snakemake, stood for by a process with a job, however the run ends; and the next run need not wait long."""
    code = (
        "import sys; from fracsurv.study.run import open_run\n"
        "from fracsurv.pipeline.pipeline import _call, _failures, _last_words, _locked\n"
        "from fracsurv.pipeline.progress import Progress\n"
        f"run = open_run({str(run.cohort.folder)!r}, {str(run.out)!r}, 'tiny')\n"
        "with _locked(run.out) as lock:\n"
        f"    _call([sys.executable, '-c', {STUBBORN!r}], run, Progress(run, [], 1), lock, {on_cluster})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, cwd=run.out)
    deadline = time.monotonic() + 120
    while not (run.out / "family").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    family = [int(number) for number in (run.out / "family").read_text().split()]
    with pytest.raises(UserError, match=r"another run is at work there \(on .+, process group \d+"), _locked(run.out):
        pass
    parent.send_signal(told)
    assert parent.wait(60) == (143 if told == signal.SIGTERM else -9)
    with _locked(run.out):
        deadline = time.monotonic() + 20  # a dead process is there until the system has buried it
        while any(is_alive(number) for number in family) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(is_alive(number) for number in family)
    assert (run.out / "interrupted").exists() == on_cluster  # Snakemake then takes its jobs back


def test_ctrl_c_tells_with_what_to_go_on(tmp_path):
    write_cohort(tmp_path / "c d", tabular(), covariates=KINDS)
    command = [sys.executable, "-m", "fracsurv.cli", "run", tmp_path / "c d", "--profile", "tiny", "--out", "o"]
    # who runs the tests in the background may have Ctrl-C ignored, and that is handed down
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    started = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, **heard)
    deadline = time.monotonic() + 120
    while not (tmp_path / "o" / ".process").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    wanted = shlex.join(map(str, command))
    assert err.splitlines()[-1] == f"stopped; called again, it goes on from what is finished: {wanted}"
    assert "Traceback" not in err


def test_make_clean_leaves_the_users_runs_and_cohorts(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("data/demo", "data/mine", "reports/demo", "reports/mine", ".venv", "a/__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["Makefile", "a", "data", "data/mine", "reports", "reports/mine"]


def test_make_setup_refuses_an_old_python(tmp_path):
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    old = tmp_path / "python-old"
    old.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 10, 4)\nexec(sys.argv[2])\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={old}"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"fracsurv needs Python 3.11 or later, {old} is 3.10" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_test_forgets_old_fits():
    done = subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert -1 < done.stdout.find("rm -rf reports/tiny") < done.stdout.find("-m pytest")


def test_pipeline_on_a_cohort_without_images(monkeypatch, capsys, tmp_path):
    """The Snakefile end to end, ages being unknown: notebooks, table, report; and a second call finds all done.

    All that amid settings and modules of the user's own, and without a name or a home.
    """
    for name, value in foreign_settings(tmp_path / "user").items():
        monkeypatch.setenv(name, value)
    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "user" / "cwd")
    cohort, out = tmp_path / "it's #1: a" / "c", tmp_path / "it's #1: a" / 'the "run"'
    table = tabular(120)
    table.loc[::6, "age"] = np.nan
    write_cohort(cohort, table, covariates=KINDS, missing_covariates="impute")
    arguments = ("run", str(cohort), "--profile", "tiny", "--out", str(out))
    code, printed, err = call(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert f"report: {out / 'index.html'}" in printed
    assert set(pd.read_csv(out / "ablation.csv")["experiment"]) == {"cox_ph", "deepsurv"}
    for name in ("01_eda_kaplan_meier", "03_baselines", "06_explanations"):
        assert (out / "notebooks" / f"{name}.html").exists()
    assert not (out / "notebooks" / "02_crop_extraction.ipynb").exists()
    assert "20 not known" in (out / "notebooks" / "01_eda_kaplan_meier.html").read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert call(monkeypatch, capsys, *arguments)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    table.loc[1, "age"] += 1  # one value corrected: what there is may not be lost without a word
    write_cohort(cohort, table, covariates=KINDS, missing_covariates="impute")
    code, _, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "holds fits (cox_ph, deepsurv) of this cohort with other values" in err
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    os.utime(cohort / "cohort.csv", (1e9, 1e9))  # a copy that kept its date: older than what was made before
    code, _, err = call(monkeypatch, capsys, *arguments, "--anew")
    assert code == 0, err
    assert all(path.stat().st_mtime_ns > then for path, then in before.items())
    opened = prepare(cohort, out, "tiny")
    assert finished(opened) == ["cox_ph", "deepsurv"]
    assert json.loads((out / "provenance.json").read_text())["cohort"]["fingerprint"] == opened.cohort.fingerprint()
