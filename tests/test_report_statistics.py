"""A report's statistics computed again from its `predictions.parquet`, by scikit-survival and lifelines alone."""

from __future__ import annotations

import lifelines
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sksurv import metrics as sksurv
from sksurv.util import Surv

from fracsurv import metrics
from fracsurv.config import derive_seed
from fracsurv.metrics import draw_counts
from fracsurv.study.ablation import best_unimodal, write_ablation
from fracsurv.study.leakage import minimal_detectable_difference
from fracsurv.study.prepare import prepare
from fracsurv.study.subgroups import _ratio, subgroup_table, subgroups
from tests.conftest import tabular, write_cohort
from tests.made_up import execute, made_up_run

HORIZON = 1826


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


@pytest.fixture(scope="module")
def tables(run):
    return write_ablation(run)


@pytest.fixture(scope="module")
def calibration(run):
    """The calibration table that notebook 05 saves."""
    with pytest.MonkeyPatch.context() as patch:
        execute("05_ablation_tables", run.cohort.folder, run.out, patch)
    return pd.read_csv(run.out / "tables" / "calibration.csv").set_index("model")


def predictions(run, name, fold, split=None):
    table = pd.read_parquet(run.out / "experiments" / name / f"fold-{fold}" / "predictions.parquet")
    return table if split is None else table[table["split"] == split].reset_index(drop=True)


def outcome(table):
    return Surv.from_arrays(table["event"].to_numpy(), table["time"].to_numpy())


def ensemble(run, name, split):
    """Event, time and the mean of the fold models' probabilities by the horizon, a row a patient."""
    parts = [predictions(run, name, fold, split).set_index("patient_id") for fold in range(2)]
    probability = sum(1 - part[f"survival_{HORIZON}d"] for part in parts) / 2
    return parts[0].loc[probability.index, ["event", "time"]].assign(p=probability)


def drawn(n, seed, n_draws=50):
    """Row numbers of each bootstrap sample."""
    return [np.repeat(np.arange(n), counts) for counts in draw_counts(n, n_draws, seed).T]


def harrell(table):
    return sksurv.concordance_index_censored(table["event"], table["time"], table["risk"], tied_tol=0)[0]


def survival_at(table, at):
    return float(lifelines.KaplanMeierFitter().fit(table["time"], table["event"]).predict(at))


@pytest.mark.parametrize("name", ["true_risk", "cox_ph", "deepsurv"])
@pytest.mark.parametrize("split", ["test", "external"])
def test_discrimination_and_brier_are_scikit_survivals(run, tables, name, split):
    table = tables[0]
    rows = table[(table["experiment"] == name) & (table["split"] == split)].set_index(["metric", "horizon_days"])
    found: dict = {}
    for fold in range(2):
        judged, train = predictions(run, name, fold, split), predictions(run, name, fold, "train")
        risk, weights = judged["risk"].to_numpy(), outcome(judged if split == "external" else train)
        found.setdefault(("c_index", None), []).append(
            sksurv.concordance_index_censored(judged["event"], judged["time"], risk, tied_tol=0)[0]
        )
        for day in [day for metric, day in rows.index if metric == "auc"]:
            own = outcome(judged)
            auc = sksurv.cumulative_dynamic_auc(weights, own, risk, [day], tied_tol=0)[0][0]
            found.setdefault(("auc", day), []).append(auc)
            surv = judged[f"survival_{day:g}d"].to_numpy()[:, None]
            found.setdefault(("brier", day), []).append(sksurv.brier_score(weights, own, surv, [day])[1][0])
    assert len(found) >= 3
    for (metric, day), values in found.items():
        row = rows.loc[(metric, np.nan if day is None else day)]
        assert row["mean"] == pytest.approx(np.mean(values), abs=1e-6), (metric, day)
        assert row["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)


def test_probabilities_are_breslows_by_scikit_survival(run):
    from sksurv.linear_model.coxph import BreslowEstimator

    train, judged = predictions(run, "cox_ph", 0, "train"), predictions(run, "cox_ph", 0, "external")
    fitted = BreslowEstimator().fit(train["risk"].to_numpy(), train["event"].to_numpy(), train["time"].to_numpy())
    wanted = [curve(HORIZON) for curve in fitted.get_survival_function(judged["risk"].to_numpy())]
    np.testing.assert_allclose(judged[f"survival_{HORIZON}d"], wanted, atol=1e-6)


def test_differences_p_and_holm(run, tables):
    table, differences = tables
    c_index = table[table["metric"] == "c_index"].set_index(["experiment", "split"])["mean"]
    rows = differences[differences["metric"] == "c_index"]
    for row in rows.to_dict("records"):
        wanted = c_index[row["experiment"], row["split"]] - c_index[row["reference"], row["split"]]
        assert row["difference"] == pytest.approx(wanted, abs=1e-12)
        assert row["se"] > 0
        assert 0 < row["p"] <= 1
        assert np.isnan(row["p_holm"]) == (row["experiment"] == "true_risk")
    for _, family in rows[rows["experiment"] != "true_risk"].groupby(["reference", "split"]):
        assert (family["p_holm"] >= family["p"]).all()
        assert family["p_holm"].min() == pytest.approx(min(1, len(family) * family["p"].min()))


def test_a_difference_is_paired_by_a_loop(run, tables):
    row = (
        tables[1]
        .query("metric == 'c_index' and split == 'external' and experiment == 'deepsurv' and reference == 'cox_ph'")
        .iloc[0]
    )
    parts = {n: [predictions(run, n, fold, "external") for fold in range(2)] for n in ("deepsurv", "cox_ph")}
    draws = []
    for rows in drawn(60, derive_seed(run.profile.seed, "bootstrap", "external", 0, 1)):
        c = {name: np.mean([harrell(fold.iloc[rows]) for fold in folds]) for name, folds in parts.items()}
        draws.append(c["deepsurv"] - c["cox_ph"])
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], np.percentile(draws, [2.5, 97.5]), atol=1e-9)
    assert row["se"] == pytest.approx(np.std(draws, ddof=1), abs=1e-9)
    tail = min(np.sum(np.array(draws) <= 0), np.sum(np.array(draws) >= 0))
    assert row["p"] == pytest.approx(min(1, 2 * (tail + 1) / (len(draws) + 1)))


