"""Fill the disk, and kill, at many moments of `prepare`, `run` and `report`; go on; compare with undisturbed ones.

    python -m benchmarks.faults [--profile tiny --kills 10 --seed 0 --only report]

Needs root, to mount file systems in memory. The cohort is simulated. `prepare`, then `run` for a clinical and an
image row, then `report` are done undisturbed. Then each again on a file system that has but a share of the room which
that took: it must end with exit code 2, a message that says so and no traceback, and leave no broken file under a
final name. The file system is made larger and the same command called again. `prepare` and `report` are also killed
at moments drawn evenly over how long they took (for `run` see `benchmarks.kills`). In the end all files must
be the undisturbed ones', byte for byte but for logs, times and dates. Prints a line a case, writes
`benchmarks/results/faults.json`; exits with 1 where something is otherwise.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.detection import RESULTS
from benchmarks.kills import broken_files, differences, kill, results_of
from fracsurv.utils.files import leftovers, write_json

ROWS = "cox_ph,cds_crops_if"
STEPS = {
    "prepare": ("prepare", "--kind", "crops", "--workers", "2"),
    "run": ("run", "--experiments", ROWS, "--cores", "2"),
    "report": ("report",),
}
SHARES = {"prepare": (0.05, 0.5, 0.95), "run": (0.02, 0.2, 0.4, 0.6, 0.8, 0.98), "report": (0.0, 0.3, 0.6, 0.95)}


class Study:
    """A cohort, a profile, and calls of fracsurv on them."""

    def __init__(self, cohort: Path, profile: str) -> None:
        self.cohort, self.profile = cohort, profile

    def start(self, step: str, out: Path, said: Path) -> psutil.Popen:
        first, *more = STEPS[step]
        given = [self.cohort, "--profile", self.profile, "--out", out]
        command = [sys.executable, "-m", "fracsurv.cli", first, *map(str, given), *more]
        with open(said, "w", encoding="utf-8") as file:
            return psutil.Popen(command, stdout=file, stderr=file)

    def done(self, step: str, out: Path, said: Path) -> float:
        """Seconds that a step takes undisturbed, or when it goes on."""
        began = time.monotonic()
        if self.start(step, out, said).wait():
            sys.exit(f"{step} failed: {said.read_text()}")
        return time.monotonic() - began


def size_of(folder: Path) -> int:
    """Bytes that its files take of a file system."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


@contextmanager
def disk(place: Path, size: int) -> Iterator[Path]:
    """A file system in memory of so many bytes."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


def enlarge(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


def faults_of(out: Path, wanted: dict[str, bytes]) -> list[str]:
    """In what a finished folder is not the undisturbed one."""
    return differences(results_of(out), wanted) + [f"left over: {path.name}" for path in leftovers(out, below=True)]


def filled(study: Study, step: str, share: float, before: Path, whole: Path, place: Path, said: Path) -> dict:
    """One step on a file system with a share of the room that it takes, then again with room."""
    start, end = size_of(before), size_of(whole)
    with disk(place, int(start + share * (end - start))) as folder:
        out = folder / "run"
        shutil.copytree(before, out, symlinks=True)
        code = study.start(step, out, said).wait()
        text = said.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        told = [line for line in text.splitlines() if line.startswith("error: ")]
        wrong = [] if code == 2 else [f"exit code {code}"]
        wrong += [] if any("disk is full" in line for line in told) else [f"does not say so: {text[-300:]}"]
        wrong += ["a traceback"] * ("Traceback" in text) + broken_files(out)
        enlarge(folder, 4 * end)
        study.done(step, out, said)
        wrong += faults_of(out, results_of(whole))
    return {"step": step, "how": f"room for {share:.0%}", "said": told[:1], "wrong": wrong}


def killed(study: Study, step: str, moments: np.ndarray, before: Path, whole: Path, out: Path, said: Path) -> dict:
    """One step, killed at these seconds after each start, then gone on with."""
    shutil.copytree(before, out, symlinks=True)
    wrong, met = [], 0
    for moment in moments:
        process = study.start(step, out, said)
        try:
            code = process.wait(moment)
            wrong += [f"exit code {code}: {said.read_text()[-300:]}"] if code else []
        except psutil.TimeoutExpired:
            kill(process)
            met += 1
        wrong += broken_files(out)
    wrong += [] if met else ["no kill met it"]
    study.done(step, out, said)
    wrong += faults_of(out, results_of(whole))
    shutil.rmtree(out)
    return {"step": step, "how": f"killed {met} times", "said": [], "wrong": wrong}


def shown(row: dict) -> dict:
    """Print a case as soon as it is done."""
    print(f"{row['step']:>8}, {row['how']:<16} {row['wrong'] or 'as undisturbed'}; {row['said']}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="steps to disturb; all if none")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        cohort, said = here / "cohort", here / "said"
        subprocess.run(
            [sys.executable, "-m", "fracsurv.cli", "simulate", cohort, "--profile", arguments.profile], check=True
        )
        study = Study(cohort, arguments.profile)
        before, results = here / "nothing" / "run", []  # all of one name, which pages say
        before.mkdir(parents=True)
        for step in STEPS:
            whole = here / step / "run"
            shutil.copytree(before, whole, symlinks=True)
            seconds = study.done(step, whole, said)
            print(
                f"{step}: {seconds:.0f} s undisturbed, {(size_of(whole) - size_of(before)) / 2**20:.1f} MiB",
                flush=True,
            )
            place = here / "disk"
            for share in SHARES[step] if step in arguments.only else ():
                results.append(shown(filled(study, step, share, before, whole, place, said)))
            if step != "run" and step in arguments.only:
                moments = rng.uniform(0, seconds, arguments.kills)
                results.append(shown(killed(study, step, moments, before, whole, here / "killed" / "run", said)))
            before = whole
            if step == "run":
                # the report is made anew from what the run left
                before = here / "without report" / "run"
                shutil.copytree(whole, before, symlinks=True)
                for name in ("index.html", "report.json", "provenance.json", "pages", "tables"):
                    path = before / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                for page in (before / "notebooks").glob("*.html"):
                    page.unlink()
    write_json(RESULTS / "faults.json", results)
    sys.exit(any(row["wrong"] for row in results))


if __name__ == "__main__":
    main()
