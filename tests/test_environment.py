"""What fracsurv starts knows nothing of the user's own settings; what it prints, any terminal can show."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fracsurv.config import ROOT
from fracsurv.pipeline.notebook_job import execute_notebook
from fracsurv.utils import environment
from fracsurv.utils.environment import FOLDERS, isolated, isolation
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort

MODULES = ("random", "torch", "pandas", "numpy", "socket", "queue", "yaml", "snakemake")


def foreign_settings(folder: Path) -> dict[str, str]:
    """A user's own settings of what a run starts, each of which would stop it; `folder/cwd` has modules."""
    spoilt = "raise SystemExit(3)\n"
    files = {
        "profile/config.yaml": "executor: slurm\njobs: 3\n",
        "cwd/profiles/default/config.yaml": "executor: slurm\njobs: 3\n",
        "data/kernels/python3/kernel.json": json.dumps({"argv": ["/bin/false"], "display_name": "", "language": "R"}),
        "config/jupyter_config.py": spoilt,
        "ipython/profile_default/startup/00.py": spoilt,
        "startup.py": spoilt,
        "xdg/matplotlib/matplotlibrc": "text.usetex: True\n",
        **{f"cwd/{name}.py": spoilt for name in MODULES},
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {
        "SNAKEMAKE_PROFILE": str(folder / "profile"), "JUPYTER_PATH": str(folder / "data"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"), "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONSTARTUP": str(folder / "startup.py"), "BASH_ENV": str(folder / "startup.py"),
        "MATPLOTLIBRC": str(folder / "xdg" / "matplotlib" / "matplotlibrc"), "MPLBACKEND": "module://own",
        "XDG_CONFIG_HOME": str(folder / "xdg"), "XDG_CACHE_HOME": "/proc/none", "XDG_DATA_HOME": "/proc/none",
        "XDG_RUNTIME_DIR": "/proc/none", "PYTHONPATH": f":{ROOT}:", "PYTHONIOENCODING": "ascii",
        "PYTHONWARNINGS": "error", "PYTHONINSPECT": "1",
    }  # fmt: skip


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    settings = foreign_settings(tmp_path / "user")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "user" / "cwd")
    return settings


def test_nothing_of_the_users_own_stays(foreign, tmp_path):
    found = isolated()
    assert not any(str(tmp_path) in value or "/proc/none" in value for value in found.values())
    assert not {"SNAKEMAKE_PROFILE", "JUPYTER_PATH", "PYTHONWARNINGS", "PYTHONSTARTUP", "PYTHONINSPECT"} & set(found)
    assert (found["MPLBACKEND"], found["PYTHONUTF8"], found["PYTHONPATH"]) == ("Agg", "1", str(ROOT))
    assert {Path(found[name]).parent for name in FOLDERS} == {Path(found["IPYTHONDIR"]).parent}
    with isolation():
        assert isolated() == found == dict(os.environ)
    assert os.environ["MPLBACKEND"] == "module://own"


def test_a_users_modules_are_found_by_nothing_that_is_started(foreign):
    code = (
        "import random, socket, sys, fracsurv; print(sorted(set(sys.path) & {'', sys.argv[1]}), random.randint(3, 3))"
    )
    started = subprocess.run(
        [sys.executable, "-c", code, os.getcwd()], env=isolated(), capture_output=True, text=True
    )
    assert (started.stdout, started.stderr) == ("[] 3\n", "")


def test_a_user_without_account_gets_a_name_and_a_home(monkeypatch):
    def unknown(*_):
        raise KeyError("getpwuid(): uid not found: 12345")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    found = isolated()
    assert found["LOGNAME"] == f"user-{os.getuid()}"
    assert Path(found["HOME"]).is_dir()
    monkeypatch.setenv("HOME", "/home/of/mine")
    assert isolated()["HOME"] == "/home/of/mine"  # with what was installed there


def test_caches_go_into_no_folder_that_others_can_write_to(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = tmp_path / f"fracsurv-{os.getuid()}"
    assert environment._own_folder() == environment._own_folder() == own
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    assert environment._own_folder() not in (own, environment._own_folder())
    own.rmdir()
    own.symlink_to(tmp_path)
    assert environment._own_folder() != own


def test_a_notebooks_kernel_is_this_python(foreign, tmp_path):
    shown = "import os, sys; print(os.environ['MPLBACKEND'], sys.warnoptions, end=''); print('', sys.prefix, end='')"
    metadata = {"kernelspec": {"name": "no-such-kernel", "language": "python", "display_name": "x"}}
    cells = [
        nbformat.v4.new_code_cell("cohort = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(shown),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "a.ipynb")
    execute_notebook(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {"cohort": "x"}, [], place=tmp_path)
    last = nbformat.read(tmp_path / "b.ipynb", as_version=4).cells[-1]
    assert last.outputs[0].text == f"Agg [] {Path(sys.prefix).name}"  # of folders only the last names stay


def test_a_kernel_that_the_system_ends_is_reported_so(tmp_path):
    cells = [nbformat.v4.new_code_cell("import os; os.kill(os.getpid(), 9)")]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "x"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "a.ipynb")
    with (
        isolation(),
        pytest.raises(UserError, match=r"^a\.ipynb: the system ended its kernel \(for memory, perhaps\)$"),
    ):
        execute_notebook(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {}, [], place=tmp_path)


def print_in(encoding: str, text: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What reaches a terminal of this encoding when a command prints the text."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    environment.print_anything()
    print(text, end="", flush=True)
    return written.getvalue()


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "−2 ± 1, 3 × α ≤ 5 … é 患", b"-2 +/- 1, 3 x alpha <= 5 ... e ?"),
        ("latin-1", "−2 ± é", "-2 ± é".encode("latin-1")),
        ("utf-8", "−2 a\udce4.png", "−2 a".encode() + b"\xe4.png"),
    ],
)
def test_any_terminal_can_show_a_message(monkeypatch, encoding, text, shown):
    assert print_in(encoding, text, monkeypatch) == shown


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_check_in_any_locale_from_any_folder(tmp_path, locale):
    """As `python -m` too, which looks for modules in the working directory."""
    table = tabular()
    table["t_score"] = table["age"] - 80
    kinds = {"age": "continuous", "t_score": "continuous"}
    cohort = write_cohort(tmp_path / "Köln", table, covariates=kinds, labels={"t_score": "T-score, Δ"})
    foreign_settings(tmp_path / "user")
    done = subprocess.run(
        [sys.executable, "-m", "fracsurv.cli", "check", cohort], cwd=tmp_path / "user" / "cwd", capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **locale}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"no faults; real; radiographs: none" in done.stdout
    assert f" {table['t_score'].mean():.1f} ".encode() in done.stdout  # with a hyphen in the minus sign's place
    assert b"T-score, ?" in done.stdout


def test_weights_that_were_fetched_before_are_found_again(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "torch").mkdir()
    assert isolated()["TORCH_HOME"] == str(tmp_path / "torch")
    monkeypatch.setenv("TORCH_HOME", "/elsewhere")
    assert isolated()["TORCH_HOME"] == "/elsewhere"
