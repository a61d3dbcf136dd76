"""How long is left, and learning curves while a fit runs."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fracsurv.board import Board
from fracsurv.errors import UserError
from fracsurv.experiments import fit_fold
from fracsurv.files import write_json
from fracsurv.progress import Progress, in_words
from fracsurv.run import open_run


@pytest.fixture
def run(simulated, tmp_path):
    return open_run(simulated, tmp_path / "run", "tiny")


def done(run, name, fold, alpha=None, seconds=None):
    folder = run.folder(name, fold, alpha)
    if seconds is not None:
        write_json(folder / "fit.json", {"seconds": seconds})
    if alpha is None:
        write_json(folder / "metrics.json", {})


def test_what_is_left_comes_from_fits_alike_and_from_arithmetic(run):
    profile = run.profile
    n_folds, n_alphas = profile.n_folds, len(profile.alphas)
    names = ["true_risk", "cox_ph", "deepsurv", "cds_crops", "vit_crops_if", "cds_crops_lf", "cds_crops_alpha"]
    progress = Progress(run, names, at_once=2)
    assert progress.total == n_folds * (6 + n_alphas)
    assert progress.update() == 0
    assert progress.seconds_left() is None
    for name in ("true_risk", "cox_ph"):
        for fold in range(n_folds):
            done(run, name, fold)
    done(run, "cds_crops", 0, seconds=40)
    assert progress.update() == 2 * n_folds + 1
    # folds of the same row take 40 s each; the others by epochs and by the arithmetic of a step
    crops, vit, alpha = (run.experiment(name) for name in ("cds_crops", "vit_crops_if", "cds_crops_alpha"))
    step = {"resnet18": 20.0, "vit_tiny": 4.4}
    work = {row.name: row.epochs * step[row.encoder] for row in (crops, vit, alpha)}
    expected = (n_folds - 1) * 40 + (
        n_folds * work["vit_crops_if"] + n_folds * n_alphas * work["cds_crops_alpha"]
    ) * (40 / work["cds_crops"])
    assert progress.seconds_left() == pytest.approx(expected / 2)
    for fold in range(n_folds):
        for value in profile.alphas:
            done(run, "cds_crops_alpha", fold, value, seconds=10)
        for name in ("deepsurv", "cds_crops", "vit_crops_if", "cds_crops_lf"):
            done(run, name, fold, seconds=5)
    assert progress.update() == progress.total
    assert progress.seconds_left() == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "fits done, writing the report"),
        (20, "about a minute of fitting left"),
        (600, "about 10 min of fitting left"),
        (9000, "about 2.5 h of fitting left"),
    ],
)
def test_time_left_in_words(seconds, words):
    assert in_words(seconds) == words


def test_learning_curves_are_the_fits_tables(simulated, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = open_run(simulated, tmp_path / "run", "tiny")
    fit_fold(plain, "deepsurv", 0, progress=False)
    run = open_run(simulated, tmp_path / "board", replace(plain.profile, tensorboard=True))
    fit_fold(run, "deepsurv", 0, progress=False)
    folder = run.folder("deepsurv", 0)
    events = EventAccumulator(str(run.out / "tensorboard" / "deepsurv" / "fold-0")).Reload()
    for heading, table in (("history", "history.csv"), ("timing", "timing.csv")):
        written = pd.read_csv(folder / table)
        for column in written.columns.drop("epoch"):
            curve = pd.Series({event.step: event.value for event in events.Scalars(f"{heading}/{column}")})
            expected = written.set_index("epoch")[column].dropna()
            np.testing.assert_allclose(curve, expected, rtol=1e-6)
            assert curve.index.tolist() == expected.index.tolist()
    # it changes no result, and the fits of the one are the other's
    assert run.key("deepsurv", 0, None) == plain.key("deepsurv", 0, None)
    one, two = (each.folder("deepsurv", 0) / "predictions.parquet" for each in (plain, run))
    assert one.read_bytes() == two.read_bytes()


def test_a_missing_tensorboard_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="package tensorboard is not installed; `pip install tensorboard`"):
        Board(tmp_path)
