"""What the metrics do not change by, what they say where there is no answer, and what they refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from sksurv.metrics import concordance_index_censored

from fracsurv import metrics

HORIZONS = [2.0, 4.0, 6.0]


def draw(seed, n=60):
    """Patients with ties in time (1 … 8) and risk."""
    rng = np.random.default_rng(seed)
    return rng.random(n) < 0.5, rng.integers(1, 9, n).astype(float), rng.normal(size=n).round(1)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_row_order_does_not_matter(seed):
    train, test = draw(seed), draw(seed + 1)
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(60), rng.permutation(60)
    shuffled = metrics.evaluate(*(c[a] for c in train), *(c[b] for c in test), HORIZONS)
    assert shuffled == pytest.approx(metrics.evaluate(*train, *test, HORIZONS), rel=1e-10, nan_ok=True)


@given(seed=st.integers(0, 10_000), unit=st.sampled_from([1 / 365.25, 7.0, 1e4]))
@settings(max_examples=25, deadline=None)
def test_the_unit_of_time_does_not_matter(seed, unit):
    train, test = draw(seed), draw(seed + 1)
    in_unit = [(e, t * unit, r) for e, t, r in (train, test)]
    # The grid is the caller's, at half steps: a rounded product must not fall on the other side of a time.
    found = metrics.evaluate(*in_unit[0], *in_unit[1], np.array([2.5, 4.5]) * unit, grid=np.arange(0.5, 7) * unit)
    expected = metrics.evaluate(*train, *test, [2.5, 4.5], grid=np.arange(0.5, 7))
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-10, nan_ok=True)


@given(seed=st.integers(0, 10_000), change=st.sampled_from([np.exp, np.arctan, lambda r: 3 * r - 100]))
@settings(max_examples=25, deadline=None)
def test_discrimination_sees_only_the_order_of_risks(seed, change):
    train, (event, time, risk) = draw(seed), draw(seed + 1)
    expected, found = (
        [
            metrics.concordance_index(event, time, r),
            metrics.concordance_index_ipcw(train[0], train[1], event, time, r),
            *metrics.cumulative_dynamic_auc(train[0], train[1], event, time, r, HORIZONS)[0],
            metrics.auc_censored_as_nonevent(event, time, r, 4.0),
        ]
        for r in (risk, change(risk))
    )
    np.testing.assert_array_equal(found, expected)  # where there is no control by a time, both are NaN
    reverse = metrics.concordance_index(event, time, -risk)
    assert metrics.concordance_index(event, time, risk) + reverse == pytest.approx(1.0)


@given(seed=st.integers(0, 10_000), constant=st.floats(-100, 100))
@settings(max_examples=25, deadline=None)
def test_survival_is_a_probability_never_rises_falls_with_risk_and_ignores_a_constant(seed, constant):
    event, time, risk = draw(seed)
    times, new = np.arange(0.5, 8.1, 0.5), np.array([-2.0, 0.0, 2.0])
    surv = metrics.breslow_survival(event, time, risk, new, times[times <= time.max()])
    assert ((surv >= 0) & (surv <= 1)).all()
    assert (np.diff(surv, axis=0) <= 0).all()
    assert (np.diff(surv, axis=1) <= 0).all()
    moved = metrics.breslow_survival(event, time, risk + constant, new + constant, times[times <= time.max()])
    np.testing.assert_allclose(moved, surv, rtol=1e-9, atol=1e-12)


def test_survival_of_far_apart_risks():
    event, time = np.ones(4, dtype=bool), np.arange(1.0, 5.0)
    risk = np.array([1e4, 0.0, -1e4, 5.0])
    surv = metrics.breslow_survival(event, time, risk, risk, [0.5, 1.0, 2.0, 4.0])
    # Each denominator is its largest term, in turn e^1e4, e^0 + e^5 (+ 0), e^5, e^5.
    second = 1 / (1 + np.exp(5.0))
    fourth = second + 2 * np.exp(-5.0)
    expected = [
        [1.0, np.exp(-1.0), 0.0, 0.0],
        [1.0, 1.0, np.exp(-second), np.exp(-fourth)],
        [1.0, 1.0, 1.0, 1.0],
        [1.0, 1.0, np.exp(-second * np.exp(5.0)), np.exp(-fourth * np.exp(5.0))],
    ]
    np.testing.assert_allclose(surv, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "sample",
    [
        ([False, False, False], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([True], [1.0], [0.0]),
        ([True, True, True], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]),
    ],
    ids=["no events", "one patient", "all events at one time"],
)
def test_no_comparable_pair_has_no_concordance(sample):
    assert metrics.concordance_counts(*sample) == metrics.ConcordanceCounts(0, 0, 0, 0)
    assert np.isnan(metrics.concordance_index(*sample))
    assert np.isnan(metrics.concordance_index_ipcw([True, False], [1.0, 9.0], *sample))
    assert np.isnan(metrics.auc_censored_as_nonevent(*sample, 2.0))


def test_no_events_in_evaluate_leave_only_the_brier_score():
    train, (_, time, risk) = draw(1), draw(2)
    found = metrics.evaluate(*train, np.zeros(60, dtype=bool), time, risk, HORIZONS)
    known = {key for key, value in found.items() if np.isfinite(value)}
    assert known == {("brier", 2.0), ("brier", 4.0), ("brier", 6.0), ("integrated_brier", None)}


def test_equal_risks_are_a_coin():
    train, (event, time, _) = draw(1), draw(2)
    found = metrics.evaluate(*train, event, time, np.full(60, 1e4), HORIZONS)
    coins = [value for (name, _), value in found.items() if name in ("c_index", "c_index_ipcw", "auc", "mean_auc")]
    assert coins == pytest.approx([0.5] * 6, rel=1e-12)


# Training follow-up ends at 6; the test fold's goes on to 9, with an event at 8.
SHORT = np.array([1, 0, 1, 0], dtype=bool), np.array([1.0, 3.0, 4.0, 6.0])
LONG = (
    np.array([1, 1, 0, 1, 0], dtype=bool),
    np.array([2.0, 5.0, 5.5, 8.0, 9.0]),
    np.array([3.0, 1.0, 0.0, 2.0, -1.0]),
)


def test_evaluate_integrates_up_to_the_last_horizon_that_is_reached():
    train = (*SHORT, np.zeros(4))
    found = metrics.evaluate(*train, *LONG, [2.5, 5.2, 7.0])
    assert [key for key, value in found.items() if np.isnan(value)] == [("auc", 7.0), ("brier", 7.0)]
    grid = metrics.integration_grid([2.5, 5.2])
    assert grid[-1] == 5.2
    assert found["mean_auc", None] == metrics.cumulative_dynamic_auc(*SHORT, *LONG, grid)[1]


def test_evaluate_without_a_usable_horizon():
    found = metrics.evaluate(*SHORT, np.zeros(4), *LONG, [7.0, 8.0])
    known = {key for key, value in found.items() if np.isfinite(value)}
    assert {("c_index", None), ("c_index_ipcw", None)} <= known
    # the thesis's AUC asks nothing of the training fold
    assert {metric for metric, _ in known} <= {"c_index", "c_index_ipcw", "auc_thesis"}


E, T, R = [1, 0, 1], [1.0, 2.0, 3.0], [0.1, 0.2, 0.3]
S = [[0.9], [0.8], [0.7]]
DAYS = pd.to_timedelta(T, "D")
C, UNO, AUC, THESIS, BRIER = (
    metrics.concordance_index,
    metrics.concordance_index_ipcw,
    metrics.cumulative_dynamic_auc,
    metrics.auc_censored_as_nonevent,
    metrics.brier_score,
)


@pytest.mark.parametrize(
    ("metric", "arguments", "named"),
    [
        (C, (E, T, [0.0, np.nan, 1.0]), r"finite, got risk\[1\] = nan"),
        (C, (E, [1.0, 2.0, np.inf], R), r"finite, got time\[2\] = inf"),
        (C, (E, [1.0, -2.0, 3.0], R), r">= 0, got time\[1\] = -2.0"),
        (C, ([0, 2, 1], T, R), r"bool or 0/1, got event\[1\] = 2"),
        (C, (E, T, [0.1, 0.2]), r"risk.*\(3,\).*\(2,\)"),
        (C, (E[:2], T, R), r"event and time.*\(2,\) and \(3,\)"),
        (C, ([], [], []), "at least one patient"),
        (C, (E, DAYS, R), "time.*durations"),
        (C, (E, ["1", "2", "3"], R), "time.*<U1"),
        (C, (E, [1.0, "b", None], R), "time must be"),
        (C, (E, T, torch.zeros(3, requires_grad=True)), "risk must be numbers"),
        (C, (pd.array([True, None, False], dtype="boolean"), T, R), "event must be numbers"),
        (C, (np.zeros(3, [("e", bool), ("t", float)]), T, R), "event must be plain"),
        (UNO, (E, [1.0, 2.0, -1.0], E, T, R), r"time_train\[2\] = -1.0"),
        (UNO, (E, T, E, T, R, [1, 2]), r"tau.*\[1, 2"),
        (AUC, (E, T, E, T, R, [2.0, 1.0]), r"times.*increasing"),
        (THESIS, (E, T, R, np.nan), "at must.*nan"),
        (BRIER, (E, T, E, T, [[0.9], [1.8], [0.7]], [1.5]), r"\[0, 1\], got surv\[1, 0\] = 1.8"),
        (BRIER, (E, T, E, pd.Timestamp("2020-01-01") + DAYS, S, [1.5]), "time.*dates"),
        (metrics.integrated_brier_score, (E, T, E, T, S, [1.5]), "times.*two"),
        (metrics.breslow_survival, (E, T, R, [[0.0]], [1.0]), r"risk must.*\(1, 1\)"),
        (metrics.usable_horizons, (E, T, T, []), "horizons"),
        (metrics.integration_grid, ([0.0, 1.0],), "horizons.*above 0"),
    ],
)
def test_refuses(metric, arguments, named):
    with pytest.raises(ValueError, match=named):
        metric(*arguments)


def test_rounding_errors_are_no_probabilities_outside_0_and_1():
    event, time, train = [1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0], ([1, 0, 1, 0], [1.0, 2.0, 3.0, 5.0])
    surv = np.array([0.2, 1.0, 0.5, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    assert surv[3] > 1
    expected = metrics.brier_score(*train, event, time, surv.clip(0, 1), [2.5])
    for form in (surv, surv.astype(float), surv[:, None], torch.tensor(surv), pd.Series(surv), pd.DataFrame(surv)):
        assert metrics.brier_score(*train, event, time, form, [2.5]) == expected
    below = metrics.calibration(event, time, 1 - surv, 2.5, n_groups=1)
    assert below.intercept == metrics.calibration(event, time, (1 - surv).clip(0, 1), 2.5, n_groups=1).intercept
    assert metrics.events_ratio(event, np.array([0.5, -1e-7, 1, 1], np.float32)).value == pytest.approx(2 / 2.5)
    with pytest.raises(ValueError, match=r"surv\[\d, 0\] = 1.0000"):
        metrics.brier_score(*train, event, time, np.float32(1.00001) * surv, [2.5])


@pytest.mark.parametrize(
    "column", [lambda x: x[:, None], lambda x: pd.DataFrame(x), lambda x: torch.tensor(x)[:, None]]
)
def test_a_column_counts_as_one_value_a_patient(column):
    event, time, risk = draw(3)
    probability, at = 1 / (1 + np.exp(-risk)), 4.0
    plain, given = (event, time, risk), [column(each) for each in (event, time, risk)]
    assert metrics.evaluate(*given, *given, HORIZONS) == metrics.evaluate(*plain, *plain, HORIZONS)
    assert metrics.concordance_index(*given) == metrics.concordance_index(*plain)
    for times in ([4.0], HORIZONS):
        both = (metrics.cumulative_dynamic_auc(*each[:2], *each, times)[0] for each in (plain, given))
        np.testing.assert_array_equal(*both)
    found = [
        metrics.net_benefit(*each[:2], p, at, [0.4])
        for each, p in ((plain, probability), (given, column(probability)))
    ]
    np.testing.assert_array_equal(*found)
    drawn = (metrics.bootstrap(*each[:2], {"m": each[2]}, n_draws=20).draws for each in (plain, given))
    np.testing.assert_array_equal(*drawn)


def test_times_tie_where_they_are_exactly_equal():
    """As in scikit-survival and lifelines; R's timefix would make one event time of 0.1 + 0.2 and 0.3."""
    event, time = np.array([True, True, False]), np.array([0.1 + 0.2, 0.3, 1.0])
    assert (
        len(metrics.kaplan_meier(event, time)[0])
        == len(KaplanMeierFitter().fit(time, event).survival_function_) - 1
        == 3
    )
    assert metrics.concordance_counts(event, time, [1.0, 2.0, 0.0]).concordant == 3
    assert concordance_index_censored(event, time, np.array([1.0, 2.0, 0.0]))[1] == 3
    whole = metrics.concordance_counts(event, time.round(9), [1.0, 2.0, 0.0])
    assert (whole.concordant, whole.tied_time) == (2, 0)
