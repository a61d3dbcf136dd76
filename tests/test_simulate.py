"""The simulated clinical variables, fractures and outcomes against the protocol's numbers.

Bounds are those of a test at level ALPHA, shared out over everything checked (Bonferroni), for the one seed
used: a correct simulator passes, one that misses a marginal by some five standard errors does not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm

from fracsurv.cohort.boxes import LEVELS
from fracsurv.cohort.covariates import PROTOCOL_COVARIATES
from fracsurv.simulate import (
    DEFAULT,
    calibrated_scale,
    clinical_log_hazard,
    image_log_hazard,
    simulate_clinical,
    simulate_outcome,
    simulate_tables,
)
from fracsurv.utils.errors import UserError

N = 3_028
ALPHA = 1e-3

# From the protocol's cohort table (SUPERB).
SHARES = {
    "prior_fracture": 0.369,
    "parental_hip_fracture": 0.176,
    "smoker": 0.052,
    "glucocorticoids": 0.034,
    "rheumatoid_arthritis": 0.040,
    "alcohol": 0.006,
    "secondary_osteoporosis": 0.260,
    "event": 0.358,
}
MEANS = {"age": (77.8, 1.6), "bmi": (26.3, 4.4), "t_score": (-1.6, 0.9), "time_days": (2317.0, 991.8)}
LEVEL = ALPHA / (len(SHARES) + 2 * len(MEANS))


@pytest.fixture(scope="module")
def cohort() -> tuple[pd.DataFrame, pd.DataFrame]:
    return simulate_tables(N, seed=0)


@pytest.fixture(scope="module")
def large() -> tuple[pd.DataFrame, pd.DataFrame]:
    return simulate_tables(8_000, seed=1)


@pytest.mark.parametrize("name", SHARES)
def test_share_is_within_its_exact_binomial_bounds(cohort, name):
    count = int(cohort[0][name].sum())
    low, high = binom.ppf([LEVEL / 2, 1 - LEVEL / 2], N, SHARES[name])
    assert low <= count <= high


@pytest.mark.parametrize("name", MEANS)
def test_mean_and_sd_are_within_their_normal_bounds(cohort, name):
    mean, sd = MEANS[name]
    x = cohort[0][name].to_numpy(dtype=float)
    z = norm.isf(LEVEL / 2)
    assert abs(x.mean() - mean) <= z * sd / np.sqrt(N)
    # SD of a sample SD, by the delta method with the sample's own kurtosis.
    kurtosis = np.mean((x - x.mean()) ** 4) / x.var() ** 2
    assert abs(x.std(ddof=1) - sd) <= z * sd * np.sqrt((kurtosis - 1) / (4 * N))


def test_the_table_is_the_protocols_and_holds_no_truth(cohort):
    table, truth = cohort
    assert list(table.columns) == ["patient_id", "time_days", "event", *PROTOCOL_COVARIATES]
    assert table["patient_id"].is_unique
    assert table["patient_id"].equals(truth["patient_id"])
    assert not set(truth.columns) & set(table.columns) - {"patient_id"}
    assert table["time_days"].min() >= 1
    assert set(table["event"]) == {0, 1}
    for level in LEVELS:  # a type is named exactly where a vertebra is broken
        assert ((truth[f"grade_{level}"] == 0) == (truth[f"type_{level}"] == "normal")).all()


def test_a_woman_depends_on_the_seed_and_not_on_how_many_follow(cohort):
    for whole, part in zip(cohort, simulate_tables(150, seed=0), strict=True):
        pd.testing.assert_frame_equal(whole.head(150), part, check_exact=True)
    assert (simulate_clinical(50, 1)["age"] != cohort[0]["age"].head(50)).mean() > 0.9


def test_concordance_of_the_true_risk_and_of_its_clinical_part(large):
    table, truth = (frame.head(4_000) for frame in large)
    event, time = table["event"].to_numpy(bool), table["time_days"].to_numpy(float)
    comparable = (time[:, None] < time[None, :]) & event[:, None]
    # The protocol's aims are 0.76 and 0.64; the SD of C at n = 4,000 is about 0.007.
    for risk, aim in ((truth["log_hazard"].to_numpy(), 0.76), (clinical_log_hazard(table), 0.64)):
        better = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
        assert better[comparable].mean() == pytest.approx(aim, abs=0.025)


def test_outcome_follows_the_stated_weibull_hazard(large):
    """Cumulative hazards to the end of follow-up are exponential: their censored mean rate is 1."""
    table, truth = large
    cumulative = (table["time_days"] / DEFAULT.weibull_scale) ** DEFAULT.weibull_shape * np.exp(truth["log_hazard"])
    events = table["event"].sum()
    assert abs(cumulative.sum() - events) < 4.5 * np.sqrt(events)


def test_true_log_hazard_is_the_sum_of_the_stated_coefficients(cohort):
    table, truth = cohort
    burden = (np.log(1 + truth["grade_sum"]) - DEFAULT.burden_mean) / DEFAULT.burden_sd
    b, rho = DEFAULT.image_balance, DEFAULT.burden_correlation
    image = (b**0.5 * -truth["bone_quality"] + (1 - b) ** 0.5 * burden) / (1 + 2 * (b - b * b) ** 0.5 * rho) ** 0.5
    expected = DEFAULT.image_strength * image
    centre = {"age": 77.8, "bmi": 26.3, "t_score": -1.6}
    for name in PROTOCOL_COVARIATES:
        expected += DEFAULT.log_hazard[name] * (table[name] - centre.get(name, 0))
    np.testing.assert_allclose(truth["log_hazard"], expected, rtol=1e-9)


def test_vertebral_fractures_follow_bone_age_and_prior_fracture(large):
    table, truth = large
    broken = truth["grade_sum"] > 0
    assert 0.17 < broken.mean() < 0.23
    weak, strong = truth["bone_quality"] < -1, truth["bone_quality"] > 1
    assert broken[weak].mean() > 2 * broken[strong].mean()
    prior = table["prior_fracture"] == 1
    assert broken[prior].mean() > 1.4 * broken[~prior].mean()
    assert np.corrcoef(table["age"], np.log1p(truth["grade_sum"]))[0, 1] > 0.03
    grades = truth[[f"grade_{level}" for level in LEVELS]].to_numpy()
    assert (grades.sum(axis=1) == truth["grade_sum"]).all()
    counts = [(grades == g).sum() for g in (1, 2, 3)]
    assert counts[0] > counts[1] > counts[2] > 0.05 * sum(counts)
    by_level = dict(zip(LEVELS, (grades > 0).sum(axis=0), strict=True))
    assert min(by_level["T12"], by_level["L1"]) > max(by_level["T10"], by_level["L3"], by_level["T4"])
    assert min(by_level["T7"], by_level["T8"]) > max(by_level["T4"], by_level["T5"], by_level["T10"])


@pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
def test_balance_moves_the_image_signal_and_keeps_its_size(large, balance):
    truth = large[1]
    signal = image_log_hazard(truth["bone_quality"], truth["grade_sum"], replace(DEFAULT, image_balance=balance))
    burden = np.log1p(truth["grade_sum"])
    assert signal.std() == pytest.approx(DEFAULT.image_strength, rel=0.05)
    own = {0.0: burden, 1.0: -truth["bone_quality"]}
    if balance in own:
        assert np.corrcoef(signal, own[balance])[0, 1] == pytest.approx(1.0)
    else:
        assert np.corrcoef(signal, burden)[0, 1] > np.corrcoef(signal, -truth["bone_quality"])[0, 1]


def test_given_bone_quality_conditions_the_copula():
    given = np.linspace(-3, 3, 4_000)
    clinical = simulate_clinical(len(given), 0, bone_quality=given)
    np.testing.assert_array_equal(clinical["bone_quality"], given)
    # T-score given q: slope SD x correlation.
    slope = np.polyfit(given, clinical["t_score"], 1)[0]
    assert slope == pytest.approx(0.9 * DEFAULT.correlation["q", "t_score"], abs=4 * 0.9 / np.sqrt(4_000) / 1.7)


@pytest.mark.parametrize("bad", [np.zeros(3), np.full(4, np.nan)])
def test_given_scores_are_checked(bad):
    with pytest.raises(UserError, match="expected 4 finite numbers"):
        simulate_clinical(4, bone_quality=bad)
    with pytest.raises(UserError, match="expected 4 finite numbers"):
        simulate_outcome(simulate_clinical(4), bad)


@pytest.mark.parametrize("share", [0.15, 0.6])
def test_calibrated_scale_gives_the_wanted_share_for_any_score(share):
    score = np.random.default_rng(0).gamma(2.0, 0.5, 4_000)
    clinical = simulate_clinical(len(score), 3)
    settings = calibrated_scale(clinical_log_hazard(clinical) + score, share)
    events = simulate_outcome(clinical, score, 3, settings)["event"].mean()
    assert abs(events - share) < 4 * np.sqrt(share * (1 - share) / len(score))


def test_impossible_settings_are_refused():
    pairs = {("q", "age"): 0.9, ("q", "prior_fracture"): -0.9, ("age", "prior_fracture"): 0.9}
    correlation = DEFAULT.correlation | pairs
    with pytest.raises(UserError, match="positive definite"):
        simulate_clinical(2, settings=replace(DEFAULT, correlation=correlation))
    with pytest.raises(UserError, match="image_balance"):
        image_log_hazard(np.zeros(2), np.zeros(2), replace(DEFAULT, image_balance=1.2))
    with pytest.raises(UserError, match="event_share"):
        calibrated_scale(np.zeros(2), 1.0)
