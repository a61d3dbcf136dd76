"""`bootstrap` against the loop over scikit-survival, and its intervals, differences and p-values."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sksurv.metrics import brier_score as sksurv_brier
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv

from fracsurv import metrics
from fracsurv.metrics import bootstrap, concordance, draw_counts

AT = 1200.0
ASKED = ("c_index", "c_index_ipcw", ("auc", AT), ("auc_thesis", AT), ("brier", AT))


def draw(seed, n, *, tied=False):
    rng = np.random.default_rng(seed)
    hazard, left = rng.normal(size=n), rng.uniform(300, 2900, n)
    died = rng.exponential(2500 * np.exp(-0.7 * hazard))
    time = np.minimum(died, left)
    # scikit-survival takes near ties for ties, so that risks are rounded where there shall be some
    risks = {"good": hazard, "noisy": hazard + rng.normal(size=n), "coarse": hazard.round()}
    return died <= left, np.ceil(time / 50) * 50 if tied else time, risks


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


def test_intervals_and_differences_are_percentiles_of_the_same_draws():
    event, time, risks = draw(4, 120)
    found = bootstrap(event, time, risks, n_draws=200, seed=2)
    np.testing.assert_allclose(
        found.interval()[:, 0], np.percentile(found.draws[:, :, 0], [2.5, 97.5], axis=0).T, rtol=1e-12
    )
    np.testing.assert_allclose(found.interval(0.5)[1, 0], np.percentile(found.draws[:, 1, 0], [25, 75]), rtol=1e-12)
    difference, interval, p = found.difference("noisy")
    assert difference[0, 0] == found.estimate[0, 0] - found.estimate[1, 0]
    paired = found.draws[:, 0, 0] - found.draws[:, 1, 0]
    np.testing.assert_allclose(interval[0, 0], np.percentile(paired, [2.5, 97.5]), rtol=1e-12)
    assert p[0, 0] == pytest.approx(min(1, 2 * (min((paired <= 0).sum(), (paired >= 0).sum()) + 1) / 201))
    assert (difference[1, 0], p[1, 0]) == (0, 1)
    assert interval[1, 0].tolist() == [0, 0]


def test_models_share_the_draws_and_the_seed_decides_them():
    event, time, risks = draw(5, 60)
    risks["reverse"] = -risks["good"]
    found = bootstrap(event, time, risks, n_draws=30, seed=1)
    np.testing.assert_allclose(found.draws[:, 0, 0] + found.draws[:, 3, 0], 1, rtol=1e-12)
    again, other = (bootstrap(event, time, {"good": risks["good"]}, n_draws=30, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(again.draws[:, 0], found.draws[:, 0])
    assert (other.draws != again.draws).any()


def test_draws_in_parts_are_the_same_draws(monkeypatch):
    event, time, risks = draw(6, 50)
    whole = bootstrap(event, time, risks, n_draws=25, seed=3)
    monkeypatch.setattr(sys.modules["fracsurv.metrics.bootstrap"], "_CHUNK_ELEMENTS", 50 * 7)
    np.testing.assert_array_equal(bootstrap(event, time, risks, n_draws=25, seed=3).draws, whole.draws)


def test_draws_without_an_answer_give_no_interval_and_no_p():
    event, time = np.arange(10) < 1, np.arange(1.0, 11)
    found = bootstrap(event, time, {"a": -time, "b": time}, n_draws=100, seed=0)
    assert 20 < np.isnan(found.draws[:, 0, 0]).sum() < 50  # a third of the draws hold no event
    assert np.isnan(found.interval()).all()
    _, interval, p = found.difference("b")
    assert np.isnan(interval).all()
    assert np.isnan(p).all()
    assert found.estimate[:, 0].tolist() == [1, 0]


def test_a_time_that_follow_up_does_not_reach_is_nan():
    event, time, risks = draw(7, 60)
    train = event[time < 1000], time[time < 1000]
    asked = (("auc", AT), ("brier", AT))
    surv = dict.fromkeys(risks, np.full(60, 0.5))
    found = bootstrap(event, time, risks, metrics=asked, n_draws=5, train=train, surv=surv)
    assert np.isnan(found.estimate).all()
    assert np.isnan(found.draws).all()


def test_each_brier_metric_has_its_own_probabilities():
    event, time, risks = draw(8, 80)
    train, risks = draw(9, 300)[:2], {"a": risks["good"]}
    times = (600.0, 1500.0)
    surv = np.random.default_rng(0).uniform(size=(80, 2))
    asked = [("brier", at) for at in times]
    found = bootstrap(event, time, risks, metrics=asked, n_draws=3, train=train, surv={"a": surv})
    np.testing.assert_allclose(found.estimate[0], metrics.brier_score(*train, event, time, surv, times), rtol=1e-12)
    unknown = surv.copy()
    unknown[:, 1] = np.nan  # what `breslow_survival` gives beyond the training follow-up
    asked[1] = ("brier", 1e6)
    found = bootstrap(event, time, risks, metrics=asked, n_draws=3, train=train, surv={"a": unknown})
    assert np.isfinite(found.estimate[0, 0])
    assert np.isnan(found.estimate[0, 1])


def test_a_draw_that_nobody_outlives_has_no_brier_score():
    event, time, risk = np.arange(10) < 5, np.arange(1.0, 11.0), {"a": np.zeros(10)}
    asked = [("brier", 9.5)]
    train = (event, np.where(event, time, time + 5))
    found = bootstrap(event, time, risk, metrics=asked, n_draws=100, train=train, surv={"a": np.full(10, 0.5)})
    nobody = draw_counts(10, 100, 0)[9] == 0
    assert 20 < nobody.sum() < 60
    np.testing.assert_array_equal(np.isnan(found.draws[:, 0, 0]), nobody)


def test_p_counts_the_answered_draws():
    draws = np.full((200, 2, 1), 0.5)
    draws[:, 0, 0] += np.where(np.arange(200) < 12, -0.1, 0.1)
    draws[195:] = np.nan
    found = metrics.Bootstrap(("a", "b"), ("c_index",), np.array([[0.6], [0.5]]), draws)
    assert found.difference("b")[2][0, 0] == pytest.approx(2 * 13 / 196)


def test_a_table_says_what_the_arrays_say():
    event, time, risks = GOOD["event"], GOOD["time"], {"a": GOOD["risks"]["a"], "b": [0.3, 0.1, 0.2]}
    found = bootstrap(event, time, risks, metrics=["c_index", ("auc_thesis", 2.0)], n_draws=60)
    table = found.table("b")
    assert table.index.tolist() == [(model, name) for model in "ab" for name in ("c_index", "auc_thesis at 2")]
    np.testing.assert_array_equal(table["estimate"], found.estimate.ravel())
    np.testing.assert_array_equal(table[["low", "high"]], found.interval().reshape(4, 2))
    difference, interval, p = found.difference("b")
    np.testing.assert_array_equal(table[["difference", "p"]], np.stack([difference, p], -1).reshape(4, 2))
    np.testing.assert_array_equal(table[["difference_low", "difference_high"]], interval.reshape(4, 2))
    assert list(found.table()) == ["estimate", "low", "high"]


def test_too_many_unanswered_draws_give_no_interval():
    draws = np.linspace(0, 1, 200)
    assert metrics.percentile_interval(draws) == pytest.approx((0.025, 0.975))
    draws[:10] = np.nan
    assert metrics.percentile_interval(draws) == pytest.approx(np.percentile(draws[10:], [2.5, 97.5]))
    draws[:11] = np.nan
    assert np.isnan(metrics.percentile_interval(draws)).all()


GOOD = {"event": [1, 0, 1], "time": [1.0, 2.0, 3.0], "risks": {"a": [1.0, 2.0, 3.0]}, "n_draws": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"risks": {}}, "risks must hold at least one model"),
        ({"risks": {"a": [1.0, np.nan, 2.0]}}, r"risks\['a'\] must be finite, got risks\['a'\]\[1\] = nan"),
        ({"risks": {"a": [1.0]}}, r"risks\['a'\] must have one value a patient"),
        ({"metrics": ("c",)}, "metric 'c' is unknown; one of c_index, c_index_ipcw, or, with a time, of auc"),
        ({"metrics": ("auc",)}, r"metric 'auc' needs a time: \('auc', t\)"),
        ({"metrics": (("c_index", 3.0),)}, r"metric \('c_index', 3.0\) is unknown"),
        ({"metrics": ()}, "metrics must be at least one, each once"),
        ({"metrics": ("c_index", "c_index")}, "metrics must be at least one, each once"),
        ({"metrics": (("auc_thesis",),)}, r"metric \('auc_thesis',\) must be a name and a time"),
        ({"metrics": (("auc_thesis", np.nan),)}, r"the time of metric .* must be one finite time, got nan"),
        ({"metrics": (("auc", 2.0),)}, r"metric \('auc', 2.0\) is weighted for censoring: give train="),
        ({"metrics": (("brier", 2.0),), "train": ([1, 0], [1.0, 4.0])}, "surv has no probabilities of 'a'"),
        (
            {"metrics": (("brier", 2.0),), "train": ([1, 0], [1.0, 4.0]), "surv": {"a": [0.1, 0.2]}},
            r"surv\['a'\] must have a row a patient .* shape \(3, 1\) wanted, got \(2, 1\)",
        ),
        (
            {"metrics": (("brier", 2.0),), "train": ([1, 0], [1.0, 4.0]), "surv": {"a": [0.1, 1.5, np.nan]}},
            r"surv\['a'\] must be probabilities, got surv\['a'\]\[1, 0\] = 1.5",
        ),
        ({"n_draws": -1}, "n_draws must be a whole number, at least 1, got -1"),
        ({"n_draws": 10.5}, "n_draws must be a whole number, at least 1, got 10.5"),
        ({"seed": None}, "seed must be a whole number, at least 0, got None"),
        ({"metrics": "c_index"}, r"metrics must be a list, got 'c_index'; \['c_index'\] is one"),
        ({"metrics": ("auc_thesis", 2.0)}, r"metrics must be a list, got \('auc_thesis', 2.0\)"),
        ({"risks": [[1.0, 2.0, 3.0]]}, "risks must be a mapping of models' names to arrays, got list"),
        ({"surv": [[0.1, 0.2, 0.3]]}, "surv must be a mapping of models' names to arrays, got list"),
        ({"train": ([1, 0], [1.0, 4.0], [0, 0])}, r"train must be a pair \(event_train, time_train\)"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(**GOOD | change)


def test_refuses_an_unknown_reference_and_level():
    found = bootstrap(**GOOD)
    with pytest.raises(ValueError, match="reference 'b' is not one of the models: a"):
        found.difference("b")
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        found.interval(95)
