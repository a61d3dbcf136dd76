"""DeepSurv and other networks as scikit-survival estimators: their methods, in scikit-learn's tools, repeatable."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.linear_model.coxph import BreslowEstimator
from sksurv.metrics import as_integrated_brier_score_scorer, concordance_index_censored
from sksurv.util import Surv
from torch import nn

from fracsurv.metrics import concordance_sd_by_chance
from fracsurv.models import ConvDeepSurv, DeepSurv, IntermediateFusion
from fracsurv.training.checkpoint import load_best
from fracsurv.training.data import NetworkInputs
from fracsurv.training.estimator import DeepSurvEstimator, OneArray, SurvivalNetwork
from fracsurv.training.loop import Network, Patients, Recipe, fit
from fracsurv.training.loop import predict as predict_rows
from fracsurv.utils.files import write_json


def patients(n: int = 300, seed: int = 0, effect: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three covariates of which the first matters, and an outcome with ties and about a third censored."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    time = np.ceil(100 * rng.exponential(np.exp(-effect * X[:, 0])))
    end = rng.uniform(50, 400, n).round()
    return X, Surv.from_arrays(time <= end, np.minimum(time, end))


X, Y = patients()
NEW, NEW_Y = patients(200, seed=1)


@pytest.fixture(scope="module")
def fitted() -> DeepSurvEstimator:
    return DeepSurvEstimator(random_state=0).fit(X, Y)


def test_it_learns_and_score_is_harrells_c(fitted):
    risk = fitted.predict(NEW)
    assert risk.dtype == float
    assert risk.shape == (200,)
    assert fitted.score(NEW, NEW_Y) == concordance_index_censored(NEW_Y["event"], NEW_Y["time"], risk)[0]
    cox = CoxPHSurvivalAnalysis(ties="efron").fit(X, Y)
    assert fitted.score(NEW, NEW_Y) > 0.7
    assert abs(fitted.score(NEW, NEW_Y) - cox.score(NEW, NEW_Y)) < 0.03
    assert np.corrcoef(risk, NEW[:, 0])[0, 1] > 0.9  # higher = riskier


def test_survival_functions_are_those_of_scikit_survivals_breslow(fitted):
    reference = BreslowEstimator().fit(fitted.predict(X), Y["event"], Y["time"])
    assert np.array_equal(fitted.unique_times_, reference.unique_times_)
    risk = fitted.predict(NEW)
    for method, theirs in (
        (fitted.predict_survival_function, reference.get_survival_function(risk)),
        (fitted.predict_cumulative_hazard_function, reference.get_cumulative_hazard_function(risk)),
    ):
        values, steps = method(NEW, return_array=True), method(NEW)
        expected = np.array([step(fitted.unique_times_) for step in theirs])
        np.testing.assert_allclose(values, expected, rtol=1e-9)
        assert np.array_equal([step(fitted.unique_times_) for step in steps], values)
        assert steps[0].domain == theirs[0].domain
        assert steps[0](7.5) == pytest.approx(theirs[0](7.5), rel=1e-9)
    surv = fitted.predict_survival_function(NEW, return_array=True)
    assert surv.min() >= 0
    assert surv.max() <= 1
    assert (np.diff(surv, axis=1) <= 0).all()


def test_same_seed_same_fit_and_torchs_generator_is_left_alone():
    state = torch.random.get_rng_state()
    once, again, other = (DeepSurvEstimator(epochs=2, random_state=seed).fit(X, Y).predict(NEW) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    states = [DeepSurvEstimator(epochs=1, random_state=np.random.RandomState(3)) for _ in range(2)]
    assert np.array_equal(*(each.fit(X, Y).predict(NEW) for each in states))
    free = [DeepSurvEstimator(epochs=1).fit(X, Y).predict(NEW) for _ in range(2)]
    assert not np.array_equal(*free)


def test_it_is_the_studys_own_fit(tmp_path):
    """The same seed, rows and recipe through `loop.fit`, with its files: the same history, epoch and risks."""
    both = np.concatenate([X, NEW]).astype(np.float32)
    event, time = (np.concatenate([Y[field], NEW_Y[field]]) for field in ("event", "time"))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = DeepSurv(n_inputs=3)
    network = Network(model, model, NetworkInputs(both, None, torch.device("cpu")))
    rows = Patients(event, time, np.arange(300), np.arange(300, 500))
    recipe = Recipe(lr=1e-2, scheduler="none", epochs=5, batch_size=32, seed=5, validate_every=2)
    found = fit(network, rows, tmp_path, recipe, progress=False)
    write_json(tmp_path / "fit.json", {"key": "", "best_epoch": found.best_epoch})
    load_best(model, tmp_path)
    estimator = DeepSurvEstimator(lr=1e-2, epochs=5, validate_every=2, random_state=5)
    estimator.fit(X, Y, validation=(NEW, NEW_Y))
    pd.testing.assert_frame_equal(estimator.history_, found.history)
    assert estimator.best_epoch_ == found.best_epoch
    assert np.array_equal(estimator.predict(both), predict_rows(network, np.arange(500)))


def test_validation_fraction_is_drawn_by_event_and_chooses_the_epoch():
    estimator = DeepSurvEstimator(epochs=6, lr=0.05, validation_fraction=0.2, random_state=1).fit(X, Y)
    best = estimator.history_["validation_c_index"].idxmax()
    assert estimator.best_epoch_ == best + 1
    n_events = int(Y["event"].sum())
    assert len(estimator.baseline_.time) == n_events - round(0.2 * n_events)  # of the patients trained on
    last = DeepSurvEstimator(epochs=3, random_state=1).fit(X, Y)
    assert last.best_epoch_ == 3
    assert "validation_c_index" not in last.history_


def test_the_weights_are_those_of_the_best_epoch():
    """A rate that ruins the network after a good start: what is kept ranks as well as the best epoch did."""
    estimator = DeepSurvEstimator(epochs=12, lr=0.3, random_state=0).fit(X, Y, validation=(NEW, NEW_Y))
    found = estimator.history_["validation_c_index"]
    assert found.iloc[-1] < found.max()
    assert estimator.score(NEW, NEW_Y) == pytest.approx(found.max(), abs=1e-12)


def test_clone_and_parameters():
    estimator = DeepSurvEstimator(hidden=(8,), dropout=0.5, lr=0.01, weight_decay=0.1, device="cpu")
    twin = clone(estimator)
    assert twin.get_params() == estimator.get_params()
    assert twin.set_params(hidden=(4, 4)).fit(X, Y).module_.body[0].out_features == 4
    assert not hasattr(estimator, "module_")
    module = nn.Linear(3, 1)
    before = module.weight.detach().clone()
    network = SurvivalNetwork(module, epochs=2, lr=0.1, random_state=0)
    assert clone(network).get_params()["network"] is not module
    assert network.fit(X, Y).score(NEW, NEW_Y) > 0.7
    assert torch.equal(module.weight, before)  # a copy was trained


def test_weight_decay_shrinks():
    free, held = (
        SurvivalNetwork(lambda p: nn.Linear(p, 1, bias=False), lr=0.05, weight_decay=decay, random_state=0).fit(X, Y)
        for decay in (0.0, 1.0)
    )
    assert held.module_.weight.abs().sum() < 0.5 * free.module_.weight.abs().sum()


def test_in_pipeline_cross_validation_and_grid_search():
    frame = pd.DataFrame(1000 + 50 * X, columns=["a", "b", "c"])  # only the pipeline's scaler makes it learnable
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), DeepSurvEstimator(random_state=0))
    scores = cross_val_score(pipeline, frame, Y, cv=KFold(3, shuffle=True, random_state=0))
    assert scores.shape == (3,)
    assert scores.min() > 0.65
    grid = {"deepsurvestimator__epochs": [1, 8], "deepsurvestimator__lr": [1e-5, 1e-2]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(frame, Y)
    assert search.best_params_["deepsurvestimator__lr"] == 1e-2
    assert search.best_estimator_[-1].feature_names_in_.tolist() == ["a", "b", "c"]
    scorer = as_integrated_brier_score_scorer(DeepSurvEstimator(random_state=0), times=[50, 100, 150])
    assert -0.25 < scorer.fit(X, Y).score(NEW, NEW_Y) < 0


def test_permuted_outcomes_give_chance_out_of_sample():
    """Each half ranked by the other half's model: within six standard deviations of C by chance."""
    X, y = patients(1000, seed=2)
    y = np.random.default_rng(0).permutation(y)
    risk = cross_val_predict(DeepSurvEstimator(random_state=0), X, y, cv=KFold(2))
    halves = [(y["event"][at], y["time"][at], risk[at]) for at in np.array_split(np.arange(1000), 2)]
    c_index = [concordance_index_censored(*half)[0] for half in halves]
    sd = np.sqrt(np.mean([concordance_sd_by_chance(*half[:2]) ** 2 for half in halves]) / 2)
    assert sd < 0.015
    assert abs(np.mean(c_index) - 0.5) < 6 * sd


