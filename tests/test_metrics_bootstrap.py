"""The bootstrap against loops over resampled rows; intervals, paired differences, p-values and their adjustment."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from sksurv.metrics import brier_score as sksurv_brier
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv

from fracsurv import metrics
from fracsurv.metrics import bootstrap, concordance, draw_counts, holm, paired_p, percentile_interval, resampled

ENGINE = importlib.import_module("fracsurv.metrics.bootstrap")  # `metrics.bootstrap` is the function
HORIZONS = np.array([365.0, 1096.0, 1826.0, 2922.0])
GRID = np.linspace(200.0, 1826.0, 9)
AT = 1200.0
ASKED = ("c_index", "c_index_ipcw", ("auc", AT), ("auc_thesis", AT), ("brier", AT))


def draw(seed, n, *, tied=False):
    """Event, time and three risks; scikit-survival takes near ties for ties, so some are rounded."""
    rng = np.random.default_rng(seed)
    hazard, left = rng.normal(size=n), rng.uniform(300, 2900, n)
    died = rng.exponential(2500 * np.exp(-0.7 * hazard))
    time = np.minimum(died, left)
    risks = {"good": hazard, "noisy": hazard + rng.normal(size=n), "coarse": hazard.round()}
    return died <= left, np.ceil(time / 50) * 50 if tied else time, risks


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def models(request):
    """Three models of three training folds, the last of which ends early, and the patients evaluated on."""
    drawn = [draw(seed, 150, tied=request.param) for seed in range(3)]
    folds = [(event, time, risks["noisy"]) for event, time, risks in drawn]
    folds[2] = tuple(column[folds[2][1] < 2000] for column in folds[2])
    event, time, risks = draw(7, 80, tied=request.param)
    return folds, event, time, np.stack([risks["noisy"], -risks["noisy"], risks["coarse"]])


def run(models, **options):
    folds, event, time, risks = models
    return metrics.bootstrap_metrics(*zip(*folds, strict=True), event, time, risks, HORIZONS, **options)


@pytest.mark.parametrize("chunk", [10**7, 80 * 4], ids=["one chunk", "four draws a chunk"])
@pytest.mark.parametrize("own_censoring", [False, True])
def test_fold_models_draws_are_evaluate_of_resampled_rows(models, monkeypatch, chunk, own_censoring):
    monkeypatch.setattr(ENGINE, "_CHUNK_ELEMENTS", chunk)
    folds, event, time, risks = models
    options = {"grid": GRID, "censoring": (event, time) if own_censoring else None}
    found = run(models, n_draws=9, seed=3, **options)
    counts, known = draw_counts(80, 9, seed=3), 0
    assert counts.sum(axis=0).tolist() == [80] * 9
    for k in range(9):
        rows = np.repeat(np.arange(80), counts[:, k])
        for model, fold in enumerate(folds):
            expected = metrics.evaluate(*fold, event[rows], time[rows], risks[model, rows], HORIZONS, **options)
            assert {key: values[k, model] for key, values in found.items()} == pytest.approx(
                expected, rel=1e-10, abs=1e-12, nan_ok=True
            )
            known += np.isfinite(list(expected.values())).sum()
    assert known == 9 * 3 * 13  # all but AUC and Brier score at 2,922 days


def test_given_censoring_changes_the_weighted_metrics_alone(models):
    _, event, time, _ = models
    one, other = (run(models, grid=GRID, n_draws=2, seed=1, censoring=by) for by in (None, (event, time)))
    changed = {key[0] for key in one if not np.allclose(one[key], other[key], rtol=1e-9, equal_nan=True)}
    assert changed == {"c_index_ipcw", "auc", "mean_auc", "brier", "integrated_brier"}


def test_the_grid_of_each_model_is_the_one_of_evaluate(models):
    folds, event, time, risks = models
    found = run(models, n_draws=2, seed=0)
    rows = np.repeat(np.arange(80), draw_counts(80, 2, seed=0)[:, 1])
    for model, fold in enumerate(folds):
        grid = metrics.integration_grid(metrics.usable_horizons(fold[0], fold[1], time, HORIZONS))
        expected = metrics.evaluate(*fold, event[rows], time[rows], risks[model, rows], HORIZONS, grid=grid)
        for key in (("integrated_brier", None), ("mean_auc", None)):
            assert found[key][1, model] == pytest.approx(expected[key], rel=1e-12)


def test_draws_without_an_answer_are_nan_and_the_others_are_not():
    # Two patients of ten have the event, two others are followed beyond 8.5; a draw holds neither of two with
    # probability 0.8^10 = 0.11.
    event, time, risk = np.arange(10) < 2, np.arange(1.0, 11.0), -np.arange(10.0)
    found = metrics.bootstrap_metrics(
        [event], [time], [risk], event, time, risk[None], [5.0, 8.5], grid=[3.0, 4.0], n_draws=200, seed=0
    )
    counts = draw_counts(10, 200, seed=0)
    no_event, no_follow_up = counts[event].sum(axis=0) == 0, counts[time > 8.5].sum(axis=0) == 0
    assert 5 < no_event.sum() < 60
    assert 5 < no_follow_up.sum() < 60
    for key in (("c_index", None), ("c_index_ipcw", None), ("auc", 5.0), ("mean_auc", None)):
        np.testing.assert_array_equal(np.isnan(found[key][:, 0]), no_event)
        assert (found[key][~no_event] == 1.0).all()
    np.testing.assert_array_equal(np.isnan(found["auc", 8.5][:, 0]), no_event | no_follow_up)
    np.testing.assert_array_equal(np.isnan(found["brier", 8.5][:, 0]), no_follow_up)
    assert np.isfinite(found["integrated_brier", None]).all()


def test_spread_is_that_of_samples():
    # The SD over draws against the SD over 300 fresh samples of the same size: each is known to about 5 %.
    def sample(seed):
        event, time, risks = draw(seed, 200)
        return event, time, risks["noisy"]

    fresh = [metrics.concordance_index(*sample(seed)) for seed in range(100, 400)]
    drawn = bootstrap(*sample(2)[:2], {"m": sample(2)[2]}, n_draws=300).draws
    assert drawn.std() == pytest.approx(np.std(fresh), rel=0.2)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("route", ["matrix", "passes"])
def test_every_draw_is_scikit_survivals_of_the_drawn_rows(tied, route, monkeypatch):
    if route == "passes":
        monkeypatch.setattr(concordance, "_SMALL", 0)
        monkeypatch.setattr(concordance, "_DENSE", 0)
    event, time, risks = draw(1, 90, tied=tied)
    train = draw(2, 300, tied=tied)[:2]
    train[1][0] = 3000.0  # scikit-survival wants training follow-up to reach further than the test's
    train[0][0] = False
    surv = {name: np.exp(-np.exp(risk) * AT / 2500) for name, risk in risks.items()}
    found = bootstrap(event, time, risks, metrics=ASKED, n_draws=20, seed=5, train=train, surv=surv)
    assert found.draws.shape == (20, 3, 5)
    counts = draw_counts(90, 20, 5)
    for k in range(-1, 20):
        rows = np.arange(90) if k < 0 else np.repeat(np.arange(90), counts[:, k])
        sample, base = Surv.from_arrays(event[rows], time[rows]), Surv.from_arrays(*train)
        for model, (name, risk) in enumerate(risks.items()):
            expected = [
                concordance_index_censored(event[rows], time[rows], risk[rows])[0],
                concordance_index_ipcw(base, sample, risk[rows])[0],
                cumulative_dynamic_auc(base, sample, risk[rows], [AT])[0][0],
                metrics.auc_censored_as_nonevent(event[rows], time[rows], risk[rows], AT),
                sksurv_brier(base, sample, surv[name][rows], AT)[1][0],
            ]
            mine = found.estimate[model] if k < 0 else found.draws[k, model]
            np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [40, 700])
def test_the_matrix_and_the_passes_count_alike(n, monkeypatch):
    event, time, risks = draw(3, n, tied=True)
    counts = draw_counts(n, 20, 1).astype(float)
    by_matrix = concordance.pair_counts(event, time, risks["coarse"], counts)
    monkeypatch.setattr(concordance, "_SMALL", 0)
    monkeypatch.setattr(concordance, "_DENSE", 0)
    by_passes = concordance.pair_counts(event, time, risks["coarse"], counts)
    for one, other in zip(by_matrix, by_passes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_intervals_differences_and_the_table_are_those_of_the_draws():
    event, time, risks = draw(4, 120)
    found = bootstrap(event, time, risks, metrics=["c_index", ("auc_thesis", AT)], n_draws=200, seed=2)
    low_high = np.percentile(found.draws[:, :, 0], [2.5, 97.5], axis=0).T
    np.testing.assert_allclose(found.interval()[:, 0], low_high, rtol=1e-12)
    np.testing.assert_allclose(found.interval(0.5)[1, 0], np.percentile(found.draws[:, 1, 0], [25, 75]), rtol=1e-12)
    difference, interval, p = found.difference("noisy")
    assert difference[0, 0] == found.estimate[0, 0] - found.estimate[1, 0]
    paired = found.draws[:, 0, 0] - found.draws[:, 1, 0]
    np.testing.assert_allclose(interval[0, 0], np.percentile(paired, [2.5, 97.5]), rtol=1e-12)
    assert p[0, 0] == pytest.approx(min(1, 2 * (min((paired <= 0).sum(), (paired >= 0).sum()) + 1) / 201))
    assert (difference[1, 0], p[1, 0], *interval[1, 0]) == (0, 1, 0, 0)
    table = found.table("noisy")
    assert table.index.tolist() == [(model, name) for model in risks for name in ("c_index", "auc_thesis at 1200")]
    np.testing.assert_array_equal(table["estimate"], found.estimate.ravel())
    np.testing.assert_array_equal(table[["low", "high"]], found.interval().reshape(6, 2))
    np.testing.assert_array_equal(table[["difference", "p"]], np.stack([difference, p], -1).reshape(6, 2))
    np.testing.assert_array_equal(table[["difference_low", "difference_high"]], interval.reshape(6, 2))
    assert list(found.table()) == ["estimate", "low", "high"]


def test_models_share_the_draws_the_seed_decides_them_and_chunks_do_not(monkeypatch):
    event, time, risks = draw(5, 60)
    risks["reverse"] = -risks["good"]
    found = bootstrap(event, time, risks, n_draws=30, seed=1)
    np.testing.assert_allclose(found.draws[:, 0, 0] + found.draws[:, 3, 0], 1, rtol=1e-12)
    monkeypatch.setattr(ENGINE, "_CHUNK_ELEMENTS", 60 * 7)
    again, other = (bootstrap(event, time, {"good": risks["good"]}, n_draws=30, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(again.draws[:, 0], found.draws[:, 0])
    assert (other.draws != again.draws).any()


def test_draws_without_an_answer_give_no_interval_and_no_p():
    event, time = np.arange(10) < 1, np.arange(1.0, 11)
    found = bootstrap(event, time, {"a": -time, "b": time}, n_draws=100, seed=0)
    assert 20 < np.isnan(found.draws[:, 0, 0]).sum() < 50  # a third of the draws hold no event
    assert np.isnan(found.interval()).all()
    _, interval, p = found.difference("b")
    assert np.isnan(interval).all()
    assert np.isnan(p).all()
    assert found.estimate[:, 0].tolist() == [1, 0]


def test_each_brier_score_has_its_own_probabilities_and_none_beyond_follow_up():
    event, time, risks = draw(8, 80)
    train, risks = draw(9, 300)[:2], {"a": risks["good"]}
    times = (1500.0, 600.0)  # in any order
    surv = np.random.default_rng(0).uniform(size=(80, 2))
    asked = [("brier", at) for at in times]
    found = bootstrap(event, time, risks, metrics=asked, n_draws=3, train=train, surv={"a": surv})
    expected = metrics.brier_score(*train, event, time, surv[:, ::-1], times[::-1])
    np.testing.assert_allclose(found.estimate[0], expected[::-1], rtol=1e-12)
    unknown = surv.copy()
    unknown[:, 1] = np.nan  # what `breslow_survival` gives beyond the training follow-up
    asked[1:] = [("brier", 1e6), ("auc", 1e6)]
    found = bootstrap(event, time, risks, metrics=asked, n_draws=3, train=train, surv={"a": unknown})
    assert np.isfinite(found.draws[:, 0, 0]).all()
    assert np.isnan([*found.estimate[0, 1:], *found.draws[:, 0, 1:].ravel()]).all()


def test_a_draw_that_nobody_outlives_has_no_brier_score():
    event, time, risk = np.arange(10) < 5, np.arange(1.0, 11.0), {"a": np.zeros(10)}
    train, surv = (event, np.where(event, time, time + 5)), {"a": np.full(10, 0.5)}
    found = bootstrap(event, time, risk, metrics=[("brier", 9.5)], n_draws=100, train=train, surv=surv)
    nobody = draw_counts(10, 100, 0)[9] == 0
    assert 20 < nobody.sum() < 60
    np.testing.assert_array_equal(np.isnan(found.draws[:, 0, 0]), nobody)


def test_an_interval_and_a_p_need_95_of_100_draws():
    draws = np.linspace(0, 1, 200)
    assert percentile_interval(draws) == pytest.approx((0.025, 0.975))
    draws[:10] = np.nan
    assert percentile_interval(draws) == pytest.approx(np.percentile(draws[10:], [2.5, 97.5]))
    draws[:11] = np.nan
    assert np.isnan(percentile_interval(draws)).all()
    assert np.isnan(paired_p(draws))
    some = np.r_[np.full(12, -0.1), np.full(183, 0.1), np.full(5, np.nan)]
    assert paired_p(some) == pytest.approx(2 * 13 / 196)
    assert paired_p(np.r_[np.ones(97), -1.0, 0.0, 2.0]) == pytest.approx(2 * 3 / 101)
    assert paired_p(np.zeros(50)) == 1


def test_draws_that_are_all_the_same_give_no_interval():
    """A C-index of 1 in four patients is not known without error; two models that agree differ by 0."""
    for value in (1.0, 0.0, 0.5):
        assert np.isnan(percentile_interval(np.full(100, value))).all()
    assert np.isnan(percentile_interval(np.r_[np.full(99, 1.0), 1 - 1e-15])).all()
    assert percentile_interval(np.zeros(100), paired=True).tolist() == [0, 0]
    assert np.isnan(percentile_interval(np.full(100, 0.5), paired=True)).all()
    perfect = bootstrap([1, 1, 1, 1, 0], np.arange(5.0), {"a": -np.arange(5), "b": -np.arange(5)}, n_draws=200)
    assert perfect.estimate[0, 0] == 1
    assert perfect.difference("a")[1][1, 0].tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_its_definition(seed):
    p = np.random.default_rng(seed).random(7).round(1)
    order = np.argsort(p, kind="stable")
    wanted = np.empty(7)
    for place, i in enumerate(order):  # the largest of the steps so far, at most 1
        wanted[i] = min(1.0, max((7 - k) * p[order[k]] for k in range(place + 1)))
    np.testing.assert_allclose(holm(p), wanted, atol=1e-15)
    assert (holm(p) >= p).all()


def test_holm_leaves_out_what_has_no_answer():
    np.testing.assert_allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])
    assert holm([]).shape == (0,)
    assert np.isnan(holm([np.nan])).all()


def test_holm_errs_in_5_of_100_families_without_any_effect():
    rng = np.random.default_rng(1)
    false = np.mean([(holm(rng.random(10)) < 0.05).any() for _ in range(4000)])
    assert 0.04 < false < 0.06


def test_resampled_is_the_loop_over_counts():
    values = np.random.default_rng(2).random(12)
    found = resampled(lambda rows: [values[rows].mean(), values[rows].max()], 12, 9, seed=3)
    wanted = [[np.average(values, weights=c), values[c > 0].max()] for c in draw_counts(12, 9, 3).T]
    np.testing.assert_allclose(found, wanted)


GOOD = {"event": [1, 0, 1], "time": [1.0, 2.0, 3.0], "risks": {"a": [1.0, 2.0, 3.0]}, "n_draws": 3}
TRAIN = {"train": ([1, 0], [1.0, 4.0])}
BRIER = {"metrics": [("brier", 2.0)], **TRAIN}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"risks": {}}, "risks"),
        ({"risks": {"a": [1.0]}}, r"risks\['a'\].*\(3,\)"),
        ({"risks": [[1.0, 2.0, 3.0]]}, "risks.*mapping.*list"),
        ({"metrics": ["c"]}, "'c'.*c_index_ipcw.*brier"),
        ({"metrics": ["auc"]}, r"'auc'.*\('auc', t\)"),
        ({"metrics": [("c_index", 3.0)]}, r"\('c_index', 3.0\)"),
        ({"metrics": []}, "metrics"),
        ({"metrics": ["c_index", "c_index"]}, "metrics.*once"),
        ({"metrics": [("auc_thesis", np.nan)]}, "auc_thesis.*finite.*nan"),
        ({"metrics": [("auc", 2.0)]}, r"\('auc', 2.0\).*train="),
        ({"metrics": "c_index"}, r"metrics must be a list.*\['c_index'\]"),
        (BRIER, "surv.*'a'"),
        (BRIER | {"surv": {"a": [0.1, 0.2]}}, r"surv\['a'\].*\(3, 1\).*\(2, 1\)"),
        ({"n_draws": -1}, "n_draws.*-1"),
        ({"seed": None}, "seed.*None"),
        ({"train": ([1, 0], [1.0, 4.0], [0, 0])}, "train.*pair"),
    ],
)
def test_refuses(change, named):
    with pytest.raises(ValueError, match=named):
        bootstrap(**GOOD | change)


def test_refuses_what_is_not_there(models):
    found = bootstrap(**GOOD)
    with pytest.raises(ValueError, match=r"reference 'b'.*a"):
        found.difference("b")
    with pytest.raises(ValueError, match=r"level.*95"):
        found.interval(95)
    folds, event, time, risks = models
    with pytest.raises(ValueError, match=r"risks.*\(n_models, 80\)"):
        run((folds[:2], event, time, risks), n_draws=1, seed=0)
    with pytest.raises(ValueError, match=r"n_draws.*0"):
        run(models, n_draws=0, seed=0)
