"""How long is left, and learning curves while a fit runs."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fracsurv.pipeline.progress import Progress, in_words, outdated
from fracsurv.study.experiments import fit_fold
from fracsurv.study.prepare import prepare
from fracsurv.training.board import Board
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import write_json


@pytest.fixture
def run(simulated, tmp_path):
    return prepare(simulated, tmp_path / "run", "tiny")


def done(run, name, fold, alpha=None, seconds=None):
    folder = run.folder(name, fold, alpha)
    if seconds is not None:
        write_json(folder / "fit.json", {"seconds": seconds})
    if alpha is None:
        write_json(folder / "metrics.json", {})


def test_what_is_left_comes_from_fits_alike_and_from_arithmetic(run):
    profile = run.profile
    n_folds, n_alphas = profile.n_folds, len(profile.alphas)
    progress = Progress(run, ["true_risk", "cox_ph", "vit_crops_if", "cds_crops_lf", "cds_crops_alpha"], at_once=2)
    assert progress.total == n_folds * (6 + n_alphas)  # late fusion brings cds_crops and deepsurv along
    assert progress.update() == 0
    assert progress.seconds_left() is None
    assert in_words(progress) == ""
    for name in ("true_risk", "cox_ph"):
        for fold in range(n_folds):
            done(run, name, fold)
    done(run, "cds_crops", 0, seconds=40)
    assert progress.update() == 2 * n_folds + 1
    # other folds of the same row take as long; the others go by epochs and by the arithmetic of a step
    crops, vit, alpha = (run.experiment(name) for name in ("cds_crops", "vit_crops_if", "cds_crops_alpha"))
    step = {"resnet18": 20.0, "vit_tiny": 4.4}
    work = {row.name: row.epochs * step[row.encoder] for row in (crops, vit, alpha)}
    others = n_folds * (work["vit_crops_if"] + n_alphas * work["cds_crops_alpha"]) * 40 / work["cds_crops"]
    assert progress.seconds_left() == pytest.approx(((n_folds - 1) * 40 + others) / 2)
    for fold in range(n_folds):
        for value, seconds in zip(profile.alphas, (10, 30), strict=False):
            done(run, "cds_crops_alpha", fold, value, seconds=seconds)
    progress.update()
    done(run, "cds_crops", 1, seconds=70)
    done(run, "vit_crops_if", 0, seconds=5)
    progress.update()
    left = (n_folds - 2) * 55 + (n_folds - 1) * 5
    assert progress.seconds_left() == pytest.approx(left / 2)
    for fold in range(n_folds):
        for name in ("cds_crops", "vit_crops_if"):
            done(run, name, fold, seconds=5)
    progress.update()
    assert progress.seconds_left() == 0  # fits in columns of numbers take no time worth telling
    assert in_words(progress) == "about a minute of fitting left"
    for fold in range(n_folds):
        for name in ("deepsurv", "cds_crops_lf"):
            done(run, name, fold, seconds=1)
    assert progress.update() == progress.total
    assert in_words(progress) == "fits done, writing the report"


def test_only_what_is_current_counts_as_done_from_the_start(run):
    for name in ("deepsurv", "cox_ph"):
        fit_fold(run, name, 0, progress=False)
    names = ["deepsurv", "cox_ph"]
    for folder in (run.folder(name, 0) for name in names):
        for path in folder.iterdir():
            os.utime(path, (1, 1))
    assert Progress(run, names, at_once=1).update() == 2
    other = Progress(replace(run, profile=replace(run.profile, seed=3)), names, at_once=1)
    assert other.update() == 0
    done(run, "cox_ph", 0)  # written since
    assert other.update() == 1
    # images: where their store is missing, or another cohort's, nothing is current, and none is built to find out
    done(run, "cds_crops", 0, seconds=1)
    os.utime(run.folder("cds_crops", 0) / "metrics.json", (1, 1))
    assert Progress(run, ["cds_crops"], at_once=1).update() == 0
    assert not (run.out / "prepared" / "crops").exists()


def test_fits_under_other_settings_are_told(run):
    for name in ("deepsurv", "cox_ph"):
        fit_fold(run, name, 0, progress=False)
    assert outdated(run) == []
    renamed = replace(run, cohort=replace(run.cohort, outcome="hip fracture"))  # evaluated anew, not fitted
    assert outdated(renamed) == []
    table = run.cohort.table.copy()
    table.loc[3, "age"] += 1
    changed = replace(run, cohort=replace(run.cohort, table=table))
    assert outdated(changed) == ["cox_ph", "deepsurv"]
    # a fit whose store was removed to make room is not outdated
    crops = run.folder("cds_crops", 0)
    write_json(crops / "fit.json", {"key": run.key("cds_crops", 0, None)})
    assert not (run.out / "prepared" / "crops").exists()
    assert outdated(run) == []
    write_json(crops / "fit.json", {"key": "another"})
    assert outdated(run) == ["cds_crops"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "about a minute of fitting left"),
        (600, "about 10 min of fitting left"),
        (9000, "about 2.5 h of fitting left"),
    ],
)
def test_time_left_in_words(run, monkeypatch, seconds, words):
    monkeypatch.setattr(Progress, "seconds_left", lambda _: seconds)
    assert in_words(Progress(run, ["deepsurv"], at_once=1)) == words


def test_learning_curves_are_the_fits_tables(simulated, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = prepare(simulated, tmp_path / "run", "tiny")
    fit_fold(plain, "deepsurv", 0, progress=False)
    run = prepare(simulated, tmp_path / "board", replace(plain.profile, tensorboard=True))
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
    assert not [thread for thread in threading.enumerate() if "EventLogger" in type(thread).__name__]
    # it changes no result, and the fits of the one are the other's
    assert run.key("deepsurv", 0, None) == plain.key("deepsurv", 0, None)
    one, two = (each.folder("deepsurv", 0) / "predictions.parquet" for each in (plain, run))
    assert one.read_bytes() == two.read_bytes()


def test_a_missing_tensorboard_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="package tensorboard is not installed; `pip install tensorboard`"):
        Board(tmp_path)
