"""How long fracsurv's programs take to start: what each imports, beside pandas and torch alone, in one run.

    python -m benchmarks.starting [--repeats 5] [--against OTHER/CHECKOUT]

A run is some dozens of processes, each of which imports what it needs anew. Every import is that of a process of its
own; they take turns, and the median is shown. `--against` takes turns with another checkout that has its own .venv.
Prints a table and writes `benchmarks/results/starting.json`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.detection import RESULTS
from benchmarks.timing import device_name, medians
from fracsurv.config import ROOT
from fracsurv.utils.files import write_json

MODULES = {
    "pandas": "pandas alone",
    "torch, torchvision": "torch and torchvision alone",
    "fracsurv.cohort.cohort": "check",
    "fracsurv.study.run": "opening a run: prepare, run",
    "fracsurv.pipeline.notebook_job": "what executes a notebook",
    "fracsurv.report.notebook": "the notebook itself",
    "fracsurv.study.experiments": "fit",
    "fracsurv.report.report": "report",
}


def started(checkout: Path, modules: str) -> None:
    """Import modules in a new process of a checkout."""
    python = sys.executable if checkout == ROOT else checkout / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", f"import {modules}"], cwd=checkout, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    checkouts = {"here": ROOT} | ({"against": arguments.against.resolve()} if arguments.against else {})
    took = medians(
        {
            f"{where} {modules}": partial(started, folder, modules)
            for where, folder in checkouts.items()
            for modules in MODULES
        },
        arguments.repeats,
    )
    rows = [
        {"imports": modules, "for": why, **{where: took[f"{where} {modules}"] for where in checkouts}}
        for modules, why in MODULES.items()
    ]
    for row in rows:
        print(
            f"{row['for']:<30}{row['imports']:<24}" + "".join(f"{where} {row[where]:.2f} s  " for where in checkouts)
        )
    write_json(RESULTS / "starting.json", {"device": device_name(), "rows": rows})


if __name__ == "__main__":
    main()
