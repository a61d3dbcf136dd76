"""How fast a fit is: against the bare step of its network and against the obvious program; where its time goes.

    python -m benchmarks.training [--only demo-crops paper-vit ...]

Each case, a row of the study at the protocol's full size or at the demo's, in a process of its own. Medians over
turns are compared, in patients a second of training; the first two take turns, the last, whose worker processes read
ahead, comes after them:

- the bare step: forward and backward pass, loss and optimiser on a batch that lies in memory already, same precision;
- ours: an epoch of `fracsurv.training`, feeding and augmentation included;
- the obvious program (`benchmarks.reference`): PNG files, torchvision's transforms, a DataLoader, float32.

Patients are simulated. Prints a table and writes `benchmarks/results/training.json`.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.detection import RESULTS
from benchmarks.paper_step import FULL_BATCH_ON_CPU
from benchmarks.reference import Pictures, train, write_pictures
from benchmarks.timing import measured_apart
from fracsurv.batches import batches
from fracsurv.config import load_profile
from fracsurv.experiments import make_network
from fracsurv.files import write_json
from fracsurv.models import RESNETS
from fracsurv.run import open_run
from fracsurv.simulate import simulate_cohort
from fracsurv.stopwatch import Stopwatch, peak_memory
from fracsurv.training import Recipe, _train_epoch, precision_of, train_step

ROWS = {"crops": "cds_crops_if", "full": "cds_full_if", "vit": "vit_crops_if"}
CASES = {f"{size}-{kind}": (size, name) for size in ("demo", "paper") for kind, name in ROWS.items()}
SIZES = {"demo": (420, 8, 6), "paper": (220, 1, 3)}
"""Patients, batches an epoch or turn, turns."""


def measure(case: str, cohort: str, out: str) -> dict:
    """Patients a second of all three, and the parts of ours."""
    size, name = CASES[case]
    _, n_batches, turns = SIZES[size]
    run = open_run(cohort, out, size)
    experiment, device = replace(run.experiment(name), pretrained={}), run.device
    batch = experiment.batch_size
    if case == "paper-full" and device.type == "cpu":
        batch = FULL_BATCH_ON_CPU
    watch, dtype = Stopwatch(device), precision_of(device, run.profile.precision)
    model, call, inputs = make_network(run, experiment, 0, None, 0, watch)
    event, days = (run.cohort.table[column].to_numpy() for column in ("event", "time"))
    event_on, days_on = torch.from_numpy(event).to(device), torch.from_numpy(days).to(device)
    parts = batches(run.rows(0)["train"], event, batch, 0)[:n_batches]
    n = sum(map(len, parts))

    def adam(of):
        return torch.optim.Adam([p for p in of.parameters() if p.requires_grad], lr=experiment.lr, fused=True)

    bare_model = copy.deepcopy(model)
    bare_adam, our_adam = adam(bare_model), adam(model)
    ready = [inputs(rows, None) for rows in parts]
    index = [torch.from_numpy(rows).to(device) for rows in parts]

    def bare() -> None:
        bare_model.train()
        for images, at in zip(ready, index, strict=True):
            train_step(bare_model, images, event_on[at], days_on[at], bare_adam, dtype=dtype)

    recipe = Recipe(lr=experiment.lr, scheduler="none", epochs=1, batch_size=batch, seed=0)

    def ours() -> None:
        _train_epoch(model, call, inputs, event_on, days_on, parts, our_adam, watch, recipe, 0, dtype)

    steps = _obvious(run, experiment, inputs, event_on, days_on, batch, Path(out) / "pictures")

    def obvious() -> None:
        for _ in parts:
            next(steps)

    took: dict[str, list[float]] = {"bare": [], "ours": [], "obvious": []}
    split: dict[str, float] = {}
    for what, work in [*(("bare", bare), ("ours", ours)) * (turns + 1), *(("obvious", obvious),) * (turns + 1)]:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took[what].append(time.perf_counter() - start)
        laps = watch.lap()
        if what == "ours" and len(took[what]) > 1:
            split = {part: split.get(part, 0.0) + seconds for part, seconds in laps.items()}
    took = {what: seconds[1:] for what, seconds in took.items()}  # the first warms up
    speed = {what: n / float(np.median(seconds)) for what, seconds in took.items()}
    return {
        "case": case, "experiment": name, "encoder": experiment.encoder, "batch": batch, "precision": str(dtype),
        "patients_per_s": speed,
        "seconds_a_turn": {part: s / turns for part, s in split.items()} | {"whole": n / speed["ours"]},
        "peak_memory_mib": peak_memory(device),
    }  # fmt: skip


def _obvious(run, experiment, inputs, event, days, batch, folder):
    """The obvious program's steps on the same patients: its network has the same shape, newly initialised."""
    feed, kind = inputs.images, experiment.input
    store = run.store(kind)
    pixels = store.crops if kind == "crops" else store.full[:, None]
    train_rows = run.rows(0)["train"]
    write_pictures(pixels[: train_rows.max() + 1], folder)
    pictures = Pictures(folder, train_rows, pixels.shape[1], feed.frame, feed.low[0], feed.high[0])
    model, _, _ = make_network(run, experiment, 0, None, 0)
    if experiment.encoder in RESNETS:
        model = model.to(memory_format=torch.contiguous_format)
    return train(
        model, pictures, inputs.tabular.cpu(), event.cpu(), days.cpu(), batch_size=batch, lr=experiment.lr, workers=2
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--case", nargs=3, metavar=("CASE", "COHORT", "OUT"), help="measure one case, print JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*arguments.case)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in ("demo", "paper"):
            cases = [case for case in arguments.only if case.startswith(size)]
            if not cases:
                continue
            cohort = f"{folder}/{size}"
            scale = load_profile(size).scale
            simulate_cohort(Path(cohort), patients=SIZES[size][0], seed=0, resolution=scale, boxes="true", workers=2)
            for case in cases:
                row = measured_apart("benchmarks.training", "--case", case, cohort, f"{folder}/{case}")
                rows.append(row)
                speed, split = row["patients_per_s"], row["seconds_a_turn"]
                print(
                    f"{case:<12}{row['encoder']:<10}batch {row['batch']:>3}  "
                    + "  ".join(f"{what} {value:.4g}/s" for what, value in speed.items())
                    + f"; of bare {speed['ours'] / speed['bare']:.2f}, "
                    + f"of obvious {speed['ours'] / speed['obvious']:.2f}; "
                    + ", ".join(
                        f"{part} {100 * s / split['whole']:.1f} %" for part, s in split.items() if part != "whole"
                    ),
                    flush=True,
                )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    write_json(RESULTS / "training.json", {"device": device, "rows": rows})


if __name__ == "__main__":
    main()
