"""Fit one network on one fold. Knows nothing of cohorts or experiments.

In reading order: the network and its patients, the fit, an epoch, a step, a validation.
"""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fracsurv.config import derive_seed
from fracsurv.losses import cox_nll
from fracsurv.metrics import concordance_index
from fracsurv.models.masking import update_mean_features
from fracsurv.training.checkpoint import Checkpoint, best_epoch
from fracsurv.training.compilation import compiled
from fracsurv.training.data import draw_batches
from fracsurv.training.monitor import Stopwatch
from fracsurv.utils.devices import peak_memory, reproducible
from fracsurv.utils.errors import UserError


class Network(NamedTuple):
    """A network with its data.

    Attributes
    ----------
    model : nn.Module
    call : callable
        Maps what `inputs` returns to (batch,) log hazards, higher = riskier: the model, or one of its methods.
    inputs : callable
        Maps (rows, generator) to what `call` takes; with a generator it augments, with None it does not. Its method
        `expect`, if it has one, is called with the next batch's rows.
    """

    model: nn.Module
    call: Callable[..., Tensor]
    inputs: Callable[[np.ndarray, torch.Generator | None], tuple[Tensor, ...]]


class Patients(NamedTuple):
    """Outcomes of all patients, `event` bool (n,) and `time` float days (n,), and the row numbers of two splits."""

    event: np.ndarray
    time: np.ndarray
    train: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class Recipe:
    """How one fit is trained: a line of Table A.1, with a seed.

    `scheduler` is 'none' or 'cosine'. `dtype` is the autocast precision of the network's body; risk and loss are
    float32. `compiled` by `torch.compile` rounds a little differently.
    """

    lr: float
    scheduler: str
    epochs: int
    batch_size: int
    seed: int
    validate_every: int = 2
    ties: str = "efron"
    dtype: torch.dtype = torch.float32
    compiled: bool = False


@dataclass(frozen=True)
class Fit:
    """The result of a fit: the best epoch by validation C-index, as `best_epoch` has it, and two tables by epoch.

    `history` is the same for the same seed. `timing` is not: seconds of feeding, augmentation, model, validation, the
    checkpoint before the epoch and the whole epoch, patients per second while training, and peak memory in MiB (on a
    CPU, of the process since it began).
    """

    best_epoch: int
    best_c_index: float
    history: pd.DataFrame
    timing: pd.DataFrame


def fit(
    network: Network,
    patients: Patients,
    folder: Path,
    recipe: Recipe,
    *,
    key: str = "",
    watch: Stopwatch | None = None,
    after_epoch: Callable[[dict[str, float], dict[str, float]], None] | None = None,
    progress: bool = True,
) -> Fit:
    """Train a network; keep its best weights on validation and its last ones; resume if interrupted.

    Parameters
    ----------
    folder : Path
        Gets `best.safetensors`, `last.safetensors` (with key and epoch in their headers), `history.csv` and
        `timing.csv`; meanwhile `resume.safetensors`, every minute and whenever validation is best.
    key : str
        What the fit depends on. A state with another key, or of another kind of device, precision or compiling, is
        not resumed from.
    watch : Stopwatch, optional
        The one with which `inputs` times feeding and augmentation.
    after_epoch : callable, optional
        Called after every epoch with its rows of the two tables.

    Notes
    -----
    Every epoch draws its order, augmentation and dropout from (seed, epoch). So a resumed fit equals the undisturbed
    one, bit for bit on the same kind of processor with the same number of threads, or the same kind of GPU and
    software.
    """
    model, device = network.model, next(network.model.parameters()).device
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=recipe.lr, fused=True)
    arithmetic = f"{device.type} {recipe.dtype} {recipe.compiled}"
    checkpoint = Checkpoint(folder, model, optimiser, key=key, arithmetic=arithmetic)
    history, timing = checkpoint.resume()
    training = Training(network, patients, optimiser, recipe, watch or Stopwatch(device))
    bar = tqdm(total=recipe.epochs, initial=len(history), desc="epochs", disable=not progress, leave=False)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), reproducible():
        for epoch in range(len(history), recipe.epochs):
            row, cost = run_epoch(training, epoch)
            history.append(row)
            timing.append(cost)
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if "c_index" in k})
            if after_epoch is not None:
                after_epoch(row, cost)
            with training.watch("checkpoint"):  # counts to the next epoch: this one's times are in it
                checkpoint.save(history, timing)
    bar.close()
    tables = {"history": pd.DataFrame(history), "timing": pd.DataFrame(timing)}
    checkpoint.finish(**tables)
    best = best_epoch(history)
    return Fit(best, float(tables["history"]["validation_c_index"][best - 1]), **tables)


