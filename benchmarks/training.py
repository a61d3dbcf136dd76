"""How fast a fit is: against the bare step of its network and against the obvious program; where its time goes.

    python -m benchmarks.training [--only demo-crops paper-vit ...]

Each case is a row of the study at the protocol's full size or at the demo's. Medians over turns are compared, in
patients a second of training; the first two take turns in one process, the last, whose worker processes read ahead,
comes after them in another (together they would not fit into 24 GB):

- the bare step: forward and backward pass, loss and optimiser on a batch that lies in memory already, same precision;
- ours: an epoch of `fracsurv.training.loop`, feeding and augmentation included (of whole batches alone);
- the obvious program (`benchmarks.reference`): PNG files, torchvision's transforms, a DataLoader, float32 (so that
  what it is slower by is in part what bfloat16, and compiling, bring).

On a GPU the first two are compiled at full size, as the profile `paper` has it there, and the share of the speed of a
large matrix product is told. Patients are simulated. Prints a table and writes `benchmarks/results/training.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.detection import RESULTS
from benchmarks.paper_step import FULL_BATCH_ON_CPU, N_COHORT, N_TRAIN, N_VALIDATION
from benchmarks.reference import Pictures, train, write_pictures
from benchmarks.timing import device_name, measured_apart
from fracsurv.config import RESNETS, Experiment, load_experiments, load_profile
from fracsurv.losses import cox_nll
from fracsurv.simulate import simulate_cohort
from fracsurv.study.experiments import make_network
from fracsurv.study.prepare import prepare, prepare_store
from fracsurv.study.run import Run
from fracsurv.training.data import draw_batches
from fracsurv.training.loop import Patients, Recipe, Training, predict, train_epoch
from fracsurv.training.monitor import Stopwatch
from fracsurv.utils.devices import keep_freed_memory, peak_memory, precision_of
from fracsurv.utils.files import write_json

ROWS = {"crops": "cds_crops_if", "full": "cds_full_if", "vit": "vit_crops_if"}
CASES = {f"{size}-{kind}": (size, name) for size in ("demo", "paper") for kind, name in ROWS.items()}
ON_GPU = torch.cuda.is_available()
SIZES = {"demo": (440, 8, 6), "paper": (440, 8, 10) if ON_GPU else (220, 1, 3)}
"""Patients, batches an epoch or turn at most, turns."""
MATRIX = 8192


def opened(case: str, cohort: str, out: str) -> tuple[Run, Experiment, Tensor, Tensor, list[np.ndarray]]:
    """The run, its row, events and times, and the rows of a turn's batches."""
    size, name = CASES[case]
    run = prepare(cohort, out, size)
    prepare_store(run, run.experiment(name).input)
    experiment = replace(run.experiment(name), pretrained={})
    batch = FULL_BATCH_ON_CPU if case == "paper-full" and not ON_GPU else experiment.batch_size
    event, days = (torch.tensor(run.cohort.table[column].to_numpy()) for column in ("event", "time"))
    drawn = draw_batches(run.rows(0)["train"], batch, 0)
    return run, experiment, event, days, [rows for rows in drawn if len(rows) == batch][: SIZES[size][1]]


