"""Kill a run at random moments, resume it each time, and compare what comes of it with an undisturbed run, by bytes.

    python -m benchmarks.kills [COHORT --profile demo --kills 20 --seed 0 --out reports/kills]

Runs the profile undisturbed, then again: at moments drawn evenly over the time that took, every process of the run
gets SIGKILL, and `fracsurv run` is called again. Where a run ends before its next kill, as on a computer that has
become faster, it is compared, and a new one is killed on. After each kill every file under its final name must be
whole. In the end all that is in the folder (stores, predictions, weights, histories, tables, figures, notebooks, the
report) must be as after the undisturbed run, byte for byte but for times and dates, and nothing temporary be left.
Exits with 1 otherwise, and where no kill met a fit under way. Writes `benchmarks/results/kills.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from safetensors import safe_open

from benchmarks.detection import RESULTS
from fracsurv.utils.files import leftovers, write_json

READERS = {
    ".json": lambda path: json.loads(path.read_text()),
    ".ipynb": lambda path: json.loads(path.read_text()),
    ".csv": pd.read_csv,
    ".parquet": pd.read_parquet,
    ".npy": lambda path: np.load(path, mmap_mode="r"),
    ".safetensors": lambda path: safe_open(path, framework="pt").__enter__().keys(),
}

FINISHED = ("predictions.parquet", "fit.json", "meta.json")
"""What a fit or a store has once it is finished."""
TIMED_KEYS = ("seconds", "samples_per_s", "peak_memory_mib", "date", "fit_seconds_total")
TIMED_TEXT = re.compile(r"\d{4}-\d\d-\d\dT[\d:+]+|in [\d,]+ s of training|cell-id=[0-9a-f]{8}\b")
"""In pages: when they were made, how long the fits took, and the number that papermill draws for its own cell."""


def start(cohort: Path, profile: str, out: Path) -> psutil.Popen:
    log = open(out.with_suffix(".log"), "a")  # noqa: SIM115, the process has it
    command = [sys.executable, "-m", "fracsurv.cli", "run", str(cohort), "--profile", profile, "--out", str(out)]
    return psutil.Popen([*command, "--cores", "2"], stdout=log, stderr=log)


def kill(process: psutil.Popen) -> None:
    """End a process and all that came of it, however deep: stopped first, so that none is born meanwhile."""
    family: set[psutil.Process] = set()
    found = {psutil.Process(process.pid)}
    while found - family:
        family |= found
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.suspend()
                found |= set(member.children(recursive=True))
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def made_files(out: Path) -> list[Path]:
    """What was made in a folder, sorted: its files but for logs and what is hidden."""
    return [
        path for path in sorted(out.rglob("*"))
        if path.is_file() and not any(p.startswith(".") or p == "logs" for p in path.relative_to(out).parts)
    ]  # fmt: skip


def results_of(out: Path) -> dict[str, bytes]:
    """What was made in a folder, by name, less times and dates; of a notebook, its cells' outputs."""
    return {str(path.relative_to(out)): _without_times(path) for path in made_files(out)}


def _without_times(path: Path) -> bytes:
    if path.suffix == ".json":
        return json.dumps(_untimed(json.loads(path.read_text()))).encode()
    if path.suffix == ".ipynb":
        outputs = [cell.get("outputs") for cell in json.loads(path.read_text())["cells"]]
        return TIMED_TEXT.sub("", json.dumps(outputs)).encode()
    if path.name == "sweep.csv":
        return pd.read_csv(path).drop(columns="seconds").to_csv().encode()
    if path.name == "timing.csv":
        return pd.read_csv(path)[["epoch"]].to_csv().encode()
    if path.suffix == ".html":
        return TIMED_TEXT.sub("", path.read_text()).encode()
    return path.read_bytes()


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(each) for key, each in value.items() if key not in TIMED_KEYS}
    return [_untimed(each) for each in value] if isinstance(value, list) else value


def differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """In what results are not the wanted ones."""
    wrong = [f"different: {name}" for name in wanted if name in found and found[name] != wanted[name]]
    wrong += [f"missing: {name}" for name in sorted(wanted.keys() - found.keys())]
    return wrong + [f"too much: {name}" for name in sorted(found.keys() - wanted.keys())]


def broken_files(out: Path) -> list[str]:
    """Files under their final names that cannot be read."""
    broken = []
    for path in made_files(out):
        if path.suffix in READERS:
            try:
                READERS[path.suffix](path)
            except Exception as error:
                broken.append(f"{path.relative_to(out)}: {type(error).__name__}")
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", nargs="?", type=Path, default=Path("data/demo"))
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("reports/kills"))
    arguments = parser.parse_args()
    whole, torn = (arguments.out / how / "run" for how in ("undisturbed", "killed"))  # pages name their folder
    for out in (whole, torn):
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".log").unlink(missing_ok=True)
    began = time.monotonic()
    if start(arguments.cohort, arguments.profile, whole).wait():
        sys.exit(f"the undisturbed run failed; see {whole.with_suffix('.log')}")
    duration = time.monotonic() - began
    print(f"undisturbed: {duration:.0f} s", flush=True)
    moments = np.sort(np.random.default_rng(arguments.seed).uniform(0, duration, arguments.kills))
    waits, undisturbed = np.diff(moments, prepend=0), results_of(whole)
    broken, found, different, left, resumable, number, began = [], [], [], [], 0, 0, time.monotonic()
    while number < len(waits):
        process, started = start(arguments.cohort, arguments.profile, torn), time.time()
        try:
            code = process.wait(waits[number])
        except psutil.TimeoutExpired:
            kill(process)
        else:
            if code:
                sys.exit(f"the run ended with {code} before kill {number + 1}; see {torn.with_suffix('.log')}")
            print(f"ended by itself before kill {number + 1}: compared, and begun anew", flush=True)
            different += differences(results_of(torn), undisturbed)
            left += [str(path.relative_to(torn)) for path in leftovers(torn, below=True)]
            shutil.rmtree(torn)
            found.append([])
            waits[number] /= 2
            continue
        number += 1
        found.append(sorted(str(path.relative_to(torn)) for path in made_files(torn) if path.name in FINISHED))
        resumable += any(path.stat().st_mtime > started for path in torn.rglob("resume.safetensors"))
        broken += broken_files(torn)
        print(
            f"kill {number} after {waits[number - 1]:.0f} s: {len(found[-1])} finished, {len(broken)} broken",
            flush=True,
        )
    if start(arguments.cohort, arguments.profile, torn).wait():
        sys.exit(f"the resumed run failed; see {torn.with_suffix('.log')}")
    different += differences(results_of(torn), undisturbed)
    lost = [name for earlier, later in pairwise(found) if later for name in set(earlier) - set(later)]
    left += [str(path.relative_to(torn)) for path in leftovers(torn, below=True)]
    result = {
        "kills": number, "kills_within_a_fit": resumable, "finished_at_each": [len(names) for names in found],
        "seconds_undisturbed": duration, "seconds_killed": time.monotonic() - began,
        "compared": len(undisturbed), "different": different, "broken": broken, "lost": lost, "left": left,
    }  # fmt: skip
    write_json(RESULTS / "kills.json", result)
    print(json.dumps(result, indent=1))
    sys.exit(bool(different or broken or lost or left or not resumable))


if __name__ == "__main__":
    main()
