"""Calibration and net benefit against their definitions, lifelines, scikit-learn, numbers from R and known truth."""

from __future__ import annotations

from pathlib import Path

import lifelines
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from fracsurv.metrics import calibration, net_benefit, smooth_calibration
from tests import oracles

REFERENCE = Path(__file__).parent / "reference"


def draw(seed, n=400, *, tied=False):
    """Event, time and the true probability of the event by time 4."""
    rng = np.random.default_rng(seed)
    rate = 0.1 * np.exp(0.9 * rng.normal(size=n))
    died, left = rng.exponential(1 / rate), rng.uniform(1, 12, n)
    time = np.minimum(died, left)
    return died <= left, np.ceil(time * 2) / 2 if tied else time, 1 - np.exp(-4 * rate)


@pytest.mark.parametrize("tied", [False, True])
def test_groups_are_kaplan_meier_with_lifelines_intervals(tied):
    event, time, probability = draw(1, tied=tied)
    found = calibration(event, time, probability, 4.0, n_groups=5)
    order = np.argsort(probability, kind="stable")
    assert found.n.tolist() == [80] * 5
    for k, rows in enumerate(np.split(order, 5)):
        fitted = lifelines.KaplanMeierFitter().fit(time[rows], event[rows])
        band = 1 - fitted.confidence_interval_survival_function_.loc[:4.0].iloc[-1]
        assert found.predicted[k] == pytest.approx(probability[rows].mean(), rel=1e-12)
        assert found.observed[k] == pytest.approx(1 - oracles.kaplan_meier(event[rows], time[rows], 4.0), rel=1e-12)
        assert (found.low[k], found.high[k]) == pytest.approx((band.min(), band.max()), rel=1e-9)
    assert found.mean_predicted == pytest.approx(probability.mean())
    assert found.mean_observed == pytest.approx(1 - oracles.kaplan_meier(event, time, 4.0), rel=1e-12)


def test_groups_against_a_hand_count():
    # nobody is censored before day 100, so observed = share with time <= 100
    probability = np.array([0.1, 0.2, 0.1, 0.2, 0.7, 0.8, 0.7, 0.8])
    time = np.array([50.0, 200, 200, 200, 40, 60, 90, 200])
    found = calibration(time <= 100, time, probability, 100, n_groups=2)
    np.testing.assert_allclose(found.predicted, [0.15, 0.75])
    np.testing.assert_allclose(found.observed, [0.25, 0.75])
    assert len(calibration(time <= 100, time, probability, 100).n) == 2  # 4 events: the fewest groups
    for n in (200, 2000):
        many = draw(2, n)
        n_events = (many[0] & (many[1] <= 4)).sum()
        assert len(calibration(*many, 4.0).n) == min(10, n_events // 20)


def test_groups_without_and_with_only_events_have_exact_bounds():
    # Low group: nobody has an event by day 100, of whom three are followed to it, one is censored before.
    # High group: everybody has one, the last two on day 100 itself.
    probability = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9])
    time = np.array([60.0, 100, 200, 300, 20, 40, 100, 100])
    event = np.array([False, False, True, False, True, True, True, True])
    found = calibration(event, time, probability, 100, n_groups=2)
    np.testing.assert_array_equal(found.observed, [0, 1])
    none, all_ = binomtest(0, 3).proportion_ci(0.95, "exact"), binomtest(4, 4).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(found.low, [0, all_.low], rtol=1e-10)
    np.testing.assert_allclose(found.high, [none.high, 1], rtol=1e-10)
    assert np.isnan(found.slope)  # separated


@pytest.mark.parametrize("tied", [False, True])
def test_slope_is_scikit_learns_weighted_logistic_regression(tied):
    event, time, probability = draw(3, tied=tied)
    found = calibration(event, time, probability**1.3, 4.0)
    case = event & (time <= 4)
    known = case | (time >= 4)
    just_before = np.nextafter(np.minimum(time, 4.0), 0)[known]
    weight = np.array([1 / oracles.kaplan_meier(event, time, at, censoring=True) for at in just_before])
    assert weight @ case[known] / len(time) == pytest.approx(found.mean_observed, rel=1e-12)
    x = np.log(probability**1.3 / (1 - probability**1.3))[known]
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(x[:, None], case[known], weight)
    assert found.slope == pytest.approx(fitted.coef_[0, 0], rel=1e-6)
    # at the intercept, expected and observed cases agree: the score equation
    p = 1 / (1 + np.exp(-(x + found.intercept)))
    assert weight @ p == pytest.approx(weight @ case[known], rel=1e-9)