def test_networks_of_images_and_of_both():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 13, 8, 8)) + X[:40, :1, None, None]
    pooled = SurvivalNetwork(lambda c: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 1)), lr=0.1)
    assert pooled.set_params(epochs=20, random_state=0).fit(images, Y[:40]).score(images, Y[:40]) > 0.7
    flat = images.reshape(40, -1)

    def c_ds(n_features):
        return OneArray(ConvDeepSurv(channels=13, encoder="resnet18"), 0, (13, 8, 8))

    def fused(n_features):
        image = ConvDeepSurv(channels=13, encoder="resnet18")
        return OneArray(IntermediateFusion(image=image, tabular=DeepSurv(n_inputs=3)), 3, (13, 8, 8))

    for network, rows in ((c_ds, flat), (fused, np.hstack([X[:40], flat]))):
        risk = SurvivalNetwork(network, epochs=1, batch_size=20, random_state=0).fit(rows, Y[:40]).predict(rows)
        assert np.isfinite(risk).all()
        assert np.ptp(risk) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"epochs must be a whole number, at least 1, got 0"),
        ({"batch_size": 1}, r"batch_size must be a whole number, at least 2, got 1"),
        ({"lr": 0.0}, r"lr must be a number above 0, got 0\.0"),
        ({"lr": "fast"}, r"lr must be a number above 0, got 'fast'"),
        ({"weight_decay": -1}, r"weight_decay must be a number >= 0, got -1"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1\.0"),
        ({"hidden": ()}, r"hidden must be one width a layer, at least one, got \(\)"),
        ({"hidden": (64, 0)}, r"hidden\[1\] must be a whole number, at least 1, got 0"),
        ({"scheduler": "step"}, r"scheduler must be 'none' or 'cosine', got 'step'"),
        ({"ties": "exact"}, r"ties must be 'efron' or 'breslow', got 'exact'"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be a number in \[0, 1\), got 1\.0"),
        ({"validation_fraction": 0.003}, r"validation_fraction 0\.003 must hold patients of whom two can be ranked"),
        ({"random_state": -1}, r"random_state must be at least 0, got -1"),
        ({"lr": 1e30, "epochs": 3}, r"lr must keep the log hazards finite, got 1e\+30, in epoch"),
    ],
)  # fmt: skip
def test_parameters_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DeepSurvEstimator(**settings).fit(X, Y)


