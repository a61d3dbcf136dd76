"""A cohort with a competing event, from its table to predictions, metrics and report; the simulator's deaths."""

from __future__ import annotations

import lifelines
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.plausibility import implausible_values
from fracsurv.cohort.splits import make_splits
from fracsurv.cohort.summary import summary_table
from fracsurv.metrics import draw_counts
from fracsurv.predict.predict import model_summary, predict_cohort, read_models
from fracsurv.simulate import DeathSettings, death_times, simulate_clinical, simulate_tables
from fracsurv.study.ablation import bootstrap_seed, write_ablation
from fracsurv.study.competing import competing_hazard
from fracsurv.study.experiments import run_experiment
from fracsurv.study.prepare import prepare
from fracsurv.study.results import read_metrics, read_predictions
from fracsurv.study.run import permuted
from fracsurv.study.scaling import standardise
from fracsurv.study.subgroups import subgroup_table
from fracsurv.study.time_dependent import KAPLAN_MEIER, event_share, metrics_over_time, patient_predictions
from fracsurv.utils.errors import UserError
from tests import oracles
from tests.conftest import tabular, write_cohort
from tests.made_up import SCRIPT, execute, made_up_run, texts_of

KINDS = {"age": "continuous", "smoker": "binary"}
DAYS = (365.0, 1096.0, 1826.0)


def dying(n=240, seed=3):
    """A table in which smokers and the old die, some of them first."""
    table = tabular(n, seed)
    rng = np.random.default_rng(seed)
    died = rng.exponential(3500 * np.exp(-0.2 * (table["age"] - 78) - 0.8 * table["smoker"])).clip(1).round()
    first = died < table["time_days"]
    table["time_days"] = np.where(first, died, table["time_days"])
    table["event"] = np.where(first, 2, table["event"])
    return table


def cohort_of(folder, table):
    return read_cohort(write_cohort(folder, table, covariates=KINDS, competing_event="death"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Cox PH fitted on such a cohort."""
    folder = tmp_path_factory.mktemp("competing")
    table = dying()
    table["split"] = ["external" if i >= 180 else "" for i in range(len(table))]
    cohort = write_cohort(
        folder / "cohort", table, covariates=KINDS, competing_event="death", horizons=[int(d) for d in DAYS]
    )
    made = prepare(cohort, folder / "run", "tiny")
    run_experiment(made, "cox_ph", progress=False)
    return made


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run with hostile names, and what notebook 01 shows of it."""
    made = made_up_run(tmp_path_factory.mktemp("made-up"), deaths=True)
    with pytest.MonkeyPatch.context() as patch:
        return made, texts_of(execute("01_eda_kaplan_meier", made.cohort.folder, made.out, patch))


def columns(run, fold, split):
    """Status, time, log hazard and log hazard of death of a split's patients, from the file alone."""
    table = pd.read_parquet(run.out / "experiments" / "cox_ph" / f"fold-{fold}" / "predictions.parquet")
    table = table[table["split"] == split]
    status = np.where(table["competing"], 2, table["event"].astype(int))
    return status, table["time"].to_numpy(), table["risk"].to_numpy(), table["competing_risk"].to_numpy(), table


def test_two_is_the_competing_event_once_it_has_a_name(tmp_path):
    table = dying()
    cohort = cohort_of(tmp_path, table)
    assert (cohort.status == table["event"]).all()
    assert (cohort.table["event"] == (table["event"] == 1)).all()
    assert (cohort.table["competing"] == (table["event"] == 2)).all()
    deaths = summary_table(cohort).filter(like="Death", axis=0).iloc[0, 0]
    assert deaths.startswith(f"{(table['event'] == 2).sum()} (")
    assert not any("column event" in line for line in implausible_values(cohort))
    shuffled = permuted(cohort, 1)
    assert (shuffled.status != cohort.status).any()
    pairs = [sorted(zip(each.status, each.table["time"], strict=True)) for each in (shuffled, cohort)]
    assert pairs[0] == pairs[1]


def test_few_deaths_do_not_ask_the_factors(tmp_path):
    """Below ten a factor the hazard is the same for everybody, Breslow's of no covariate."""
    table = tabular(120)
    table.loc[table.index[table["event"] == 0][:6], "event"] = 2
    cohort = cohort_of(tmp_path, table)
    everybody = np.arange(len(cohort))
    few = competing_hazard(cohort, everybody)
    assert (few.coefficients == 0).all()
    dead, time = cohort.status == 2, cohort.table["time"].to_numpy()
    hazard = sum((dead & (time == t)).sum() / (time >= t).sum() for t in np.unique(time[dead]) if t <= 2000)
    assert -np.log(few.baseline.survival(np.zeros(1), [2000.0])[0, 0]) == pytest.approx(hazard, rel=1e-9)
    many = dying(300)
    assert (many["event"] == 2).sum() >= 20
    other = cohort_of(tmp_path / "b", many)
    assert (competing_hazard(other, np.arange(300)).coefficients != 0).all()


def test_folds_share_the_deaths_evenly(tmp_path):
    table = dying(300)
    cohort = cohort_of(tmp_path, table)
    splits = make_splits(cohort, n_folds=3)
    for status in (0, 1, 2):
        parts = splits[(splits["split"] == "train") & (cohort.status == status)].groupby("fold").size()
        assert parts.max() - parts.min() <= 1
    # too few without any event, or too small a test set, for three kinds: no warning, no error
    for counts in ((10, 6, 4), (1, 40, 60), (2, 20, 20), (30, 20, 1)):
        table = tabular(sum(counts))
        table["event"] = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], counts))
        cohort = cohort_of(tmp_path / "few", table)
        splits = make_splits(cohort, n_folds=3)
        for fold in range(3):
            assert cohort.table["event"][splits["fold"] == fold].sum() >= counts[1] // 3 - 1