# tests/reference/clinical.R: glm(case ~ logit, quasibinomial, weights), and survfit among the treated.
def test_numbers_are_those_of_r():
    patients = pd.read_csv(REFERENCE / "ipcw_patients.csv")
    values = pd.read_csv(REFERENCE / "clinical_values.csv")
    event, time = patients["event"].to_numpy(), patients["time"].to_numpy()
    probability = 1 - np.exp(-np.exp(0.8 * patients["risk"].to_numpy()) * 0.1)
    for at in (2.0, 4.0):
        p = 1 - (1 - probability) ** at
        wanted = values[values["time"] == at].set_index("what")
        found = calibration(event, time, p**1.2, at)
        assert found.slope == pytest.approx(wanted.loc["slope", "value"], rel=1e-6)
        assert found.intercept == pytest.approx(wanted.loc["intercept", "value"], rel=1e-6)
        assert found.mean_observed == pytest.approx(wanted.loc["observed", "value"], rel=1e-9)
        nets = wanted.loc["net_benefit"]
        found = net_benefit(event, time, p, at, nets["threshold"])
        np.testing.assert_allclose(found, nets["value"], rtol=1e-9, atol=1e-12)


def test_right_probabilities_are_calibrated_and_wrong_ones_are_not():
    event, time, probability = draw(4, 40_000)
    logit = np.log(probability / (1 - probability))
    right = calibration(event, time, probability, 4.0)
    assert right.intercept == pytest.approx(0, abs=0.04)
    assert right.slope == pytest.approx(1, abs=0.04)
    assert right.mean_observed == pytest.approx(right.mean_predicted, abs=0.01)
    wrong = calibration(event, time, 1 / (1 + np.exp(-(2 * logit + 0.7))), 4.0)  # twice as far apart, and shifted
    assert wrong.slope == pytest.approx(right.slope / 2, rel=1e-6)
    lower = calibration(event, time, 1 / (1 + np.exp(-(logit - 0.7))), 4.0)
    assert lower.intercept == pytest.approx(right.intercept + 0.7, rel=1e-6)


@given(seed=st.integers(0, 10_000), threshold=st.floats(0.02, 0.95), tied=st.booleans())
@settings(max_examples=60, deadline=None)
def test_net_benefit_is_its_definition(seed, threshold, tied):
    event, time, probability = draw(seed, 40, tied=tied)
    (found,) = net_benefit(event, time, probability, 4.0, [threshold])
    treated = probability >= threshold
    if not treated.any():
        assert found == 0
    elif time[treated].max() < 4 and oracles.kaplan_meier(event[treated], time[treated], 4.0) > 0:
        assert np.isnan(found)
    else:
        alive = oracles.kaplan_meier(event[treated], time[treated], 4.0)
        expected = treated.mean() * (1 - alive - alive * threshold / (1 - threshold))
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_row_order_and_unit_of_time_do_not_matter(seed):
    event, time, probability = draw(seed, 60, tied=True)
    order = np.random.default_rng(seed).permutation(60)
    one = calibration(event, time, probability, 4.0)
    other = calibration(event[order], 365.25 * time[order], probability[order], 4 * 365.25)
    for name in ("mean_observed", "intercept", "slope"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-8, abs=1e-9, nan_ok=True)
    coarse = probability.round(1)
    one = calibration(event, time, coarse, 4.0, n_groups=4)
    other = calibration(event[order], time[order], coarse[order], 4.0, n_groups=4)
    for name in ("n", "predicted", "observed", "low", "high"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)
    np.testing.assert_allclose(
        net_benefit(event, time, probability, 4.0, [0.3]),
        net_benefit(event[order], 365.25 * time[order], probability[order], 4 * 365.25, [0.3]),
    )


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


