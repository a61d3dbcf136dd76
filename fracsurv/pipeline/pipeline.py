"""The study as one resumable pipeline: a checked cohort handed to the Snakefile."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd
from tqdm import tqdm

from fracsurv.config import ROOT, TRUE_RISK, load_experiments, load_profile
from fracsurv.images.plausibility import resolution_warnings
from fracsurv.images.store import INPUTS
from fracsurv.pipeline.cluster import jobs_at_once, read_profile
from fracsurv.pipeline.process_group import GRACE_SECONDS
from fracsurv.pipeline.progress import Progress, fitted_besides, notebook_of, outdated, time_left_text
from fracsurv.study.ablation import metric_cell
from fracsurv.study.labels import masked_summary, stamp
from fracsurv.study.leakage import grey_scale_warning
from fracsurv.study.own_models import read_risks
from fracsurv.study.prepare import prepare
from fracsurv.study.protocol import FEW_EVENTS, split_counts
from fracsurv.study.run import RUN_LOCK, Run
from fracsurv.utils.environment import isolated
from fracsurv.utils.errors import UserError, closest
from fracsurv.utils.files import check_outside, is_alive, read_json, remove_leftovers, write_json
from fracsurv.utils.formatting import MISSING, counted

SNAKEFILE = ROOT / "Snakefile"
MOST_FAULTS = 5
"""Of a failed step that are shown; the others stand in its log."""
MOST_LINES = 12
"""Of a failed step's log that are shown."""
EXCEPTION = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt|Exit|Expired|Pool)(:.*| in .*)?")
"""The line of a traceback that names the exception."""
COLOUR = re.compile(r"\x1b\[[\d;]*m")
QUIET_SECONDS = 60
"""Between two lines of the progress bar in a file, where no model was fitted meanwhile."""
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # tqdm's own time left takes all fits as equally long


def run_pipeline(
    cohort: Path,
    profile: str,
    out: Path,
    experiments: list[str],
    cores: int,
    per_fit: bool = False,
    profile_dir: Path | None = None,
    *,
    anew: bool = False,
) -> None:
    """Run what is not done yet and print the report's path and the ablation table.

    Parameters
    ----------
    experiments : list of str
        Names to run; those that they build on are run too. Empty: all that the cohort allows.
    cores : int
        Jobs at once; on a cluster the CPUs of a job that can use several.
    per_fit : bool
        One job an (experiment, fold, α) in the place of one an experiment; the results are the same.
    profile_dir : Path, optional
        Of a Snakemake profile, which says where the jobs run and how often they are tried; implies `per_fit`.
    anew : bool
        Whether fits of this cohort with other values, under other settings or by another version may be replaced.

    Raises
    ------
    UserError
        For a faulty cohort or profile, an unknown experiment, a path with braces, another run at work in `out`,
        such fits in `out`, or a failed step.
    """
    _check_paths(cohort, out)
    cluster = read_profile(profile_dir.resolve() / "config.yaml") if profile_dir else None
    run = _prepared(cohort, profile, out, experiments)  # everything is checked before anything runs
    for line in resolution_warnings(run.cohort):
        print(f"warning: {line}", file=sys.stderr)
    if summary := masked_summary(run):
        print(summary, file=sys.stderr)
    out = out.resolve()
    with _locked(out) as lock:
        remove_leftovers(out, below=True)
        if not anew and (former := outdated(run)):
            raise UserError(
                f"{out}: holds fits ({', '.join(former)}) of this cohort with other values, made under other "
                "settings or by another version of fracsurv; give --anew to have those that you run made anew, what "
                "is there being lost, or choose another --out"
            )
        if cluster is None:
            at_once = 1 if run.device.type == "cuda" else cores
            where = ["--cores", str(cores), "--resources", f"gpu={at_once}"]
        else:
            at_once, where = jobs_at_once(cluster), ["--profile", str(profile_dir.resolve() / "config.yaml")]
        command = _snakemake(out, where, {
            "cohort": str(cohort.resolve()), "out": str(out), "experiments": ",".join(experiments),
            "profile": str(Path(profile).resolve()) if profile.endswith((".yaml", ".yml")) else profile,
            "per_fit": per_fit or cluster is not None, "cores": cores,
        })  # fmt: skip
        progress = Progress(run, experiments or run.runnable(), at_once)
        _forget_lost(run, out, progress)
        for line in fitted_besides(run, experiments) if experiments else ():
            print(line, file=sys.stderr)
        _call(command, run, progress, lock, on_cluster=cluster is not None)
    if warning := grey_scale_warning(run):
        print(f"warning: {warning}", file=sys.stderr)
    print(format_table(pd.read_csv(out / "ablation.csv"), stamp(run), split_counts(run)))
    print(f"\nreport: {out / 'index.html'}")