@dataclass
class Training:
    """What the epochs of a fit share; `call` is the network's, compiled if the recipe says so."""

    network: Network
    patients: Patients
    optimiser: torch.optim.Optimizer
    recipe: Recipe
    watch: Stopwatch

    def __post_init__(self) -> None:
        self.event, self.time = torch.tensor(self.patients.event), torch.tensor(self.patients.time)
        self.device = next(self.network.model.parameters()).device
        self.call = self.network.call
        if self.recipe.compiled:
            self.call = compiled(self.call, self.recipe.batch_size, mode="reduce-overhead")


def run_epoch(training: Training, epoch: int) -> tuple[dict[str, float], dict[str, float]]:
    """Train, and validate where the recipe says so and there is anybody; the epoch's rows of `history`, `timing`."""
    recipe, watch, began = training.recipe, training.watch, clock.perf_counter()
    row = {"epoch": epoch + 1, "lr": learning_rate(recipe, epoch)}
    for group in training.optimiser.param_groups:
        group["lr"] = row["lr"]
    batches = draw_batches(training.patients.train, recipe.batch_size, derive_seed(recipe.seed, epoch))
    row |= train_epoch(training, batches, epoch)
    speed = sum(map(len, batches)) / (clock.perf_counter() - began)
    due = (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == recipe.epochs
    if due and len(training.patients.validation):
        with watch("validation"):
            row |= validate(training, epoch)
    seconds = {f"{part}_s": spent for part, spent in watch.lap().items()}
    seconds["whole_s"] = clock.perf_counter() - began
    memory = peak_memory(training.device)
    return row, {"epoch": epoch + 1, "samples_per_s": speed, **seconds, "peak_memory_mib": memory}


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate in epoch 0, 1, …: constant, or cosine annealing with T_max = epochs to a tenth of `lr`."""
    if recipe.scheduler == "none":
        return recipe.lr
    low = 0.1 * recipe.lr
    return low + (recipe.lr - low) * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def train_epoch(training: Training, batches: list[np.ndarray], epoch: int) -> dict[str, float]:
    """One optimiser step per batch; the mean loss, and the C-index of the risks during training."""
    recipe = training.recipe
    # dropout has no generator of its own; `fit` restores the global one
    torch.manual_seed(derive_seed(recipe.seed, epoch, "dropout"))
    generator = torch.Generator(training.device)
    generator.manual_seed(derive_seed(recipe.seed, epoch, "augmentation"))
    try:
        losses, risks = train_batches(training, batches, generator)
    except FloatingPointError:
        raise _diverged(epoch, recipe) from None
    rows = torch.from_numpy(np.concatenate(batches))
    c_index = concordance_index(training.event[rows].numpy(), training.time[rows].numpy(), torch.cat(risks).numpy())
    return {"train_loss": float(torch.stack(losses).mean()), "train_c_index": c_index}


def train_batches(
    training: Training, batches: list[np.ndarray], generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Losses and log hazards of the batches, after one optimiser step each.

    A GPU prepares the next batch while the host computes the loss of this one.
    """
    training.network.model.train()
    inputs, is_gpu = training.network.inputs, generator.device.type == "cuda"

    def prepare(number: int) -> tuple[Tensor, ...]:
        batch = inputs(batches[number], generator)
        if number + 1 < len(batches) and hasattr(inputs, "expect"):
            inputs.expect(batches[number + 1])
        return batch

    losses, risks, ready = [], [], None
    for number, rows in enumerate(batches):
        batch = ready or prepare(number)
        with training.watch("model"):
            output = forward(training.call, batch, training.recipe.dtype)
        ready = prepare(number + 1) if is_gpu and number + 1 < len(batches) else None
        index = torch.from_numpy(rows)
        with training.watch("model"):
            event, time = training.event[index], training.time[index]
            loss, risk = train_step(output, event, time, training.optimiser, ties=training.recipe.ties)
        losses.append(loss)
        risks.append(risk)
    return losses, risks


class Output(NamedTuple):
    """Log hazards (n,), float32, on the host; on a GPU they are there once `arrived` has happened."""

    risk: Tensor
    arrived: Any


def forward(call: Callable[..., Tensor], batch: tuple[Tensor, ...], dtype: torch.dtype) -> Output:
    """A batch's log hazards, on their way to the host; a GPU is not waited for."""
    device = next(part.device for part in batch if part is not None)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        risk = call(*batch)
    risk = risk.float().to("cpu", non_blocking=True)
    arrived = None
    if device.type == "cuda":
        arrived = torch.cuda.Event()
        arrived.record()
    return Output(risk, arrived)


def train_step(
    output: Output, event: Tensor, time: Tensor, optimiser: torch.optim.Optimizer, *, ties: str = "efron"
) -> tuple[Tensor, Tensor]:
    """Loss (scalar) and log hazards (n,) of a batch, detached, after one optimiser step.

    The loss is computed on the host also for a GPU, where its many small operations would take longer to launch than
    to compute.

    Raises
    ------
    FloatingPointError
        Where a log hazard is not finite; no parameter has been changed then.
    """
    if output.arrived is not None:
        output.arrived.synchronize()
    if not torch.isfinite(output.risk).all():
        raise FloatingPointError("a log hazard is not finite")
    loss = cox_nll(event, time, output.risk, ties=ties)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach(), output.risk.detach()


def validate(training: Training, epoch: int) -> dict[str, float]:
    """Loss and C-index on the validation patients."""
    network, recipe, (event, time, train, validation) = training.network, training.recipe, training.patients
    update_mean_features(network.model, network.inputs, train, dtype=recipe.dtype)
    risk, event, time = predict(network, validation, dtype=recipe.dtype), event[validation], time[validation]
    if not np.isfinite(risk).all():
        raise _diverged(epoch, recipe)
    c_index = concordance_index(event, time, risk)  # NaN where no two of them can be ranked
    loss = cox_nll(torch.from_numpy(event), torch.from_numpy(time), torch.from_numpy(risk), ties=recipe.ties)
    return {"validation_loss": float(loss), "validation_c_index": c_index}


def predict(
    network: Network, rows: np.ndarray, *, dtype: torch.dtype = torch.float32, batch_size: int = 128
) -> np.ndarray:
    """Log hazards (float64, higher = riskier) of `rows`, without augmentation or dropout."""
    device = next(network.model.parameters()).device
    network.model.eval()
    risks = []
    with torch.no_grad(), reproducible():
        for start in range(0, len(rows), batch_size):
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                risk = network.call(*network.inputs(rows[start : start + batch_size], None))
            risks.append(risk.float().cpu().numpy())
    return np.concatenate(risks).astype(float) if risks else np.empty(0)


def _diverged(epoch: int, recipe: Recipe) -> UserError:
    return UserError(
        f"the network's output is no longer finite in epoch {epoch + 1}; lower the learning rate ({recipe.lr:g}), or "
        "use precision: float32"
    )
