"""External validation's metrics against R, a loop over resampled rows, and on patients whose risk is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fracsurv import metrics
from fracsurv.metrics import breslow_baseline, cox_slope, events_ratio, validation_metrics
from fracsurv.metrics.competing import event_share
from fracsurv.metrics.net_benefit import exact_benefit
from fracsurv.predict.recalibrate import Prediction, cross_fitted, recalibrate
from tests import oracles

REFERENCE = Path(__file__).parent / "reference"
TIMES = np.array([2.0, 4.0])


def draw(seed, n=300, rate=0.1, strength=0.8):
    """Event, time, and the true log hazard against `rate`."""
    rng = np.random.default_rng(seed)
    risk = strength * rng.normal(size=n)
    died, left = rng.exponential(np.exp(-risk) / rate), rng.uniform(1, 12, n)
    return died <= left, np.minimum(died, left), risk


def predicted(risk, time, rate=0.1):
    """Predictions of a model whose hazard is rate · exp(risk)."""
    return Prediction(risk, np.exp(-rate * np.outer(np.exp(risk), TIMES)), rate * np.exp(risk) * time)


@pytest.fixture(scope="module")
def r():
    """tests/reference/validation.R: patients, the model judged, and R's numbers."""
    patients = pd.read_csv(REFERENCE / "ipcw_patients.csv")
    values = pd.read_csv(REFERENCE / "validation_values.csv")
    event, time = patients["event"].to_numpy(bool), patients["time"].to_numpy()
    return event, time, 0.9 * patients["risk"].to_numpy(), values.set_index("what")["value"]


def test_slope_and_its_interval_are_those_of_r(r):
    event, time, risk, values = r
    wanted = values[["slope", "slope_low", "slope_high"]]
    np.testing.assert_allclose(cox_slope(event, time, risk), wanted, rtol=1e-6)


def test_ratio_and_its_interval_are_those_of_rs_poisson_regression(r):
    event, time, risk, values = r
    found = events_ratio(event, 0.12 * time * np.exp(risk))
    np.testing.assert_allclose(found, values[["ratio", "ratio_low", "ratio_high"]], rtol=1e-9)


def test_scaled_brier_score_is_riskregressions_ipa(r):
    event, time, risk, values = r
    surv = {"model": np.exp(-0.12 * np.outer(np.exp(risk), TIMES))}
    found = validation_metrics(
        event, time, {"model": risk}, surv, TIMES, horizons=TIMES, grid=[], n_draws=60, seed=0
    )  # fmt: skip
    for k, at in enumerate(TIMES):
        assert found["model", "brier", at, None].value == pytest.approx(values["brier"].iloc[k], rel=1e-9)
        assert found["kaplan_meier", "brier", at, None].value == pytest.approx(values["brier_null"].iloc[k], rel=1e-9)
        assert found["model", "scaled_brier", at, None].value == pytest.approx(values["ipa"].iloc[k], rel=1e-9)


def test_recalibrations_are_those_of_r(r):
    event, time, risk, values = r
    one = Prediction(np.array([0.3]), np.full((1, 2), 0.5), np.array([1.0]))
    for method, name, rtol in (("baseline", "baseline", 1e-9), ("slope", "slope_and_baseline", 1e-6)):
        fitted = recalibrate(method, event, time, predicted(risk, time, 0.12))
        np.testing.assert_allclose(fitted(one, np.array([4.0]), TIMES).surv[0], values[name], rtol=rtol)


