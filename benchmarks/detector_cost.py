"""What errors of the vertebra finder cost: crops + IF-MLP on true boxes against the boxes that the finder found.

    python -m benchmarks.detector_cost [--cohort data/demo] [--profile demo] [--out FOLDER] [--run FOLDER]

The cohort must be simulated, for only then are the true boxes known. Both models have the same patients, folds and
seeds; the difference in C has a paired bootstrap interval over patients. With `--run` the fits on found boxes are
taken from there; give this process as many threads as those had (OMP_NUM_THREADS=1 for `make report`'s). Prints a
table and writes `benchmarks/results/detector_cost.json`.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from benchmarks.detection import RESULTS
from fracsurv.cohort.cohort import read_cohort
from fracsurv.detection.scores import compare
from fracsurv.metrics import percentile_interval
from fracsurv.study.ablation import metric_draws
from fracsurv.study.experiments import run_experiment
from fracsurv.study.prepare import prepare
from fracsurv.study.results import read_metrics
from fracsurv.study.run import Run
from fracsurv.utils.files import write_json

EXPERIMENT = "cds_crops_if"


def with_true_boxes(cohort: Path, folder: Path) -> Path:
    """A copy of a simulated cohort that has the true boxes; its radiographs are hard links."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cohort.csv", "cohort.yaml", "truth.parquet"):
        shutil.copyfile(cohort / name, folder / name)
    shutil.copyfile(cohort / "truth_vertebrae.csv", folder / "vertebrae.csv")
    if not (folder / "images").exists():
        shutil.copytree(cohort / "images", folder / "images", copy_function=os.link)
    return folder


def mean_c(run: Run, split: str) -> float:
    """Mean C-index over the fold models."""
    metrics = read_metrics(run, EXPERIMENT)
    return float(metrics.loc[(metrics["metric"] == "c_index") & (metrics["split"] == split), "value"].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, default=Path("data/demo"))
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--out", type=Path, default=Path("reports/detector-cost"))
    parser.add_argument("--run", type=Path, help="a run of the cohort, such as reports/demo")
    arguments = parser.parse_args()
    if not (arguments.cohort / "truth_vertebrae.csv").exists():
        parser.error(f"--cohort: {arguments.cohort} has no truth_vertebrae.csv; only simulated cohorts do")
    folders = {
        "true boxes": with_true_boxes(arguments.cohort, arguments.out / "cohort"),
        "found boxes": arguments.cohort,
    }
    places = {"true boxes": arguments.out / "true", "found boxes": arguments.run or arguments.out / "found"}
    runs = {
        name: prepare(folder, places[name], arguments.profile, kinds=["crops"], progress=True)
        for name, folder in folders.items()
    }
    if (arguments.cohort / "vertebrae.csv").exists():
        parser.error(f"--cohort: {arguments.cohort} has boxes of its own, so none are found")
    for run in runs.values():
        run_experiment(run, EXPERIMENT)
    draws = {name: metric_draws(run, EXPERIMENT) for name, run in runs.items()}
    truth = read_cohort(arguments.cohort)
    found = compare(runs["found boxes"].cohort, truth.true_vertebrae(), truth.truth()).summary()
    result = {
        "experiment": EXPERIMENT,
        "profile": arguments.profile,
        "patients": len(truth),
        "finder": found,
        "splits": {},
    }
    print(f"patients with 13 right slots: {100 * found['patients_with_13_right_slots']:.1f} %")
    for split in ("validation", "test", "external"):
        key = split, "c_index", -1.0
        if not all(key in each for each in draws.values()):
            continue
        c_index = {name: mean_c(run, split) for name, run in runs.items()}
        low, high = percentile_interval(draws["found boxes"][key] - draws["true boxes"][key])
        difference = c_index["found boxes"] - c_index["true boxes"]
        result["splits"][split] = c_index | {"difference": difference, "ci_low": low, "ci_high": high}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in c_index.items())
        print(f"{split:<11} C: {shown}; found minus true {difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    write_json(RESULTS / "detector_cost.json", result)


if __name__ == "__main__":
    main()
