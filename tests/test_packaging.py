"""What is installed: a wheel that works from anywhere, and a library that needs six others alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import fracsurv
from fracsurv.config import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LIBRARY = ("numpy", "scipy", "pandas", "scikit-learn", "scikit-survival", "torch")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel, built as pip does it, of a copy of the repository's files."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("configs", "notebooks", "fracsurv"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("Snakefile", "README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", source, "--no-build-isolation", "--no-deps", "--wheel-dir", built,
         "--disable-pip-version-check", "--quiet"],
        check=True, cwd=source,
    )  # fmt: skip
    (found,) = built.iterdir()
    return found


def test_the_wheel_holds_what_the_commands_read(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    named = ("configs/**/*.yaml", "notebooks/*.ipynb", "Snakefile")
    carried = [path.relative_to(ROOT).as_posix() for pattern in named for path in ROOT.glob(pattern)]
    assert len(carried) >= 13
    assert {f"fracsurv/_data/{name}" for name in carried} <= held
    package = [path.relative_to(ROOT).as_posix() for path in (ROOT / "fracsurv").rglob("*") if path.is_file()]
    assert {name for name in package if "__pycache__" not in name} <= held
    assert "fracsurv/py.typed" in held
    assert not [
        name for name in held if name.split("/")[0] not in ("fracsurv", wheel.name.rsplit("-", 3)[0] + ".dist-info")
    ]


def test_an_installed_wheel_works_from_any_folder(wheel, tmp_path):
    """In an environment of its own, which finds all libraries but fracsurv in this one."""
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = (home / "lib").glob("python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--quiet", "--ignore-installed", wheel],
        check=True,
    )  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*arguments: str) -> str:
        return subprocess.run(
            [home / "bin" / arguments[0], *arguments[1:]],
            cwd=elsewhere, env=environment, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    assert call("fracsurv", "--version") == f"fracsurv {fracsurv.__version__}"
    call("fracsurv", "simulate", "data/tiny", "--patients", "30", "--resolution", "0.125", "--boxes", "true")
    program = "from fracsurv import config; from fracsurv.report.notebook import open_notebook; "
    program += "from fracsurv.pipeline.pipeline import SNAKEFILE; from fracsurv.study.provenance import commit; "
    program += "run = open_notebook(); print(config.ROOT, SNAKEFILE.exists(), run.cohort.folder, run.out, commit())"
    data = packages / "fracsurv" / "_data"
    assert call("python", "-c", program) == f"{data} True data/tiny reports/tiny None"


def test_the_library_needs_six_others_alone(tmp_path):
    """Losses, metrics and models are imported, and used, where nothing of the study's other libraries is there."""
    assert tuple(re.split(r"[>=]", line)[0] for line in PROJECT["dependencies"]) == LIBRARY
    others = {re.split(r"[>=]", line)[0] for line in PROJECT["optional-dependencies"]["study"]} - set(LIBRARY)
    modules = {"pillow": "PIL", "pyyaml": "yaml", "ipython": "IPython"}
    program = f"""
import sys
sys.modules |= dict.fromkeys({sorted(modules.get(name, name) for name in others)})
import numpy, torch
from fracsurv import losses, metrics, models
from fracsurv.models import AlphaFusion, ConvDeepSurv, DeepSurv, IntermediateFusion, LateFusion, ViTDeepSurv, fit_cox
event, time = numpy.arange(40) % 2 == 0, numpy.arange(1.0, 41.0)
risk = DeepSurv(n_inputs=2)(torch.ones(40, 2), None)
losses.cox_nll(torch.tensor(event), torch.tensor(time), risk).backward()
print(metrics.concordance_index(event, time, -time), metrics.calibration(event, time, 1 / time, at=20.0).slope)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1.0 ")


def test_a_library_alone_says_what_its_commands_need():
    program = "import sys; sys.modules['typer'] = None; import fracsurv.cli"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: the commands need more libraries: pip install 'fracsurv[study]'\n"


def test_the_version_is_the_newest_entry_of_the_changelog():
    newest = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == fracsurv.__version__ == citation["version"] == newest[1]
    assert str(citation["date-released"]) == newest[2]
