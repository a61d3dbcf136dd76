"""Every case of the corpus is told in plain lines, with the right exit code; nothing half-made stays behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fracsurv import cli
from tests.hostile_all import CASES, sound


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """The cohort in which nothing is wrong yet."""
    return sound(tmp_path_factory.mktemp("hostile") / "cohort")


def called(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    """The program, as from a shell: its exit code and all that it printed."""
    monkeypatch.setattr("sys.argv", ["fracsurv", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


def test_the_corpus_is_large_and_its_sound_cohort_sound(template, monkeypatch, capsys):
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    code, said = called(monkeypatch, capsys, "check", template)
    assert code == 0
    assert "no faults" in said
    assert "0 warnings" in said


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_told_plainly(case, template, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cohort"
    shutil.copytree(template, folder)
    case.change(folder)
    code, said = called(monkeypatch, capsys, "check", folder)
    assert code == case.code, said[:2000]
    assert case.says in said, said[:2000]
    assert "Traceback" not in said
    assert "\x1b[31m" not in said
    assert max(map(len, said.splitlines())) < 1000
    if code:
        lines = [line for line in re.split(r"[\r\n]+", said) if line.startswith("error: ")]
        assert lines, said[:2000]
        # the next step refuses too, and leaves nothing that looks finished
        code, said = called(
            monkeypatch, capsys, "prepare", folder, "--profile", "tiny", "--out", tmp_path / "out", "--kind", "crops"
        )
        assert code == 2, said[:2000]
        assert case.says in said or "cannot be read" in said, said[:2000]
        left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert {path.name for path in left} <= {
            "splits.csv",
            "profile.txt",
            "slots.parquet",
            ".crops.lock",
        }  # whole, and right for another try


def test_checking_a_cohort_does_not_wait_for_torch(template):
    look = (
        "import sys; from fracsurv import cli; sys.argv = ['fracsurv', 'check', sys.argv[1]]\n"
        "try: cli.main()\n"
        "except SystemExit: print(sorted({'torch', 'sksurv', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", look, template], capture_output=True, text=True, check=True)
    assert "no faults" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
