"""Fixtures: cohorts small enough to be made anew in every session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fracsurv.config import load_profile
from fracsurv.simulate import simulate_cohort
from fracsurv.study.prepare import prepare
from fracsurv.study.run import Run

LONGEST = (
    "test_readme", "test_cli", "test_predict", "test_validate", "test_cluster", "test_hostile", "test_boxes",
    "test_finder", "test_masking", "test_report_browser",
)  # fmt: skip
"""Files that take minutes, the longest first: processes that share the tests file by file then end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, behind them the notebooks, then the rest; within a file nothing moves."""

    def rank(item: pytest.Item) -> int:
        path = Path(item.path)
        if path.suffix == ".ipynb":
            return len(LONGEST)
        return LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST) + 1

    items.sort(key=rank)


def write_cohort(folder: Path, table: pd.DataFrame, **settings: object) -> Path:
    """Write a cohort folder from a table and the settings of its cohort.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "cohort.csv", index=False)
    (folder / "cohort.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def tabular(n: int = 60, seed: int = 0) -> pd.DataFrame:
    """A table with two covariates of which one matters."""
    rng = np.random.default_rng(seed)
    age = rng.normal(78, 2, n).round(1)
    time = rng.exponential(3000 * np.exp(-0.3 * (age - 78))).clip(1, 3000).round()
    return pd.DataFrame(
        {
            "patient_id": [f"P{i:03d}" for i in range(n)],
            "time_days": time,
            "event": (time < 3000).astype(int),
            "age": age,
            "smoker": rng.integers(0, 2, n),
        }
    )


@pytest.fixture
def table() -> pd.DataFrame:
    return tabular()


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny profile's simulated cohort."""
    folder = tmp_path_factory.mktemp("cohorts") / "tiny"
    profile = load_profile("tiny")
    simulate_cohort(folder, **profile.simulate, resolution=profile.scale, boxes="faulty", progress=False)
    return folder


@pytest.fixture(scope="session")
def tiny_run(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the tiny profile, shared: what one test has fitted the next finds done."""
    return prepare(simulated, tmp_path_factory.mktemp("runs") / "tiny", "tiny", kinds=("crops", "full"))
