"""The bootstrap against the loop that it replaces, draw by draw."""

from __future__ import annotations

import numpy as np
import pytest

from fracsurv import metrics
import sys

HORIZONS = np.array([365.0, 1096.0, 1826.0, 2922.0])
GRID = np.linspace(200.0, 1826.0, 9)


def draw(seed, n, *, tied):
    rng = np.random.default_rng(seed)
    hazard, left = rng.normal(size=n), rng.uniform(500, 2900, n)
    died = rng.exponential(2500 * np.exp(-0.7 * hazard))
    event, time = died <= left, np.minimum(died, left)
    risk = 0.7 * hazard + 0.5 * rng.normal(size=n)
    return (event, np.ceil(time / 50) * 50, risk.round(1)) if tied else (event, time, risk)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def models(request):
    """Three models of three training folds, the last of which ends early, and the patients judged."""
    folds = [draw(seed, 150, tied=request.param) for seed in range(3)]
    folds[2] = tuple(column[folds[2][1] < 2000] for column in folds[2])
    event, time, risk = draw(7, 80, tied=request.param)
    return folds, event, time, np.stack([risk, -risk, np.round(risk)])


def run(models, **options):
    folds, event, time, risks = models
    return metrics.bootstrap_metrics(*zip(*folds, strict=True), event, time, risks, HORIZONS, **options)


@pytest.mark.parametrize("chunk", [10**7, 80 * 4], ids=["one chunk", "four draws a chunk"])
def test_is_the_loop_over_resampled_rows(models, monkeypatch, chunk):
    monkeypatch.setattr(sys.modules["fracsurv.metrics.bootstrap"], "_CHUNK_ELEMENTS", chunk)
    folds, event, time, risks = models
    found = run(models, grid=GRID, n_draws=15, seed=3)
    counts = metrics.draw_counts(80, 15, seed=3)
    assert counts.sum(axis=0).tolist() == [80] * 15
    known = 0
    for k in range(15):
        rows = np.repeat(np.arange(80), counts[:, k])
        for model, fold in enumerate(folds):
            expected = metrics.evaluate(*fold, event[rows], time[rows], risks[model, rows], HORIZONS, grid=GRID)
            assert {key: values[k, model] for key, values in found.items()} == pytest.approx(
                expected, rel=1e-12, abs=1e-12, nan_ok=True
            )
            known += np.isfinite(list(expected.values())).sum()
    assert known == 15 * 3 * 13  # all but both AUC and Brier at 2,922 days


def test_the_grid_of_each_model_is_the_one_of_evaluate(models):
    folds, event, time, risks = models
    found = run(models, n_draws=2, seed=0)
    rows = np.repeat(np.arange(80), metrics.draw_counts(80, 2, seed=0)[:, 1])
    for model, fold in enumerate(folds):
        grid = metrics.integration_grid(metrics.usable_horizons(fold[0], fold[1], time, HORIZONS))
        expected = metrics.evaluate(*fold, event[rows], time[rows], risks[model, rows], HORIZONS, grid=grid)
        assert found["integrated_brier", None][1, model] == pytest.approx(
            expected["integrated_brier", None], rel=1e-12
        )
        assert found["mean_auc", None][1, model] == pytest.approx(expected["mean_auc", None], rel=1e-12)


def test_the_seed_decides_the_draws(models):
    first, again, other = (run(models, n_draws=3, seed=seed)["c_index", None] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    # Models share the draws: the second's risks are the first's reversed.
    np.testing.assert_allclose(first[:, 0] + first[:, 1], 1.0, rtol=1e-12)


def test_draws_without_an_answer_are_nan_and_the_others_are_not():
    # Two patients of ten have the event, two others are followed beyond 8.5; a draw holds neither of two with
    # probability 0.8^10 = 0.11.
    event, time, risk = np.arange(10) < 2, np.arange(1.0, 11.0), -np.arange(10.0)
    found = metrics.bootstrap_metrics(
        [event], [time], [risk], event, time, risk[None], [5.0, 8.5], grid=[3.0, 4.0], n_draws=200, seed=0
    )
    counts = metrics.draw_counts(10, 200, seed=0)
    no_event, no_follow_up = counts[event].sum(axis=0) == 0, counts[time > 8.5].sum(axis=0) == 0
    assert 5 < no_event.sum() < 60
    assert 5 < no_follow_up.sum() < 60
    for key in (("c_index", None), ("c_index_ipcw", None), ("auc", 5.0), ("mean_auc", None)):
        np.testing.assert_array_equal(np.isnan(found[key][:, 0]), no_event)
        assert (found[key][~no_event] == 1.0).all()
    np.testing.assert_array_equal(np.isnan(found["auc", 8.5][:, 0]), no_event | no_follow_up)
    np.testing.assert_array_equal(np.isnan(found["brier", 8.5][:, 0]), no_follow_up)
    assert np.isfinite(found["integrated_brier", None]).all()


def test_given_censoring_weights_every_model(models):
    folds, event, time, risks = models
    by = (event, time)
    drawn = run(models, grid=GRID, n_draws=4, seed=1, censoring=by)
    counts = metrics.draw_counts(len(time), 4, 1)
    for model, fold in enumerate(folds):
        rows = np.repeat(np.arange(len(time)), counts[:, 2])
        patients = (event[rows], time[rows], risks[model, rows])
        expected = metrics.evaluate(*fold, *patients, HORIZONS, grid=GRID, censoring=by)
        other = metrics.evaluate(*fold, *patients, HORIZONS, grid=GRID)
        for key, value in expected.items():
            np.testing.assert_allclose(drawn[key][2, model], value, rtol=1e-10)
        changed = {
            metric
            for (metric, _), value in expected.items()
            if value != pytest.approx(other[metric, _], rel=1e-9, nan_ok=True)
        }
        assert changed == {"c_index_ipcw", "auc", "mean_auc", "brier", "integrated_brier"}


def test_spread_is_that_of_samples():
    # The SD over draws against the SD over 300 fresh samples of the same size: each is known to about 5 %.
    train = draw(1, 400, tied=False)
    fresh = [metrics.concordance_index(*draw(seed, 200, tied=False)) for seed in range(100, 400)]
    event, time, risk = draw(2, 200, tied=False)
    drawn = metrics.bootstrap_metrics(
        *([column] for column in train), event, time, risk[None], HORIZONS, n_draws=300, seed=0
    )
    assert drawn["c_index", None].std() == pytest.approx(np.std(fresh), rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_draws": 0, "seed": 0}, "n_draws must be at least 1, got 0")],
)
def test_refuses(models, options, message):
    with pytest.raises(ValueError, match=message):
        run(models, **options)


def test_refuses_a_model_without_a_fold(models):
    folds, event, time, risks = models
    with pytest.raises(ValueError, match=r"risks must be of shape \(n_models, 80\) with a training fold for each"):
        run((folds[:2], event, time, risks), n_draws=1, seed=0)
