"""Competing events against their definitions, cmprsk, riskRegression, pec, lifelines and scikit-survival."""

from __future__ import annotations

from pathlib import Path

import lifelines
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sksurv.datasets import load_flchain
from sksurv.nonparametric import cumulative_incidence_competing_risks

from fracsurv import metrics
from tests import oracles

REFERENCE = Path(__file__).parent / "reference"


def draw(seed, n=60, *, tied=False, competing=0.5, censoring=8.0):
    """Outcome (0, 1, 2), time and risk; a small `censoring` loses most patients early."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n).round(1 if tied else 12)
    first, left = rng.exponential(np.exp(-risk) * 5), rng.uniform(0, censoring, n)
    second = rng.exponential(5 / competing, n) if competing else np.full(n, np.inf)
    time = np.min([first, second, left], axis=0)
    event = np.where(time == first, 1, np.where(time == second, 2, 0))
    return event, np.ceil(time * 2) / 2 if tied else time, risk


@pytest.fixture(scope="module")
def flchain():
    """Death of the circulation against any other death in Olmsted County: 7,874 people, times in days, ties."""
    x, y = load_flchain()
    cause = np.where(~y["death"], 0, np.where(x["chapter"].astype(object) == "Circulatory", 1, 2))
    return cause, y["futime"]


@pytest.fixture(scope="module")
def of_r():
    return pd.read_csv(REFERENCE / "competing_values.csv")


@pytest.fixture(scope="module")
def patients():
    return [pd.read_csv(REFERENCE / "competing_patients.csv")[name].to_numpy() for name in ("event", "time", "x")]


# tests/reference/competing.R: cmprsk::timepoints(cuminc(futime, cause), days), which survfit's states confirm there.
@pytest.mark.parametrize("cause", [1, 2])
def test_incidence_is_that_of_cmprsk_on_flchain(flchain, of_r, cause):
    expected = of_r[of_r["what"] == f"flchain_{cause}"]
    variance = of_r[of_r["what"] == f"flchain_variance_{cause}"]
    found = metrics.cumulative_incidence(*flchain, expected["time"], cause=cause)
    np.testing.assert_allclose(found.incidence, expected["value"], rtol=1e-11)
    np.testing.assert_allclose(found.variance, variance["value"], rtol=1e-10)


@pytest.mark.parametrize("cause", [1, 2])
def test_incidence_is_that_of_lifelines_on_flchain(flchain, cause):
    event, time = flchain
    # lifelines moves tied times at random: here they are moved apart by rule, events before censorings
    order = np.lexsort((event == 0, time))
    untied = np.empty(len(time))
    untied[order] = time[order] + 1 + np.arange(len(time)) * 1e-5
    fitted = lifelines.AalenJohansenFitter(calculate_variance=False).fit(untied, event, cause)
    curve = fitted.cumulative_density_.iloc[:, 0]
    days = np.array([30.0, 365, 1826, 3652, 4748, 5166])
    expected = curve.to_numpy()[np.searchsorted(curve.index, days, side="right") - 1]
    found = metrics.cumulative_incidence(event, untied, days, cause=cause)
    np.testing.assert_allclose(found.incidence, expected, rtol=1e-9)


def test_incidence_variance_and_interval_are_scikit_survivals(flchain):
    # scikit-survival's variance has no correction for ties, of which flchain has few for its size
    for (event, time), within in ((flchain, 1e-6), (draw(1, 300)[:2], 1e-9)):
        at, shares, interval = cumulative_incidence_competing_risks(event, time, conf_type="log-log")
        for cause in (1, 2):
            had = shares[cause] > 0
            found = metrics.cumulative_incidence(event, time, at, cause=cause)
            np.testing.assert_allclose(found.incidence, shares[cause], rtol=1e-10, atol=1e-15)
            np.testing.assert_allclose(found.low[had], interval[cause, 0, had], rtol=within)
            np.testing.assert_allclose(found.high[had], interval[cause, 1, had], rtol=within)


@given(seed=st.integers(0, 10_000), tied=st.booleans(), censoring=st.sampled_from([1.0, 8.0, 100.0]))
@settings(max_examples=20, deadline=None)
def test_incidence_is_its_definition_and_adds_up_to_one(seed, tied, censoring):
    event, time, _ = draw(seed, 30, tied=tied, censoring=censoring)
    times = np.unique(np.concatenate([time, time + 0.25]))
    times = times[times <= time.max()]
    found = [metrics.cumulative_incidence(event, time, times, cause=cause) for cause in (1, 2)]
    for cause, each in zip((1, 2), found, strict=True):
        expected = [oracles.cumulative_incidence(event, time, t, cause) for t in times]
        np.testing.assert_allclose(each.incidence, expected, rtol=1e-12, atol=1e-15)
        assert (np.diff(each.incidence) >= 0).all()
        assert ((each.low <= each.incidence) & (each.incidence <= each.high)).all()
        assert ((each.low >= 0) & (each.high <= 1) & (each.variance >= 0)).all()
    free = [oracles.kaplan_meier(event != 0, time, t) for t in times]
    np.testing.assert_allclose(found[0].incidence + found[1].incidence + free, 1.0, rtol=1e-12)


def test_incidence_of_one_kind_of_event_is_kaplan_meiers():
    for tied in (False, True):
        event, time, _ = draw(2, 200, tied=tied, competing=0)
        times, survival = metrics.kaplan_meier(event, time)
        np.testing.assert_allclose(
            metrics.cumulative_incidence(event, time, times).incidence, 1 - survival, atol=1e-12
        )
        assert (metrics.cumulative_incidence(event, time, times, cause=2).incidence == 0).all()


def test_incidence_where_nothing_or_everything_has_happened():
    found = metrics.cumulative_incidence([1, 2, 0, 0], [2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 5.0, 6.0])
    np.testing.assert_array_equal(found.incidence, [0, 0.25, 0.25, np.nan])
    # nobody of four: 1 − 0.025^(1/4) by Clopper and Pearson
    assert (found.low[0], found.high[0]) == pytest.approx((0, 1 - 0.025**0.25))
    ended = metrics.cumulative_incidence([1, 2], [1.0, 2.0], [9.0])  # nobody is left: known for ever
    assert ended.incidence == 0.5
    nobody = metrics.cumulative_incidence([2, 2], [1.0, 2.0], [9.0])  # known for ever, of two
    assert (nobody.incidence[0], nobody.high[0]) == pytest.approx((0, 1 - 0.025**0.5))
    everybody = metrics.cumulative_incidence([1, 1, 1], [1.0, 2.0, 2.0], [2.0])
    assert (everybody.incidence[0], everybody.low[0], everybody.high[0]) == pytest.approx((1, 0.025 ** (1 / 3), 1))


def test_interval_covers_the_true_incidence():
    true = 1 / 1.5 * (1 - np.exp(-0.3 * 3))  # rates 0.2 and 0.1
    rng, inside = np.random.default_rng(5), 0
    for _ in range(400):
        first, second, left = rng.exponential(5, 120), rng.exponential(10, 120), rng.uniform(0, 9, 120)
        time = np.min([first, second, left], axis=0)
        event = np.where(time == first, 1, np.where(time == second, 2, 0))
        found = metrics.cumulative_incidence(event, time, [3.0])
        inside += found.low[0] <= true <= found.high[0]
    assert 0.92 <= inside / 400 <= 0.98


# tests/reference/competing.R: riskRegression::Score(cause = 1, cens.model = "km") and pec::cindex(cause = 1).
def test_weighted_metrics_are_those_of_r(patients, of_r):
    event, time, x = patients
    values = {what: group.set_index("time")["value"] for what, group in of_r.groupby("what")}
    times = values["auc"].index.to_numpy()
    first, second = 0.08 * np.exp(0.8 * x), 0.06 * np.exp(0.4 * x)
    judged = (first / (first + second))[:, None] * -np.expm1(-np.outer(first + second, times))
    auc = [
        metrics.cumulative_dynamic_auc(event, time, event, time, judged[:, k], [t])[0][0] for k, t in enumerate(times)
    ]
    np.testing.assert_allclose(auc, values["auc"], rtol=1e-10)
    brier = metrics.brier_score(event, time, event, time, 1 - judged, times)
    np.testing.assert_allclose(brier, values["brier"], rtol=1e-10)
    for tau, expected in values["wolbers"].items():
        found = metrics.concordance_index_ipcw(event, time, event, time, x, tau=tau)
        assert found == pytest.approx(expected, rel=1e-10)


# tests/reference/competing.R: predict(CSC(…), product.limit = FALSE), which takes S(s−) dH in every step.
def test_absolute_risk_is_that_of_r_but_for_its_steps(patients, of_r):
    event, time, x = patients
    beta = [of_r.set_index("what").loc[f"beta_{cause}", "value"] for cause in (1, 2)]
    baselines = [metrics.breslow_baseline(event == cause, time, b * x) for cause, b in zip((1, 2), beta, strict=True)]
    rows = of_r[of_r["what"] == "absolute_risk"]
    for new, group in rows.groupby("x"):
        times, expected = group["time"].to_numpy(), group["value"].to_numpy()
        steps = np.union1d(time[event > 0], [0.0])
        surv = [b.survival([k * new], steps[steps <= time.max()])[0] for b, k in zip(baselines, beta, strict=True)]
        hazard = [-np.log(s) for s in surv]
        before = np.exp(-(hazard[0] + hazard[1]))[:-1]
        as_r = np.concatenate([[0], np.cumsum(before * np.diff(hazard[0]))])
        at = np.searchsorted(steps, times, side="right") - 1
        np.testing.assert_allclose(as_r[at], expected, rtol=1e-9)  # the hazards are R's
        args = (baselines[0], [beta[0] * new], baselines[1], [beta[1] * new])
        found = metrics.absolute_risk(*args, times)[0]
        assert (found < expected).all()
        longest = np.max(np.diff(hazard[0]) + np.diff(hazard[1]))
        assert (expected - found < longest / 2).all()


@given(seed=st.integers(0, 10_000), tied=st.booleans(), censoring=st.sampled_from([2.0, 8.0]))
@settings(max_examples=15, deadline=None)
def test_weighted_metrics_are_their_definitions(seed, tied, censoring):
    train, test = draw(seed, 40, tied=tied), draw(seed + 1, 30, tied=tied, censoring=censoring)
    event, time, _ = test
    times = np.array([0.75, 1.5, 3.25])
    auc, _ = metrics.cumulative_dynamic_auc(*train[:2], *test, times)
    incidence = np.random.default_rng(seed).uniform(size=(30, 3))
    brier = metrics.brier_score(*train[:2], event, time, 1 - incidence, times)
    for k, t in enumerate(times):
        if np.isnan(brier[k]):
            known = t < time.max() and t <= train[1].max()
            assert not known or oracles.kaplan_meier(train[0] != 0, train[1], t, censoring=True) == 0
            continue
        assert auc[k] == pytest.approx(oracles.competing_auc(*train[:2], *test, t), rel=1e-12, nan_ok=True)
        assert brier[k] == pytest.approx(
            oracles.competing_brier(*train[:2], event, time, incidence[:, k], t), rel=1e-12
        )
    for tau in (None, 2.0):
        expected = oracles.wolbers(*train[:2], *test, np.inf if tau is None else tau)
        found = metrics.concordance_index_ipcw(*train[:2], *test, tau=tau)
        assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


@given(seed=st.integers(0, 10_000), tied=st.booleans())
@settings(max_examples=15, deadline=None)
def test_absolute_risk_is_its_definition_and_adds_up_to_one(seed, tied):
    event, time, risk = draw(seed, 30, tied=tied)
    other = 0.5 * risk[::-1]
    own, rival = metrics.breslow_baseline(event == 1, time, risk), metrics.breslow_baseline(event == 2, time, other)
    times = np.linspace(0, time.max(), 7)[1:]
    new, new_other = np.array([-1.0, 0.3, 2.0]), np.array([0.5, 0.0, -3.0])
    first = metrics.absolute_risk(own, new, rival, new_other, times)
    expected = [
        [oracles.absolute_risk(event, time, risk, other, *pair, t) for t in times]
        for pair in zip(new, new_other, strict=True)
    ]
    np.testing.assert_allclose(first, expected, rtol=1e-10, atol=1e-14)
    second = metrics.absolute_risk(rival, new_other, own, new, times)
    free = own.survival(new, times) * rival.survival(new_other, times)
    np.testing.assert_allclose(first + second + free, 1.0, rtol=1e-12)
    assert np.isnan(metrics.absolute_risk(own, new, rival, None, [time.max() + 1])).all()
    extreme = metrics.absolute_risk(own, [-1e4, 1e4], rival, [1e4, -1e4], times[-1:])
    np.testing.assert_allclose(extreme[:, 0], [0, float((event == 1).any())], atol=1e-12)


def test_many_patients_are_predicted_in_parts(monkeypatch):
    event, time, risk = draw(4, 80)
    whole = metrics.predicted_survival(event, time, risk, risk, [1.0, 3.0])
    monkeypatch.setattr("fracsurv.metrics.competing._CHUNK_ELEMENTS", 100)
    np.testing.assert_array_equal(metrics.predicted_survival(event, time, risk, risk, [1.0, 3.0]), whole)
    parts = metrics.concordance_index_ipcw(event, time, event, time, risk)
    assert parts == pytest.approx(oracles.wolbers(event, time, event, time, risk), rel=1e-12)


def test_without_competing_events_everything_is_as_it_was():
    train, test = draw(6, 200, competing=0), draw(7, 120, competing=0)
    times = np.array([1.0, 2.5, 4.0])
    surv = metrics.breslow_survival(*train, test[2], times)
    nobody = metrics.breslow_baseline(train[0] == 2, train[1], train[2])
    found = metrics.absolute_risk(metrics.breslow_baseline(*train), test[2], nobody, None, times)
    np.testing.assert_allclose(1 - found, surv, atol=1e-12)
    np.testing.assert_array_equal(metrics.predicted_survival(*train, test[2], times), surv)
    as_bool = [(event == 1, time, risk) for event, time, risk in (train, test)]
    assert metrics.evaluate(*train, *test, times) == metrics.evaluate(*as_bool[0], *as_bool[1], times)
    # one death, after which nobody is judged any more, moves nothing either
    late = [np.append(test[0], 2), np.append(test[1], 1e6), np.append(test[2], 0.0)]
    as_censored = [late[0] == 1, *late[1:]]
    death, censored = (metrics.evaluate(*as_bool[0], *each, times) for each in (late, as_censored))
    assert death == pytest.approx(censored, rel=1e-12)


def test_evaluate_is_the_metrics_one_by_one_and_the_bootstrap_its_loop():
    train, test = draw(8, 200), draw(9, 90)
    times, grid = np.array([1.0, 2.5, 4.0]), np.linspace(0.5, 4, 8)
    rng = np.random.default_rng(2)
    other = rng.normal(size=200), rng.normal(size=90)  # so that probabilities rank otherwise than hazards
    found = metrics.evaluate(*train, *test, times, grid=grid, other_risk=other)
    surv, fine = (metrics.predicted_survival(*train, test[2], at, other) for at in (times, grid))
    auc = [oracles.competing_auc(*train[:2], *test[:2], 1 - each, t) for each, t in zip(surv.T, times, strict=True)]
    brier = metrics.brier_score(*train[:2], *test[:2], surv, times)
    expected = {
        ("c_index", None): metrics.concordance_index(test[0] == 1, *test[1:]),
        ("c_index_ipcw", None): oracles.wolbers(*train[:2], *test[:2], 1 - surv[:, -1]),
        ("mean_auc", None): metrics.cumulative_dynamic_auc(*train[:2], *test[:2], 1 - fine, grid)[1],
        ("integrated_brier", None): metrics.integrated_brier_score(*train[:2], *test[:2], fine, grid),
    }
    for k, t in enumerate(times):
        expected |= {("auc", t): auc[k], ("brier", t): brier[k]}
        expected["auc_thesis", t] = metrics.auc_censored_as_nonevent(test[0] == 1, *test[1:], t)
    assert found == pytest.approx(expected, rel=1e-12)
    args = ([train[0]], [train[1]], [train[2]], *test[:2], test[2][None], times)
    drawn = metrics.bootstrap_metrics(*args, grid=grid, other_risks=[other], n_draws=6, seed=3)
    for number, counts in enumerate(metrics.draw_counts(90, 6, 3).T):
        rows = np.repeat(np.arange(90), counts)
        again = metrics.evaluate(
            *train, *(column[rows] for column in test), times, grid=grid, other_risk=(other[0], other[1][rows])
        )
        assert {key: values[number, 0] for key, values in drawn.items()} == pytest.approx(again, rel=1e-11)


def test_who_will_have_the_event_is_ranked_by_probability():
    """Frailty raises both hazards: who is frailest dies before the fracture, and is no likely case."""
    rng = np.random.default_rng(4)
    frailty, own = rng.normal(size=(2, 4000))
    risk, other = 0.5 * own + 0.8 * frailty, 1.6 * frailty
    first, second = (rng.exponential(8 * np.exp(-each)) for each in (risk, other))
    time = np.min([first, second, np.full(4000, 12.0)], axis=0)
    event = np.where(time == 12, 0, np.where(first < second, 1, 2))
    outcome, at = (event, time), [8.0]
    found = metrics.evaluate(*outcome, risk, *outcome, risk, at, other_risk=(other, other))
    surv = metrics.predicted_survival(*outcome, risk, risk, at, (other, other))
    by_hazard = metrics.evaluate(*outcome, risk, *outcome, risk, at)
    for key in (("auc", 8.0), ("c_index_ipcw", None)):
        assert found[key] > by_hazard[key] + 0.02
    assert found["auc", 8.0] == metrics.cumulative_dynamic_auc(*outcome, *outcome, 1 - surv, at)[0]
    assert found["c_index", None] == by_hazard["c_index", None]  # of the hazard among those free of both


def test_a_score_for_each_time():
    train, (event, time, risk) = draw(10, 200), draw(11, 90)
    times, scores = np.array([0.5, 2.0, 3.5]), np.column_stack([np.full(90, np.nan), risk, -risk])
    found, mean = metrics.cumulative_dynamic_auc(*train[:2], event, time, scores, times)
    up, _ = metrics.cumulative_dynamic_auc(*train[:2], event, time, risk, times)
    assert np.isnan([found[0], mean]).all()
    assert found[1] == up[1]
    assert found[2] == pytest.approx(1 - up[2], rel=1e-12)
    with pytest.raises(ValueError, match=r"risk must have shape \(90,\) or \(90, 3\), got \(90, 2\)"):
        metrics.cumulative_dynamic_auc(*train[:2], event, time, scores[:, :2], times)
    with pytest.raises(ValueError, match=r"risk must be numbers"):
        metrics.cumulative_dynamic_auc(*train[:2], event, time, np.full((90, 3), "high", object), times)
    scores[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"risk must be finite, got risk\[4, 1\] = nan"):
        metrics.cumulative_dynamic_auc(*train[:2], event, time, scores, times)


def test_before_the_training_folds_first_event_the_hazard_ranks():
    train, test = draw(14, 200), draw(15, 120)
    train[0][(train[1] < 1.5) & (train[0] == 1)] = 0
    same = np.zeros(200), np.zeros(120)  # of dying: probabilities rank as hazards do
    times, grid = np.array([1.0, 3.0]), np.linspace(0.25, 3, 12)
    found = metrics.evaluate(*train, *test, times, grid=grid, other_risk=same)
    assert (metrics.predicted_survival(*train, test[2], times[:1], same) == 1).all()
    assert found == pytest.approx(metrics.evaluate(*train, *test, times, grid=grid), rel=1e-12)
    early = metrics.evaluate(*train, *test, times[:1], grid=grid, other_risk=same)
    assert early["c_index_ipcw", None] == pytest.approx(found["c_index_ipcw", None], rel=1e-12)


def test_mean_auc_is_weighted_by_the_rise_of_the_incidence():
    train, (event, time, risk) = draw(10, 200), draw(11, 90, tied=True)
    grid = np.array([0.5, 1.0, 2.0, 3.5])
    auc, mean = metrics.cumulative_dynamic_auc(*train[:2], event, time, risk, grid)
    rise = np.diff([0.0] + [oracles.cumulative_incidence(event, time, t) for t in grid])
    assert mean == pytest.approx(auc @ rise / rise.sum(), rel=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_calibration_counts_the_dead_as_free_of_the_event(tied):
    event, time, risk = draw(12, 120, tied=tied)
    probability = 1 / (1 + np.exp(-risk))
    found = metrics.calibration(event, time, probability, 2.0, n_groups=4)
    lowest = probability <= np.sort(probability)[29]  # and whoever is tied with the last
    group = metrics.cumulative_incidence(event[lowest], time[lowest], [2.0])
    assert found.observed[0] == pytest.approx(oracles.cumulative_incidence(event[lowest], time[lowest], 2.0))
    assert (found.low[0], found.high[0]) == (group.low[0], group.high[0])
    assert found.mean_observed == pytest.approx(oracles.cumulative_incidence(event, time, 2.0), rel=1e-12)
    case = (event == 1) & (time <= 2)
    known = (event > 0) | (time >= 2)
    just_before = np.nextafter(np.minimum(time, 2.0), 0)[known]
    weight = np.array([1 / oracles.kaplan_meier(event != 0, time, at, censoring=True) for at in just_before])
    assert weight @ case[known] / len(time) == pytest.approx(found.mean_observed, rel=1e-12)
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(risk[known, None], case[known], weight)
    assert found.slope == pytest.approx(fitted.coef_[0, 0], rel=1e-6)
    benefit = metrics.net_benefit(event, time, probability, 2.0, [0.4])[0]
    treated = probability >= 0.4
    share = oracles.cumulative_incidence(event[treated], time[treated], 2.0)
    assert benefit == pytest.approx(treated.mean() * (share - (1 - share) * 0.4 / 0.6), rel=1e-12)


def test_right_absolute_risks_are_calibrated_and_those_that_censor_the_dead_are_too_high():
    rng = np.random.default_rng(13)
    x = rng.normal(size=20_000)
    first, second = 0.1 * np.exp(0.7 * x), 0.08 * np.exp(0.5 * x)
    drawn = [rng.exponential(1 / rate) for rate in (first, second)] + [rng.uniform(0, 12, len(x))]
    time = np.min(drawn, axis=0)
    event = np.array([1, 2, 0])[np.argmin(drawn, axis=0)]
    true = first / (first + second) * -np.expm1(-(first + second) * 5)
    right = metrics.calibration(event, time, true, 5.0)
    some = slice(None)  # fewer leave the ends of the curve to chance
    smooth = metrics.smooth_calibration(event[some], time[some], true[some], 5.0)
    assert right.slope == pytest.approx(1, abs=0.1)  # 3 SD over samples of this size
    assert right.intercept == pytest.approx(0, abs=0.05)
    assert smooth.ici < 0.01
    np.testing.assert_allclose(smooth.observed, smooth.predicted, atol=0.03)
    if_nobody_died = -np.expm1(-first * 5)
    wrong = metrics.calibration(event, time, if_nobody_died, 5.0)
    assert wrong.intercept < -0.2
    assert metrics.smooth_calibration(event[some], time[some], if_nobody_died[some], 5.0).ici > 0.05
    # the two cause-specific models find the true risks again, the covariate being the risk
    new = x[some]
    found = 1 - metrics.predicted_survival(event, time, 0.7 * x, 0.7 * new, [5.0], (0.5 * x, 0.5 * new))[:, 0]
    assert np.abs(found - true[some]).mean() < 0.01


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match=r"event must be bool or 0/1/2, got event\[1\] = 3"):
        metrics.cumulative_incidence([1, 3], [1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="cause must be 1 or 2"):
        metrics.cumulative_incidence([1, 2], [1.0, 2.0], [1.0], cause=0)
    for refusing in (metrics.concordance_index, metrics.breslow_survival):
        arguments = ([1, 2], [1.0, 2.0], [0.0, 1.0])
        with pytest.raises(ValueError, match="must be bool or 0/1, got"):
            refusing(*arguments, *([[0.0], [1.0]] if refusing is metrics.breslow_survival else []))
