"""The metrics against scikit-survival and lifelines, and the bootstrap against a loop, in one run.

    python -m benchmarks.metrics [--repeats 9]

Simulated patients, a third of them with the event, untied. The implementations take turns and the median is shown.
Values are compared too: no timing counts of something that answers differently. Prints tables and writes
`benchmarks/results/metrics.json`.
"""

from __future__ import annotations

import argparse
import resource
import time
from functools import partial

import lifelines.utils
import numpy as np
from sksurv import metrics as peer
from sksurv.util import Surv

from benchmarks.detection import RESULTS
from benchmarks.timing import medians
from fracsurv import metrics
from fracsurv.utils.files import write_json

AT = 1826.0
TIMES = np.linspace(400.0, 2600.0, 8)
LARGE = (100_000, 300_000, 1_000_000)


def cohort(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Event, time in days and true log hazard; a third have the event."""
    hazard, left = rng.normal(size=n), rng.uniform(400, 3600, n)
    died = rng.exponential(4300 * np.exp(-0.6 * hazard))
    return died <= left, np.minimum(died, left), hazard


def patients(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Event, time in days and a risk that says something, to six digits: scikit-survival takes 1e-8 for a tie."""
    rng = np.random.default_rng(seed)
    event, at, hazard = cohort(rng, n)
    return event, at, (hazard + rng.normal(size=n)).round(6)


def within(event: np.ndarray, at: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Follow-up cut off just before `end`: scikit-survival refuses to look beyond the training patients'."""
    return event & (at < end), np.minimum(at, end * (1 - 1e-9))


def against_peers(n: int, repeats: int) -> list[dict]:
    """Each metric at one size: milliseconds of both, and that they say the same."""
    train, (event, at, risk) = patients(max(n, 1_000), 0), patients(n, 1)
    event, at = within(event, at, train[1].max())
    base, sample = Surv.from_arrays(train[0], train[1]), Surv.from_arrays(event, at)
    surv = metrics.breslow_survival(*train, risk, TIMES)
    compared = {
        "concordance_index": (
            partial(metrics.concordance_index, event, at, risk),
            {
                "scikit-survival": lambda: peer.concordance_index_censored(event, at, risk)[0],
                "lifelines": lambda: lifelines.utils.concordance_index(at, -risk, event),
            },
        ),
        "concordance_index_ipcw": (
            partial(metrics.concordance_index_ipcw, *train[:2], event, at, risk),
            {"scikit-survival": lambda: peer.concordance_index_ipcw(base, sample, risk)[0]},
        ),
        "cumulative_dynamic_auc": (
            lambda: metrics.cumulative_dynamic_auc(*train[:2], event, at, risk, TIMES)[0],
            {"scikit-survival": lambda: peer.cumulative_dynamic_auc(base, sample, risk, TIMES)[0]},
        ),
        "brier_score": (
            partial(metrics.brier_score, *train[:2], event, at, surv, TIMES),
            {"scikit-survival": lambda: peer.brier_score(base, sample, surv, TIMES)[1]},
        ),
    }
    rows = []
    for name, (ours, theirs) in compared.items():
        for other in theirs.values():
            np.testing.assert_allclose(ours(), other(), rtol=1e-9)
        took = medians({"fracsurv": ours, **theirs}, repeats)
        rows.append({"metric": name, "n": n, "ms": {k: 1e3 * v for k, v in took.items()}})
        shown = "  ".join(f"{k} {1e3 * v:.2f} ms" for k, v in took.items())
        ratios = ", ".join(f"{took['fracsurv'] / v:.3f} of {k}" for k, v in took.items() if k != "fracsurv")
        print(f"{n:>9,} {name:<24}{shown}; {ratios}", flush=True)
    return rows


def growth() -> dict:
    """Seconds of C in large cohorts, and the exponent of the growth between the first and the last."""
    seconds = {}
    for n in LARGE:
        event, at, risk = patients(n, 2)
        seconds[n] = min(_seconds(partial(metrics.concordance_index, event, at, risk)) for _ in range(3))
        print(f"{n:>9,} concordance_index {seconds[n]:.2f} s", flush=True)
    exponent = np.log(seconds[LARGE[-1]] / seconds[LARGE[0]]) / np.log(LARGE[-1] / LARGE[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"time grows as n^{exponent:.2f}; peak memory of the whole program {peak:.2f} GiB")
    return {
        "seconds": {str(n): value for n, value in seconds.items()}, "exponent": float(exponent), "peak_gib": peak,
    }  # fmt: skip


def bootstrap(n: int, *, n_draws: int = 1000, n_models: int = 12, in_loop: int) -> dict:
    """All draws at once, and what the loop over scikit-survival takes for a few of them; C compared draw by draw."""
    train, (event, at, _) = patients(1_000, 0), patients(n, 3)
    event, at = within(event, at, train[1].max())
    rng = np.random.default_rng(4)
    risks = {f"model {k}": rng.normal(size=n) - np.log(at) for k in range(n_models)}
    surv = {name: metrics.breslow_survival(*train, risk, [AT])[:, 0] for name, risk in risks.items()}
    asked = ("c_index", ("auc", AT), ("brier", AT))
    start = time.perf_counter()
    found = metrics.bootstrap(event, at, risks, metrics=asked, n_draws=n_draws, train=train[:2], surv=surv)
    ours = time.perf_counter() - start
    counts, base, worst = metrics.draw_counts(n, n_draws, 0), Surv.from_arrays(*train[:2]), np.zeros(3)
    drawn = [np.repeat(np.arange(n), counts[:, draw]) for draw in range(in_loop)]
    start = time.perf_counter()
    for draw, rows in enumerate(drawn):
        sample = Surv.from_arrays(event[rows], at[rows])
        for model, (name, risk) in enumerate(risks.items()):
            values = (
                peer.concordance_index_censored(event[rows], at[rows], risk[rows])[0],
                peer.cumulative_dynamic_auc(base, sample, risk[rows], [AT])[0][0],
                peer.brier_score(base, sample, surv[name][rows], AT)[1][0],
            )
            worst = np.maximum(worst, np.abs(found.draws[draw, model] - values))
    loop = (time.perf_counter() - start) * n_draws / in_loop
    start = time.perf_counter()
    for rows in drawn:
        for name, risk in risks.items():
            metrics.concordance_index(event[rows], at[rows], risk[rows])
            metrics.cumulative_dynamic_auc(*train[:2], event[rows], at[rows], risk[rows], [AT])
            metrics.brier_score(*train[:2], event[rows], at[rows], surv[name][rows], [AT])
    own_loop = (time.perf_counter() - start) * n_draws / in_loop
    print(
        f"bootstrap n {n:,}: {n_draws:,} draws x {n_models} models x (C, AUC, Brier) {ours:.2f} s; a loop (from "
        f"{in_loop} draws) over scikit-survival {loop:.0f} s, over fracsurv {own_loop:.0f} s; largest difference "
        f"from scikit-survival C {worst[0]:.1e}, AUC {worst[1]:.1e}, Brier {worst[2]:.1e}",
        flush=True,
    )
    return {
        "n": n, "seconds": ours, "loop_seconds": loop, "own_loop_seconds": own_loop, "draws_in_loop": in_loop,
        "differences": worst.tolist(),
    }  # fmt: skip


def _seconds(step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    result = {"peers": [row for n in (303, 3_028, 30_000) for row in against_peers(n, repeats)]}
    result["bootstrap"] = [bootstrap(303, in_loop=100), bootstrap(3_028, in_loop=10)]
    result["growth"] = growth()
    write_json(RESULTS / "metrics.json", result)


if __name__ == "__main__":
    main()
