"""Peak memory of `prepare` and of a fit, for 300 and for 3,000 patients at the protocol's full size; images a second.

    python -m benchmarks.memory

Radiographs of 300 simulated patients, ten links to each for the larger cohort; every case in a process of its own.
The fit is one epoch on the crops, feeding `streamed`, with the small transformer in the place of the large network,
whose own memory does not depend on the cohort. Prints a table and writes `benchmarks/results/memory.json`.
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
import torch

from benchmarks.detection import RESULTS
from benchmarks.timing import measured_apart
from fracsurv.config import load_profile
from fracsurv.simulate import simulate_cohort
from fracsurv.study.experiments import fit_fold
from fracsurv.study.prepare import prepare, prepare_store
from fracsurv.utils.devices import peak_memory
from fracsurv.utils.files import write_json

PATIENTS, TIMES, ROW = 300, 10, "vit_crops_if"
CASES = ("prepare png 300", "prepare dicom 300", "prepare png 3000", "fit png 300", "fit png 3000")


def multiplied(source: Path, target: Path, times: int = TIMES) -> None:
    """A cohort with every patient `times` times: the radiographs are links."""
    (target / "images").mkdir(parents=True)
    table = pd.read_csv(source / "cohort.csv", dtype={"patient_id": str})
    boxes = pd.read_csv(source / "vertebrae.csv", dtype={"patient_id": str})
    tables, all_boxes = [], []
    for copy in range(times):
        renamed = table.assign(patient_id=table["patient_id"] + f"-{copy}")
        renamed["image"] = [f"images/{copy}-{Path(image).name}" for image in table["image"]]
        for old, new in zip(table["image"], renamed["image"], strict=True):
            os.link(source / old, target / new)
        tables.append(renamed)
        all_boxes.append(boxes.assign(patient_id=boxes["patient_id"] + f"-{copy}"))
    pd.concat(tables).to_csv(target / "cohort.csv", index=False)
    pd.concat(all_boxes).to_csv(target / "vertebrae.csv", index=False)
    (target / "cohort.yaml").write_text((source / "cohort.yaml").read_text())


def measure(case: str, folder: str) -> dict[str, float]:
    """Peak memory of this process in MiB, and images or patients a second."""
    what, kind, n = case.split()
    profile = replace(
        load_profile("paper"), epochs={ROW: 1}, encoders={"vit_b_32": "vit_tiny"}, feeding="streamed", n_folds=3
    )
    run = prepare(f"{folder}/{kind}-{n}", f"{folder}/run-{kind}-{n}", profile)
    start = time.perf_counter()
    if what == "prepare":
        prepare_store(run, "crops")
    else:
        fit_fold(run, ROW, 0, progress=False)
    seconds = time.perf_counter() - start
    speed = {"images_a_second": int(n) / seconds} if what == "prepare" else {}
    return {"case": case, "peak_mib": peak_memory(torch.device("cpu")), **speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=2, metavar=("CASE", "FOLDER"), help="measure one case, print JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*arguments.case)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("png", "dicom"):
            simulate_cohort(
                Path(folder) / f"{kind}-300", patients=PATIENTS, seed=0, resolution=1.0, boxes="true",
                image_format=kind, workers=os.cpu_count(), progress=False,
            )  # fmt: skip
        multiplied(Path(folder) / "png-300", Path(folder) / "png-3000")
        rows = []
        for case in CASES:
            rows.append(measured_apart("benchmarks.memory", "--case", case, folder))
            speed = rows[-1].get("images_a_second")
            print(
                f"{case:<20}{rows[-1]['peak_mib']:8.0f} MiB" + (f"{speed:8.1f} images/s" if speed else ""), flush=True
            )
    write_json(RESULTS / "memory.json", {"rows": rows})


if __name__ == "__main__":
    main()
