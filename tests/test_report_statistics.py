"""A report's statistics computed again from its `predictions.parquet`, by scikit-survival and lifelines alone."""

from __future__ import annotations

import re

import lifelines
import numpy as np
import pandas as pd
import pytest
from lifelines.statistics import multivariate_logrank_test
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sksurv import metrics as sksurv
from sksurv.util import Surv

from fracsurv import metrics
from fracsurv.config import derive_seed
from fracsurv.metrics import draw_counts
from fracsurv.report import findings, report
from fracsurv.report.findings import chance_range, clinical, comparison
from fracsurv.report.findings.clinical import THRESHOLDS
from fracsurv.study.ablation import best_unimodal
from fracsurv.study.leakage import minimal_detectable_difference
from fracsurv.study.prepare import prepare
from fracsurv.study.subgroups import subgroup_table, subgroups
from tests.conftest import tabular, write_cohort
from tests.made_up import made_up_run

HORIZON = 1826


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


@pytest.fixture(scope="module")
def tables(run):
    return report.write_ablation(run)


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


def numbers(text):
    return [float(found) for found in re.findall(r"[−+]?\d+(?:\.\d+)?", text.replace("−", "-").replace(",", ""))]


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
    # and those drawn in colour, too
    assert findings.highlighted(table, "external") == ["cox_ph", "deepsurv"]
    more = pd.concat([table, table[table["split"] == "validation"].assign(split="external")]).drop_duplicates(
        ["experiment", "split"]
    )
    assert findings.highlighted(more, "external") == ["cox_ph", "cds_crops_if", "true_risk", "cox_ph_vf"]


def test_rows_within_chance_are_counted_by_their_c(run, tables):
    table, differences = tables
    low, high = chance_range(run, "external")
    at = (table["metric"] == "c_index") & (table["split"] == "external")
    assert len(table[at]) == 3
    moved = table.copy()
    moved.loc[at, "mean"] = [high + 0.01, high - 0.01, low - 0.01]
    assert "not above that: 2 of 3 rows" in findings.forest(run, moved, differences).said


def test_the_band_is_half_plus_or_minus_the_normal_quantile_times_the_sd(run):
    judged = predictions(run, "cox_ph", 0, "external")
    sd = metrics.concordance_sd_by_chance(judged["event"], judged["time"])
    np.testing.assert_allclose(chance_range(run, "external"), norm.ppf([0.025, 0.975], 0.5, sd), rtol=1e-12)


def test_few_events_have_no_band(run, tables, monkeypatch):
    monkeypatch.setattr(comparison, "FEWEST_EVENTS", 10_000)
    assert chance_range(run, "external") is None
    said = findings.forest(run, *tables).said
    assert "permuted" not in said
    assert "nan" not in said


