"""One training step and one validation of every row at the protocol's full size, and what a whole run would cost.

    python -m benchmarks.paper_step

Simulates patients at full resolution, then takes each row's own network, feeding and loss at the `paper` profile, in
a process of its own (so that its peak memory is its own). Writes `benchmarks/results/paper_step.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import device_name, measured_apart
from fracsurv.config import load_experiments, load_profile
from fracsurv.models import build_model
from fracsurv.simulate import simulate_cohort
from fracsurv.study.experiments import make_network
from fracsurv.study.prepare import prepare, prepare_store
from fracsurv.study.run import Run
from fracsurv.training.data import RiskColumns
from fracsurv.training.loop import Network, forward, predict, train_step
from fracsurv.utils.devices import peak_memory, precision_of

RESULTS = Path(__file__).parent / "results" / "paper_step.json"
PATIENTS = 220
N_COHORT, N_TRAIN, N_VALIDATION = 3028, 1817, 908  # the thesis's cohort, and a fold of its 90 %
FULL_BATCH_ON_CPU = 8  # 32 full images do not fit into 24 GB


def row_network(run: Run, name: str) -> Network:
    """A row's network as `experiments` makes it; frozen parts are as initialised, their risks are drawn."""
    experiment, alpha = run.experiment(name), run.alphas(name)[0]
    if experiment.fusion != "late":
        made = make_network(run, replace(experiment, pretrained={}), 0, alpha, seed=0)
        if "tabular" in experiment.pretrained:
            made.model.tabular.requires_grad_(False)
        return made
    model = build_model(fusion="late", input=experiment.input, encoder=experiment.encoder).to(run.device)
    risks = np.random.default_rng(0).normal(size=(2, len(run.cohort)))
    return Network(model, model.combine, RiskColumns(*risks, run.device))


def measure(cohort: str, out: str, name: str) -> dict[str, float]:
    """Seconds of a step and of a validation, peak memory; after one step to warm up."""
    run = prepare(cohort, out, "paper")
    prepare_store(run, run.experiment(name).input)
    experiment, rows = run.experiment(name), run.rows(0)
    batch = experiment.batch_size
    if experiment.input == "full" and experiment.fusion != "late" and run.device.type == "cpu":
        batch = FULL_BATCH_ON_CPU
    network = row_network(run, name)
    model, call, inputs = network
    dtype = precision_of(run.device, run.profile.precision)
    event, days = (torch.tensor(run.cohort.table[c].to_numpy()) for c in ("event", "time"))
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=experiment.lr, fused=True)
    generator = torch.Generator(run.device).manual_seed(0)
    at = rows["train"][:batch]
    index = torch.from_numpy(at)

    def step() -> None:
        model.train()
        train_step(forward(call, inputs(at, generator), dtype), event[index], days[index], optimiser)

    def seconds(work) -> float:
        start = time.perf_counter()
        work()
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    step()
    train = seconds(step)
    some = rows["validation"][: max(8, batch // 2)]
    validate = seconds(lambda: predict(network, some, dtype=dtype)) / len(some)
    per_sample = train / len(at)
    fits = run.profile.n_folds * len(run.alphas(name))
    hours = experiment.epochs * (N_TRAIN * per_sample + N_VALIDATION * validate / 2) * fits / 3600
    hours += run.profile.n_folds * N_COHORT * validate / 3600
    return {
        "experiment": name,
        "encoder": experiment.encoder,
        "batch": len(at),
        "protocol_batch": experiment.batch_size,
        "step_s": train,
        "samples_per_s": 1 / per_sample,
        "validation_ms_per_patient": 1000 * validate,
        "peak_gib": peak_memory(run.device) / 2**10,
        "fits": fits,
        "whole_row_hours": hours,
    }


def main() -> None:
    """Measure every network row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", nargs=3, metavar=("COHORT", "OUT", "NAME"), help="measure one row, print JSON")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(*arguments.row)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cohort, out = f"{folder}/cohort", f"{folder}/run"
        simulate_cohort(Path(cohort), patients=PATIENTS, seed=0, resolution=load_profile("paper").scale)
        for name, row in load_experiments().items():
            if row.model == "network":
                rows.append(measured_apart("benchmarks.paper_step", "--row", cohort, out, name))
                print(
                    "  ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True
                )
    device = device_name()
    total = sum(row["whole_row_hours"] for row in rows)
    print(f"whole paper profile on this device: {total:.0f} hours")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"device": device, "rows": rows, "total_hours": total}, indent=1) + "\n")


if __name__ == "__main__":
    main()