def _forget_lost(run: Run, out: Path, progress: Progress) -> None:
    """Remove what tells Snakemake that a store or a fit is done that was deleted, damaged or outdated since."""
    for kind in INPUTS:
        if not (run.store_folder(kind).is_dir() and run.has_store(kind)):
            (out / "prepared" / f"{kind}.complete").unlink(missing_ok=True)
    for name, fold, alpha in progress.missing():
        for done in ("fit.complete", "evaluation.complete"):
            (run.folder(name, fold, alpha) / done).unlink(missing_ok=True)
        (out / notebook_of(run, name)).unlink(missing_ok=True)


def _check_paths(cohort: Path, out: Path) -> None:
    """Refuse paths that Snakemake cannot take, and results within the cohort's folder."""
    paths = {"COHORT": cohort.resolve(), "--out": out.resolve(), "the repository": ROOT}
    braced = [f"{what}: {path}; braces in a path mean something to Snakemake, choose another"
              for what, path in paths.items() if set("{}") & set(str(path))]  # fmt: skip
    if braced:
        raise UserError(braced)
    check_outside(out, cohort)


def _prepared(cohort: Path, profile: str, out: Path, experiments: list[str]) -> Run:
    """The run, prepared; a UserError for experiments that are unknown or that the cohort has no inputs for."""
    known = [TRUE_RISK, *load_experiments(own=load_profile(profile).experiments)]
    unknown = [f"--experiments: {name!r} is unknown{closest(name, known)}; known are {', '.join(known)}"
               for name in experiments if name not in known]  # fmt: skip
    if unknown:  # before the vertebrae are looked for
        raise UserError(unknown)
    run = prepare(cohort, out, profile, progress=True)
    runnable = run.runnable()
    impossible = [f"--experiments: {name!r} needs radiographs, boxes, keypoints or a known true risk, which {cohort} "
                  f"does not have; choose {', '.join(runnable)}"
                  for name in experiments if name not in runnable]  # fmt: skip
    if impossible:
        raise UserError(impossible)
    for name in runnable:  # notebook 03 takes them along
        if name != TRUE_RISK and run.experiments[name].model == "predictions":
            for fold in range(run.profile.n_folds):
                read_risks(run.experiments[name], run.cohort, fold)  # refuses what is wrong with the file
    return run


def _snakemake(out: Path, where: list[str], settings: dict[str, Any]) -> list[str]:
    """The command that runs the Snakefile; `where` are Snakemake's own options."""
    # as a file: on the command line Snakemake would read '#', ': ' and quotes of a path as YAML's
    file = out / "logs" / "snakemake-config.json"
    write_json(file, settings)
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(out), *where,
        "--workflow-profile", "none", "--nolock", "--rerun-incomplete", "--keep-going", "--configfile", str(file),
    ]  # fmt: skip


