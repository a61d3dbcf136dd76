"""How long is left, and learning curves while a fit runs."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fracsurv.pipeline.pipeline import _forget_lost
from fracsurv.pipeline.progress import Progress, fitted_besides, outdated, time_left_text
from fracsurv.study.experiments import fit_fold
from fracsurv.study.prepare import prepare
from fracsurv.training.monitor import Board
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


def test_time_left_comes_from_finished_fits_and_epochs(run):
    n_folds, n_alphas = run.profile.n_folds, len(run.profile.alphas)
    progress = Progress(run, ["true_risk", "cox_ph", "vit_crops_if", "cds_crops_lf", "cds_crops_alpha"], at_once=2)
    assert progress.total == n_folds * (6 + n_alphas)  # late fusion brings cds_crops and deepsurv along
    assert progress.update() == 0
    assert progress.seconds_left() is None
    assert time_left_text(progress) == ""
    for name in ("true_risk", "cox_ph"):
        for fold in range(n_folds):
            done(run, name, fold)
    done(run, "cds_crops", 0, seconds=40)
    assert progress.update() == 2 * n_folds + 1
    # other folds of a row take as long; other rows go by their epochs; late fusion and tables count as 0
    crops, vit, alpha = (run.experiment(name).epochs for name in ("cds_crops", "vit_crops_if", "cds_crops_alpha"))
    others = n_folds * (vit + n_alphas * alpha) * 40 / crops
    assert progress.seconds_left() == pytest.approx(((n_folds - 1) * 40 + others) / 2)
    for fold in range(n_folds):
        for value in run.profile.alphas:
            done(run, "cds_crops_alpha", fold, value, seconds=30)
        done(run, "vit_crops_if", fold, seconds=5)
        done(run, "deepsurv", fold, seconds=1)
        done(run, "cds_crops_lf", fold, seconds=1)
    progress.update()
    assert progress.seconds_left() == pytest.approx((n_folds - 1) * 40 / 2)
    for fold in range(n_folds):
        done(run, "cds_crops", fold, seconds=1)
    assert progress.update() == progress.total
    assert progress.is_complete
    assert "report" in time_left_text(progress)


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


def test_a_lost_fold_of_an_alpha_model_is_missing(run):
    names = ["cds_crops_alpha"]
    progress = Progress(run, names, at_once=1)
    alphas = run.profile.alphas
    assert set(progress.missing()) == {("cds_crops_alpha", fold, a) for fold in (0, 1) for a in (*alphas, None)}
    for fold in (0, 1):
        for alpha in alphas:
            write_json(run.folder(*names, fold, alpha) / "fit.json", {"key": run.key(*names, fold, alpha)})
        write_json(run.folder(*names, fold) / "fit.json", {"alpha": alphas[0]})
        write_json(run.folder(*names, fold) / "metrics.json", {"key": run.evaluation_key(*names, fold, alphas[0])})
    assert progress.missing() == []
    (run.folder(*names, 1) / "metrics.json").unlink()
    assert progress.missing() == [("cds_crops_alpha", 1, None)]


def test_what_tells_that_a_lost_fit_or_store_is_done_is_removed(run):
    fit_fold(run, "cox_ph", 0, progress=False)
    fit_fold(run, "deepsurv", 0, progress=False)
    fit_fold(run, "cox_ph", 1, progress=False)
    kept = [run.folder("cox_ph", fold) / "evaluation.complete" for fold in (0, 1)]
    lost = [run.out / "prepared" / "crops.complete", run.out / "notebooks" / "04_fusion_training_cds_crops.ipynb"]
    baselines = run.out / "notebooks" / "03_baselines.ipynb"
    for path in (*kept, *lost, baselines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _forget_lost(run, run.out, Progress(run, ["cox_ph", "cds_crops"], at_once=1))
    assert all(path.exists() for path in (*kept, baselines))
    assert not any(path.exists() for path in lost)
    _forget_lost(run, run.out, Progress(run, ["deepsurv"], at_once=1))
    assert not baselines.exists()


def test_fits_under_other_settings_are_outdated(run):
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


@pytest.mark.parametrize(("seconds", "words"), [(20, "a minute"), (600, "10 min"), (9000, "2.5 h")])
def test_time_left_in_words(run, monkeypatch, seconds, words):
    monkeypatch.setattr(Progress, "seconds_left", lambda _: seconds)
    assert words in time_left_text(Progress(run, ["deepsurv"], at_once=1))


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


def test_a_missing_tensorboard_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        Board(tmp_path)


def test_rows_that_are_fitted_besides_are_named_with_why(run):
    assert fitted_besides(run, ["cds_crops"]) == [
        f"{name} is fitted too: notebook 04 compares cds_crops with it"
        for name in ("true_risk", "cox_ph", "deepsurv")
    ]
    told = fitted_besides(run, ["cds_crops_lf", "cox_ph_vf", "deepsurv_vf", "true_risk"])
    assert "deepsurv is fitted too: cds_crops_lf takes it over" in told
    assert "cds_crops is fitted too: cds_crops_lf takes it over" in told
    assert len(told) == 3  # and Cox regression
    assert fitted_besides(run, ["true_risk"]) == []
    assert fitted_besides(run, run.runnable()) == []
    told = fitted_besides(run, ["cox_ph"])
    assert told == [f"{name} is fitted too: notebook 03 compares all rows without an image" for name in
                    ("true_risk", *(name for name in run.tabular() if name != "cox_ph"))]  # fmt: skip