def test_every_draw_is_the_loop_over_resampled_rows():
    event, time, risk = draw(1, 60)
    grid = np.array([1.0, 2.0, 3.0, 4.0])
    surv = np.exp(-0.1 * np.outer(np.exp(risk), grid))
    found = validation_metrics(
        event, time, {"m": risk}, {"m": surv}, grid, horizons=TIMES, grid=grid, thresholds=[0.2, 0.5],
        n_draws=50, seed=3,
    )  # fmt: skip
    free = {at: oracles.kaplan_meier(event, time, at, censoring=True) for at in (*time, *grid)}
    weights = {at: 1 / g if g > 0 else 0.0 for at, g in free.items()}

    def brier(rows, at, p):
        early, late = event[rows] & (time[rows] <= at), time[rows] > at
        own = np.array([weights[t] for t in time[rows]])
        return np.mean(early * own * p**2 + late * weights[at] * (1 - p) ** 2)

    counts = metrics.draw_counts(60, 50, 3)
    for number in range(50):
        rows = np.repeat(np.arange(60), counts[:, number])
        alive = {at: oracles.kaplan_meier(event[rows], time[rows], at) for at in grid}
        scores = {at: brier(rows, at, surv[rows, k]) for k, at in enumerate(grid)}
        nulls = {at: brier(rows, at, alive[at]) for at in grid}
        for k, at in ((1, 2.0), (3, 4.0)):
            ratio = (1 - alive[at]) / np.mean(1 - surv[rows, k])
            assert found["m", "observed_to_expected", at, None].draws[number] == pytest.approx(ratio, rel=1e-9)
            assert found["m", "brier", at, None].draws[number] == pytest.approx(scores[at], rel=1e-9)
            scaled = 1 - scores[at] / nulls[at]
            assert found["m", "scaled_brier", at, None].draws[number] == pytest.approx(scaled, rel=1e-9)
            for threshold in (0.2, 0.5):
                wanted = metrics.net_benefit(event[rows], time[rows], 1 - surv[rows, k], at, [threshold])[0]
                drawn = found["m", "net_benefit", at, threshold].draws[number]
                assert drawn == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True)
        whole = np.trapezoid([scores[at] for at in grid], grid) / 3
        assert found["m", "integrated_brier", None, None].draws[number] == pytest.approx(whole, rel=1e-9)
    ranked = metrics.evaluate(event, time, risk, event, time, risk, TIMES, grid=grid)
    for metric in ("c_index", "c_index_ipcw", "mean_auc"):
        assert found["m", metric, None, None].value == pytest.approx(ranked[metric, None], rel=1e-12)
    assert found["m", "auc", 4.0, None].value == pytest.approx(ranked["auc", 4.0], rel=1e-12)


def test_the_true_risk_is_calibrated_and_a_doubled_one_has_half_the_slope():
    event, time, risk = draw(2, 20_000)
    slope = cox_slope(event, time, risk)
    assert slope.low < 1 < slope.high
    assert slope.high - slope.low < 0.1
    assert events_ratio(event, 0.1 * np.exp(risk) * time).value == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(cox_slope(event, time, 2 * risk), np.array(slope) / 2, rtol=1e-6)


def test_twice_the_hazard_is_twice_the_events_and_recalibration_takes_it_back():
    event, time, risk = draw(3, 4_000, rate=0.2)
    given = predicted(risk, time)
    assert events_ratio(event, given.hazard).value == pytest.approx(2, abs=0.1)
    for method in ("intercept", "baseline", "slope"):
        crossed = cross_fitted(method, event, time, given, TIMES, 0)
        assert events_ratio(event, crossed.hazard).value == pytest.approx(1, abs=0.02)
        truth = 1 - np.exp(-0.2 * np.outer(np.exp(risk), TIMES))
        assert np.abs(1 - crossed.surv - truth).mean() < 0.015
    # the factor is the ratio; Breslow's baseline makes it exactly 1 in the patients that it was fitted on
    assert recalibrate("intercept", event, time, given).factor == events_ratio(event, given.hazard).value
    own = recalibrate("baseline", event, time, given)(given, time, TIMES)
    assert own.hazard.sum() == pytest.approx(event.sum(), rel=1e-9)


def test_cross_fitting_gives_no_patient_a_prediction_from_her_own_outcome():
    event, time, risk = draw(4, 200)
    given = predicted(risk, time)
    before = cross_fitted("slope", event, time, given, TIMES, 7)
    other = time.copy()
    other[0] = time[0] * 1.02  # no matter to the parts, which are drawn by event
    after = cross_fitted("slope", event, other, given, TIMES, 7)
    same = (before.surv == after.surv).all(axis=1)
    assert same[0]
    assert not same.all()


def test_a_useless_model_gains_nothing_by_cross_fitting():
    """Noise recalibrated in the same patients may beat the Kaplan–Meier curve; cross-fitted it does not."""
    event, time, _ = draw(5, 300)
    noise = np.random.default_rng(0).normal(size=(40, 300))
    scaled = []
    for each in noise:
        given = Prediction(each, np.ones((300, 2)), np.ones(300))
        crossed = cross_fitted("baseline", event, time, given, TIMES, 0)
        brier = metrics.brier_score(event, time, event, time, crossed.surv, TIMES)[1]
        scaled.append(brier - oracle_null(event, time, 4.0))
    assert np.mean(scaled) > 0


def oracle_null(event, time, at):
    alive = oracles.kaplan_meier(event, time, at)
    return metrics.brier_score(event, time, event, time, np.full(len(time), alive), [at])[0]


def test_what_cannot_be_told_is_nan_and_makes_no_recalibration():
    event, time, risk = draw(6, 50)
    assert np.isnan(cox_slope(np.zeros(50, bool), time, risk)).all()
    assert np.isnan(cox_slope(event, time, np.ones(50))).all()
    assert np.isnan(events_ratio(event, np.zeros(50))).all()
    none = events_ratio(np.zeros(50, bool), np.ones(50))
    assert none == pytest.approx((0, 0, -np.log(0.025) / 50))  # exact: R's poisson.test(0, 50)
    backwards = predicted(-risk * 5, time)
    assert recalibrate("slope", event, time, backwards) is None
    assert cross_fitted("slope", event, time, backwards, TIMES, 0) is None