def _call(command: list[str], run: Run, progress: Progress, lock: IO[str], on_cluster: bool = False) -> None:
    """Run Snakemake with a progress bar over the fits; what it prints goes to `logs/snakemake.log`.

    It holds `lock` too, and ends with this process, however that ends; see `guard`.
    """
    log = run.out.resolve() / "logs" / "snakemake.log"
    log.parent.mkdir(exist_ok=True)
    with (
        open(log, "w", encoding="utf-8") as output,
        _stopped_with_us(command, run.out.resolve(), output, lock, on_cluster) as process,
        tqdm(total=progress.total, desc="models fitted", bar_format=BAR) as bar,
    ):
        shown = time.monotonic()
        while process.poll() is None:
            new = progress.update() - bar.n
            if sys.stderr.isatty() or new or time.monotonic() - shown > QUIET_SECONDS:
                bar.update(new)
                bar.set_postfix_str(time_left_text(progress))
                shown = time.monotonic()
            time.sleep(1)
        missing = progress.missing()
        bar.update(progress.update() - bar.n if missing else progress.total - bar.n)
        bar.set_postfix_str("")
    if process.returncode:
        raise UserError(_failures(log, run.out.resolve() / ".snakemake"))
    if missing:
        raise UserError([f"{run.folder(*fit)}: missing, though every step ended well; see {log}" for fit in missing])


