"""Do the bootstrap's intervals hold the truth as often as they say, and does its test reject as seldom?

    python -m benchmarks.coverage [--cohorts 500]

Simulated cohorts of 303 patients (the size of the thesis's test set), a third of them with the event. The true C of a
score is its C in two million further patients, censored alike. For the test, two scores that are equally good: the
same hazard, each with noise of its own. Prints a table and writes `benchmarks/results/coverage.json`.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from benchmarks.detection import RESULTS
from benchmarks.metrics import cohort
from fracsurv import metrics
from fracsurv.utils.files import write_json

N, N_DRAWS = 303, 1000
NOISE = 1.0


def patients(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Event, time and two scores of equal worth."""
    event, time, hazard = cohort(rng, n)
    scores = {name: hazard + NOISE * rng.normal(size=n) for name in ("one", "other")}
    return event, time, scores


def shown(name: str, hits: int, n: int) -> dict[str, float]:
    """A share with its exact interval."""
    bounds = binomtest(hits, n).proportion_ci(0.95, "exact")
    print(f"{name:<42}{100 * hits / n:6.1f} %  [{100 * bounds.low:.1f}, {100 * bounds.high:.1f}]")
    return {"share": hits / n, "low": bounds.low, "high": bounds.high, "n": n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=500)
    n_cohorts = parser.parse_args().cohorts
    event, time, scores = patients(np.random.default_rng(0), 2_000_000)
    true = metrics.concordance_index(event, time, scores["one"])
    covered = rejected = held = 0
    for seed in tqdm(range(1, n_cohorts + 1), disable=None):
        event, time, scores = patients(np.random.default_rng(seed), N)
        found = metrics.bootstrap(event, time, scores, n_draws=N_DRAWS, seed=10**6 + seed)  # not the data's own
        low, high = found.interval()[0, 0]
        _, interval, p = found.difference("other")
        covered += low <= true <= high
        rejected += p[0, 0] < 0.05
        held += interval[0, 0, 0] <= 0 <= interval[0, 0, 1]
    print(f"{n_cohorts} cohorts of {N}, {N_DRAWS:,} draws each; true C {true:.4f}")
    write_json(
        RESULTS / "coverage.json",
        {
            "true_c": true,
            "interval_of_c_holds_it": shown("95 % interval of C holds the true C", int(covered), n_cohorts),
            "test_rejects_no_difference": shown("paired test rejects, p < 0.05", int(rejected), n_cohorts),
            "interval_of_difference_holds_0": shown("95 % interval of the difference holds 0", int(held), n_cohorts),
        },
    )


if __name__ == "__main__":
    main()
