"""Files and folders appear whole or not at all, and a failure leaves what was there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fracsurv.files import atomic_folder, atomic_path, leftovers, remove_leftovers


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
