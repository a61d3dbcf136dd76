"""Time and peak memory of the image part for 2,000, 6,400 and 20,000 patients at a quarter of the resolution.

    python -m benchmarks.scale_images

Crops of 400 simulated radiographs, so many links to each. Opening the cohort, building the store with two processes,
opening it, and an epoch of feeding: every patient's crops once, in batches of 128 drawn at random, streamed and
augmented, no network. The same with the pixels kept in memory. Every size in a process of its own; the page cache is
warm, as it is after building. The exponent is that of the time between the least and the greatest size. Prints a
table and writes `benchmarks/results/scale_images.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.detection import RESULTS
from benchmarks.memory import multiplied
from benchmarks.timing import clocked, device_name, measured_apart, print_growth
from fracsurv.config import load_profile
from fracsurv.simulate import simulate_cohort
from fracsurv.study.prepare import prepare, prepare_store
from fracsurv.training.data import ImageFeed
from fracsurv.utils.devices import peak_memory
from fracsurv.utils.files import write_json

DRAWN, TIMES = 400, (5, 16, 50)
RESOLUTION, BATCH = 0.25, 128
CPU = torch.device("cpu")


def measure(n: int, place: str, folder: str) -> dict:
    """Seconds of every part and this process's peak memory, MiB. `place`: where pixels lie while they are fed."""
    profile = replace(load_profile("demo"), scale=RESOLUTION)
    seconds: dict[str, float] = {}
    with clocked(seconds, "open the cohort"):
        run = prepare(f"{folder}/{n}", f"{folder}/run-{n}", profile)
    if place == "streamed":
        with clocked(seconds, "build the store"):
            prepare_store(run, "crops", workers=2)
    with clocked(seconds, "is it current (every radiograph looked at)"):
        prepare_store(run, "crops")
    with clocked(seconds, "open the store"):
        store = run.store("crops")
    everybody, generator = np.arange(n), torch.Generator().manual_seed(0)
    feed = ImageFeed(store, "crops", everybody, scale=RESOLUTION, how="fold", square=False, device=CPU, place=place)
    order = np.random.default_rng(0).permutation(n)
    with clocked(seconds, "feed an epoch, augmented"):
        for start in range(0, n, BATCH):
            feed(order[start : start + BATCH], generator)
    size = (Path(folder) / f"run-{n}" / "prepared" / "crops" / "crops.npy").stat().st_size
    return {"n": n, "place": place, "store_mib": size / 2**20, "peak_mib": peak_memory(CPU), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=3, metavar=("N", "PLACE", "FOLDER"), help="measure one case, print JSON")
    arguments = parser.parse_args()
    if arguments.case:
        n, place, folder = arguments.case
        print(json.dumps(measure(int(n), place, folder)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "drawn"
        simulate_cohort(
            source,
            patients=DRAWN,
            seed=0,
            resolution=RESOLUTION,
            boxes="true",
            workers=os.cpu_count(),
            progress=False,
        )
        for times in TIMES:
            n = DRAWN * times
            multiplied(source, Path(folder) / str(n), times)
            rows += [measured_apart("benchmarks.scale_images", "--case", str(n), place, folder)
                     for place in ("streamed", "resident")]  # fmt: skip
    for place in ("streamed", "resident"):
        these = [row for row in rows if row["place"] == place]
        print_growth(f"{place}, seconds", these, width=10, since=0)
        print(f"{'pixels of the store, MiB':<42}" + "".join(f"{row['store_mib']:10,.0f}" for row in these))
    write_json(RESULTS / "scale_images.json", {"device": device_name(), "rows": rows})


if __name__ == "__main__":
    main()