def test_the_best_of_one_source_is_chosen_on_validation(run):
    rows = [("cox_ph", "validation", 0.7), ("deepsurv", "validation", 0.6), ("cox_ph", "external", 0.5),
            ("deepsurv", "external", 0.9), ("true_risk", "validation", 0.95), ("cds_crops_if", "validation", 0.8),
            ("cox_ph_vf", "validation", 0.9), ("cds_crops", "validation", 0.65)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["experiment", "split", "mean"]).assign(metric="c_index")
    assert best_unimodal(run, table) == "cox_ph"


@pytest.mark.parametrize("name", ["cox_ph", "deepsurv"])
def test_the_calibration_table_by_logistic_regression_and_a_loop(run, calibration, name):
    judged = ensemble(run, name, "external")
    # weights: 1 / P(uncensored just before the event or the horizon), events before censorings
    censoring = lifelines.KaplanMeierFitter().fit(judged["time"] + 1e-6 * ~judged["event"], ~judged["event"])
    case = judged["event"] & (judged["time"] <= HORIZON)
    known = case | (judged["time"] >= HORIZON)
    before = censoring.survival_function_at_times(np.minimum(judged["time"], HORIZON) - 1e-7).to_numpy()
    x = np.log(judged["p"] / (1 - judged["p"])).to_numpy()[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    fitted.fit(x[known], case[known], sample_weight=1 / before[known])

    def slope(rows):
        event, time, risk = (judged.iloc[rows][column].to_numpy() for column in ("event", "time", "p"))
        return metrics.calibration(event, time, risk, HORIZON, n_groups=1).slope

    draws = [slope(rows) for rows in drawn(60, derive_seed(run.profile.seed, "slope", "external"))]
    low, high = np.percentile(draws, [2.5, 97.5])
    title = {"cox_ph": "Cox PH", "deepsurv": "DeepSurv"}[name]
    row = calibration.loc[title]
    wanted = f"{fitted.coef_[0, 0]:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−")
    assert row["slope (below 1 = too extreme)"] == wanted
    ratio = (1 - survival_at(judged, HORIZON)) / judged["p"].mean()
    assert row["observed / expected"] == pytest.approx(ratio, abs=0.005)


def test_the_band_of_chance_holds_95_of_100_permutations(run):
    """As notebook 05 draws it: 0.5 ± 1.96 times the exact SD."""
    judged = predictions(run, "cox_ph", 0, "external")
    sd = metrics.concordance_sd_by_chance(judged["event"], judged["time"])
    low, high = norm.ppf([0.025, 0.975], 0.5, sd)
    rng = np.random.default_rng(0)
    permuted = [rng.permutation(60.0 * np.arange(60)) for _ in range(800)]
    values = np.array([harrell(judged.assign(risk=risk)) for risk in permuted])
    assert 0.92 < ((values > low) & (values < high)).mean() < 0.98


