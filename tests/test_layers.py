"""Folders import only from folders below them, and docs/architecture.md names every file."""

import re

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from fracsurv.config import ROOT


def test_no_folder_imports_from_one_above_it():
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


def test_the_architecture_page_names_every_file():
    """A table a folder, in which a row is a file; files that lie in no folder stand in bold."""
    page, named = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), set()
    folder = ""
    for line in page.splitlines():
        if heading := re.match(r"\*\*`(\w+)/`\*\*", line):
            folder = heading[1]
        elif alone := re.match(r"\*\*`(\w+\.py)`\*\*", line):
            named.add(alone[1])
        elif row := re.match(r"\| `([\w/]+\.py)` \|", line):
            named.add(f"{folder}/{row[1]}")
    package = ROOT / "fracsurv"
    there = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}
    assert named == there
