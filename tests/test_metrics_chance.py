"""What chance makes: the spread of C without knowledge, p-values of differences, and their adjustment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fracsurv.metrics import (
    concordance_index,
    concordance_sd_by_chance,
    draw_counts,
    holm,
    net_benefit,
    paired_p,
    resampled,
)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied times"])
def test_spread_by_chance_is_that_of_all_orders(seed, tied):
    rng = np.random.default_rng(seed)
    event, time = rng.random(6) < 0.6, rng.integers(1, 4, 6).astype(float) if tied else rng.random(6)
    event[np.argmin(time)] = True
    values = [concordance_index(event, time, order) for order in itertools.permutations(range(6))]
    if np.isnan(values).any():
        assert np.isnan(concordance_sd_by_chance(event, time))
    else:
        assert np.mean(values) == pytest.approx(0.5, abs=1e-12)
        assert concordance_sd_by_chance(event, time) == pytest.approx(np.std(values), abs=1e-12)


def test_95_of_100_deals_fall_within():
    rng = np.random.default_rng(0)
    time, event = rng.exponential(size=300), rng.random(300) < 0.4
    sd = concordance_sd_by_chance(event, time)
    values = np.array([concordance_index(event, time, rng.permutation(300)) for _ in range(2000)])
    assert 0.93 < (np.abs(values - 0.5) < 1.96 * sd).mean() < 0.97


def test_no_pair_no_spread():
    assert np.isnan(concordance_sd_by_chance([False, False], [1.0, 2.0]))
    assert np.isnan(concordance_sd_by_chance([True, True], [1.0, 1.0]))


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


def test_paired_p_counts_the_draws_beyond_nothing():
    drawn = np.array([1.0] * 97 + [-1.0, 0.0, 2.0])
    assert paired_p(drawn) == pytest.approx(2 * 3 / 101)
    assert paired_p(np.zeros(50)) == 1
    assert np.isnan(paired_p(np.r_[np.ones(90), np.full(10, np.nan)]))


def test_resampled_is_the_loop_over_counts():
    values = np.random.default_rng(2).random(12)
    found = resampled(lambda rows: [values[rows].mean(), values[rows].max()], 12, 9, seed=3)
    counts = draw_counts(12, 9, 3)
    wanted = [[np.average(values, weights=c), values[c > 0].max()] for c in counts.T]
    np.testing.assert_allclose(found, wanted)


def test_net_benefit_of_true_probabilities_has_a_closed_form():
    rng = np.random.default_rng(4)
    rate = 0.08 * np.exp(0.8 * rng.normal(size=60_000))
    died, left = rng.exponential(1 / rate), rng.uniform(2, 14, rate.size)
    probability = 1 - np.exp(-5 * rate)  # of the event by 5
    thresholds = np.array([0.1, 0.2, 0.35, 0.5])
    found = net_benefit(died <= left, np.minimum(died, left), probability, 5.0, thresholds)
    for threshold, benefit in zip(thresholds, found, strict=True):
        gain = np.where(probability >= threshold, probability - (1 - probability) * threshold / (1 - threshold), 0.0)
        assert benefit == pytest.approx(gain.mean(), abs=0.005)