def measure(case: str, cohort: str, out: str) -> dict:
    """Patients a second of the bare step and of ours, and the parts of ours."""
    size, name = CASES[case]
    turns = SIZES[size][2]
    run, experiment, event, days, parts = opened(case, cohort, out)
    device, batch, n = run.device, len(parts[0]), sum(map(len, parts))
    keep_freed_memory()  # as a fit does
    watch, dtype = Stopwatch(device), precision_of(device, run.profile.precision)
    compiled_for = batch if ON_GPU and size == "paper" else 0
    network = make_network(run, experiment, 0, None, 0, watch, compiled_for)
    model, inputs = network.model, network.inputs
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=experiment.lr, fused=True)
    recipe = Recipe(
        lr=experiment.lr, scheduler="none", epochs=1, batch_size=batch, seed=0, dtype=dtype, compiled=compiled_for > 0
    )
    patients = Patients(event.numpy(), days.numpy(), np.concatenate(parts), np.arange(0))
    training = Training(network, patients, adam, recipe, watch)
    ready = [inputs(rows, None) for rows in parts]

    def bare() -> None:
        model.train()
        for images, rows in zip(ready, parts, strict=True):
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                risk = training.call(*images).float()
            loss = cox_nll(event[rows].to(device), days[rows].to(device), risk)
            adam.zero_grad()
            loss.backward()
            adam.step()

    def ours() -> None:
        train_epoch(training, parts, 0)

    rows = np.concatenate(parts)
    predict(network, rows[:batch], dtype=dtype)
    took: dict[str, list[float]] = {"bare": [], "ours": []}
    rng, order = np.random.default_rng(0), []
    for _ in range(turns + 1):  # in changing order: what ran before has filled the caches
        order += [(("bare", bare), ("ours", ours))[which] for which in rng.permutation(2)]
    split: dict[str, float] = {}
    for what, work in order:
        start = time.perf_counter()
        work()
        if ON_GPU:
            torch.cuda.synchronize()
        took[what].append(time.perf_counter() - start)
        laps = watch.lap()
        if what == "ours" and len(took[what]) > 1:
            split = {part: split.get(part, 0.0) + seconds for part, seconds in laps.items()}
    peak = peak_memory(device)
    start_s = sum(took[what][0] - float(np.median(took[what][1:])) for what in ("bare", "ours"))
    took = {what: seconds[1:] for what, seconds in took.items()}  # the first warms up
    speed = {what: n / float(np.median(seconds)) for what, seconds in took.items()}
    start = time.perf_counter()
    predict(network, rows, dtype=dtype)
    speed["validation"] = len(rows) / (time.perf_counter() - start)
    flops = 3 * _flops(model, ready[0]) / batch  # backward takes two forward passes
    most = _matrix_flops(device, dtype) if ON_GPU else None
    return {
        "case": case, "experiment": name, "encoder": experiment.encoder, "batch": batch, "precision": str(dtype),
        "patients_per_s": speed, "start_s": start_s,
        "seconds_a_turn": {part: s / turns for part, s in split.items()} | {"whole": n / speed["ours"]},
        "peak_memory_mib": peak, "gflop_a_patient": flops / 1e9,
        "ceiling_tflop_a_s": most and most / 1e12, "share_of_ceiling": most and flops * speed["ours"] / most,
    }  # fmt: skip


def _flops(model: torch.nn.Module, batch: tuple) -> int:
    """Floating-point operations of a forward pass, as torch counts them."""
    model.train()  # in evaluation torch attends by a kernel that it does not count
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*batch)
    return counter.get_total_flops()


def _matrix_flops(device: torch.device, dtype: torch.dtype, repeats: int = 20) -> float:
    """Operations a second of a large square matrix product of random numbers: the most that a device computes."""
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize()
    return repeats * 2 * MATRIX**3 / (time.perf_counter() - start)


def picture_fits_hours(rows: list[dict]) -> float:
    """What the fits of networks with pictures would take on the thesis's cohort, at the speeds of the three kinds.

    Training, validation and evaluation; every fit starts, and is compiled, anew. Not in it: checkpoints, each epoch's
    last and smaller batch being slower, fits without pictures, notebooks and tables.
    """
    kinds = {ROWS[row["case"].removeprefix("paper-")]: row for row in rows if row["case"].startswith("paper-")}
    profile, experiments, seconds = load_profile("paper"), load_experiments(), 0.0
    speeds = {(experiments[name].input, experiments[name].encoder): row for name, row in kinds.items()}
    for experiment in experiments.values():
        row = speeds.get((experiment.input, experiment.encoder))
        if row is None or experiment.fusion == "late":  # trains on columns of numbers, in seconds
            continue
        speed = row["patients_per_s"]
        n_fits = profile.n_folds * (len(profile.alphas) if experiment.fusion == "alpha" else 1)
        an_epoch = N_TRAIN / speed["ours"] + N_VALIDATION / profile.validate_every / speed["validation"]
        seconds += n_fits * (row["start_s"] + experiment.epochs * an_epoch)
        seconds += profile.n_folds * N_COHORT / speed["validation"]
    return seconds / 3600


