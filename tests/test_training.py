"""The training loop: learns, chooses, resumes exactly, and gives the same twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import fracsurv.training.loop as training
from fracsurv.config import derive_seed
from fracsurv.losses import cox_nll
from fracsurv.metrics import concordance_index
from fracsurv.models import ConvDeepSurv, DeepSurv
from fracsurv.training.loop import (
    Recipe,
    fit,
    learning_rate,
    predict,
)
from fracsurv.training.sampler import RiskBank, batches
from fracsurv.utils.errors import UserError
from fracsurv.utils.weights import load_weights, save_weights
from tests.killing import Killed, killed_in, left_by_the_dead

N = 200
RECIPE = Recipe(lr=1e-2, scheduler="cosine", epochs=7, batch_size=32, seed=5)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3)).astype(np.float32)
    time = rng.exponential(np.exp(-1.5 * x[:, 0]))
    return x, time < 3, np.minimum(time, 3)


def run(data, folder, recipe=RECIPE, key="k", dtype=torch.float32):
    x, event, time = data
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DeepSurv(n_inputs=3)

    def inputs(rows, generator):
        values = torch.from_numpy(x[rows])
        if generator is not None:  # an augmentation, so that its generator matters
            values = values + 0.01 * torch.randn(values.shape, generator=generator)
        return (values,)

    train, validation = np.arange(150), np.arange(150, N)
    fitted = fit(
        model, model, inputs, event, time, train, validation, folder, recipe, key=key, dtype=dtype, progress=False
    )
    load_weights(model, folder / "best.safetensors")
    return fitted, predict(model, model, inputs, np.arange(N)), model


def test_it_learns(data, tmp_path):
    fitted, risk, _ = run(data, tmp_path)
    x, event, time = data
    reachable = concordance_index(event[150:], time[150:], x[150:, 0])  # of the true log hazard
    assert concordance_index(event[150:], time[150:], risk[150:]) > reachable - 0.05
    assert fitted.history["train_loss"].iloc[-1] < fitted.history["train_loss"].iloc[0]


def test_best_is_the_first_of_the_highest_validation_c(data, tmp_path):
    fitted, risk, model = run(data, tmp_path)
    history = fitted.history
    assert history["validation_c_index"].notna().tolist() == [False, True, False, True, False, True, True]
    assert fitted.best_c_index == history["validation_c_index"].max()
    _, event, time = data
    assert concordance_index(event[150:], time[150:], risk[150:]) == pytest.approx(fitted.best_c_index, abs=1e-12)
    assert load_weights(model, tmp_path / "best.safetensors") == {"key": "k", "epoch": fitted.best_epoch}
    assert load_weights(model, tmp_path / "last.safetensors") == {"key": "k", "epoch": 7}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), history)


def test_the_same_twice(data, tmp_path):
    (_, first, _), (_, second, _) = run(data, tmp_path / "a"), run(data, tmp_path / "b")
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_a_killed_fit_resumes_to_the_same(data, tmp_path, monkeypatch, epoch):
    undisturbed = run(data, tmp_path / "a")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    killed_in(monkeypatch, epoch, run, data, tmp_path / "b")
    assert (tmp_path / "b" / "resume.safetensors").exists()
    resumed = run(data, tmp_path / "b")
    np.testing.assert_array_equal(resumed[1], undisturbed[1])
    pd.testing.assert_frame_equal(resumed[0].history, undisturbed[0].history)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "best.safetensors", "history.csv", "last.safetensors", "timing.csv",
    ]  # fmt: skip


def test_the_best_weights_are_of_the_fit_that_is_resumed(data, tmp_path, monkeypatch):
    """Another setting's fit between a kill and its resumption overwrites the best weights, not for good."""
    undisturbed, expected, _ = run(data, tmp_path / "a")
    assert undisturbed.best_epoch < RECIPE.epochs  # or the last epoch would save them anyway
    killed_in(monkeypatch, 6, run, data, tmp_path / "b")
    killed_in(monkeypatch, 3, run, data, tmp_path / "b", key="another")
    resumed, found, model = run(data, tmp_path / "b")
    np.testing.assert_array_equal(found, expected)
    assert load_weights(model, tmp_path / "b" / "best.safetensors") == {"key": "k", "epoch": undisturbed.best_epoch}
    assert resumed.best_c_index == undisturbed.best_c_index