def test_without_a_name_it_is_a_fault_that_says_how_to_give_one(tmp_path):
    first = dying()["event"].eq(2).idxmax() + 2
    with pytest.raises(UserError, match=rf"cohort\.csv rows {first}.* '2'; must be 1 .*competing_event"):
        read_cohort(write_cohort(tmp_path, dying(), covariates=KINDS))


def test_implausible_or_faulty_competing_events_are_named(tmp_path):
    table = tabular()
    plain = read_cohort(write_cohort(tmp_path / "a", table, covariates=KINDS))
    cohort = cohort_of(tmp_path / "b", table)
    # a name that nobody needs changes nothing: no column, the same fingerprint, a warning
    assert not cohort.has_competing
    assert cohort.fingerprint() == plain.fingerprint()
    assert cohort.status.dtype == bool
    assert any("no 2" in line and "(death)" in line for line in implausible_values(cohort))
    both = table.assign(event=table["event"] + 1)
    assert any("1 and 2 alone" in line for line in implausible_values(cohort_of(tmp_path / "c", both)))
    for folder, table_, settings, message in (
        ("d", table.assign(event=2), {"competing_event": "death"}, "no patient has an event"),
        ("e", table, {"competing_event": ""}, "cohort.yaml, competing_event: ''"),
        ("f", table.assign(event=3), {"competing_event": "death"}, "'3'; must be 1"),
        ("g", both, {}, "column event: holds 1 and 2"),
    ):
        with pytest.raises(UserError, match=message):
            read_cohort(write_cohort(tmp_path / folder, table_, covariates=KINDS, **settings))
    # somebody's own column of that name is left alone
    named = read_cohort(write_cohort(tmp_path / "h", table.assign(competing="x"), covariates=KINDS))
    assert not named.has_competing


