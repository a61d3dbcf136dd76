"""Files and folders appear whole or not at all, and a failure leaves what was there."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from fracsurv import cli
from fracsurv.images.store import create_array
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import (
    atomic_folder,
    atomic_path,
    leftovers,
    remove_leftovers,
)
from fracsurv.utils.weights import load_weights, save_weights


def write_and_fail(path):
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def fill(folder, text, *, replace=False, fail=False):
    with atomic_folder(folder, replace=replace) as temporary:
        (temporary / "x").write_text(text)
        if fail:
            raise RuntimeError


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError):
        fill(tmp_path / "new" / "a", "1", fail=True)
    assert list((tmp_path / "new").iterdir()) == []
    fill(tmp_path / "new" / "a", "1")
    assert (tmp_path / "new" / "a" / "x").read_text() == "1"


def test_a_full_folder_gives_way_only_when_asked_for(tmp_path):
    (tmp_path / "a").mkdir()
    fill(tmp_path / "a", "1")  # an empty one does
    with pytest.raises(OSError, match="not empty"):
        fill(tmp_path / "a", "2")
    with pytest.raises(RuntimeError):
        fill(tmp_path / "a", "2", replace=True, fail=True)
    assert (tmp_path / "a" / "x").read_text() == "1"
    fill(tmp_path / "a", "2", replace=True)
    assert (tmp_path / "a" / "x").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_a_killed_process_are_found_and_removed(tmp_path):
    """A process leaves both kinds behind; those of a living one, of another machine and other files stay."""
    (tmp_path / "best.safetensors").write_text("old")
    program = f"""
import os, pathlib
from fracsurv.utils.files import atomic_folder, atomic_path
here = pathlib.Path({str(tmp_path)!r})
with atomic_path(here / "best.safetensors") as file, atomic_folder(here / "st.v1") as folder:
    file.touch()
    (folder / "crops.npy").touch()
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    left = leftovers(tmp_path)
    assert sorted(path.is_dir() for path in left) == [False, True]
    elsewhere = re.sub("fracsurv-[0-9a-f]{8}-", "fracsurv-00000000-", left[0].name)  # no machine of this name
    others = ["best.safetensors", ".notes.12345678.md", ".backup.20250131", elsewhere]
    for name in others[1:]:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "last.safetensors") as live:
        live.touch()
        remove_leftovers(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, live.name])
    assert (tmp_path / "best.safetensors").read_text() == "old"
    assert leftovers(tmp_path / "nowhere") == []
    foreign = tmp_path / others[-1]
    os.utime(foreign, (0, time.time() - 90_000))  # another machine wrote it, and nothing for a day
    assert leftovers(tmp_path) == [foreign]


def test_what_bears_its_final_name_is_on_the_disk(tmp_path, monkeypatch):
    """Content first, then the name: a machine may lose its power in between."""
    done, sync, rename = [], os.fsync, os.replace

    def synced(number):
        done.append(os.readlink(f"/proc/self/fd/{number}"))
        sync(number)

    monkeypatch.setattr("fracsurv.utils.files.os.fsync", synced)
    monkeypatch.setattr("fracsurv.utils.files.os.replace", lambda a, b: (done.append("renamed"), rename(a, b)))
    with atomic_path(tmp_path / "a.txt") as file:
        file.write_text("1")
    assert done == [str(file), "renamed", str(tmp_path)]
    done.clear()
    with atomic_folder(tmp_path / "b") as folder:
        (folder / "c").write_text("1")
    assert sorted(done[:2]) == sorted([str(folder), str(folder / "c")])
    assert done[2:] == ["renamed", str(tmp_path)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_file_systems_that_sync_no_folders_will_do(tmp_path, monkeypatch, number):
    sync = os.fsync

    def refused(file):
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(number, "refused")
        sync(file)

    monkeypatch.setattr("fracsurv.utils.files.os.fsync", refused)
    will_do = nullcontext() if number == errno.EINVAL else pytest.raises(OSError, match="refused")
    with will_do, atomic_path(tmp_path / "a.txt") as file:
        file.write_text("1")
    assert (tmp_path / "a.txt").read_text() == "1"


def test_the_file_for_which_there_is_no_room_is_named(tmp_path, small_files):
    """pandas does not name it."""
    with pytest.raises(OSError, match="Errno") as refused, atomic_path(tmp_path / "a.csv") as temporary:
        pd.DataFrame({"x": range(1000)}).to_csv(temporary)
    assert refused.value.filename == str(tmp_path / "a.csv")


@pytest.mark.parametrize("about", ["[1]", "1", "[" * 100_000, "{"])
def test_weights_with_a_torn_record_are_told(tmp_path, about):
    save_file({"weight": torch.zeros(2)}, tmp_path / "best.safetensors", metadata={"about": about})
    with pytest.raises(UserError, match="not a safetensors file, or damaged"):
        load_weights(torch.nn.Linear(2, 1), tmp_path / "best.safetensors")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, float("nan"))
    save_weights(model, tmp_path / "best.safetensors")
    with pytest.raises(UserError, match=r"best\.safetensors: holds NaN"):
        load_weights(torch.nn.Linear(2, 1), tmp_path / "best.safetensors")


@pytest.fixture
def small_files():
    """No file may become larger than 1,000 bytes: the system's refusal is of the kind of a full disk's."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, heard)


def test_weights_for_which_there_is_no_room_leave_the_old_ones(tmp_path, small_files):
    small, large, path = torch.nn.Linear(3, 2), torch.nn.Linear(100, 100), tmp_path / "best.safetensors"
    save_weights(small, path, {"epoch": 1})
    with pytest.raises(OSError, match=re.escape(str(path))) as refused:
        save_weights(large, path)
    assert refused.value.errno == errno.EFBIG
    assert load_weights(torch.nn.Linear(3, 2), path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["best.safetensors"]


def test_an_array_has_its_room_or_is_refused(tmp_path, small_files):
    """Never found out by writing to its map, which would kill the process."""
    array = create_array(tmp_path / "a.npy", np.uint8, (5, 7))
    assert array.shape == (5, 7)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 35
    with pytest.raises(OSError, match=r"b\.npy"):
        create_array(tmp_path / "b.npy", np.uint8, (5, 700))


def test_a_full_disk_is_told_in_a_line(capsys):
    def write():
        with open("/dev/full", "w") as file:
            file.write("x")

    with pytest.raises(SystemExit) as end:
        cli.main(write)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: the disk is full; make room")