def measure_obvious(case: str, cohort: str, out: str) -> dict:
    """Patients a second of the obvious program on the same patients: its network has the same shape."""
    run, experiment, event, days, parts = opened(case, cohort, out)
    model, _, inputs = make_network(run, experiment, 0, None, 0)
    feed, kind, rows = inputs.images, experiment.input, np.concatenate(parts)
    store = run.store(kind)
    pixels = store.crops if kind == "crops" else store.full[:, None]
    folder = Path(out) / "pictures"
    write_pictures(pixels, rows, folder)
    pictures = Pictures(folder, rows, pixels.shape[1], feed.frame, feed.low[0].item(), feed.high[0].item())
    if experiment.encoder in RESNETS:
        model = model.to(memory_format=torch.contiguous_format)
    steps = train(
        model, pictures, inputs.tabular.cpu(), event, days, batch_size=len(parts[0]), lr=experiment.lr, workers=2
    )
    took = []
    for _ in range(min(SIZES[CASES[case][0]][2], 3) + 1):  # the first warms up
        start = time.perf_counter()
        for _ in parts:
            next(steps)
        if ON_GPU:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return {"patients_per_s": len(rows) / float(np.median(took[1:])), "peak_memory_mib": peak_memory(run.device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--without-obvious", action="store_true", help="leave the obvious program out")
    for option, what in (("--case", "the bare step and ours"), ("--obvious", "the obvious program")):
        parser.add_argument(
            option, nargs=3, metavar=("CASE", "COHORT", "OUT"), help=f"measure {what} alone, print JSON"
        )
    arguments = parser.parse_args()
    if arguments.case or arguments.obvious:
        print(json.dumps(measure(*arguments.case) if arguments.case else measure_obvious(*arguments.obvious)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in ("demo", "paper"):
            cases = [case for case in arguments.only if case.startswith(size)]
            if not cases:
                continue
            cohort = f"{folder}/{size}"
            scale = load_profile(size).scale
            simulate_cohort(
                Path(cohort), patients=SIZES[size][0], seed=0, resolution=scale, boxes="true", workers=os.cpu_count()
            )
            for case in cases:
                place = case, cohort, f"{folder}/{case}"
                row = measured_apart("benchmarks.training", "--case", *place)
                if not arguments.without_obvious:
                    found = measured_apart("benchmarks.training", "--obvious", *place)
                    row["patients_per_s"]["obvious"] = found["patients_per_s"]
                    row["obvious_peak_memory_mib"] = found["peak_memory_mib"]
                rows.append(row)
                speed, split = row["patients_per_s"], row["seconds_a_turn"]
                print(
                    f"{case:<12}{row['encoder']:<10}batch {row['batch']:>3}  "
                    + "  ".join(f"{what} {value:.4g}/s" for what, value in speed.items())
                    + f"; of bare {speed['ours'] / speed['bare']:.2f}, "
                    + (f"of obvious {speed['ours'] / speed['obvious']:.2f}; " if "obvious" in speed else "")
                    + ", ".join(
                        f"{part} {100 * s / split['whole']:.1f} %" for part, s in split.items() if part != "whole"
                    )
                    + f"; peak {row['peak_memory_mib'] / 1024:.1f} GiB, {row['gflop_a_patient']:.3g} GFLOP a patient"
                    + (f", {100 * row['share_of_ceiling']:.1f} % of the ceiling" if row["share_of_ceiling"] else ""),
                    flush=True,
                )
    device = device_name()
    result = {"device": device, "rows": rows}
    if {f"paper-{kind}" for kind in ROWS} <= {row["case"] for row in rows}:
        result["paper_profile_hours"] = picture_fits_hours(rows)
        print(f"the pictures' fits of the profile paper: {result['paper_profile_hours']:.1f} hours on {device}")
    write_json(RESULTS / ("training_gpu.json" if ON_GPU else "training.json"), result)


if __name__ == "__main__":
    main()