@contextmanager
def _stopped_with_us(
    command: list[str], out: Path, output: IO[str], lock: IO[str], on_cluster: bool
) -> Iterator[subprocess.Popen]:
    """Run a command and its jobs as a process group, which ends when this process leaves the block, or dies.

    Who they are stands in `.process` meanwhile.
    """
    guard = [sys.executable, "-m", "fracsurv.pipeline.process_group", *(["--interrupt"] if on_cluster else [])]
    # one thread a job: two busy single-threaded jobs beat one job with two threads
    environment = {**isolated(), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*guard, *command], env=environment, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
        pass_fds=(lock.fileno(),), process_group=0,
    )  # fmt: skip
    number = out / ".process"
    write_json(number, {"host": socket.gethostname(), "caller": os.getpid(), "group": process.pid})

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield process
    finally:
        process.stdin.close()  # the guard then stops the others, and itself
        try:
            process.wait(3 * GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        signal.signal(signal.SIGTERM, before)
        number.unlink(missing_ok=True)


@contextmanager
def _locked(out: Path) -> Iterator[IO[str]]:
    """Hold the folder's lock, which the system frees when all who hold it are dead; what is not, is waited for.

    Raises
    ------
    UserError
        Where another run is at work there.
    """
    with open(out / RUN_LOCK, "w") as lock:
        deadline = time.monotonic() + 3 * GRACE_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                other = _at_work(out)
                if not other.get("orphaned") or time.monotonic() > deadline:
                    stop = "(on {host}, process group {group}: `kill -- -{group}` stops it)"
                    described = f" {stop.format(**other)}" if other else ""
                    raise UserError(
                        f"{out}: another run is at work there{described}; wait for it, stop it, or choose another "
                        "--out"
                    ) from None
            time.sleep(0.2)  # the run before was killed, and its guard is stopping its jobs
        yield lock


def _at_work(out: Path) -> dict[str, Any]:
    """Who holds the folder, where it is known; `orphaned`: its `fracsurv run`, on this machine, has ended."""
    try:
        other = read_json(out / ".process")
    except (OSError, ValueError):
        return {}
    return {**other, "orphaned": other["host"] == socket.gethostname() and not is_alive(other["caller"])}


def _failures(log: Path, slurms: Path) -> list[str]:
    """What each failed step says, from its log and Snakemake's; the last lines of a log go to standard error.

    `slurms`: where the cluster's own log of a job lies, which stands behind the step's.
    """
    told = log.read_text(encoding="utf-8", errors="replace")
    failed = re.findall(
        r"(?:^    message: (.*)\n(?:    .*\n)*?)?^\s+log: (.+) \(check log file\(s\)", told, flags=re.MULTILINE
    )
    steps = {Path(logs.partition(f", {slurms}")[0]): message for message, logs in failed}
    faults = []
    for step, message in steps.items():
        why = "" if message == "None" else message.partition("For further error details")[0].rstrip(". ")
        ended = rf"{re.escape(shlex.quote(str(step)))} 2>&1' (?:died with <Signals\.(\w+)|returned .* status (\d+))"
        if not why and (ends := re.findall(ended, told)):
            why = _signal_name(*ends[-1])
        faults.append(f"step failed; its last words: {_last_words(step, why)} (all of them: {step})")
    for path in list(steps) or [log]:
        if (lines := _lines(path)) and not _closing_faults(lines):
            print(f"\n{path} ends with:", *lines[-MOST_LINES:], sep="\n    ", file=sys.stderr)
    return faults or [f"the pipeline failed; its last words: {_last_words(log)} (all of them: {log})"]


def _signal_name(name: str, status: str) -> str:
    """What ended a step, where it was a signal, by its name or by the shell's exit status; or ''."""
    name = name or next((each.name for each in signal.Signals if each + 128 == int(status)), "")
    return "the system ended it (for memory, perhaps)" if name == "SIGKILL" else name and f"{name} ended it"


def _lines(path: Path) -> list[str]:
    """A log's lines, without colours, blank lines and what a progress bar overwrote."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = (COLOUR.sub("", line).rstrip().rpartition("\r")[2] for line in text.split("\n"))
    return [line for line in lines if line]


def _closing_faults(lines: list[str]) -> list[str]:
    """The faults that a log ends with."""
    faults = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return faults if faults and (lines[-1].startswith("error: ") or lines[-1].endswith(" faults")) else []


def _last_words(path: Path, why: str = "") -> str:
    """The faults that a step's log ends with, a few of them, or its exception, or else its last line.

    `why` is what is known of the step's end besides.
    """
    lines = _lines(path)
    if not lines:
        return f"none; {why}" if why else "none, so the system ended it (for memory, perhaps)"
    if faults := _closing_faults(lines):
        more = f"; and {len(faults) - MOST_FAULTS:,} more" if len(faults) > MOST_FAULTS else ""
        return "; ".join(faults[:MOST_FAULTS]) + more
    raised = [number for number, line in enumerate(lines) if EXCEPTION.fullmatch(line)]
    words = "; ".join(line.strip() for line in lines[raised[-1] :][:MOST_FAULTS]) if raised else lines[-1]
    # a kernel's own, say, before the one of who waited for it
    first = next((lines[number] for number in raised if ": " in lines[number]), words)
    return words + (f" (after {first})" if not words.startswith(first) else "") + (f"; {why}" if why else "")


def format_table(table: pd.DataFrame, stamped: str, counts: pd.DataFrame) -> str:
    """The ablation's C-index in plain text: a row an experiment, a column a split, mean ± SD [95 % interval].

    Below stand the patients and events of each split (`split_counts`), and which have too few. `stamped` says what it
    was made from.
    """
    counts = counts.replace({"split": {"train": "validation"}}).set_index("split")  # each of them validates once
    c_index = table[table["metric"] == "c_index"].copy()
    c_index["text"] = [metric_cell(row, " ") for row in c_index.to_dict("records")]
    wide = c_index.pivot(index="experiment", columns="split", values="text")
    wide = wide.reindex(index=table["experiment"].unique(), columns=counts.index).fillna(MISSING)
    for what in ("patients", "events"):
        wide.loc[what] = counts[what].map("{:,}".format)
    few = [
        f"{split}: {counted(row.events, 'event')}, fewer than {FEW_EVENTS}: too few to tell models apart"
        for split, row in counts.iterrows()
        if row.events < FEW_EVENTS
    ]
    title = f"C-index, mean ± SD over folds [95 % bootstrap interval]; {stamped}"
    return "\n".join([title, wide.to_string(), *few])
