"""Fit one network on one fold: loop, validation, checkpoints, resume. Knows nothing of cohorts or experiments."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fracsurv.config import derive_seed
from fracsurv.losses import cox_nll
from fracsurv.metrics import concordance_index
from fracsurv.models import settle
from fracsurv.training.checkpoint import load_state, save_state
from fracsurv.training.parallel import Team
from fracsurv.training.sampler import RiskBank, batches
from fracsurv.training.steps import Inputs, Steps, compiled
from fracsurv.training.stopwatch import Stopwatch
from fracsurv.training.synchronised import synchronise
from fracsurv.utils.devices import peak_memory, reproducible
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_path, remove_leftovers
from fracsurv.utils.weights import save_weights

SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True)
class Recipe:
    """How one fit is trained: a line of Table A.1, with a seed.

    Not in the thesis: `spread_events` deals events evenly among batches, and `bank` is how many batches before stay
    in a batch's risk sets; see `batches`. `compiled`: by `torch.compile`, whose rounding differs a little.
    """

    lr: float
    scheduler: str
    epochs: int
    batch_size: int
    seed: int
    validate_every: int = 2
    ties: str = "efron"
    spread_events: bool = False
    bank: int = 0
    compiled: bool = False


@dataclass(frozen=True)
class Fit:
    """What came of a fit: the best epoch by validation C-index (the earlier one of equals), and two tables by epoch.

    `history` is the same for the same seed; `timing` is not: seconds of feeding, augmentation, model, validation, the
    checkpoint before the epoch and the whole epoch, patients a second while training, and peak memory in MiB (on a
    CPU of the process, so of its fits before as well).
    """

    best_epoch: int
    best_c_index: float
    history: pd.DataFrame
    timing: pd.DataFrame


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate in epoch 0, 1, …: constant, or cosine annealing with T_max = epochs to a tenth of `lr`."""
    if recipe.scheduler == "none":
        return recipe.lr
    low = 0.1 * recipe.lr
    return low + (recipe.lr - low) * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def fit(
    model: nn.Module,
    call: Callable[..., Tensor],
    inputs: Inputs,
    event: np.ndarray,
    time: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    folder: Path,
    recipe: Recipe,
    *,
    dtype: torch.dtype = torch.float32,
    key: str = "",
    watch: Stopwatch | None = None,
    told: Callable[[dict[str, float], dict[str, float]], None] | None = None,
    progress: bool = True,
    team: Team | None = None,
) -> Fit:
    """Train `model`, keep the weights that are best on validation and the last ones, and resume if interrupted.

    Parameters
    ----------
    call : callable
        Maps what `inputs` gives to (batch,) log hazards: the model itself, or one of its methods.
    inputs : callable
        What the network is called with; where it has a method `expect`, it is told a batch ahead.
    event, time : ndarray of shape (n,)
        Bool and float days, of all patients; only the rows in `train` and `validation` are looked at.
    train, validation : ndarray of int
        Row numbers.
    folder : Path
        Gets `best.safetensors`, `last.safetensors` (with key and epoch in their headers), `history.csv` and
        `timing.csv`; meanwhile `resume.safetensors`, every minute and whenever validation is best.
    dtype : torch.dtype
        Autocast precision of the network's body; risk and loss are float32.
    key : str
        What the fit depends on. A `resume.safetensors` with another key, or from another kind of device, precision,
        way of compiling or number of processes, is started over.
    watch : Stopwatch, optional
        The one that `inputs` tells of its own time.
    told : callable, optional
        Called after every epoch with its rows of the two tables.
    team : Team, optional
        The processes that do this together, all in the same call; the first writes the files. Layers of `model` that
        look at a whole batch are changed for it.

    Notes
    -----
    Every epoch draws its order, augmentation and dropout from (seed, epoch), so a resumed fit is the
    undisturbed one: bit for bit on a CPU for the same number of threads and the same processor kind, and on a GPU of
    the same kind with the same software.
    """
    team, device = team or Team(), next(model.parameters()).device
    if not team.is_alone:
        synchronise(model, team)
        team.give_weights(model)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=recipe.lr, fused=True)
    history: list[dict[str, float]] = []
    timing: list[dict[str, float]] = []
    watch = watch or Stopwatch(device)
    resume, best_weights = folder / "resume.safetensors", folder / "best.safetensors"
    if team.leads:
        remove_leftovers(folder)
    # a state is gone on with only where the same arithmetic goes on
    state_key = f"{key} {device.type} {dtype} {recipe.compiled}" + f" {team.size}" * (not team.is_alone)
    if resume.exists() and (about := load_state(resume, model, optimiser, state_key)) is not None:
        history, timing = about["history"], about["timing"]
        best = _best(history)
        if team.leads and best and best == len(history):  # in case it was interrupted between the two files
            save_weights(model, best_weights, {"key": key, "epoch": best})
    if team.leaders(len(history)) != len(history):
        raise UserError(f"{folder}: not the same to all processes of this fit; it must be a folder that they share")
    step = compiled(call, recipe.batch_size, mode="reduce-overhead") if recipe.compiled else call
    outcome = torch.tensor(event), torch.tensor(time)
    steps = Steps(model, step, inputs, *outcome, optimiser, dtype, watch, recipe.ties, team)
    last_saved = clock.monotonic()
    bar = tqdm(
        total=recipe.epochs, initial=len(history), desc="epochs", disable=not (progress and team.leads), leave=False
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), reproducible():
        for epoch in range(len(history), recipe.epochs):
            began = clock.perf_counter()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, epoch)
            row = {"epoch": epoch + 1, "lr": learning_rate(recipe, epoch)}
            parts = batches(
                train, event, recipe.batch_size, derive_seed(recipe.seed, epoch), spread_events=recipe.spread_events
            )
            row |= _train_epoch(steps, parts, recipe, epoch)
            speed = sum(map(len, parts)) / (clock.perf_counter() - began)
            if (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == recipe.epochs:
                with watch("validation"):
                    settle(model, inputs, train, dtype=dtype, team=team)
                    mine = validation[team.take(len(validation)).mine]
                    risk = predict(model, call, inputs, mine, dtype=dtype)
                    risk = team.gathered(torch.from_numpy(risk)).numpy()
                    if not np.isfinite(risk).all():
                        raise _diverged("the network's output is no longer finite", epoch, recipe)
                    row |= _validate(risk, event[validation], time[validation], recipe.ties)
            history.append(row)
            spent = {f"{part}_s": seconds for part, seconds in watch.lap().items()}
            spent |= {"whole_s": clock.perf_counter() - began, "peak_memory_mib": peak_memory(device)}
            timing.append({"epoch": epoch + 1, "samples_per_s": speed, **spent})
            improved = _best(history) == epoch + 1
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if "c_index" in k})
            if told is not None:
                told(row, timing[-1])
            # never the best weights without the state from which they are reached again: elsewhere a repeated epoch
            # is not the same one
            with watch("checkpoint"):  # counts to the next epoch: this one's times are in it
                if team.leads and (improved or clock.monotonic() - last_saved > SECONDS_BETWEEN_CHECKPOINTS):
                    save_state(resume, model, optimiser, {"key": state_key, "history": history, "timing": timing})
                    last_saved = clock.monotonic()
                if team.leads and improved:
                    save_weights(model, best_weights, {"key": key, "epoch": epoch + 1})
    bar.close()
    tables = {"history": pd.DataFrame(history), "timing": pd.DataFrame(timing)}
    if team.leads:
        _write(model, folder, key, recipe.epochs, tables)
    best = _best(history)
    return Fit(best, float(tables["history"]["validation_c_index"][best - 1]), **tables)


