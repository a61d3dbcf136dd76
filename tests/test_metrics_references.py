"""Every metric against scikit-survival, R, lifelines and torchsurv."""

from __future__ import annotations

from pathlib import Path

import lifelines
import lifelines.utils
import numpy as np
import pandas as pd
import pytest
import sksurv.metrics
import torch
from sksurv.linear_model.coxph import BreslowEstimator
from sksurv.nonparametric import CensoringDistributionEstimator, kaplan_meier_estimator
from sksurv.util import Surv

from fracsurv import metrics

REFERENCE = Path(__file__).parent / "reference"
TIMES = np.array([365.0, 700.0, 1096.0, 1826.0, 2500.0])


def draw(seed, n, *, tied):
    """Patients with administrative and other censoring; tied: times in steps of 40 days, risks of 0.1."""
    rng = np.random.default_rng(seed)
    hazard, left = rng.normal(size=n), np.minimum(rng.uniform(0, 6000, n), 2867)
    died = rng.exponential(3000 * np.exp(-0.7 * hazard))
    event, time = died <= left, np.minimum(died, left)
    risk = 0.7 * hazard + 0.5 * rng.normal(size=n)
    return (event, np.ceil(time / 40) * 40, risk.round(1)) if tied else (event, time, risk)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folds(request):
    """A training and a test fold; the last event of the test fold comes before the end of training follow-up."""
    train, test = draw(1, 500, tied=request.param), draw(2, 250, tied=request.param)
    keep = test[1] < 2800
    return train, tuple(column[keep] for column in test)


@pytest.fixture
def surv(folds):
    train, test = folds
    return metrics.breslow_survival(*train, test[2], TIMES)


def outcome(part):
    return Surv.from_arrays(part[0], part[1])


def test_concordance_is_scikit_survivals(folds):
    found = metrics.concordance_counts(*folds[1])
    index, *counts = sksurv.metrics.concordance_index_censored(*folds[1])
    assert [found.concordant, found.discordant, found.tied_risk, found.tied_time] == counts
    assert metrics.concordance_index(*folds[1]) == pytest.approx(index, rel=1e-14)


@pytest.mark.parametrize("tau", [None, 1000.0, 2000.0])
def test_uno_is_scikit_survivals(folds, tau):
    train, test = folds
    expected = sksurv.metrics.concordance_index_ipcw(outcome(train), outcome(test), test[2], tau=tau)[0]
    assert metrics.concordance_index_ipcw(*train[:2], *test, tau=tau) == pytest.approx(expected, rel=1e-12)


def test_auc_is_scikit_survivals(folds):
    train, test = folds
    expected, mean = sksurv.metrics.cumulative_dynamic_auc(outcome(train), outcome(test), test[2], TIMES)
    found, found_mean = metrics.cumulative_dynamic_auc(*train[:2], *test, TIMES)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found_mean == pytest.approx(mean, rel=1e-12)


def test_auc_at_one_time_is_its_own_mean(folds):
    train, test = folds
    found, mean = metrics.cumulative_dynamic_auc(*train[:2], *test, 1096.0)
    assert found[0] == pytest.approx(mean, rel=1e-12)


def test_brier_is_scikit_survivals(folds, surv):
    train, test = folds
    expected = sksurv.metrics.brier_score(outcome(train), outcome(test), surv, TIMES)[1]
    np.testing.assert_allclose(metrics.brier_score(*train[:2], *test[:2], surv, TIMES), expected, rtol=1e-12)
    integrated = sksurv.metrics.integrated_brier_score(outcome(train), outcome(test), surv, TIMES)
    found = metrics.integrated_brier_score(*train[:2], *test[:2], surv, TIMES)
    assert found == pytest.approx(integrated, rel=1e-12)


def test_breslow_is_scikit_survivals(folds, surv):
    train, test = folds
    model = BreslowEstimator().fit(train[2], train[0], train[1])
    expected = [function(TIMES) for function in model.get_survival_function(test[2])]
    np.testing.assert_allclose(surv, expected, rtol=1e-10)


def test_kaplan_meier_is_scikit_survivals(folds):
    event, time, _ = folds[0]
    times, survival = kaplan_meier_estimator(event, time)
    found = metrics.kaplan_meier(event, time)
    np.testing.assert_array_equal(found[0], times)
    np.testing.assert_allclose(found[1], survival, rtol=1e-12)
    model = CensoringDistributionEstimator().fit(outcome(folds[0]))
    at = np.concatenate([TIMES, folds[1][1]])
    found = metrics.censoring_survival(event, time, at)
    np.testing.assert_allclose(found, model.predict_proba(at), rtol=1e-12, atol=1e-15)


