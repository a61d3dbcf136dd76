"""DeepSurv, or any network, as a scikit-survival estimator: fit, predict, score; for Pipeline and GridSearchCV."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from sksurv.base import SurvivalAnalysisMixin
from sksurv.functions import StepFunction
from sksurv.util import check_array_survival
from torch import Tensor, nn

from fracsurv.config import derive_seed
from fracsurv.metrics import _checks as check
from fracsurv.metrics import breslow_baseline, concordance_index
from fracsurv.models import DeepSurv
from fracsurv.training.checkpoint import best_epoch
from fracsurv.training.data import NetworkInputs
from fracsurv.training.loop import Network, Patients, Recipe, Training, predict, run_epoch
from fracsurv.training.monitor import Stopwatch
from fracsurv.utils.devices import reproducible
from fracsurv.utils.errors import UserError

Outcome = NDArray  # a structured array of `sksurv.util.Surv`: event (bool), time (float)


class SurvivalNetwork(SurvivalAnalysisMixin, BaseEstimator):
    """A network trained on the Cox partial likelihood by the study's own loop, with scikit-survival's methods.

    Parameters
    ----------
    network : callable or nn.Module
        `network(n_features)` gives a new nn.Module, where n_features is `X.shape[1]`; a module itself is copied
        before it is trained. It maps a float32 tensor, `X` of a batch, to log hazards, shape (n,) or (n, 1), higher =
        riskier. A network of (covariates, image) goes through `OneArray`.
    lr, epochs, batch_size, weight_decay, scheduler, ties
        Adam's learning rate and L2 penalty, 'none' or 'cosine' (to a tenth of `lr`), 'efron' or 'breslow'.
    validation_fraction : float
        Share of the patients, in [0, 1), drawn by event, who are not trained on and by whose C-index the best epoch
        is chosen. 0: nobody, the last epoch is taken. `fit` takes patients to validate on, too.
    validate_every : int
        Epochs from one validation to the next.
    random_state : int, RandomState or None
        An int makes the fit repeatable: weights, batches and dropout. torch's global generator is left as it was.
    device : str
        'cpu', or 'cuda' where torch sees a GPU.

    Attributes
    ----------
    module_ : nn.Module
        The network with the weights of `best_epoch_`.
    history_ : DataFrame
        A row an epoch: `epoch, lr, train_loss, train_c_index` and, where validated, `validation_loss,
        validation_c_index`.
    baseline_ : metrics.Baseline
        Breslow's, of the patients trained on.
    unique_times_ : ndarray
        Their distinct times, the columns of `return_array`, as in scikit-survival.
    """

    def __init__(
        self,
        network: Callable[[int], nn.Module] | nn.Module,
        *,
        lr: float = 1e-3,
        epochs: int = 10,
        batch_size: int = 32,
        weight_decay: float = 0.0,
        scheduler: str = "none",
        ties: str = "efron",
        validation_fraction: float = 0.0,
        validate_every: int = 1,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.network = network
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.scheduler = scheduler
        self.ties = ties
        self.validation_fraction = validation_fraction
        self.validate_every = validate_every
        self.random_state = random_state
        self.device = device

    def fit(self, X: ArrayLike, y: Outcome, validation: tuple[ArrayLike, Outcome] | None = None) -> SurvivalNetwork:
        """Train on `X`, whose first axis is the patient, (n, p) or more, and `y` (`sksurv.util.Surv`), (n,).

        Parameters
        ----------
        validation : (X, y), optional
            Patients by whose C-index the best epoch is chosen, in the place of `validation_fraction`.

        Raises
        ------
        ValueError
            For a parameter out of its range, values that are not finite, and where no epoch can be chosen, or `lr`
            is so large that the log hazards are not finite.
        """
        self._check_parameters()
        X = validate_data(self, X, dtype=np.float32, allow_nd=True, ensure_min_samples=2)
        event, time = (np.ascontiguousarray(column) for column in check_array_survival(X, y))
        seed = self._seed()
        train, held_out = _split(event, self.validation_fraction, seed)
        if len(train) < 2:
            raise ValueError(
                f"validation_fraction {self.validation_fraction:g} leaves {len(train)} patients to train on"
            )
        if validation is not None:
            X, event, time = self._with_validation(X, event, time, validation)
            held_out = np.arange(len(train), len(X))
        if len(held_out) and math.isnan(concordance_index(event[held_out], time[held_out], np.zeros(len(held_out)))):
            given = "validation" if validation is not None else f"validation_fraction {self.validation_fraction:g}"
            raise ValueError(
                f"{given} must hold patients of whom two can be ranked, got {len(held_out)} with "
                f"{event[held_out].sum()} events"
            )
        cuda = [torch.device(self.device)] if torch.device(self.device).type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), reproducible():
            torch.manual_seed(seed)
            self.module_ = self._new_module(X.shape[1]).to(self.device)
            self._train(X, Patients(event, time, train, held_out), seed)
        risk = predict(self._on(X), train)
        self.baseline_ = breslow_baseline(event[train], time[train], risk)
        self.unique_times_ = np.unique(time[train])
        return self

    def predict(self, X: ArrayLike) -> NDArray:
        """Log hazards (n,), float64, higher = riskier."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        return predict(self._on(X), np.arange(len(X)))

    def predict_survival_function(self, X: ArrayLike, return_array: bool = False) -> NDArray:
        """Probabilities of no event, a StepFunction a patient, or (n, n_times) at `unique_times_`."""
        return self._steps(np.exp(-self._hazard(X)), return_array)

    def predict_cumulative_hazard_function(self, X: ArrayLike, return_array: bool = False) -> NDArray:
        """Cumulative hazards, a StepFunction a patient, or (n, n_times) at `unique_times_`."""
        return self._steps(self._hazard(X), return_array)

    def _hazard(self, X: ArrayLike) -> NDArray:
        risk = self.predict(X)
        return self.baseline_.hazard(risk, self.unique_times_)

    def _steps(self, values: NDArray, return_array: bool) -> NDArray:
        if return_array:
            return values
        steps = np.empty(len(values), dtype=object)
        steps[:] = [StepFunction(self.unique_times_, row) for row in values]
        return steps

    def _check_parameters(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("validate_every", 1)):
            check.whole(getattr(self, name), name, least)
        _in_range("lr", self.lr, "above 0", lambda value: value > 0)
        _in_range("weight_decay", self.weight_decay, ">= 0", lambda value: value >= 0)
        _in_range("validation_fraction", self.validation_fraction, "in [0, 1)", lambda value: 0 <= value < 1)
        for name, choices in (("scheduler", ("none", "cosine")), ("ties", ("efron", "breslow"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {getattr(self, name)!r}")

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            if self.random_state < 0:
                raise ValueError(f"random_state must be at least 0, got {self.random_state}")
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _with_validation(self, X: NDArray, event: NDArray, time: NDArray, validation: Any) -> tuple[NDArray, ...]:
        """All rows, those to validate on last."""
        if self.validation_fraction:
            raise ValueError(
                f"validation_fraction must be 0 where validation is given, got {self.validation_fraction:g}"
            )
        other = validate_data(self, validation[0], dtype=np.float32, allow_nd=True, reset=False)
        outcome = check_array_survival(other, validation[1], allow_all_censored=True)
        return tuple(np.concatenate(pair) for pair in zip((X, event, time), (other, *outcome), strict=True))

    def _new_module(self, n_features: int) -> nn.Module:
        """The network, untrained, drawn from torch's generator."""
        if isinstance(self.network, nn.Module):
            return copy.deepcopy(self.network)
        if not callable(self.network):
            raise ValueError(f"network must be a function of n_features or an nn.Module, got {self.network!r}")
        module = self.network(n_features)
        if not isinstance(module, nn.Module):
            raise ValueError(f"network must give an nn.Module, got {type(module).__name__}")
        return module

    def _train(self, X: NDArray, patients: Patients, seed: int) -> None:
        """Epoch by epoch; the weights of the best one, and the history."""
        recipe = Recipe(self.lr, self.scheduler, self.epochs, self.batch_size, seed, self.validate_every, self.ties)
        network = self._on(X)
        optimiser = torch.optim.Adam(
            [p for p in self.module_.parameters() if p.requires_grad],
            self.lr,
            weight_decay=self.weight_decay,
            fused=True,
        )
        training = Training(network, patients, optimiser, recipe, Stopwatch(torch.device(self.device)))
        history, best = [], None
        for epoch in range(self.epochs):
            try:
                history.append(run_epoch(training, epoch)[0])
            except UserError:
                raise ValueError(
                    f"lr must keep the log hazards finite, got {self.lr:g}, in epoch {epoch + 1}"
                ) from None
            if best_epoch(history) == epoch + 1:
                best = copy.deepcopy(self.module_.state_dict())
        if best is not None:
            self.module_.load_state_dict(best)
        self.history_ = pd.DataFrame(history)
        self.best_epoch_ = best_epoch(history) or self.epochs

    def _on(self, X: NDArray) -> Network:
        """The network with `X` as its data."""
        return Network(self.module_, self._call, NetworkInputs(X, None, torch.device(self.device)))

    def _call(self, batch: Tensor) -> Tensor:
        risk = self.module_(batch)
        n = len(batch)
        if not isinstance(risk, Tensor) or tuple(risk.shape) not in ((n,), (n, 1)):
            got = tuple(risk.shape) if isinstance(risk, Tensor) else type(risk).__name__
            raise ValueError(f"network must give one log hazard a patient, shape ({n},) or ({n}, 1), got {got}")
        return risk.reshape(n)


class DeepSurvEstimator(SurvivalNetwork):
    """DeepSurv of covariates (n, p), standardised beforehand; the defaults are those of `configs/experiments.yaml`.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers.
    dropout : float
        In [0, 1).
    **others
        As in `SurvivalNetwork`.

    Examples
    --------
    >>> from sksurv.util import Surv
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 3))
    >>> y = Surv.from_arrays(np.ones(300, bool), rng.exponential(np.exp(-X[:, 0])))
    >>> bool(DeepSurvEstimator(random_state=0).fit(X, y).score(X, y) > 0.7)
    True
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (64, 128),
        dropout: float = 0.2,
        lr: float = 1e-3,
        epochs: int = 10,
        batch_size: int = 32,
        weight_decay: float = 0.0,
        scheduler: str = "none",
        ties: str = "efron",
        validation_fraction: float = 0.0,
        validate_every: int = 1,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(
            DeepSurv, lr=lr, epochs=epochs, batch_size=batch_size, weight_decay=weight_decay, scheduler=scheduler,
            ties=ties, validation_fraction=validation_fraction, validate_every=validate_every,
            random_state=random_state, device=device,
        )  # fmt: skip
        self.hidden = hidden
        self.dropout = dropout

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _in_range("dropout", self.dropout, "in [0, 1)", lambda value: 0 <= value < 1)
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence) or not self.hidden:
            raise ValueError(f"hidden must be one width a layer, at least one, got {self.hidden!r}")
        for number, width in enumerate(self.hidden):
            check.whole(width, f"hidden[{number}]", 1)

    def _new_module(self, n_features: int) -> nn.Module:
        return DeepSurv(n_inputs=n_features, dropout=self.dropout, hidden=tuple(self.hidden))


class OneArray(nn.Module):
    """A network of (covariates, image), such as `models.IntermediateFusion`, that takes both in one array.

    Parameters
    ----------
    network : nn.Module
    n_covariates : int
        The first columns; 0 for a network of the image alone, such as `models.ConvDeepSurv`.
    image_shape : tuple of int
        Channels, height, width; the other columns are its pixels, in that order.
    """

    def __init__(self, network: nn.Module, n_covariates: int, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.n_covariates, self.image_shape = network, n_covariates, image_shape

    def forward(self, rows: Tensor) -> Tensor:
        """Log hazards of (n, n_covariates + pixels)."""
        tabular, image = rows[:, : self.n_covariates], rows[:, self.n_covariates :]
        return self.network(tabular, image.unflatten(1, self.image_shape))


def _split(event: NDArray, fraction: float, seed: int) -> tuple[NDArray, NDArray]:
    """Row numbers to train and to validate on, ascending: that share of those with an event, and of the others."""
    generator = np.random.default_rng(derive_seed(seed, "validation"))
    groups = (generator.permutation(np.flatnonzero(event == value)) for value in (True, False))
    held_out = np.sort(np.concatenate([rows[: round(fraction * len(rows))] for rows in groups]))
    return np.setdiff1d(np.arange(len(event)), held_out), held_out


def _in_range(name: str, value: Any, rule: str, holds: Callable[[float], bool]) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and holds(value)):
        raise ValueError(f"{name} must be a number {rule}, got {value!r}")
