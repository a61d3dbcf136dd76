"""Folders import only from folders below them: the contracts of `pyproject.toml`, checked by import-linter."""

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_no_folder_imports_from_one_above_it():
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS
