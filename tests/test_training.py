"""The training loop: it learns, keeps the best epoch, resumes exactly, and gives the same twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fracsurv.config import derive_seed
from fracsurv.losses import cox_nll
from fracsurv.metrics import concordance_index
from fracsurv.models import ConvDeepSurv, DeepSurv
from fracsurv.training import checkpoint, loop
from fracsurv.training.data import draw_batches
from fracsurv.training.loop import Network, Patients, Recipe, fit, learning_rate, predict
from fracsurv.utils.errors import UserError
from fracsurv.utils.weights import load_weights, save_weights
from tests.killing import Killed, killed_in, left_by_the_dead

N = 200
TRAIN, VALIDATION = np.arange(150), np.arange(150, N)
RECIPE = Recipe(lr=1e-2, scheduler="cosine", epochs=7, batch_size=32, seed=5)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3)).astype(np.float32)
    time = rng.exponential(np.exp(-1.5 * x[:, 0]))
    return x, time < 3, np.minimum(time, 3)


def run(data, folder, recipe=RECIPE, key="k"):
    x, event, time = data
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DeepSurv(n_inputs=3)

    def inputs(rows, generator):
        values = torch.from_numpy(x[rows])
        if generator is not None:  # an augmentation, so that its generator matters
            values = values + 0.01 * torch.randn(values.shape, generator=generator)
        return (values,)

    network = Network(model, model, inputs)
    fitted = fit(network, Patients(event, time, TRAIN, VALIDATION), folder, recipe, key=key, progress=False)
    load_weights(model, folder / "best.safetensors")
    return fitted, predict(network, np.arange(N)), model


def test_the_last_epoch_is_kept_where_no_validation_patients_can_be_ranked(data, tmp_path):
    x, event, time = data
    event = event & (np.arange(N) < 150)
    fitted, _, _ = run((x, event, time), tmp_path)
    assert (fitted.best_epoch, np.isnan(fitted.best_c_index)) == (RECIPE.epochs, True)
    last = load_file(tmp_path / "last.safetensors")
    for name, value in load_file(tmp_path / "best.safetensors").items():
        torch.testing.assert_close(value, last[name])
    history = [{"epoch": 1, "validation_c_index": np.nan}, {"epoch": 2}]
    assert checkpoint.best_epoch(history) == 1


def small_fit(network, folder, recipe, event, time):
    """A fit of 60 patients, the last 20 for validation."""
    return fit(network, Patients(event, time, np.arange(40), np.arange(40, 60)), folder, recipe, progress=False)


def test_best_is_the_first_of_the_highest_validation_c(data, tmp_path):
    fitted, risk, model = run(data, tmp_path)
    history = fitted.history
    assert history["validation_c_index"].notna().tolist() == [False, True, False, True, False, True, True]
    assert fitted.best_c_index == history["validation_c_index"].max()
    assert fitted.best_epoch == history["validation_c_index"].idxmax() + 1
    x, event, time = (part[VALIDATION] for part in data)
    assert concordance_index(event, time, risk[VALIDATION]) == pytest.approx(fitted.best_c_index, abs=1e-12)
    assert fitted.best_c_index > concordance_index(event, time, x[:, 0]) - 0.05  # that of the true log hazard
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert load_weights(model, tmp_path / "best.safetensors") == {"key": "k", "epoch": fitted.best_epoch}
    assert load_weights(model, tmp_path / "last.safetensors") == {"key": "k", "epoch": 7}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), history)
    epochs = [{"epoch": e, "validation_c_index": c} for e, c in ((1, 0.6), (2, 0.7), (3, 0.7))]
    assert checkpoint.best_epoch(epochs) == 2


@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_a_killed_fit_resumes_to_the_same(data, tmp_path, monkeypatch, epoch):
    undisturbed = run(data, tmp_path / "a")
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    killed_in(monkeypatch, epoch, run, data, tmp_path / "b")
    assert (tmp_path / "b" / "resume.safetensors").exists()
    fitted, risk, _ = run(data, tmp_path / "b")
    np.testing.assert_array_equal(risk, undisturbed[1])
    pd.testing.assert_frame_equal(fitted.history, undisturbed[0].history)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "best.safetensors", "history.csv", "last.safetensors", "timing.csv",
    ]  # fmt: skip
    timing = fitted.timing  # of all epochs, those before the kill too
    assert timing["epoch"].tolist() == list(range(1, 8))
    assert timing[["model_s", "whole_s", "samples_per_s", "peak_memory_mib"]].notna().all(axis=None)
    assert (timing["whole_s"] > timing["model_s"]).all()
    assert (timing["samples_per_s"] > 150 / timing["whole_s"]).all()  # patients, of training alone
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "b" / "timing.csv"), timing)


def test_the_best_weights_are_of_the_fit_that_is_resumed(data, tmp_path, monkeypatch):
    """Whether it was killed before they were written, or another setting's fit has overwritten them meanwhile."""
    undisturbed, expected, _ = run(data, tmp_path / "a")
    assert undisturbed.best_epoch < RECIPE.epochs  # or the last epoch would save them anyway

    def dies(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_weights", dies)
        with pytest.raises(Killed):
            run(data, tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["resume.safetensors"]
    np.testing.assert_array_equal(run(data, tmp_path / "b")[1], expected)
    killed_in(monkeypatch, 6, run, data, tmp_path / "c")
    killed_in(monkeypatch, 3, run, data, tmp_path / "c", key="another")
    resumed, found, model = run(data, tmp_path / "c")
    np.testing.assert_array_equal(found, expected)
    assert load_weights(model, tmp_path / "c" / "best.safetensors") == {"key": "k", "epoch": undisturbed.best_epoch}
    assert resumed.best_c_index == undisturbed.best_c_index


def test_resume_is_exact_for_channels_last_convolutions(tmp_path, monkeypatch):
    """Fused Adam walks raw memory: moments laid out otherwise than the weights would go to the wrong ones."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(60, 13, 34, 34)).astype(np.float32))
    time = rng.exponential(size=60)

    def run_conv(folder):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ConvDeepSurv(channels=13, encoder="resnet18").to(memory_format=torch.channels_last)
        recipe = Recipe(lr=1e-3, scheduler="none", epochs=3, batch_size=20, seed=1, validate_every=1)
        small_fit(Network(model, model, lambda rows, _: (None, images[rows])), folder, recipe, time < 2, time)
        return load_file(folder / "last.safetensors")

    expected = run_conv(tmp_path / "a")
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    killed_in(monkeypatch, 2, run_conv, tmp_path / "b")
    found = run_conv(tmp_path / "b")
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("other", [{"key": "another"}, {"recipe": replace(RECIPE, dtype=torch.bfloat16)}])
def test_a_state_of_another_setting_or_precision_is_not_resumed(data, tmp_path, monkeypatch, other):
    _, expected, _ = run(data, tmp_path / "a")
    epochs, train_epoch = [], loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", lambda *given: epochs.append(given[-1]) or train_epoch(*given))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # leaves resume.safetensors behind
    run(data, tmp_path / "b", **other)
    assert (tmp_path / "b" / "resume.safetensors").exists()
    epochs.clear()
    _, found, _ = run(data, tmp_path / "b")
    assert epochs == list(range(7))
    np.testing.assert_array_equal(found, expected)


def test_each_epoch_draws_anew_and_the_callers_state_stays(tmp_path):
    drawn, flags = [], []
    x, model = torch.arange(60.0)[:, None] / 60, torch.nn.Linear(1, 1)

    def inputs(rows, generator):
        flags.append((torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32))
        if generator is not None:
            drawn.append((float(torch.rand(1, generator=generator)), float(torch.rand(1))))
        return (x[rows],)

    before = torch.get_rng_state(), torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    recipe = Recipe(lr=1e-3, scheduler="none", epochs=3, batch_size=40, seed=1)
    network = Network(model, lambda batch: model(batch)[:, 0], inputs)
    small_fit(network, tmp_path, recipe, np.ones(60, bool), np.arange(60.0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == before[1:]
    assert set(flags) == {(True, False)}
    numbers = [number for pair in drawn for number in pair]  # augmentation's and dropout's, three epochs
    assert len(set(numbers)) == 6


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_losses_in_the_history(tmp_path, ties):
    """In training the mean over the batches, in validation that of all patients together."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(60, 1))).float()
    time, event = rng.integers(1, 5, 60) * 1.0, np.ones(60, bool)
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    recipe = Recipe(lr=1e-12, scheduler="none", epochs=1, batch_size=20, seed=1, ties=ties)
    network = Network(model, lambda batch: model(batch)[:, 0], lambda rows, _: (x[rows],))
    history = small_fit(network, tmp_path, recipe, event, time).history.iloc[0]
    risk = network.call(x).detach()

    def loss(rows):
        return cox_nll(torch.from_numpy(event[rows]), torch.from_numpy(time[rows]), risk[rows], ties=ties).item()

    batches = draw_batches(np.arange(40), 20, derive_seed(1, 0))
    assert history["train_loss"] == pytest.approx(np.mean([loss(rows) for rows in batches]), rel=1e-5)
    assert history["validation_loss"] == pytest.approx(loss(np.arange(40, 60)), rel=1e-5)


def test_a_fit_removes_leftovers_from_its_folder(data, tmp_path):
    left_by_the_dead(tmp_path / "best.safetensors", ".safetensors").write_bytes(b"half")
    run(data, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_cosine_is_torchs_with_a_tenth_as_its_minimum():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([parameter], lr=RECIPE.lr)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=7, eta_min=0.1 * RECIPE.lr)
    for epoch in range(7):
        assert learning_rate(RECIPE, epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimiser.step()
        theirs.step()


@pytest.mark.parametrize("batch_size", [32, N])  # with one step an epoch, only validation sees the weights
def test_a_loss_that_diverges_is_refused(data, tmp_path, batch_size):
    recipe = Recipe(lr=1e30, scheduler="none", epochs=3, batch_size=batch_size, seed=5, validate_every=1)
    with pytest.raises(UserError, match=r"epoch 1; lower the learning rate \(1e\+30\)"):
        run(data, tmp_path, recipe)


def test_seeds_differ_by_every_part_and_are_stable():
    seeds = {derive_seed(0, "cds_crops", fold, alpha) for fold in range(3) for alpha in (None, 0.3, 0.4)}
    assert len(seeds) == 9
    # $ printf '0|cds_crops|0|None' | sha256sum | cut -c1-16, halved
    assert derive_seed(0, "cds_crops", 0, None) == 0xEE0D74A9D1F46A86 >> 1


def test_weights_of_another_model_and_damaged_files_are_refused(tmp_path):
    save_weights(DeepSurv(n_inputs=3), tmp_path / "w.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x80\x04 not weights")
    for name, n_inputs, message in (
        ("w", 4, "holds the weights of another model"),
        ("damaged", 3, "not a safetensors file, or damaged"),
        ("none", 3, "no such weights file"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.safetensors: {message}"):
            load_weights(DeepSurv(n_inputs=n_inputs), tmp_path / f"{name}.safetensors")
