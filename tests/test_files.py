"""Files and folders appear whole or not at all, and a failure leaves what was there."""

from __future__ import annotations

import errno
import re
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from fracsurv import cli
from fracsurv.checkpoint import load_weights, save_weights
from fracsurv.files import atomic_folder, atomic_path, leftovers, remove_leftovers
from fracsurv.stored_array import create_array


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
from fracsurv.files import atomic_folder, atomic_path
here = pathlib.Path({str(tmp_path)!r})
with atomic_path(here / "best.safetensors") as file, atomic_folder(here / "st.v1") as folder:
    file.touch()
    (folder / "crops.npy").touch()
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    left = leftovers(tmp_path)
    assert sorted(path.is_dir() for path in left) == [False, True]
    elsewhere = left[0].name.replace("fracsurv-", "fracsurv-0000")  # no machine of this name
    others = ["best.safetensors", ".notes.12345678.md", ".backup.20250131", re.sub("0000....", "00000000", elsewhere)]
    for name in others[1:]:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "last.safetensors") as live:
        live.touch()
        remove_leftovers(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, live.name])
    assert (tmp_path / "best.safetensors").read_text() == "old"
    assert leftovers(tmp_path / "nowhere") == []


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
