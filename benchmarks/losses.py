"""The Cox loss and its gradient against torchsurv and pycox, in one run.

    python -m benchmarks.losses [--repeats 30]

Each timing is one forward and one backward pass in float32 from unsorted rows; the implementations take turns, and
the median of the repeats is shown. torchsurv has Efron's ties as fracsurv has, pycox ignores ties. Prints a table and
writes `benchmarks/results/losses.json`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.detection import RESULTS
from benchmarks.timing import medians
from fracsurv.files import write_json
from fracsurv.losses import cox_nll

warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
warnings.filterwarnings("ignore", message="Ties in `time` detected")
SIZES = (128, 1_817, 10_000, 100_000, 1_000_000)


def patients(n: int, tied: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Event (36 %), time and risk of n patients; tied times are whole days of ten years."""
    generator = torch.Generator().manual_seed(n)
    event = torch.rand(n, generator=generator) < 0.36
    # distinct whatever n is: a permutation of 0 … n − 1 is exact in float32 up to 2^24
    time = torch.randint(1, 3653, (n,), generator=generator) if tied else torch.randperm(n, generator=generator) + 1
    return event, time.float(), torch.randn(n, generator=generator)


def losses() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """What is compared, all as (event, time, risk) to a scalar."""
    from pycox.models.loss import cox_ph_loss
    from torchsurv.loss.cox import neg_partial_log_likelihood

    return {
        "fracsurv": lambda event, time, risk: cox_nll(event, time, risk),
        "torchsurv": lambda event, time, risk: neg_partial_log_likelihood(risk, event, time, ties_method="efron"),
        "pycox": lambda event, time, risk: cox_ph_loss(risk, time, event.float()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    rows = []
    names = "".join(f"{name:>14}" for name in losses())
    print(f"{'n':>10} {'ties':>5} {names}{'/torchsurv':>14}{'/pycox':>10}")
    for n in SIZES:
        for tied in (False, True):
            event, time, risk = patients(n, tied)

            def step(loss, event=event, time=time, risk=risk):
                leaf = risk.requires_grad_()
                leaf.grad = None
                loss(event, time, leaf).backward()

            few = max(5, min(repeats, 3_000_000 // n))
            took = medians({name: (lambda loss=loss: step(loss)) for name, loss in losses().items()}, few)
            rows.append({"n": n, "tied": tied, "ms": {name: 1e3 * value for name, value in took.items()}})
            print(
                f"{n:>10,} {'yes' if tied else 'no':>5} "
                + "".join(f"{1e3 * value:>11.3f} ms" for value in took.values())
                + f"{took['fracsurv'] / took['torchsurv']:>14.2f}{took['fracsurv'] / took['pycox']:>10.2f}",
                flush=True,
            )
    write_json(RESULTS / "losses.json", {"threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
