"""README and docs are true: their commands run, their files and anchors are there, their numbers are the code's."""

from __future__ import annotations

import inspect
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
from fracsurv.losses import cox_nll
from fracsurv.models.cox import RIDGE
from fracsurv.models.deepsurv import DeepSurv
from fracsurv.training.augmentation import CropAugment, FullAugment
from fracsurv.vertebrae.slots import GAP_FACTOR

PAGES = ("README.md", "docs/running.md", "docs/predict.md", "docs/validation.md", "docs/vertebrae.md")
"""Pages with commands, in an order in which each finds what the ones before it made."""
DOCUMENTS = ("README.md", "data/README.md", "reports/README.md", "tests/README.md", "benchmarks/RESULTS.md")
BIN = Path(sys.executable).parent


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


README = read("README.md")
COMMANDS = [
    line.split("#")[0].strip()
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", read(page), flags=re.DOTALL)
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


def test_every_command_runs_in_the_pages_order(workplace):
    assert len(COMMANDS) == 19
    for command in COMMANDS:
        assert command.startswith(".venv/bin/")
        done = subprocess.run(
            command.replace(".venv/bin/", f"{BIN}/", 1),
            shell=True, cwd=workplace, capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    files = ("mine/index.html", "steps/index.html", "new/predictions.csv", "other/validation.csv")
    for made in ("out.ipynb", "data/whas500/cohort.csv", *(f"reports/{name}" for name in files)):
        assert (workplace / made).exists(), made


def examples(page: str) -> list[str]:
    """The page's examples of Python."""
    return re.findall(r"```python\n(.*?)```", read(page), flags=re.DOTALL)


def test_the_readmes_example_learns_the_hazard_that_was_drawn_from(capsys):
    torch.manual_seed(0)
    (example,) = examples("README.md")
    exec(compile(example, "README.md", "exec"), {})
    assert float(re.fullmatch(r"C-index (0\.\d+)\n", capsys.readouterr().out)[1]) > 0.7


def test_the_example_of_loss_and_metrics_runs(capsys):
    """What it prints is what its model reaches: the hazard that was drawn from."""
    torch.manual_seed(0)
    names = {}
    exec(compile(examples("docs/library.md")[0], "library.md", "exec"), names)
    rows = ["C", "Brier score at 1", "calibration slope"]
    assert re.findall(f"^({'|'.join(rows)}) ", capsys.readouterr().out, flags=re.MULTILINE) == rows
    table = names["compared"].table(reference="first covariate")
    assert table.loc[("model", "c_index"), "estimate"] == pytest.approx(
        names["metrics"].concordance_index(names["event"][400:], names["time"][400:], names["risk"][400:])
    )
    assert (table["estimate"] > 0.7).all()
    assert (table.loc["first covariate", "p"] == 1).all()


def test_the_example_of_the_estimator_runs(capsys):
    exec(compile(examples("docs/library.md")[1], "library.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) > 0.7


def test_make_targets_exist_and_sizes_are_those_of_the_configuration():
    for target in ("report", "test", "lab", "setup", "bench", "clean"):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)
    assert len(README.split()) <= 800
    above = [
        path.name for path in (ROOT / "fracsurv").glob("*") if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert not [name for name in above if name not in README and name != "__init__.py"]
    assert all(f"`{name}`" in read("docs/running.md") for name in load_experiments())
    demo = load_profile("demo")
    assert f"{demo.simulate['patients']:,} women and {demo.simulate['external']:,} external" in README
    assert f"fits {len(load_experiments())} models" in README


def anchors(page: str) -> set[str]:
    """What a host of repositories makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    broken = []
    pages = [*DOCUMENTS, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    for page in pages:
        links = re.findall(r"\]\((?!https?:)([\w./-]*)(?:#([\w-]+))?\)", read(page))
        for path, anchor in links:
            target = (ROOT / page).parent / path if path else ROOT / page
            found = target.exists() and (not anchor or anchor in anchors(str(target.resolve().relative_to(ROOT))))
            broken += [] if found else [f"{page}: {path}#{anchor}"]
        named = re.findall(r"`((?:notebooks|configs|docs|benchmarks|fracsurv)/[\w./]+)`", read(page))
        broken += [f"{page}: {path}" for path in named if not (ROOT / path).exists()]
    assert not broken


def test_deviations_from_the_thesis_are_the_codes():
    page = re.sub(r"\s+", " ", read("docs/thesis.md"))
    full, crops = FullAugment(), CropAugment()
    dropout = inspect.signature(DeepSurv).parameters["dropout"].default
    for said in (
        f"the rate is not given | {dropout:g} |",
        f"| {GAP_FACTOR:g} times the distance",
        f"ridge penalty of {RIDGE:g}",
        f"{100 * full.dropout:g} % of the pixels",
        f"within ±{full.degrees:g}°",
        f"vertical flip with probability {full.vertical_flip:g}",
        f"both flips with probability {crops.vertical_flip:g}",
        f"zoom {crops.zoom[0]:g} to {crops.zoom[1]:g}",
        f"contrast {crops.contrast[0]:g} to {crops.contrast[1]:g}",
        f"an SD of {crops.noise_sd:g}",
    ):
        assert said in page, said
    assert inspect.signature(cox_nll).parameters["ties"].default == "efron"
    assert inspect.signature(cox_nll).parameters["reduction"].default == "mean"
