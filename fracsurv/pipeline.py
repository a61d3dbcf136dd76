"""The study as one resumable pipeline: a checked cohort handed to the Snakefile."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pandas as pd
from tqdm import tqdm

from fracsurv.config import ROOT
from fracsurv.errors import UserError
from fracsurv.files import check_outside, remove_leftovers, write_json, write_text
from fracsurv.image_oddities import resolution_oddities
from fracsurv.numerals import MISSING
from fracsurv.progress import Progress, in_words
from fracsurv.run import Run, open_run
from fracsurv.tables import metric_cell
from fracsurv.wording import stamp

SNAKEFILE = ROOT / "Snakefile"
GRACE_SECONDS = 20
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # tqdm's own time left takes every fit for alike


def run_pipeline(
    cohort: Path, profile: str, out: Path, experiments: list[str], cores: int, per_fit: bool = False
) -> None:
    """Run what is not done yet and print the report's path and the ablation table.

    Parameters
    ----------
    experiments : list of str
        Names to run; those that they build on are run too. Empty: all that the cohort allows.
    per_fit : bool
        One job an (experiment, fold, α) in the place of one an experiment; the results are the same.

    Raises
    ------
    UserError
        For a faulty cohort or profile, an unknown experiment, a path with braces, another run at work in `out`,
        or a failed step.
    """
    paths = {"COHORT": cohort.resolve(), "--out": out.resolve(), "the repository": ROOT}
    braced = [f"{what}: {path}; braces in a path mean something to Snakemake, choose another"
              for what, path in paths.items() if set("{}") & set(str(path))]  # fmt: skip
    if braced:
        raise UserError(braced)
    check_outside(out, cohort)
    run = open_run(cohort, out, profile, progress=True)  # everything is checked before anything runs
    unknown = [name for name in experiments if name not in run.runnable()]
    if unknown:
        raise UserError(
            [f"--experiments: {name!r} is unknown or needs radiographs or boxes that {cohort} does not have; "
             f"choose {', '.join(run.runnable())}" for name in unknown]
        )  # fmt: skip
    for line in resolution_oddities(run.cohort):
        print(f"warning: {line}", file=sys.stderr)
    out = out.resolve()
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it if this process dies
        except BlockingIOError:
            raise UserError(
                f"{out}: another run is at work there{_process(out)}; wait for it, stop it, or choose another --out"
            ) from None
        remove_leftovers(out, below=True)
        # as a file: on the command line Snakemake would read '#', ': ' and quotes of a path as YAML's
        settings = out / "logs" / "snakemake-config.json"
        write_json(settings, {
            "cohort": str(cohort.resolve()), "out": str(out), "experiments": ",".join(experiments),
            "profile": str(Path(profile).resolve()) if profile.endswith((".yaml", ".yml")) else profile,
            "per_fit": per_fit,
        })  # fmt: skip
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(out),
            "--cores", str(cores), "--resources", "gpu=1" if run.device.type == "cuda" else f"gpu={cores}",
            "--nolock", "--rerun-incomplete", "--keep-going", "--configfile", str(settings),
        ]  # fmt: skip
        progress = Progress(run, experiments or run.runnable(), 1 if run.device.type == "cuda" else cores)
        _call(command, run, progress, lock)
    print(format_table(pd.read_csv(out / "ablation.csv"), stamp(run)))
    print(f"\nreport: {out / 'index.html'}")


def _call(command: list[str], run: Run, progress: Progress, lock: IO[str]) -> None:
    """Run Snakemake with a progress bar over the fits; what it prints goes to `logs/snakemake.log`.

    The child inherits `lock`, so that the folder stays locked should this process be killed and Snakemake live on.
    """
    log = run.out.resolve() / "logs" / "snakemake.log"
    log.parent.mkdir(exist_ok=True)
    # one thread a job: two busy single-threaded jobs beat one job with two threads
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (
        open(log, "w", encoding="utf-8") as output,
        _stopped_with_us(
            subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT,
                pass_fds=(lock.fileno(),), process_group=0,
            ),
            run.out.resolve() / ".process",
        ) as process,
        tqdm(total=progress.total, desc="models fitted", bar_format=BAR) as bar,
    ):  # fmt: skip
        while process.poll() is None:
            bar.update(progress.update() - bar.n)
            bar.set_postfix_str(in_words(progress))
            time.sleep(1)
        bar.update(0 if process.returncode else progress.total - bar.n)
    if process.returncode:
        failed = re.findall(
            r"^\s+log: (.+) \(check log file\(s\)", log.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        raise UserError(
            [
                f"step failed; its last words: {_last_line(Path(path))} (all of them: {path})"
                for path in dict.fromkeys(failed)
            ]
            or [f"the pipeline failed; see {log}"]
        )


@contextmanager
def _stopped_with_us(process: subprocess.Popen, number: Path) -> Iterator[subprocess.Popen]:
    """Stop a child and its jobs, a process group of their own, when this process is interrupted or told to end.

    The group's number stands in the file `number` meanwhile: should this process be killed, the child lives on.
    """
    write_text(number, str(process.pid))

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield process
    finally:
        # Snakemake waits for its jobs when told to end, therefore they are told too
        for how in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, how)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
        signal.signal(signal.SIGTERM, before)
        number.unlink(missing_ok=True)


def _process(out: Path) -> str:
    """How to find the run at work in `out`, where it is known."""
    number = out / ".process"
    if not number.exists():
        return ""
    return f" (process group {number.read_text()}: `kill -- -{number.read_text()}` stops it; log: {out}/logs)"


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "none"


def format_table(table: pd.DataFrame, stamped: str) -> str:
    """The ablation's C-index in plain text: a row an experiment, a column a split, mean ± SD [95 % interval].

    `stamped` says what it was made from.
    """
    c_index = table[table["metric"] == "c_index"].copy()
    c_index["text"] = [metric_cell(row, " ") for row in c_index.to_dict("records")]
    wide = c_index.pivot(index="experiment", columns="split", values="text")
    wide = wide.loc[c_index["experiment"].unique(), [s for s in ("validation", "test", "external") if s in wide]]
    return f"C-index, mean ± SD over folds [95 % bootstrap interval]; {stamped}\n" + wide.fillna(MISSING).to_string()