def test_small_differences_in_risk_have_a_slope():
    """A hardly trained network's log hazards differ in the third decimal."""
    event, time, risk = draw(7, 500)
    small = np.array(cox_slope(event, time, 1 + risk / 1e4))
    np.testing.assert_allclose(small / 1e4, cox_slope(event, time, risk), rtol=1e-6)


@pytest.mark.parametrize(
    ("metric", "arguments", "named"),
    [
        (events_ratio, ([1, 0], [0.1, -0.2]), r">= 0.*-0.2"),
        (events_ratio, ([1, 0], [0.1]), "event and time"),
        (cox_slope, ([1, 0], [1, 2], [0.1]), r"risk.*\(2,\)"),
    ],
)
def test_refuses(metric, arguments, named):
    with pytest.raises(ValueError, match=named):
        metric(*arguments)


def test_own_hazard_is_the_survival_at_each_patients_own_time():
    event, time, risk = draw(8, 40)
    baseline = breslow_baseline(event, time, risk)
    order = np.argsort(time)
    surv = baseline.survival(risk[order], time[order])
    np.testing.assert_allclose(baseline.own_hazard(risk, time)[order], -np.log(np.diag(surv)), rtol=1e-9)
    assert np.isnan(baseline.own_hazard(risk[:1], [time.max() + 1])).all()


def test_the_same_seed_gives_the_same_draws_and_no_horizon_is_no_error():
    event, time, risk = draw(9, 50)
    empty = np.empty((50, 0))
    one, two = (
        validation_metrics(event, time, {"m": risk}, {"m": empty}, [], horizons=[], grid=[], n_draws=60, seed=1)
        for _ in range(2)
    )
    assert set(one) == {("m", "c_index", None, None), ("m", "c_index_ipcw", None, None)}
    np.testing.assert_array_equal(one["m", "c_index", None, None].draws, two["m", "c_index", None, None].draws)


def small(n_events):
    """24 patients followed beyond year 1, the first `n_events` of whom had the event in it; risk by year 1 5.55 %."""
    time = np.linspace(1.2, 6, 24)
    time[:n_events] = np.linspace(0.2, 0.9, n_events)
    probability = np.linspace(0.0355, 0.0755, 24)
    return (np.arange(24) < n_events) | (np.arange(24) % 2 == 0), time, probability


def test_nobody_with_the_event_has_exact_bounds():
    """Clopper and Pearson's: binom.test(0, 24) in R has the upper bound 0.1424736."""
    event, time, probability = small(0)
    surv, horizons = {"m": np.column_stack([1 - probability] * 2)}, [1.0, 4.0]
    given = {"horizons": horizons, "grid": horizons, "thresholds": (0.05, 0.5), "n_draws": 200, "seed": 0}
    found = validation_metrics(event, time, {"m": probability}, surv, horizons, **given)
    assert found["kaplan_meier", "observed", 1.0, None].interval() == pytest.approx((0, 0.1424736), abs=1e-7)
    ratio = found["m", "observed_to_expected", 1.0, None]
    assert (ratio.value, *ratio.interval()) == pytest.approx((0, 0, 2.56709), abs=1e-5)
    everyone = found["everyone", "net_benefit", 1.0, 0.05]
    assert everyone.value == pytest.approx(-1 / 19)
    assert everyone.interval() == pytest.approx((-1 / 19, 0.1424736 - 0.8575264 / 19), abs=1e-7)
    low, high = found["m", "net_benefit", 1.0, 0.05].interval()
    assert low < found["m", "net_benefit", 1.0, 0.05].value < 0 < high
    assert np.isnan(found["m", "net_benefit", 1.0, 0.5].interval()).all()  # nobody is treated: nothing is known


def test_everybody_with_the_event_has_exact_bounds():
    """binom.test(24, 24) in R has the lower bound 0.8575264."""
    event, time, _ = small(24)
    assert event_share(event, time, 1.0) == pytest.approx((1, 0.8575264, 1), abs=1e-7)
    incidence = metrics.cumulative_incidence(event, time, [1.0])
    assert (incidence.low[0], incidence.high[0]) == pytest.approx((0.8575264, 1), abs=1e-7)
    bounds = exact_benefit(event, time, np.ones(24), 1.0, 0.05)
    assert bounds == pytest.approx((0.8575264 - 0.1424736 / 19, 1), abs=1e-7)


def test_the_ratio_over_all_follow_up_is_exact_without_an_event():
    """poisson.test(0, 1.332) in R: 0 to 2.769428."""
    assert events_ratio(np.zeros(24), np.full(24, 0.0555)) == pytest.approx((0, 0, 2.769428), abs=1e-5)
