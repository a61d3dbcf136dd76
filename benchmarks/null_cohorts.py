"""How often the report's first sentence claims that the radiograph adds, where it carries nothing.

    python -m benchmarks.null_cohorts [--cohorts 20] [--strength 0] [--jobs 1]

Cohorts are simulated whose image has no effect on the hazard (`image_strength` 0): another seed each, so other
patients, pictures and outcomes. Each is split, fitted (Cox PH, DeepSurv, crops with intermediate fusion: three folds)
and judged on its external patients as a report does it. With `--strength 1`, the simulator's own, the same counts how
often a signal that is there is found. Smaller than the demo, so that twenty take half an hour: 500 patients and 1,000
external ones, an eighth of the resolution, ResNet-18, 10 epochs. Prints each cohort's difference and the share with a
claim, with its exact 95 % interval; writes `benchmarks/results/null_cohorts.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from scipy.stats import binomtest

from benchmarks.detection import RESULTS
from fracsurv.config import load_profile
from fracsurv.simulate import DEFAULT, simulate_cohort
from fracsurv.study.ablation import ablation
from fracsurv.study.experiments import run_experiment
from fracsurv.study.prepare import prepare
from fracsurv.study.protocol import CLINICAL, HEADLINE
from fracsurv.utils.devices import keep_freed_memory
from fracsurv.utils.files import read_json, write_json
from fracsurv.utils.workers import process_pool

SIZE = {"patients": 500, "external": 1000}
SPLIT = "external"


def judge(seed: int, strength: float) -> dict:
    """One cohort: the differences of the report's row, and whether its rule claims a benefit."""
    torch.set_num_threads(2)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        return _judged(seed, strength, Path(folder))


def _judged(seed: int, strength: float, folder: Path) -> dict:
    profile = replace(load_profile("demo"), scale=0.125, epochs={HEADLINE: 10}, seed=seed, bootstrap_draws=1000)
    settings = replace(DEFAULT, image_strength=strength)
    simulate_cohort(
        folder / "cohort", **SIZE, seed=1000 + seed, resolution=profile.scale, boxes="true", settings=settings,
        workers=2, progress=False,
    )  # fmt: skip
    run = prepare(folder / "cohort", folder / "run", profile, kinds=["crops"])
    for name in (*CLINICAL, HEADLINE):
        run_experiment(run, name, progress=False)
    _, differences = ablation(run, [*CLINICAL, HEADLINE], progress=False)
    found = differences.query("metric == 'c_index' and split == @SPLIT and experiment == @HEADLINE")
    found = found.set_index("reference").loc[list(CLINICAL), ["difference", "ci_low", "ci_high", "p"]]
    claim = bool((found["ci_low"] > 0).all())  # the rule of notebook 05
    return {"seed": seed, "claim": claim, "differences": {name: list(row) for name, row in found.iterrows()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=1, help="cohorts at a time, two threads each")
    arguments = parser.parse_args()
    rows = []
    with process_pool(arguments.jobs) as pool:
        for row in pool.map(partial(judge, strength=arguments.strength), range(arguments.cohorts)):
            rows.append(row)
            told = "; ".join(f"from {name} {d:+.3f} [{low:+.3f}, {high:+.3f}]" for name, (d, low, high, _) in
                             row["differences"].items())  # fmt: skip
            print(f"cohort {row['seed']:>2}: {told}{'  CLAIM' if row['claim'] else ''}", flush=True)
    claims = sum(row["claim"] for row in rows)
    low, high = binomtest(claims, len(rows)).proportion_ci(method="exact")
    print(
        f"{claims} of {len(rows)} cohorts with a claim [{low:.3f}, {high:.3f}], image strength {arguments.strength:g}"
    )
    path = RESULTS / "null_cohorts.json"
    kept = read_json(path) if path.exists() else {}
    result = {"claims": claims, "cohorts": len(rows), "low": low, "high": high, "size": SIZE, "rows": rows}
    write_json(path, kept | {f"strength {arguments.strength:g}": result})


if __name__ == "__main__":
    main()