def spline(x, knots):
    """Harrell's restricted cubic spline with three knots, written out."""

    def plus(v):
        return np.where(v > 0, v, 0.0) ** 3

    a, b, c = knots
    return np.stack([x, plus(x - a) - plus(x - b) * (c - a) / (c - b) + plus(x - c) * (b - a) / (c - b)], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_is_lifelines_cox_on_the_spline(seed):
    event, time, probability = draw(seed, 400)
    found = smooth_calibration(event, time, probability, 4.0)
    x = np.log(-np.log(1 - probability))
    knots = np.quantile(x, [0.1, 0.5, 0.9])
    columns = pd.DataFrame(spline(x, knots), columns=["x", "bent"])
    fitted = lifelines.CoxPHFitter().fit(
        columns.assign(time=time, event=event), "time", "event", fit_options={"precision": 1e-12}
    )
    at = pd.DataFrame(spline(np.log(-np.log(1 - found.predicted)), knots), columns=["x", "bent"])
    hazard = fitted.baseline_cumulative_hazard_.loc[:4.0].iloc[-1, 0]  # a step; lifelines' predictions interpolate
    np.testing.assert_allclose(found.observed, 1 - np.exp(-hazard * fitted.predict_partial_hazard(at)), atol=1e-6)
    own = 1 - np.exp(-hazard * fitted.predict_partial_hazard(columns).to_numpy())
    gaps = np.abs(own - probability)
    assert (found.ici, found.e50, found.e90) == pytest.approx(
        (gaps.mean(), np.median(gaps), np.quantile(gaps, 0.9)), abs=1e-6
    )


def test_true_probabilities_lie_on_the_diagonal_and_have_slope_1():
    event, time, probability = draw(7, 20_000)
    found = smooth_calibration(event, time, probability, 4.0)
    assert found.ici < 0.01
    np.testing.assert_allclose(found.observed, found.predicted, atol=0.03)
    slopes = [calibration(*draw(seed, 1000), 4.0, n_groups=1).slope for seed in range(40)]
    assert abs(np.mean(slopes) - 1) < 3 * np.std(slopes, ddof=1) / 40**0.5


def test_too_extreme_probabilities_leave_the_diagonal():
    event, time, probability = draw(8, 5000)
    extreme = 1 / (1 + (1 / probability - 1) ** 2)
    found = smooth_calibration(event, time, extreme, 4.0)
    assert found.ici > 0.04
    assert (found.observed - found.predicted)[0] > 0 > (found.observed - found.predicted)[-1]


@pytest.mark.parametrize(
    ("event", "probability", "at"),
    [
        (np.zeros(50, bool), np.linspace(0.1, 0.9, 50), 5.0),  # no event
        (np.ones(50, bool), np.full(50, 0.3), 5.0),  # no knots
        (np.ones(50, bool), np.linspace(0.1, 0.9, 50), 99.0),  # nobody followed so far
    ],
)
def test_no_curve_where_there_is_none(event, probability, at):
    found = smooth_calibration(event, np.arange(1.0, 51), probability, at)
    assert np.isnan([found.ici, found.e50, found.e90, *found.observed]).all()


def test_no_events_and_nobody_followed_that_far():
    found = calibration(np.zeros(6, bool), np.arange(1.0, 7), np.linspace(0.1, 0.6, 6), 3.0, n_groups=1)
    assert found.mean_observed == 0
    assert np.isnan([found.intercept, found.slope]).all()
    patients = [1, 0, 0], [1.0, 2.0, 3.0], [0.2, 0.3, 0.9]
    found = calibration(*patients, 5.0)
    assert found.n.sum() == 3
    assert np.isnan([*found.observed, found.mean_observed, found.intercept, found.slope]).all()
    assert np.isnan(net_benefit(*patients, 5.0, [0.1])).all()
    one = calibration([0], [5.0], [0.2], 3.0)
    assert (one.n.tolist(), one.observed.tolist()) == ([1], [0.0])


def test_a_group_whose_follow_up_ends_early_stays_without_an_answer():
    """Among the low risks somebody is lost before the horizon, and nobody is followed to it."""
    event, time = [1, 1, 1, 0, 0, 0, 0, 0], [1, 2, 9, 9, 1, 2, 3, 3]
    found = calibration(event, time, [0.9] * 4 + [0.1] * 4, 5.0, n_groups=2)
    assert found.n.tolist() == [4, 4]
    assert np.isnan(found.observed).tolist() == [True, False]
    assert found.observed[1] == pytest.approx(0.5)
    assert np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [True, False]


def test_nobody_left_is_known():
    """The last one at risk has the event before the horizon: Kaplan–Meier is 0 from there on."""
    event, time = [1] * 4 + [0] * 4, [1, 2, 3, 3.5, 6, 7, 8, 9.0]
    found = calibration(event, time, [0.9] * 4 + [0.1] * 4, 4.0, n_groups=2)
    assert found.observed.tolist() == [0, 1]
    assert net_benefit(event, time, [0.9] * 4 + [0.1] * 4, 4.0, [0.5]) == pytest.approx([0.5])
    assert calibration([1, 1], [1, 2], [0.5, 0.6], 4).mean_observed == 1


def test_all_followed_to_the_horizon_and_no_further():
    """A study's end is a horizon: who is free of the event then is known to be."""
    event, time, probability = draw(8)
    event, time = event & (time <= 4), np.minimum(time, 4.0)
    other_event, other_time = event, np.where(event | (time < 4), time, 5.0)
    one, other = (calibration(e, t, probability, 4.0) for e, t in ((event, time), (other_event, other_time)))
    assert (one.intercept, one.slope) == pytest.approx((other.intercept, other.slope), rel=1e-9)


@pytest.mark.parametrize("unit", [0.5, 1.0, 2.0])
def test_coarse_times_are_no_bias(unit):
    rng = np.random.default_rng(9)
    rate = 0.1 * np.exp(0.9 * rng.normal(size=60_000))
    died, left = (np.ceil(each / unit) * unit for each in (rng.exponential(1 / rate), rng.uniform(1, 12, 60_000)))
    found = calibration(died <= left, np.minimum(died, left), 1 - np.exp(-4 * rate), 4.0)
    assert found.intercept == pytest.approx(0, abs=0.04)
    assert found.slope == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(("prediction", "n_events"), [(0.0, 17), (1.0, 3), (0.0, 1)])
def test_certain_predictions_count_as_one_in_a_thousand_million(prediction, n_events):
    time = np.where(np.arange(20) < n_events, 1.0, 5.0)
    found = calibration(time < 3, time, np.full(20, prediction), 3.0)
    certain = np.log(1e-9) - np.log1p(-1e-9)
    wanted = np.log(n_events / (20 - n_events)) - (certain if prediction == 0 else -certain)
    assert found.intercept == pytest.approx(wanted, rel=1e-6)
    assert np.isnan(found.slope)


@pytest.mark.parametrize("strength", [1, -1, 0])
def test_separated_and_equal_predictions_have_no_slope(strength):
    time = np.array([1.0, 2, 1, 5, 6, 7])
    found = calibration(time < 3, time, 0.5 + strength * np.array([0.3, 0.2, 0.1, -0.1, -0.2, -0.3]), 3.0)
    assert np.isfinite(found.intercept)
    assert np.isnan(found.slope)


def test_a_threshold_that_is_just_reached_treats():
    event, time = [1, 0], [1.0, 5.0]
    for dtype in (np.float32, np.float64):
        assert net_benefit(event, time, np.array([0.7, 0.1], dtype), 3.0, [0.7]) == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"probability": [0.1, 1.2]}, r"\[0, 1\], got probability\[1\] = 1.2"),
        ({"probability": [0.1]}, r"probability.*\(2,\).*\(1,\)"),
        ({"at": 0}, r"at must.*above 0.*0"),
        ({"at": [1.5]}, r"at must.*\[1.5\]"),
    ],
)
def test_refuses(change, named):
    good = {"event": [1, 0], "time": [1.0, 2.0], "probability": [0.1, 0.2], "at": 1.5}
    with pytest.raises(ValueError, match=named):
        calibration(**good | change)
    with pytest.raises(ValueError, match=named):
        net_benefit(**good | change, thresholds=[0.1])
    for threshold in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="thresholds"):
            net_benefit(**good, thresholds=[threshold])
    for n_groups in (0, 2.5):
        with pytest.raises(ValueError, match="n_groups"):
            calibration(**good, n_groups=n_groups)
