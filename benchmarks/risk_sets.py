"""What evenly spread events and larger risk sets do to the C-index.

    python -m benchmarks.risk_sets [--seeds 5] [--rows deepsurv cds_crops_if]

Profile `demo`: one fold's models, trained with several seeds in four ways and judged on the 2,000 external patients
of the simulated cohort. `spread`: batches with about as many events each; `bank`: the risk sets hold the three
batches before as well. Every way has the same seeds, initial weights and number of steps. Prints the means, and the
mean paired difference from the protocol's way with its 95 % interval over seeds (Student's t); writes
`benchmarks/results/risk_sets.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student
from tqdm import tqdm

from benchmarks.detection import RESULTS
from fracsurv.config import load_profile
from fracsurv.metrics import concordance_index
from fracsurv.simulate import simulate_cohort
from fracsurv.study.experiments import make_network, recipe_of
from fracsurv.study.prepare import prepare
from fracsurv.study.run import Run
from fracsurv.training.loop import fit, predict
from fracsurv.utils.devices import precision_of
from fracsurv.utils.files import write_json
from fracsurv.utils.weights import load_weights

WAYS = {
    "protocol": {},
    "spread": {"spread_events": True},
    "bank": {"bank": 3},
    "both": {"spread_events": True, "bank": 3},
}


def external_c(run: Run, name: str, seed: int, how: dict, folder: Path) -> float:
    """C on the external patients of a row's model of fold 0, trained with this seed, in this way."""
    experiment, rows = replace(run.experiment(name), **how), run.rows(0)
    model, call, inputs = make_network(run, experiment, 0, None, seed)
    event, time = (run.cohort.table[column].to_numpy() for column in ("event", "time"))
    dtype = precision_of(run.device, run.profile.precision)
    folder.mkdir(parents=True)
    fit(
        model, call, inputs, event, time, rows["train"], rows["validation"], folder, recipe_of(run, experiment, seed),
        dtype=dtype, progress=False,
    )  # fmt: skip
    load_weights(model, folder / "best.safetensors")
    at = rows["external"]
    return concordance_index(event[at], time[at], predict(model, call, inputs, at, dtype=dtype))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", default=["deepsurv", "cds_crops_if"])
    arguments = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        profile = load_profile("demo")
        simulate_cohort(f"{folder}/c", **profile.simulate, resolution=profile.scale, boxes="true", workers=2)
        run = prepare(f"{folder}/c", f"{folder}/r", profile, kinds=["crops"])
        for name in arguments.rows:
            found = {way: [] for way in WAYS}
            for seed in tqdm(range(arguments.seeds), desc=name, disable=None):
                for way, how in WAYS.items():
                    found[way].append(external_c(run, name, seed, how, Path(folder) / name / way / str(seed)))
            rows = result[name] = {}
            for way, values in found.items():
                paired = np.subtract(values, found["protocol"])
                width = student.ppf(0.975, len(paired) - 1) * paired.std(ddof=1) / np.sqrt(len(paired))
                rows[way] = {
                    "c_index": values, "mean": float(np.mean(values)), "difference": float(paired.mean()),
                    "low": float(paired.mean() - width), "high": float(paired.mean() + width),
                }  # fmt: skip
                shown = rows[way]
                print(
                    f"{name:<14}{way:<10}C {shown['mean']:.4f} (SD over seeds {np.std(values, ddof=1):.4f}); minus "
                    f"protocol {shown['difference']:+.4f} [{shown['low']:+.4f}, {shown['high']:+.4f}]",
                    flush=True,
                )
    write_json(RESULTS / "risk_sets.json", result)


if __name__ == "__main__":
    main()