def test_its_hazard_is_lifelines_cox_of_the_clinical_factors(run):
    train = run.rows(0)["train"]
    tabular_, table = standardise(run.cohort, train), run.cohort.table.iloc[train]
    frame = pd.DataFrame(tabular_[train], columns=list(KINDS)).assign(
        time=table["time"].to_numpy(), died=table["competing"].to_numpy()
    )
    fitted = lifelines.CoxPHFitter().fit(frame, "time", "died")
    hazard = competing_hazard(run.cohort, train)
    np.testing.assert_allclose(hazard.coefficients, fitted.params_, rtol=1e-4)
    status, time, _, death, table = columns(run, 0, "train")
    rows = run.cohort.table["patient_id"].isin(table["patient_id"]).to_numpy()
    np.testing.assert_allclose(death, tabular_[rows].astype(float) @ hazard.coefficients, rtol=1e-12)
    times = np.unique(time[status == 2])[::9]
    expected = fitted.predict_survival_function(frame.iloc[:4], times=times).to_numpy().T
    found = hazard.baseline.survival(hazard.risk(tabular_[train][:4]), times)
    np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize("split", ["validation", "test", "external"])
def test_predictions_and_metrics_are_their_definitions(run, split):
    found = read_metrics(run, "cox_ph").set_index(["fold", "split", "metric"]).sort_index()
    for fold in range(2):
        train, judged = columns(run, fold, "train"), columns(run, fold, split)
        by = judged if split == "external" else train
        rows = found.loc[(fold, split)]
        own = dict(zip(rows.index, rows["value"], strict=True))
        assert own["c_index"] == pytest.approx(oracles.concordance(judged[0] == 1, *judged[1:3])[-1], rel=1e-12)
        wolbers = oracles.wolbers(by[0], by[1], *judged[:2], 1 - judged[4][f"survival_{DAYS[-1]:g}d"].to_numpy())
        assert own["c_index_ipcw"] == pytest.approx(wolbers, rel=1e-10)
        assert len(rows.loc["auc"]) == len(DAYS)
        for day, auc, brier in zip(DAYS, rows.loc["auc", "value"], rows.loc["brier", "value"], strict=True):
            surv = judged[4][f"survival_{day:g}d"].to_numpy()
            for i in (0, 5):
                expected = oracles.absolute_risk(
                    train[0], train[1], train[2], train[3], judged[2][i], judged[3][i], day
                )
                assert 1 - surv[i] == pytest.approx(expected, rel=1e-9)
            assert auc == pytest.approx(oracles.competing_auc(by[0], by[1], *judged[:2], 1 - surv, day), rel=1e-10)
            assert brier == pytest.approx(
                oracles.competing_brier(by[0], by[1], *judged[:2], 1 - surv, day), rel=1e-10
            )


def test_new_patients_get_the_runs_own_probabilities(run, tmp_path):
    cohort = read_cohort(run.cohort.folder, outcome=False)
    assert not cohort.has_competing
    found = predict_cohort(read_models(run.out, "cox_ph"), cohort, tmp_path, progress=False).set_index("patient_id")
    folds = [read_predictions(run, "cox_ph", fold).set_index("patient_id").loc[found.index] for fold in range(2)]
    for day in DAYS:
        expected = np.mean([1 - fold[f"survival_{day:g}d"] for fold in folds], axis=0)
        np.testing.assert_allclose(found[f"probability_{day:g}"], expected, rtol=0, atol=1e-12)
    assert "competing event (death)" in model_summary(read_models(run.out, "cox_ph"))


