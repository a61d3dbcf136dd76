"""The README is true: its commands run, its files are there, its claims about make targets hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fracsurv.config import ROOT, load_experiments, load_profile

README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def yolo(folder: Path) -> None:
    """A folder of twenty radiographs with twelve boxes each, as object detectors export them."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (400, 200), dtype=np.uint8)).save(folder / "images" / f"r{i}.png")
        rows = [f"0 0.5 {0.06 + 0.07 * k + 0.002 * rng.random():.4f} 0.3 0.05" for k in range(12)]
        (folder / "labels" / f"r{i}.txt").write_text("\n".join(rows))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """An empty folder in which the README's paths mean the repository's notebooks and new data."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    yolo(folder / "path" / "to" / "yolo")
    return folder


def test_every_command_runs_in_the_readmes_order(workplace):
    assert len(COMMANDS) == 12
    for command in COMMANDS:
        assert command.startswith(".venv/bin/")
        done = subprocess.run(
            command.replace(".venv/bin/", f"{BIN}/", 1),
            shell=True, cwd=workplace, capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    files = ("mine/index.html", "new/predictions.csv", "other/validation.csv")
    for made in ("out.ipynb", "data/whas500/cohort.csv", *(f"reports/{name}" for name in files)):
        assert (workplace / made).exists(), made


def test_the_example_runs(capsys):
    """What it prints is what its model reaches: the hazard that was drawn from."""
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    torch.manual_seed(0)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    rows = ["C", "Brier score at 1", "calibration slope"]
    assert re.findall(f"^({'|'.join(rows)}) ", capsys.readouterr().out, flags=re.MULTILINE) == rows
    table = names["compared"].table(reference="first covariate")
    assert table.loc[("model", "c_index"), "estimate"] == pytest.approx(
        names["metrics"].concordance_index(names["event"][400:], names["time"][400:], names["risk"][400:])
    )
    assert (table["estimate"] > 0.7).all()
    assert (table.loc["first covariate", "p"] == 1).all()


def test_make_targets_and_files_exist_and_sizes_are_those_of_the_configuration():
    for target in ("report", "test", "lab", "setup", "bench", "clean"):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"`((?:notebooks|configs|docs)/[\w./]+)`", README)
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
    modules = {path.name for path in (ROOT / "fracsurv").glob("*.py")} - {"__init__.py"}
    assert not [name for name in modules if name not in README]
    assert all(f"`{name}`" in README for name in load_experiments())
    size = load_profile("demo").simulate
    assert f"{size['patients']:,} women and {size['external']:,} external" in README
