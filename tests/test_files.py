"""Files and folders appear whole or not at all, and a failure leaves what was there."""

from __future__ import annotations

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
    """What is inside the context is what a kill leaves behind."""
    kept = ["best.safetensors", ".process", ".fit.lock", "notes.12345678.csv", "crops"]
    for name in kept[:-1]:
        (tmp_path / name).touch()
    (tmp_path / "crops").mkdir()
    with atomic_path(tmp_path / "best.safetensors") as file, atomic_folder(tmp_path / "crops") as folder:
        file.touch()
        assert sorted(leftovers(tmp_path)) == sorted([file, folder])
        assert leftovers(tmp_path, "crops") == [folder]
        assert leftovers(tmp_path, "best.safetensors") == [file]
        remove_leftovers(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
        file.touch(), folder.mkdir()