def test_intervals_are_those_of_the_metrics_in_the_draws(run):
    table, _ = write_ablation(run)
    rows = table[(table["experiment"] == "cox_ph") & (table["split"] == "external")]
    assert (rows["ci_low"] < rows["mean"]).all()
    assert (rows["mean"] < rows["ci_high"]).all()
    parts = [columns(run, fold, "external") for fold in range(2)]
    status, time = parts[0][:2]
    draws: dict[str, list] = {"auc": [], "brier": []}
    counts = draw_counts(len(time), run.profile.bootstrap_draws, bootstrap_seed(run, "external", [0, 1]))
    for at in (np.repeat(np.arange(len(time)), times) for times in counts.T):
        drawn = status, time, status[at], time[at]
        incidences = [1 - part[4][f"survival_{DAYS[1]:g}d"].to_numpy()[at] for part in parts]
        draws["auc"].append(np.mean([oracles.competing_auc(*drawn, each, DAYS[1]) for each in incidences]))
        draws["brier"].append(np.mean([oracles.competing_brier(*drawn, each, DAYS[1]) for each in incidences]))
    for metric, values in draws.items():
        row = rows[(rows["metric"] == metric) & (rows["horizon_days"] == DAYS[1])].iloc[0]
        expected = np.percentile(values, [2.5, 97.5])
        np.testing.assert_allclose(row[["ci_low", "ci_high"]].to_numpy(float), expected, rtol=1e-9)
    curves = metrics_over_time(run, ["cox_ph"], "external", DAYS[-1])
    reference = curves[curves["experiment"] == KAPLAN_MEIER].iloc[-1]["value"]
    expected = []
    for fold in range(2):
        (status, time, *_), judged = columns(run, fold, "train"), columns(run, fold, "external")
        share = oracles.cumulative_incidence(status, time, DAYS[-1])
        same = np.full(len(judged[0]), share)
        expected.append(oracles.competing_brier(*judged[:2], *judged[:2], same, DAYS[-1]))
    assert reference == pytest.approx(np.mean(expected), rel=1e-10)


def test_curves_over_time_and_thirds_rank_by_probability(run, monkeypatch):
    table, _ = write_ablation(run)
    known = table.query("experiment == 'cox_ph' and split == 'external' and metric == 'auc'")
    known = known.set_index("horizon_days")["mean"]
    curves = metrics_over_time(run, ["cox_ph"], "external", DAYS[-1])
    last = curves.query("experiment == 'cox_ph' and metric == 'auc'").iloc[-1]["value"]
    assert last == pytest.approx(known[DAYS[-1]], rel=1e-12)
    found = patient_predictions(run, "cox_ph", "external").set_index("patient_id")["rank"]
    parts = [columns(run, fold, "external")[4].set_index("patient_id") for fold in range(2)]
    by_probability = np.mean([(-part[f"survival_{DAYS[-1]:g}d"]).rank(pct=True) for part in parts], axis=0)
    np.testing.assert_allclose(found.loc[parts[0].index], by_probability)
    by_hazard = np.mean([part["risk"].rank(pct=True) for part in parts], axis=0)
    assert not np.allclose(by_probability, by_hazard)
    # where a fold's training ends before the last horizon, or nobody had the event in it
    folds = {fold: read_predictions(run, "cox_ph", fold) for fold in range(2)}
    folds[0][f"survival_{DAYS[-1]:g}d"] = np.nan
    folds[1][[f"survival_{day:g}d" for day in DAYS]] = 1.0
    monkeypatch.setattr("fracsurv.study.time_dependent.read_predictions", lambda run, name, fold: folds[fold])
    found = patient_predictions(run, "cox_ph", "external").set_index("patient_id")["rank"]
    first, second = (part.query("split == 'external'").set_index("patient_id") for part in folds.values())
    expected = ((-first[f"survival_{DAYS[-2]:g}d"]).rank(pct=True) + second["risk"].rank(pct=True)) / 2
    np.testing.assert_allclose(found.loc[first.index], expected)


def test_notebook_01_shows_both_incidences_and_what_kaplan_meier_overstates(reported, tmp_path):
    run, texts = reported
    status, time = run.cohort.status, run.cohort.table["time"].to_numpy()
    assert SCRIPT not in " ".join(texts)
    share, dead = (oracles.cumulative_incidence(status, time, 1826, cause) for cause in (1, 2))
    alone = 1 - oracles.kaplan_meier(status == 1, time, 1826)
    assert alone > share
    (table,) = [text for text in texts if "Aalen–Johansen" in text and "<table" in text]
    for value in (share, dead, alone):
        assert f"{100 * value:.1f}" in table
    assert "competing" not in read_predictions(made_up_run(tmp_path), "cox_ph", 0)


