"""Who meets in a batch, whom its risk sets hold, where its pixels come from, and what it costs."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch

from fracsurv.images.store import StoredArray
from fracsurv.losses import cox_nll
from fracsurv.training.pixels import Pixels
from fracsurv.training.sampler import RiskBank, batches
from fracsurv.training.steps import (
    Steps,
    compiled,
    forward,
    learn,
    worth_compiling,
)
from fracsurv.training.stopwatch import Stopwatch
from fracsurv.utils.errors import UserError

CPU = torch.device("cpu")


def outcome(n=400, share=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random(n) < share, rng.exponential(size=n)


@pytest.mark.parametrize("spread", [False, True])
def test_every_training_row_is_in_one_batch(spread):
    event, _ = outcome()
    train = np.arange(3, 300)
    parts = batches(train, event, 32, 7, spread_events=spread)
    assert [len(part) for part in parts] == [32] * 9 + [9]
    assert sorted(np.concatenate(parts)) == sorted(train)
    again, other = (batches(train, event, 32, seed, spread_events=spread) for seed in (7, 8))
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert any((a != b).any() for a, b in zip(parts, other, strict=True))


def test_a_single_patient_is_no_batch():
    event, _ = outcome()
    assert [len(part) for part in batches(np.arange(65), event, 32, 0)] == [32, 32]


def test_spread_events_are_as_even_as_whole_numbers_allow():
    """By chance a tenth of these batches would have none, and the fullest four times its share."""
    event, _ = outcome(2000)
    by_chance, spread = [], []
    for seed in range(20):
        for found, how in ((by_chance, False), (spread, True)):
            found += [event[part].sum() for part in batches(np.arange(2000), event, 20, seed, spread_events=how)]
    assert min(by_chance) == 0
    assert np.mean(spread) == np.mean(by_chance)
    assert min(spread) >= 1
    assert max(spread) <= np.ceil(20 * event.mean()) + 1


def test_spread_order_is_still_drawn():
    """Each patient, with an event or without, may come in any batch."""
    event, _ = outcome(200, share=0.3)
    first = np.zeros(200)
    for seed in range(400):
        first[batches(np.arange(200), event, 50, seed, spread_events=True)[0]] += 1
    assert (abs(first / 400 - 0.25) < 0.11).all()  # five standard errors


@pytest.mark.parametrize("event", [np.zeros(40, bool), np.ones(40, bool)])
def test_spreading_nothing_or_everything_changes_no_count(event):
    assert [len(part) for part in batches(np.arange(40), event, 16, 0, spread_events=True)] == [16, 16, 8]


@pytest.mark.parametrize(
    ("wanted", "device", "n_steps", "expected"),
    [
        ("auto", "cuda", 1000, True), ("auto", "cuda", 999, False), ("always", "cuda", 1, True),
        ("never", "cuda", 10**6, False), ("auto", "cpu", 10**6, False), ("always", "cpu", 10**6, False),
    ],
)  # fmt: skip
def test_what_is_compiled(wanted, device, n_steps, expected):
    assert worth_compiling(wanted, torch.device(device), n_steps) is expected


def test_only_whole_batches_go_through_the_compiled_code(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: asked.append(options) or (lambda *_, **__: "fast"))
    either = compiled(lambda first, second, *, more=0: ("plain", more), 4, mode="m")
    assert asked == [{"dynamic": False, "mode": "m"}]
    assert either(torch.zeros(4), 1, more=2) == "fast"
    assert either(torch.zeros(3), 1, more=2) == ("plain", 2)


def test_a_bank_enlarges_risk_sets_and_scales_the_gradient():
    """The last of three steps has the gradient of all 60 patients by the last 20, times three."""
    event, days = (torch.from_numpy(part) for part in outcome(60, share=0.4))
    x = torch.randn(60, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.tensor(0.5))
    still = torch.optim.SGD([weight], lr=0.0)
    bank = RiskBank(2)
    for start in (0, 20, 40):
        rows = slice(start, start + 20)
        begun = forward(lambda part: weight * part, (x[rows],), torch.float32)
        loss, risk = learn(begun, event[rows], days[rows], still, bank=bank)
        assert len(risk) == 20
    leaf = (0.5 * x).requires_grad_()
    whole = cox_nll(event, days, leaf)
    (slope,) = torch.autograd.grad(whole, leaf)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    assert weight.grad.item() == pytest.approx(3 * (slope[40:] * x[40:]).sum().item(), rel=1e-5)
    bank.add(event[:20], days[:20], x[:20])  # the oldest is forgotten
    assert [len(part) for part in bank.joined(event[:5], days[:5], x[:5])] == [45] * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resident_and_streamed_pixels_are_the_stores(dtype, tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(0, np.iinfo(dtype).max, (30, 2, 4, 3), endpoint=True).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    stored = StoredArray(tmp_path / "a.npy")
    rows = np.array([4, 29, 0, 4])
    for place, resident in (("resident", True), ("streamed", False), ("auto", False)):
        pixels = Pixels(stored, CPU, place)
        assert pixels.resident == resident
        assert pixels.shape == array.shape
        for told in (None, rows, rows[::-1].copy()):  # not announced, announced, something else announced
            if told is not None:
                pixels.expect(told)
            found = pixels[rows]
            assert found.numpy().dtype == dtype
            np.testing.assert_array_equal(found.numpy(), array[rows])


def test_a_store_cut_short_is_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 5, 5), np.uint8))
    pixels = Pixels(StoredArray(tmp_path / "a.npy"), CPU)
    os.truncate(tmp_path / "a.npy", 400)
    assert not pixels[np.array([3])].any()
    with pytest.raises(UserError, match=r"a\.npy: shorter than it was; prepare it again"):
        pixels[np.array([29])]


def test_pixels_that_do_not_fit_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 100))
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    array = StoredArray(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"feeding: resident: .* GiB, and the GPU has .* free; set it"):
        Pixels(array, torch.device("cuda"), "resident")
    for free in (10, 31):  # they take 16 bytes, and half of what is free at most
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 100))
        assert not Pixels(array, torch.device("cuda")).resident


def test_a_stored_array_is_read_whole_however_little_a_read_gives(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 60_000, (9, 4, 5), dtype=np.uint16)
    np.save(tmp_path / "a.npy", values)
    stored, whole = StoredArray(tmp_path / "a.npy"), os.preadv
    np.testing.assert_array_equal(stored.mapped, values)
    monkeypatch.setattr(os, "preadv", lambda number, buffers, start: whole(number, [buffers[0][:7]], start))
    np.testing.assert_array_equal(stored.read(np.array([8, 0, 3])), values[[8, 0, 3]])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts a process's open files as Linux tells them")
def test_a_stored_array_closes_its_file(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 4), np.uint8))
    before = len(os.listdir("/proc/self/fd"))
    several = [StoredArray(tmp_path / "a.npy") for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) >= before + 20
    del several
    assert len(os.listdir("/proc/self/fd")) == before


def test_batches_are_announced_before_they_are_asked_for():
    told = []

    class Inputs:
        def __call__(self, rows, generator):
            told.append(("asked", rows.tolist()))
            return (torch.zeros(len(rows), 1),)

        def expect(self, rows):
            told.append(("expect", rows.tolist()))

    model = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    event, days = torch.ones(7, dtype=torch.bool), torch.arange(7.0)
    steps = Steps(
        model, lambda x: model(x)[:, 0], Inputs(), event, days, optimiser, torch.float32, Stopwatch(CPU)
    )  # fmt: skip
    parts = [np.array([4, 1, 0]), np.array([2, 3]), np.array([5, 6])]
    losses, risks = steps.epoch(parts, torch.Generator())
    expected = [list(part) for part in parts]
    assert told == [
        ("asked", expected[0]), ("expect", expected[1]), ("asked", expected[1]), ("expect", expected[2]),
        ("asked", expected[2]),
    ]  # fmt: skip
    assert [len(risk) for risk in risks] == [3, 2, 2]
    assert len(losses) == 3


def test_a_stopwatch_adds_up_and_counts_no_second_twice():
    watch = Stopwatch(CPU)
    began = time.perf_counter()
    for _ in range(2):
        with watch("outer"):
            time.sleep(0.01)
            with watch("inner"):
                time.sleep(0.01)
    with watch("other"):
        time.sleep(0.01)
    took = time.perf_counter() - began
    seconds = watch.lap()
    assert set(seconds) == {"outer", "other"}
    assert seconds["outer"] >= 0.04
    assert sum(seconds.values()) <= took
    assert watch.lap() == {}
