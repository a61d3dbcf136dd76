"""Time and peak memory of the clinical part for 10,000, 100,000 and 1,000,000 simulated patients.

    python -m benchmarks.scale

Reading and checking `cohort.csv`, telling what is odd, Cox PH on nine tenths, and everybody's metrics. Every size
in a process of its own, one after the other. The exponent is that of the time between the last two sizes: 1 where it
grows as the data. Prints a table and writes `benchmarks/results/scale.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.detection import RESULTS
from benchmarks.timing import clocked, device_name, measured_apart, print_growth
from fracsurv import metrics
from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.plausibility import implausible_values
from fracsurv.cohort.splits import make_splits
from fracsurv.losses import cox_nll
from fracsurv.models.cox import fit_cox
from fracsurv.simulate.writer import simulate_tables
from fracsurv.study.scaling import standardise
from fracsurv.utils.devices import peak_memory
from fracsurv.utils.files import write_json

SIZES = (10_000, 100_000, 1_000_000)
DAYS = [365.0, 1096.0, 1826.0]


def write_tables(folder: Path, n: int) -> None:
    """A cohort of the simulator's clinical factors and outcome, without radiographs."""
    table, _ = simulate_tables(n, seed=1)
    folder.mkdir()
    table.to_csv(folder / "cohort.csv", index=False)
    (folder / "cohort.yaml").write_text(yaml.safe_dump({"provenance": "simulated"}))


def measure(n: int, folder: str) -> dict:
    """Seconds of every part and this process's peak memory, MiB."""
    path = Path(folder) / str(n)
    write_tables(path, n)
    seconds: dict[str, float] = {}
    with clocked(seconds, "read and check"):
        cohort = read_cohort(path)
    with clocked(seconds, "tell what is odd"):
        implausible_values(cohort)
    with clocked(seconds, "splits"):
        make_splits(cohort, n_folds=3, test_fraction=0.1, seed=0)
    event, time_ = cohort.table["event"].to_numpy(), cohort.table["time"].to_numpy()
    train, test = np.arange(n) % 10 > 0, np.arange(n) % 10 == 0
    with clocked(seconds, "scale covariates"):
        x = standardise(cohort, np.flatnonzero(train))
    with clocked(seconds, "Cox PH"):
        risk = fit_cox(x[train], event[train], time_[train]).risk(x)
    with clocked(seconds, "Cox loss and gradient, all in one batch"):
        theta = torch.tensor(risk, requires_grad=True)
        cox_nll(torch.tensor(event), torch.tensor(time_), theta).backward()
    with clocked(seconds, "C-index of all"):
        c_index = metrics.concordance_index(event, time_, risk)
    with clocked(seconds, "survival by Breslow, all"):
        surv = metrics.breslow_survival(event[train], time_[train], risk[train], risk, DAYS)
    known = event[train], time_[train]
    with clocked(seconds, "AUC(t) of all"):
        metrics.cumulative_dynamic_auc(*known, event, time_, risk, DAYS)
    with clocked(seconds, "Brier(t) of all"):
        metrics.brier_score(*known, event, time_, surv, DAYS)
    with clocked(seconds, "calibration of all"):
        metrics.calibration(event, time_, 1 - surv[:, 1], at=DAYS[1])
    with clocked(seconds, "bootstrap of C, 100 draws, a tenth"):
        metrics.bootstrap(event[test], time_[test], {"cox": risk[test]}, metrics=["c_index"], n_draws=100)
    return {"n": n, "c_index": c_index, "peak_mib": peak_memory(torch.device("cpu")), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs=2, metavar=("N", "FOLDER"), help="measure one size, print JSON")
    arguments = parser.parse_args()
    if arguments.size:
        print(json.dumps(measure(int(arguments.size[0]), arguments.size[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured_apart("benchmarks.scale", "--size", str(n), folder) for n in SIZES]
    print_growth("seconds", rows, width=12, since=-2)
    print(f"{'C-index':<42}" + "".join(f"{row['c_index']:12.4f}" for row in rows))
    write_json(RESULTS / "scale.json", {"device": device_name(), "rows": rows})


if __name__ == "__main__":
    main()