def test_shares_and_calibration_in_the_report_are_cumulative_incidences(reported):
    run, _ = reported
    external = run.rows(0)["external"]
    status, time = run.cohort.status[external], run.cohort.table["time"].to_numpy()[external]
    share = oracles.cumulative_incidence(status, time, 1826)
    found = subgroup_table(run, "external", ["cox_ph"], 1826.0).iloc[0]
    folds = [read_predictions(run, "cox_ph", fold).query("split == 'external'") for fold in range(2)]
    expected = np.mean([1 - fold["survival_1826d"] for fold in folds])
    assert found["ratio"] == pytest.approx(share / expected, rel=1e-9)
    assert found["events"] == (status == 1).sum()


def test_simulated_deaths_follow_gompertz():
    clinical = simulate_clinical(6_000, seed=4)
    settings = DeathSettings()
    years = death_times(clinical, seed=4) / 365.25
    factors = sum(effect * clinical[name] for name, effect in settings.log_hazard.items())
    start = settings.rate * np.exp(settings.per_year * (clinical["age"] - settings.at_age) + factors)
    dead = 1 - np.exp(-start / settings.per_year * np.expm1(settings.per_year * years))
    assert kstest(dead, "uniform").pvalue > 0.001
    assert (death_times(clinical.iloc[:50], seed=4) == 365.25 * years[:50]).all()


def test_simulated_deaths_change_nothing_else(tmp_path):
    table, truth = simulate_tables(400, seed=2)
    with_deaths, same = simulate_tables(400, seed=2, death=DeathSettings())
    pd.testing.assert_frame_equal(truth, same)
    died = with_deaths["event"] == 2
    assert 0.1 < died.mean() < 0.4
    pd.testing.assert_frame_equal(with_deaths[~died], table[~died])
    assert (with_deaths.loc[died, "time_days"] <= table.loc[died, "time_days"]).all()
    arguments = ["--patients", "40", "--seed", "3", "--resolution", "0.1"]
    for name, option in (("plain", []), ("deaths", ["--competing-death"])):
        assert CliRunner().invoke(app, ["simulate", str(tmp_path / name), *arguments, *option]).exit_code == 0
        assert read_cohort(tmp_path / name).has_competing == (name == "deaths")
        assert ("death" in (tmp_path / name / "simulation.json").read_text()) == (name == "deaths")


def test_a_death_is_the_outcome_or_competes_with_it(tmp_path):
    def read(**settings):
        return read_cohort(write_cohort(tmp_path, tabular(), covariates={"age": "continuous"}, **settings))

    with pytest.raises(UserError, match="outcome_includes_death: 'death'; must be true or false"):
        read(outcome_includes_death="death")
    with pytest.raises(UserError, match="a death is the one or the other"):
        read(outcome_includes_death=True, competing_event="death")
    cohort = read(outcome_includes_death=True, competing_event="hip replacement")
    assert (cohort.outcome_includes_death, cohort.competing_event) == (True, "hip replacement")


@pytest.mark.parametrize("code", [1, 2])
def test_a_share_is_not_known_past_the_follow_up_of_somebody_free_of_the_event(code):
    time = np.array([100.0, 200.0, 300.0, 400.0, 400.0])
    event = np.array([1, 0, code, 1, 0])
    expected = oracles.cumulative_incidence(event, time, 400)
    assert event_share(event, time, 400) == pytest.approx(expected)
    assert np.isnan(event_share(event, time, 401))
    # where the last all have it nobody is left, and nothing can change
    everybody = np.where(time == 400, 1, event)
    assert event_share(everybody, time, 401) == event_share(everybody, time, 400)