def test_evaluate_is_scikit_survivals(folds, surv):
    train, test = folds
    grid = metrics.integration_grid([2500.0])
    found = metrics.evaluate(*train, *test, TIMES, grid=grid)
    y_train, y_test = outcome(train), outcome(test)
    expected = {
        ("c_index", None): sksurv.metrics.concordance_index_censored(*test)[0],
        ("c_index_ipcw", None): sksurv.metrics.concordance_index_ipcw(y_train, y_test, test[2])[0],
        ("mean_auc", None): sksurv.metrics.cumulative_dynamic_auc(y_train, y_test, test[2], grid)[1],
        ("integrated_brier", None): sksurv.metrics.integrated_brier_score(
            y_train, y_test, metrics.breslow_survival(*train, test[2], grid), grid
        ),
    }
    auc = sksurv.metrics.cumulative_dynamic_auc(y_train, y_test, test[2], TIMES)[0]
    brier = sksurv.metrics.brier_score(y_train, y_test, surv, TIMES)[1]
    expected |= {("auc", t): value for t, value in zip(TIMES, auc, strict=True)}
    expected |= {("brier", t): value for t, value in zip(TIMES, brier, strict=True)}
    expected |= {("auc_thesis", t): metrics.auc_censored_as_nonevent(*test, t) for t in TIMES}
    assert found == pytest.approx(expected, rel=1e-10)


def test_concordance_and_kaplan_meier_are_lifelines(folds):
    event, time, risk = folds[1]
    expected = lifelines.utils.concordance_index(time, -risk, event)
    assert metrics.concordance_index(event, time, risk) == pytest.approx(expected, rel=1e-12)
    model = lifelines.KaplanMeierFitter().fit(time, event)
    times, survival = metrics.kaplan_meier(event, time)
    np.testing.assert_allclose(survival, model.survival_function_at_times(times), rtol=1e-9)


def test_breslow_is_lifelines(folds):
    event, time, x = folds[0]
    model = lifelines.CoxPHFitter().fit(pd.DataFrame({"event": event, "time": time, "x": x}), "time", "event")
    # lifelines centres covariates before it takes the baseline, which changes no probability; between event times
    # it interpolates, so the two are compared at event times.
    times, new = np.unique(time[event])[::7], np.array([-1.0, 0.0, 2.0])
    expected = model.predict_survival_function(pd.DataFrame({"x": new}), times=times).to_numpy().T
    beta = model.params_["x"]
    found = metrics.breslow_survival(event, time, beta * x, beta * new, times)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# torchsurv 0.2.0 compiles a function with torch.jit.script when it is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_unweighted_metrics_are_torchsurvs():
    from torchsurv.metrics.auc import Auc
    from torchsurv.metrics.cindex import ConcordanceIndex

    event, time, risk = draw(3, 200, tied=False)
    event, time, risk = torch.from_numpy(event), torch.from_numpy(time).float(), torch.from_numpy(risk).float()
    plain = event.numpy(), time.numpy(), risk.numpy()
    assert metrics.concordance_index(*plain) == pytest.approx(ConcordanceIndex()(risk, event, time).item(), rel=1e-6)
    # Without weights, torchsurv's AUC is the one that counts the censored as the reference study does.
    expected = Auc()(risk, event, time, new_time=torch.tensor([365.0, 1096.0]))
    found = [metrics.auc_censored_as_nonevent(*plain, at) for at in (365.0, 1096.0)]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


# tests/reference/cox.R: concordance(Surv(time, event) ~ risk, d, reverse = TRUE) and
# survfit(coxph(…, ties = "breslow", init = 1, iter.max = 0), newdata, ctype = 1, stype = 2).
def test_tied_patients_as_in_r():
    patients = pd.read_csv(REFERENCE / "cox_patients.csv")
    columns = [patients[name].to_numpy() for name in ("event", "time", "risk")]
    values = pd.read_csv(REFERENCE / "cox_values.csv").set_index("what")["value"]
    found = metrics.concordance_counts(*columns)
    assert found.concordant == values["concordant"]
    assert found.discordant == values["discordant"]
    assert found.tied_risk == values["tied_risk"]
    assert found.index == pytest.approx(values["c_index"], rel=1e-12)
    survival = pd.read_csv(REFERENCE / "cox_survival.csv").set_index("time")
    surv = metrics.breslow_survival(*columns, [-2.0, 0.0, 1.5], survival.index.to_numpy())
    np.testing.assert_allclose(surv.T, survival.to_numpy(), rtol=1e-10)


# tests/reference/ipcw.R: riskRegression::Score(metrics = c("auc", "brier"), cens.model = "km"), pec::pec and
# survival::concordance(timewt = "n/G2").
def test_weighted_metrics_as_in_r():
    patients = pd.read_csv(REFERENCE / "ipcw_patients.csv")
    event, time, risk = (patients[name].to_numpy() for name in ("event", "time", "risk"))
    values = pd.read_csv(REFERENCE / "ipcw_values.csv")
    expected = {what: group["value"].to_numpy() for what, group in values.groupby("what")}
    times = values.loc[values["what"] == "auc", "time"].to_numpy()
    surv = np.exp(-np.outer(np.exp(0.8 * risk), 0.1 * times))
    auc, _ = metrics.cumulative_dynamic_auc(event, time, event, time, risk, times)
    np.testing.assert_allclose(auc, expected["auc"], rtol=1e-10)
    brier = metrics.brier_score(event, time, event, time, surv, times)
    np.testing.assert_allclose(brier, expected["brier"], rtol=1e-10)
    np.testing.assert_allclose(brier, expected["brier_pec"], rtol=1e-10)
    assert metrics.concordance_index(event, time, risk) == pytest.approx(expected["harrell"][0], rel=1e-12)
    uno = metrics.concordance_index_ipcw(event, time, event, time, risk)
    assert uno == pytest.approx(expected["uno"][0], rel=1e-10)