def test_a_kill_between_resume_state_and_best_weights_loses_nothing(data, tmp_path, monkeypatch):
    undisturbed, expected, _ = run(data, tmp_path / "a")

    def dies(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_weights", dies)
        with pytest.raises(Killed):
            run(data, tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["resume.safetensors"]
    resumed, found, _ = run(data, tmp_path / "b")
    np.testing.assert_array_equal(found, expected)
    assert resumed.best_epoch == undisturbed.best_epoch


def test_resume_is_exact_for_channels_last_convolutions(tmp_path, monkeypatch):
    """Fused Adam walks raw memory: moments laid out otherwise than the weights would go to the wrong ones."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(60, 13, 34, 34)).astype(np.float32))
    time = rng.exponential(size=60)
    event = time < 2

    def run_conv(folder):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ConvDeepSurv(channels=13, encoder="resnet18").to(memory_format=torch.channels_last)
        recipe = Recipe(lr=1e-3, scheduler="none", epochs=3, batch_size=20, seed=1, validate_every=1)
        fit(
            model, model, lambda rows, _: (None, images[rows]), event, time,
            np.arange(40), np.arange(40, 60), folder, recipe, progress=False,
        )  # fmt: skip
        return load_file(folder / "last.safetensors")

    expected = run_conv(tmp_path / "a")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    killed_in(monkeypatch, 2, run_conv, tmp_path / "b")
    found = run_conv(tmp_path / "b")
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_another_settings_state_is_not_resumed(data, tmp_path, monkeypatch):
    _, expected, _ = run(data, tmp_path / "a")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(training.Path, "unlink", lambda *_, **__: None)  # leaves resume.safetensors behind
    other = run(data, tmp_path / "b", replace(RECIPE, seed=6), key="another")
    assert (tmp_path / "b" / "resume.safetensors").exists()
    _, found, _ = run(data, tmp_path / "b", key="k")
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, other[1])


def test_a_state_of_other_arithmetic_is_not_resumed(data, tmp_path, monkeypatch):
    """A fit that began in bfloat16 (or on a GPU, or compiled) is not gone on with in float32."""
    _, expected, _ = run(data, tmp_path / "a")
    whole = training._train_epoch
    began = []

    def counted(*arguments):
        began.append(arguments[-1])
        return whole(*arguments)

    monkeypatch.setattr(training, "_train_epoch", counted)
    monkeypatch.setattr(training.Path, "unlink", lambda *_, **__: None)
    run(data, tmp_path / "b", dtype=torch.bfloat16)
    began.clear()
    _, found, _ = run(data, tmp_path / "b")
    assert began == list(range(7))
    np.testing.assert_array_equal(found, expected)


def test_what_a_resumed_fit_tells_of_its_time_is_whole(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    killed_in(monkeypatch, 4, run, data, tmp_path)
    timing = run(data, tmp_path)[0].timing
    assert timing["epoch"].tolist() == list(range(1, 8))
    assert timing[["model_s", "whole_s", "samples_per_s", "peak_memory_mib"]].notna().all(axis=None)
    assert (timing["whole_s"] > timing["model_s"]).all()
    assert (timing["samples_per_s"] > 150 / timing["whole_s"]).all()  # of training alone, in patients
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "timing.csv"), timing)


def test_each_epoch_draws_anew_and_nothing_of_the_callers_is_changed(tmp_path):
    drawn, flags = [], []
    x = torch.arange(40.0)[:, None] / 40
    model = torch.nn.Linear(1, 1)

    def inputs(rows, generator):
        flags.append((torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32))
        if generator is not None:
            drawn.append((float(torch.rand(1, generator=generator)), float(torch.rand(1))))
        return (x[rows],)

    before = torch.get_rng_state(), torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    event, time = np.ones(40, bool), np.arange(40.0)
    recipe = Recipe(lr=1e-3, scheduler="none", epochs=3, batch_size=30, seed=1)
    fit(
        model, lambda batch: model(batch)[:, 0], inputs, event, time, np.arange(30), np.arange(30, 40), tmp_path,
        recipe, progress=False,
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == before[1:]
    assert set(flags) == {(True, False)}
    numbers = [number for pair in drawn for number in pair]  # augmentation's and dropout's, three epochs
    assert len(set(numbers)) == 6


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_losses_told_are_those_of_the_recipe(tmp_path, ties):
    """Mean over the batches in training, with their ties; of all of them in validation."""
    rng = np.random.default_rng(0)
    x, time, event = (
        torch.from_numpy(rng.normal(size=(60, 1))).float(),
        rng.integers(1, 5, 60) * 1.0,
        np.ones(60, bool),
    )
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)

    def call(batch):
        return model(batch)[:, 0]

    recipe = Recipe(lr=1e-12, scheduler="none", epochs=1, batch_size=20, seed=1, ties=ties)
    history = fit(
        model, call, lambda rows, _: (x[rows],), event, time, np.arange(40), np.arange(40, 60), tmp_path, recipe,
        progress=False,
    ).history.iloc[0]  # fmt: skip
    risk = call(x).detach()
    parts = batches(np.arange(40), event, 20, derive_seed(1, 0))

    def loss(rows):
        return cox_nll(torch.from_numpy(event[rows]), torch.from_numpy(time[rows]), risk[rows], ties=ties).item()

    assert history["train_loss"] == pytest.approx(np.mean([loss(rows) for rows in parts]), rel=1e-5)
    assert history["validation_loss"] == pytest.approx(loss(np.arange(40, 60)), rel=1e-5)


def test_bank_and_spread_events_reach_the_batches(data, tmp_path, monkeypatch):
    joined, sizes = RiskBank.joined, []

    def seen(self, *batch):
        found = joined(self, *batch)
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(RiskBank, "joined", seen)
    plain, _, _ = run(data, tmp_path / "a")
    assert not sizes
    banked, _, _ = run(data, tmp_path / "b", replace(RECIPE, bank=2, epochs=1))
    assert sizes == [32, 64, 96, 96, 86]  # 150 patients; the bank is emptied before each epoch
    events = []
    monkeypatch.setattr(training, "batches", lambda *a, **k: events.append(k) or batches(*a, **k))
    run(data, tmp_path / "c", replace(RECIPE, spread_events=True, epochs=1))
    assert events == [{"spread_events": True}]
    assert banked.history["train_loss"][0] != plain.history["train_loss"][0]


def test_a_fit_sweeps_its_folder(data, tmp_path):
    left_by_the_dead(tmp_path / "best.safetensors", ".safetensors").write_bytes(b"half")
    run(data, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_cosine_is_torchs_with_a_tenth_as_its_floor():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([parameter], lr=RECIPE.lr)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=7, eta_min=0.1 * RECIPE.lr)
    for epoch in range(7):
        assert learning_rate(RECIPE, epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimiser.step()
        theirs.step()


def test_a_loss_that_runs_away_is_told(data, tmp_path):
    recipe = Recipe(lr=1e30, scheduler="none", epochs=3, batch_size=32, seed=5)
    with pytest.raises(UserError, match=r"no longer finite in epoch 1; lower the learning rate \(1e\+30\)"):
        run(data, tmp_path, recipe)


def test_weights_that_run_away_in_the_last_step_are_told(data, tmp_path):
    """No further step meets them: validation does."""
    recipe = Recipe(lr=1e30, scheduler="none", epochs=3, batch_size=N, seed=5, validate_every=1)
    with pytest.raises(UserError, match="no longer finite in epoch 1; lower the learning rate"):
        run(data, tmp_path, recipe)


def test_a_last_batch_of_one_is_left_out(data, tmp_path):
    seen = []
    x, event, time = data
    model = DeepSurv(n_inputs=3)

    def inputs(rows, generator):
        if generator is not None:
            seen.append(len(rows))
        return (torch.from_numpy(x[rows]),)

    recipe = Recipe(lr=1e-3, scheduler="none", epochs=1, batch_size=50, seed=0)
    fit(model, model, inputs, event, time, np.arange(101), np.arange(150, N), tmp_path, recipe, progress=False)
    assert seen == [50, 50]


def test_seeds_differ_by_every_part_and_are_stable():
    seeds = {derive_seed(0, "cds_crops", fold, alpha) for fold in range(3) for alpha in (None, 0.3, 0.4)}
    assert len(seeds) == 9
    # $ printf '0|cds_crops|0|None' | sha256sum | cut -c1-16, halved
    assert derive_seed(0, "cds_crops", 0, None) == 0xEE0D74A9D1F46A86 >> 1


def test_weights_of_another_model_and_damaged_files_are_told(tmp_path):
    save_weights(DeepSurv(n_inputs=3), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"w\.safetensors: holds the weights of another model"):
        load_weights(DeepSurv(n_inputs=4), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04 not weights")
    with pytest.raises(UserError, match="not a safetensors file, or damaged"):
        load_weights(DeepSurv(n_inputs=3), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no such weights file"):
        load_weights(DeepSurv(n_inputs=3), tmp_path / "none.safetensors")
