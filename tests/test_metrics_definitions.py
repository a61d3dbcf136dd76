"""Every metric against its definition written as a loop, with ties everywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fracsurv import metrics
from tests import oracles


@st.composite
def samples(draw, min_size=1, max_size=14):
    """Event, time and risk with ties in both."""
    n = draw(st.integers(min_size, max_size))
    event = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    time = draw(st.lists(st.integers(0, 7), min_size=n, max_size=n))
    risk = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    return np.array(event), np.array(time, dtype=float), np.array(risk, dtype=float) / 2


@given(sample=samples())
@settings(max_examples=200, deadline=None)
def test_concordance_counts_are_those_of_the_double_loop(sample):
    found = metrics.concordance_counts(*sample)
    *expected, index = oracles.concordance(*sample)
    assert [found.concordant, found.discordant, found.tied_risk, found.tied_time] == expected
    assert metrics.concordance_index(*sample) == pytest.approx(index, rel=1e-14, nan_ok=True)


def test_concordance_counts_of_many_patients():
    # Enough for eleven bits of rank, most risks and times tied.
    rng = np.random.default_rng(1)
    event, time, risk = rng.random(600) < 0.4, rng.integers(1, 90, 600), rng.normal(size=600)
    risk[::3] = risk[::3].round(1)
    found = metrics.concordance_counts(event, time, risk)
    *expected, _ = oracles.concordance(event, time, risk)
    assert [found.concordant, found.discordant, found.tied_risk, found.tied_time] == expected


@given(train=samples(), test=samples(), tau=st.none() | st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_uno(train, test, tau):
    event, time, risk = test
    weight = [oracles.censoring_weight(train[0], train[1], t) ** 2 if tau is None or t < tau else 0.0 for t in time]
    expected = oracles.concordance(event, time, risk, weight)[-1]
    found = metrics.concordance_index_ipcw(train[0], train[1], event, time, risk, tau=tau)
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


@given(sample=samples(), censoring=st.booleans())
@settings(max_examples=100, deadline=None)
def test_kaplan_meier(sample, censoring):
    times, survival = metrics.kaplan_meier(sample[0], sample[1], censoring=censoring)
    assert times.tolist() == sorted(set(sample[1]))
    expected = [oracles.kaplan_meier(sample[0], sample[1], t, censoring=censoring) for t in times]
    np.testing.assert_allclose(survival, expected, rtol=1e-12, atol=1e-15)


TIMES = np.array([0.5, 2.0, 3.5, 5.0, 6.0])


def reached(train, test, at):
    """Whether there is an answer: G known and above zero, and somebody in the test fold followed beyond."""
    return oracles.censoring_weight(train[0], train[1], at) > 0 and at < max(test[1])


@given(train=samples(), test=samples())
@settings(max_examples=150, deadline=None)
def test_auc_and_its_mean(train, test):
    event, time, risk = test
    weight = [oracles.censoring_weight(train[0], train[1], t) for t in time]
    expected = np.array(
        [oracles.auc(event, time, risk, t, weight) if reached(train, test, t) else np.nan for t in TIMES]
    )
    found, mean = metrics.cumulative_dynamic_auc(train[0], train[1], event, time, risk, TIMES)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    survival = np.array([1.0] + [oracles.kaplan_meier(event, time, t) for t in TIMES])
    fall = survival[:-1] - survival[1:]
    terms = [a * f for a, f in zip(expected, fall, strict=True) if f > 0]
    assert mean == pytest.approx(sum(terms) / fall.sum() if terms else np.nan, rel=1e-12, nan_ok=True)


@given(sample=samples(), at=st.integers(0, 8))
@settings(max_examples=100, deadline=None)
def test_auc_censored_as_nonevent(sample, at):
    expected = oracles.auc(*sample, at)
    assert metrics.auc_censored_as_nonevent(*sample, at) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@given(train=samples(), test=samples(), seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_brier(train, test, seed):
    event, time, _ = test
    surv = np.sort(np.random.default_rng(seed).random((len(time), len(TIMES))))[:, ::-1]
    expected = np.array(
        [
            oracles.brier(train[0], train[1], event, time, surv[:, k], t) if reached(train, test, t) else np.nan
            for k, t in enumerate(TIMES)
        ]
    )
    found = metrics.brier_score(train[0], train[1], event, time, surv, TIMES)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    integrated = metrics.integrated_brier_score(train[0], train[1], event, time, surv, TIMES)
    area = sum((expected[k] + expected[k + 1]) / 2 * (TIMES[k + 1] - TIMES[k]) for k in range(len(TIMES) - 1))
    assert integrated == pytest.approx(area / (TIMES[-1] - TIMES[0]), rel=1e-12, nan_ok=True)


@given(train=samples(), risk=st.lists(st.floats(-3, 3), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_breslow(train, risk):
    found = metrics.breslow_survival(*train, risk, TIMES)
    for i, r in enumerate(risk):
        expected = [oracles.breslow(*train, r, t) if t <= max(train[1]) else np.nan for t in TIMES]
        np.testing.assert_allclose(found[i], expected, rtol=1e-10)


@given(train=samples(), test=samples())
@settings(max_examples=60, deadline=None)
def test_usable_horizons(train, test):
    expected = [t for t in TIMES if reached(train, test, t)]
    assert metrics.usable_horizons(train[0], train[1], test[1], TIMES).tolist() == expected


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied times"])
def test_spread_by_chance_is_that_of_all_orders(seed, tied):
    rng = np.random.default_rng(seed)
    event, time = rng.random(6) < 0.6, rng.integers(1, 4, 6).astype(float) if tied else rng.random(6)
    event[np.argmin(time)] = True
    values = [metrics.concordance_index(event, time, order) for order in itertools.permutations(range(6))]
    if np.isnan(values).any():
        assert np.isnan(metrics.concordance_sd_by_chance(event, time))
    else:
        assert np.mean(values) == pytest.approx(0.5, abs=1e-12)
        assert metrics.concordance_sd_by_chance(event, time) == pytest.approx(np.std(values), abs=1e-12)


def test_95_of_100_deals_fall_within():
    rng = np.random.default_rng(0)
    time, event = rng.exponential(size=300), rng.random(300) < 0.4
    sd = metrics.concordance_sd_by_chance(event, time)
    values = np.array([metrics.concordance_index(event, time, rng.permutation(300)) for _ in range(2000)])
    assert 0.93 < (np.abs(values - 0.5) < 1.96 * sd).mean() < 0.97


def test_no_pair_no_spread():
    assert np.isnan(metrics.concordance_sd_by_chance([False, False], [1.0, 2.0]))
    assert np.isnan(metrics.concordance_sd_by_chance([True, True], [1.0, 1.0]))