def test_subgroups(run):
    found = subgroup_table(run, "external", ["cox_ph", "deepsurv"], HORIZON)
    masks = dict([("All", np.ones(60, bool)), *subgroups(run, "external")])
    assert set(found["group"]) == set(masks)
    assert len(masks) == 5  # all; two halves of age; smokers or not
    cohort = run.cohort.table[run.splits["split"].to_numpy() == "external"].reset_index(drop=True)
    for row in found.to_dict("records"):
        ids = set(cohort["patient_id"][masks[row["group"]]])
        values = []
        for fold in range(2):
            judged = predictions(run, row["experiment"], fold, "external")
            judged = judged[judged["patient_id"].isin(ids)]
            values.append(
                sksurv.concordance_index_censored(judged["event"], judged["time"], judged["risk"], tied_tol=0)[0]
            )
        assert row["c_index"] == pytest.approx(np.mean(values), abs=1e-6)
        judged = ensemble(run, row["experiment"], "external")
        judged = judged[judged.index.isin(ids)]
        assert row["n"] == len(judged)
        assert row["events"] == judged["event"].sum()
        assert row["small"] == (row["events"] < 30)
        assert row["ratio"] == pytest.approx((1 - survival_at(judged, HORIZON)) / judged["p"].mean(), abs=1e-6)
        assert row["ci_low"] <= row["c_index"] <= row["ci_high"]


def test_subgroups_intervals_by_a_loop(run, tables):
    found = subgroup_table(run, "external", ["cox_ph", "deepsurv"], HORIZON).set_index(["group", "experiment"])
    c_index = tables[0].query("metric == 'c_index' and split == 'external'").set_index("experiment")
    assert found.loc[("All", "deepsurv"), "ci_low"] == pytest.approx(c_index.loc["deepsurv", "ci_low"], abs=1e-12)
    (group, inside), *_ = subgroups(run, "external")
    cohort = run.cohort.table[run.splits["split"].to_numpy() == "external"].reset_index(drop=True)
    ids = cohort["patient_id"][inside].tolist()
    part = {
        name: [predictions(run, name, fold, "external").set_index("patient_id").loc[ids] for fold in range(2)]
        for name in ("cox_ph", "deepsurv")
    }
    judged = ensemble(run, "deepsurv", "external").loc[ids]
    seed = derive_seed(run.profile.seed, "subgroup", "external", 1)
    difference, ratio = [], []
    for rows in drawn(len(ids), seed):
        c = {name: np.mean([harrell(fold.iloc[rows]) for fold in folds]) for name, folds in part.items()}
        difference.append(c["deepsurv"] - c["cox_ph"])
        again = judged.iloc[rows]
        reaches = again["time"].max() >= HORIZON
        ratio.append((1 - survival_at(again, HORIZON)) / again["p"].mean() if reaches else np.nan)
    row = found.loc[(group, "deepsurv")]
    for name, draws in (("difference", difference), ("ratio", ratio)):
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        np.testing.assert_allclose([row[f"{name}_low"], row[f"{name}_high"]], [low, high], atol=1e-6)


def test_factors_are_cut_at_the_training_patients_median(tmp_path):
    table = tabular(90)
    table["split"] = ["external" if i % 3 == 0 else "" for i in range(90)]
    table.loc[table["split"] == "external", "age"] += 10
    kinds = {"age": "continuous", "smoker": "binary"}
    made = prepare(write_cohort(tmp_path / "c", table, covariates=kinds), tmp_path / "r", "tiny")
    trained = (made.splits["split"] == "train").to_numpy()
    cut = np.median(made.cohort.table["age"].to_numpy()[trained])
    groups = dict(subgroups(made, "external"))
    assert [name for name in groups if name.startswith("Age")] == [f"Age, years: above {cut:.6g}"]


def test_groups_cover_the_split_without_overlap_of_a_factor(run):
    groups = subgroups(run, "external")
    for factor in {name.partition(": ")[0] for name, _ in groups}:
        inside = sum(at.astype(int) for name, at in groups if name.startswith(factor))
        assert (inside == 1).all()


def test_the_least_visible_difference_is_seen_four_times_in_five():
    rng = np.random.default_rng(1)
    se = 0.03
    effect = minimal_detectable_difference(se)
    seen = np.abs(rng.normal(effect, se, 20_000) / se) > 1.959964
    assert seen.mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("event", "exact"), [(0, (0, 0.1424736)), (1, (0.8575264, 1))])
def test_a_group_in_which_nobody_or_everybody_had_the_event_has_exact_bounds(event, exact):
    """binom.test in R, 0 and 24 of 24."""
    found = _ratio(np.full(24, event), np.linspace(1, 2, 24) + 3 * (not event), np.full(24, 0.25), 3.0, 100, 0)
    assert list(found.values()) == pytest.approx([4 * event, 4 * exact[0], 4 * exact[1]], abs=1e-6)
    none = _ratio(np.full(24, event), np.linspace(1, 2, 24) + 3, np.zeros(24), 3.0, 100, 0)
    assert np.isnan(list(none.values())).all()