def _write(model: nn.Module, folder: Path, key: str, epochs: int, tables: dict[str, pd.DataFrame]) -> None:
    """What a fit leaves behind at its end."""
    save_weights(model, folder / "last.safetensors", {"key": key, "epoch": epochs})
    for name, table in tables.items():
        with atomic_path(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    (folder / "resume.safetensors").unlink(missing_ok=True)


def predict(
    model: nn.Module,
    call: Callable[..., Tensor],
    inputs: Inputs,
    rows: np.ndarray,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 128,
) -> np.ndarray:
    """Log hazards (float64, higher = riskier) of `rows`, without augmentation or dropout."""
    device = next(model.parameters()).device
    model.eval()
    risks = []
    with torch.no_grad(), reproducible():
        for start in range(0, len(rows), batch_size):
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                risk = call(*inputs(rows[start : start + batch_size], None))
            risks.append(risk.float().cpu().numpy())
    return np.concatenate(risks).astype(float) if risks else np.empty(0)


def _train_epoch(steps: Steps, parts: list[np.ndarray], recipe: Recipe, epoch: int) -> dict[str, float]:
    """One pass over the training batches; the mean loss, and the C-index of the risks met on the way."""
    # dropout has no generator of its own; the caller restores the global one
    torch.manual_seed(derive_seed(recipe.seed, epoch, "dropout"))
    generator = torch.Generator(next(steps.model.parameters()).device)
    generator.manual_seed(derive_seed(recipe.seed, epoch, "augmentation"))
    try:
        losses, risks = steps.epoch(parts, generator, RiskBank(recipe.bank) if recipe.bank else None)
    except FloatingPointError as error:
        raise _diverged(str(error), epoch, recipe) from None
    seen = torch.from_numpy(np.concatenate(parts))
    c_index = concordance_index(steps.event[seen].numpy(), steps.time[seen].numpy(), torch.cat(risks).numpy())
    return {"train_loss": float(torch.stack(losses).mean()), "train_c_index": c_index}


def _diverged(what: str, epoch: int, recipe: Recipe) -> UserError:
    return UserError(
        f"{what} in epoch {epoch + 1}; lower the learning rate ({recipe.lr:g}), or use precision: float32"
    )


def _best(history: list[dict[str, float]]) -> int:
    """The epoch with the highest validation C-index, the first of equals; 0 before there is any."""
    found = [(row["validation_c_index"], -row["epoch"]) for row in history if "validation_c_index" in row]
    return -max(found)[1] if found else 0


def _validate(risk: np.ndarray, event: np.ndarray, time: np.ndarray, ties: str) -> dict[str, float]:
    c_index = concordance_index(event, time, risk)
    if math.isnan(c_index):
        raise UserError(
            f"the validation fold ({len(time)} patients, {int(event.sum())} events) has no comparable pair: nobody "
            "is followed beyond an event; use fewer folds, or another seed"
        )
    loss = cox_nll(torch.from_numpy(event), torch.from_numpy(time), torch.from_numpy(risk), ties=ties)
    return {"validation_loss": float(loss), "validation_c_index": c_index}
