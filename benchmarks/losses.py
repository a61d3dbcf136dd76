"""The Cox loss and its gradient against torchsurv and pycox, in one run.

    python -m benchmarks.losses [--repeats 30]

Each timing is one forward and one backward pass in float32 from unsorted rows; the implementations take turns, and
the median of the repeats is shown. Sums over events are compared, in value before they are timed. torchsurv has
Efron's ties as fracsurv has; pycox ignores ties and is left out where there are any. Untied times are fractions of a
day, tied ones whole days. The last column is fracsurv without a gradient, as in validation, timed by itself. Prints a
table and writes `benchmarks/results/losses.json`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.detection import RESULTS
from benchmarks.timing import medians
from fracsurv.losses import cox_nll
from fracsurv.utils.files import write_json

warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
warnings.filterwarnings("ignore", message="Ties in `time` detected")
SIZES = (128, 1_817, 10_000, 100_000, 1_000_000)


def patients(n: int, tied: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Event (36 %), time and risk of n patients within ten years; tied times are whole days."""
    generator = torch.Generator().manual_seed(n)
    event = torch.rand(n, generator=generator) < 0.36
    if tied:
        time = torch.randint(1, 3653, (n,), generator=generator)
    else:  # distinct also in float32, which has fewer than 2^24 steps up to any number
        time = (torch.randperm(n, generator=generator) + 1) * (3652.0 / n)
    return event, time.float(), torch.randn(n, generator=generator)


def losses() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """What is compared, all as (event, time, risk) to a scalar."""
    from pycox.models.loss import cox_ph_loss
    from torchsurv.loss.cox import neg_partial_log_likelihood

    return {
        "fracsurv": lambda event, time, risk: cox_nll(event, time, risk, reduction="sum"),
        "torchsurv": lambda event, time, risk: neg_partial_log_likelihood(
            risk, event, time, ties_method="efron", reduction="sum"
        ),
        "pycox": lambda event, time, risk: cox_ph_loss(risk, time, event.float()) * event.sum(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    rows = []
    names = "".join(f"{name:>14}" for name in ("fracsurv", "torchsurv", "pycox"))
    print(f"{'n':>10} {'ties':>5}{names}{'/torchsurv':>12}{'/pycox':>8}{'value':>14}")
    for n in SIZES:
        for tied in (False, True):
            event, time, risk = patients(n, tied)
            compared = {name: loss for name, loss in losses().items() if not (tied and name == "pycox")}
            values = {name: loss(event, time, risk).item() for name, loss in compared.items()}
            for name, value in values.items():
                assert abs(value - values["fracsurv"]) < 1e-4 * abs(value), (n, tied, name, values)

            def step(loss, event=event, time=time, risk=risk):
                leaf = risk.detach().requires_grad_()
                loss(event, time, leaf).backward()

            steps = {name: partial(step, loss) for name, loss in compared.items()}
            turns = max(5, min(repeats, 3_000_000 // n))
            took = medians(steps, turns) | medians({"value": partial(compared["fracsurv"], event, time, risk)}, turns)
            rows.append({"n": n, "tied": tied, "ms": {name: 1e3 * value for name, value in took.items()}})
            nan = float("nan")
            ms = [1e3 * took.get(name, nan) for name in ("fracsurv", "torchsurv", "pycox")]
            print(
                f"{n:>10,} {'yes' if tied else 'no':>5}"
                + "".join(f"{value:>11.3f} ms" for value in ms)
                + f"{ms[0] / ms[1]:>12.2f}{ms[0] / ms[2]:>8.2f}{1e3 * took['value']:>11.3f} ms",
                flush=True,
            )
    write_json(RESULTS / "losses.json", {"threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
