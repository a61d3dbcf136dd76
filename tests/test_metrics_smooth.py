"""The smooth calibration curve against a Cox model on the same spline by lifelines, and against known truth."""

from __future__ import annotations

import lifelines
import numpy as np
import pandas as pd
import pytest

from fracsurv.metrics import calibration, smooth_calibration


def draw(seed, n):
    """Event, time and the true probability of the event by 5."""
    rng = np.random.default_rng(seed)
    rate = 0.08 * np.exp(0.8 * rng.normal(size=n))
    died, left = rng.exponential(1 / rate), rng.uniform(2, 14, n)
    return died <= left, np.minimum(died, left), 1 - np.exp(-5 * rate)


def spline(x, knots):
    """Harrell's restricted cubic spline with three knots, written out."""

    def plus(v):
        return np.where(v > 0, v, 0.0) ** 3

    a, b, c = knots
    return np.stack([x, plus(x - a) - plus(x - b) * (c - a) / (c - b) + plus(x - c) * (b - a) / (c - b)], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_is_lifelines_cox_on_the_spline(seed):
    event, time, probability = draw(seed, 400)
    found = smooth_calibration(event, time, probability, 5.0)
    x = np.log(-np.log(1 - probability))
    knots = np.quantile(x, [0.1, 0.5, 0.9])
    columns = pd.DataFrame(spline(x, knots), columns=["x", "bent"])
    fitted = lifelines.CoxPHFitter().fit(columns.assign(time=time, event=event), "time", "event")
    at = pd.DataFrame(spline(np.log(-np.log(1 - found.predicted)), knots), columns=["x", "bent"])
    hazard = fitted.baseline_cumulative_hazard_.loc[:5.0].iloc[-1, 0]  # a step; lifelines' predictions interpolate
    np.testing.assert_allclose(found.observed, 1 - np.exp(-hazard * fitted.predict_partial_hazard(at)), atol=1e-6)
    own = 1 - np.exp(-hazard * fitted.predict_partial_hazard(columns).to_numpy())
    gaps = np.abs(own - probability)
    assert (found.ici, found.e50, found.e90) == pytest.approx(
        (gaps.mean(), np.median(gaps), np.quantile(gaps, 0.9)), abs=1e-6
    )


def test_true_probabilities_lie_on_the_diagonal_and_have_slope_1():
    event, time, probability = draw(7, 20_000)
    found = smooth_calibration(event, time, probability, 5.0)
    assert found.ici < 0.01
    np.testing.assert_allclose(found.observed, found.predicted, atol=0.03)
    slopes = [calibration(*draw(seed, 1000), 5.0, n_groups=1).slope for seed in range(40)]
    assert abs(np.mean(slopes) - 1) < 3 * np.std(slopes, ddof=1) / 40**0.5


def test_too_extreme_probabilities_leave_the_diagonal():
    event, time, probability = draw(8, 5000)
    extreme = 1 / (1 + (1 / probability - 1) ** 2)
    found = smooth_calibration(event, time, extreme, 5.0)
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