def test_calibrations_sentence(run, tables):
    said = findings.calibration(run, tables[0], "external", ["cox_ph"]).said
    judged = ensemble(run, "cox_ph", "external")
    # weights: 1 / P(uncensored just before the event or the horizon), events before censorings
    censoring = lifelines.KaplanMeierFitter().fit(judged["time"] + 1e-6 * ~judged["event"], ~judged["event"])
    case = judged["event"] & (judged["time"] <= HORIZON)
    known = case | (judged["time"] >= HORIZON)
    before = censoring.survival_function_at_times(np.minimum(judged["time"], HORIZON) - 1e-7).to_numpy()
    x = np.log(judged["p"] / (1 - judged["p"])).to_numpy()[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    fitted.fit(x[known], case[known], sample_weight=1 / before[known])
    assert f"Cox PH {fitted.coef_[0, 0]:.2f} [".replace("-", "−") in said


def test_slopes_interval_and_single_models_by_a_loop(run, tables):
    said = findings.calibration(run, tables[0], "external", ["deepsurv"]).said
    judged = ensemble(run, "deepsurv", "external")

    def slope(rows, of=judged):
        part = of.iloc[rows]
        return metrics.calibration(
            part["event"].to_numpy(), part["time"].to_numpy(), part["p"].to_numpy(), HORIZON, n_groups=1
        ).slope

    seed = derive_seed(run.profile.seed, "slope", "external")
    low, high = np.percentile([slope(rows) for rows in drawn(60, seed)], [2.5, 97.5])
    assert f"[{low:.2f}, {high:.2f}]".replace("-", "−") in said
    single = []
    for fold in range(2):
        own = predictions(run, "deepsurv", fold, "external")
        single.append(slope(np.arange(60), own.assign(p=1 - own[f"survival_{HORIZON}d"])))
    assert f"single models {np.mean(single):.2f}".replace("-", "−") in said


def net_benefit(judged, threshold):
    treated = judged[judged["p"] >= threshold]
    if treated.empty:
        return 0.0
    events = 1 - survival_at(treated, HORIZON)
    return len(treated) / len(judged) * (events - (1 - events) * threshold / (1 - threshold))


def told(said, before):
    """The numbers that stand after some words, up to the next ; , or end of the sentence."""
    part = re.split(r"[;,]|\.(?!\d)", said.split(before, 1)[1], maxsplit=1)[0]
    return [float(found) for found in re.findall(r"[-+]?\d+", part.replace("−", "-"))]


def test_decision_curves_sentence(run, tables, monkeypatch):
    monkeypatch.setattr(clinical, "HEADLINE", "deepsurv")
    said = findings.decision_curve(run, tables[0], "external", ["cox_ph", "deepsurv"]).said
    judged = {name: ensemble(run, name, "external") for name in ("cox_ph", "deepsurv")}
    everyone = judged["cox_ph"].assign(p=1.0)
    for table, words in ((judged["cox_ph"], "false ones: Cox PH"), (judged["deepsurv"], "; DeepSurv"),
                         (everyone, "acting on everyone")):  # fmt: skip
        wanted = [1000 * net_benefit(table, at) for at in THRESHOLDS]
        np.testing.assert_allclose(told(said, words), wanted, atol=0.5001)  # whole patients
    assert f"{100 * (1 - survival_at(everyone, HORIZON)):.1f} % have it" in said

    def gain(rows):
        both = [judged[name].iloc[rows] for name in ("deepsurv", "cox_ph")]
        return [1000 * (net_benefit(both[0], at) - net_benefit(both[1], at)) for at in THRESHOLDS]

    np.testing.assert_allclose(told(said, "DeepSurv minus Cox PH:"), gain(np.arange(60)), atol=0.5001)
    seed = derive_seed(run.profile.seed, "net benefit", "external")
    wanted = np.percentile([gain(rows) for rows in drawn(60, seed)], [2.5, 97.5], axis=0).T
    np.testing.assert_allclose(told(said, "95 % intervals"), wanted.ravel(), atol=0.5001)


def test_groups_of_risk(run, tables):
    said = findings.risk_groups(run, tables[0], "cox_ph", "external").said
    parts = [predictions(run, "cox_ph", fold, "external").set_index("patient_id") for fold in range(2)]
    rank = sum(part["risk"].rank(pct=True) for part in parts) / 2
    third = pd.qcut(rank.rank(method="first"), 3, labels=False)
    lowest, highest = (100 * (1 - survival_at(parts[0][third == k], HORIZON)) for k in (0, 2))
    p = multivariate_logrank_test(parts[0]["time"], third, parts[0]["event"]).p_value
    assert f"{lowest:.1f} % of the third" in said
    assert f"{highest:.1f} % of the third" in said
    assert ("p < 0.001" if p < 0.001 else f"p = {p:.2f}"[:8]) in said


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


def test_follow_up(run):
    said = findings.follow_up(run).said
    table = run.cohort.table
    for value in (0, 1):
        share = 100 * (1 - survival_at(table[table["smoker"] == value], HORIZON))
        assert f"{share:.1f} % of" in said
    p = multivariate_logrank_test(table["time"], table["smoker"], table["event"]).p_value
    assert numbers(said.rsplit("log-rank", 1)[1])[0] == pytest.approx(p, abs=0.005)


def test_the_grey_band_holds_95_of_100_deals(run):
    low, high = chance_range(run, "external")
    judged = predictions(run, "cox_ph", 0, "external")
    rng = np.random.default_rng(0)
    values = np.array(
        [
            sksurv.concordance_index_censored(judged["event"], judged["time"], rng.permutation(60.0 * np.arange(60)))[
                0
            ]
            for _ in range(800)
        ]
    )
    assert 0.92 < ((values > low) & (values < high)).mean() < 0.98


def test_the_least_visible_difference_is_seen_four_times_in_five():
    rng = np.random.default_rng(1)
    se = 0.03
    effect = minimal_detectable_difference(se)
    seen = np.abs(rng.normal(effect, se, 20_000) / se) > 1.959964
    assert seen.mean() == pytest.approx(0.8, abs=0.01)
