"""One fold of a row of the protocol in full, on a simulated cohort of the thesis's size. Meant for a GPU.

    python -m benchmarks.paper_fold [--row cds_crops_if] [--patients 3028]

Simulates the cohort at full resolution with boxes, fills the store, fits fold 0 of the row at the profile `paper`
(every epoch of Table A.1) and evaluates it; then begins the next fold in a process of its own, for what a further fit
takes to start once its code has been compiled. Prints and writes `benchmarks/results/paper_fold.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.detection import RESULTS
from benchmarks.timing import device_name, measured_apart
from fracsurv.config import TRUE_RISK, load_profile
from fracsurv.simulate import simulate_cohort
from fracsurv.study.experiments import fit_fold
from fracsurv.study.prepare import prepare, prepare_store
from fracsurv.study.run import Run
from fracsurv.utils.files import read_json, write_json

PARTS = ("feeding_s", "augmentation_s", "model_s", "validation_s", "checkpoint_s")
BESIDE = (TRUE_RISK, "cox_ph", "deepsurv")


def start_seconds(cohort: str, out: str, row: str) -> dict[str, float]:
    """How much longer the first epoch of fold 1 takes than the second."""
    profile = replace(load_profile("paper"), epochs={row: 2}, compile="always")
    run = prepare(cohort, out, profile)
    prepare_store(run, run.experiment(row).input)
    fit_fold(run, row, 1, progress=False)
    timing = pd.read_csv(run.folder(row, 1) / "timing.csv")
    first, second = timing["model_s"] + timing["augmentation_s"]  # both are compiled within the first epoch
    return {"start_s": first - second}


def _c_index(run: Run, name: str) -> dict[str, float]:
    values = read_json(run.folder(name, 0) / "metrics.json")["metrics"]
    return {row["split"]: row["value"] for row in values if row["metric"] == "c_index"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", default="cds_crops_if")
    parser.add_argument("--patients", type=int, default=3028)
    parser.add_argument("--start", nargs=2, metavar=("COHORT", "OUT"), help="measure a further fit, print JSON")
    arguments = parser.parse_args()
    if arguments.start:
        print(json.dumps(start_seconds(*arguments.start, arguments.row)))
        return
    took = {}

    def timed(what: str, work) -> object:
        start = time.perf_counter()
        result = work()
        took[what] = time.perf_counter() - start
        print(f"{what}: {took[what]:.0f} s", flush=True)
        return result

    workers = os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        cohort, out = Path(folder) / "cohort", Path(folder) / "run"
        timed(
            "simulate",
            lambda: simulate_cohort(
                cohort, patients=arguments.patients, seed=1, resolution=1.0, boxes="true", workers=workers,
                progress=False,
            ),
        )  # fmt: skip
        run = prepare(cohort, out, "paper")
        kind = run.experiment(arguments.row).input
        timed("prepare", lambda: prepare_store(run, kind, workers=workers))
        timed("fit and evaluate", lambda: fit_fold(run, arguments.row, 0, progress=False))
        record = read_json(run.folder(arguments.row, 0) / "fit.json")
        timing = pd.read_csv(run.folder(arguments.row, 0) / "timing.csv")
        for name in BESIDE:
            fit_fold(run, name, 0, progress=False)
        c_index = {name: _c_index(run, name) for name in (*BESIDE, arguments.row)}
        restart = measured_apart(
            "benchmarks.paper_fold", "--row", arguments.row, "--start", str(cohort), f"{folder}/again"
        )
    result = {
        "device": device_name(),
        "row": arguments.row,
        "seconds": took,
        "fit": {key: record[key] for key in (
            "best_epoch", "validation_c_index", "seconds", "samples_per_s", "peak_memory_mib", "compiled", "precision"
        )},
        "share_of_fit": {part: float(timing[part].sum() / record["seconds"]) for part in PARTS if part in timing},
        "c_index": c_index,
        **restart,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    write_json(RESULTS / "paper_fold.json", result)


if __name__ == "__main__":
    main()
