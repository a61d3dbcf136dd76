"""Batches of rows, the way of their pixels to the device, compiling, the stopwatch, and freed memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from fracsurv.images.store import StoredArray
from fracsurv.training.compilation import compiled, worth_compiling
from fracsurv.training.data import Pixels, draw_batches
from fracsurv.training.loop import Network, Patients, Recipe, Training, train_batches
from fracsurv.training.monitor import Stopwatch
from fracsurv.utils.devices import keep_freed_memory
from fracsurv.utils.errors import UserError

CPU = torch.device("cpu")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def test_every_training_row_is_in_one_batch():
    train = np.arange(3, 300)
    first, again, other = (draw_batches(train, 32, seed) for seed in (7, 7, 8))
    assert [len(rows) for rows in first] == [32] * 9 + [9]
    assert sorted(np.concatenate(first)) == sorted(train)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert [len(rows) for rows in draw_batches(np.arange(65), 32, 0)] == [32, 32]  # one patient is no batch


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("device", DEVICES)
def test_resident_and_streamed_pixels_are_the_stores(dtype, device, tmp_path):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (30, 2, 4, 3), endpoint=True).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    rows = np.array([4, 29, 0, 4])
    for place, resident in (("resident", True), ("streamed", False), ("auto", device == "cuda")):
        pixels = Pixels(StoredArray(tmp_path / "a.npy"), torch.device(device), place)
        assert (pixels.resident, pixels.shape) == (resident, array.shape)
        for expected in (None, rows, rows[::-1].copy()):  # not announced, announced, something else announced
            if expected is not None:
                pixels.expect(expected)
            found = pixels[rows]
            assert found.device.type == device
            np.testing.assert_array_equal(found.cpu().numpy(), array[rows])
            assert found.cpu().numpy().dtype == dtype


def test_pixels_that_do_not_fit_are_refused(monkeypatch, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    array = StoredArray(tmp_path / "a.npy")
    for free in (10, 31):  # they take 16 bytes, and half of what is free at most
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 100))
        assert not Pixels(array, torch.device("cuda")).resident
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 100))
    with pytest.raises(UserError, match=r"feeding: resident: .* GiB, and the GPU has .* free"):
        Pixels(array, torch.device("cuda"), "resident")


def test_a_stored_array_is_read_whole_closed_and_refused_once_it_is_cut_short(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(1, 60_000, (9, 4, 5), dtype=np.uint16)
    np.save(tmp_path / "a.npy", values)
    stored, whole = StoredArray(tmp_path / "a.npy"), os.preadv
    np.testing.assert_array_equal(stored.mapped, values)
    with monkeypatch.context() as patch:  # however little a read gives
        patch.setattr(os, "preadv", lambda number, buffers, start: whole(number, [buffers[0][:7]], start))
        np.testing.assert_array_equal(stored.read(np.array([8, 0, 3])), values[[8, 0, 3]])
    os.truncate(tmp_path / "a.npy", 300)
    assert Pixels(stored, CPU)[np.array([0])].to(int).any()
    with pytest.raises(UserError, match=r"a\.npy: shorter than it was"):
        Pixels(stored, CPU)[np.array([8])]
    if os.path.isdir("/proc/self/fd"):  # Linux lists a process's open files there
        before = len(os.listdir("/proc/self/fd"))
        np.save(tmp_path / "b.npy", values)
        several = [StoredArray(tmp_path / "b.npy") for _ in range(20)]
        assert len(os.listdir("/proc/self/fd")) >= before + 20
        del several
        assert len(os.listdir("/proc/self/fd")) == before


def test_batches_are_announced_before_they_are_asked_for():
    calls = []

    class Inputs:
        def __call__(self, rows, generator):
            calls.append(("asked", rows.tolist()))
            return (torch.zeros(len(rows), 1),)

        def expect(self, rows):
            calls.append(("expect", rows.tolist()))

    model = torch.nn.Linear(1, 1)
    training = Training(
        Network(model, lambda x: model(x)[:, 0], Inputs()),
        Patients(np.ones(7, bool), np.arange(7.0), np.arange(7), np.arange(0)),
        torch.optim.SGD(model.parameters(), lr=0.1),
        Recipe(lr=0.1, scheduler="none", epochs=1, batch_size=3, seed=0),
        Stopwatch(CPU),
    )
    one, two, three = [4, 1, 0], [2, 3], [5, 6]
    losses, risks = train_batches(training, [np.array(rows) for rows in (one, two, three)], torch.Generator())
    assert calls == [("asked", one), ("expect", two), ("asked", two), ("expect", three), ("asked", three)]
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


PAGE_FAULTS = """
import resource
import torch
from fracsurv.utils.devices import keep_freed_memory

def faults(n=5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
kept = keep_freed_memory()
faults(20)  # takes what it will keep: aligned blocks settle after some rounds
print(kept, before, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_freed_memory_is_kept_for_the_next_array(monkeypatch):
    done = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True)
    kept, before, after = done.stdout.split()
    if kept == "False":
        pytest.skip("the C library is not glibc")
    assert int(before) > 1000  # five times 40 MB: 48,800 small pages, fewer huge ones
    assert int(after) < 100
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