def test_data_and_networks_that_are_refused(fitted):
    with_nan = np.where(np.arange(900).reshape(300, 3) == 4, np.nan, X)
    censored = Surv.from_arrays(np.zeros(300, bool), Y["time"])
    for given, outcome, message in (
        (with_nan, Y, "X contains NaN"),
        (X[:1], Y[:1], "minimum of 2 is required"),
        (X, Y["time"], "y must be a structured array"),
        (X, Y[:10], "inconsistent numbers of samples"),
        (X, censored, "all samples are censored"),
    ):
        with pytest.raises(ValueError, match=message):
            DeepSurvEstimator().fit(given, outcome)
    with pytest.raises(ValueError, match="X has 2 features, but DeepSurvEstimator is expecting 3"):
        fitted.predict(X[:, :2])
    with pytest.raises(ValueError, match=r"validation must hold patients of whom two can be ranked, got 3 with 0"):
        DeepSurvEstimator().fit(X, Y, validation=(X[:3], censored[:3]))
    with pytest.raises(ValueError, match=r"validation_fraction must be 0 where validation is given, got 0\.2"):
        DeepSurvEstimator(validation_fraction=0.2).fit(X, Y, validation=(NEW, NEW_Y))
    for network, message in (
        ("linear", r"network must be a function of n_features or an nn\.Module, got 'linear'"),
        (lambda p: 3, r"network must give an nn\.Module, got int"),
        (lambda p: nn.Linear(p, 2), r"network must give one log hazard a patient, shape \(32,\) or \(32, 1\), got"),
    ):
        with pytest.raises(ValueError, match=message):
            SurvivalNetwork(network).fit(X, Y)
