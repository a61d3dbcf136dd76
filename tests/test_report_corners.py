"""What a report says where something cannot be known: of patients without events, of groups followed too briefly."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.summary import missing_summary
from fracsurv.explain.factors import factor_importance
from fracsurv.report import findings, report
from fracsurv.report.checklist import checklist
from fracsurv.report.findings import clinical
from fracsurv.report.findings.finding import share_said
from fracsurv.study.explanations import Explanation
from fracsurv.study.prepare import prepare
from fracsurv.study.protocol import evaluated_split, headline_horizon
from fracsurv.study.scaling import standardise
from fracsurv.study.time_dependent import event_share
from fracsurv.utils.errors import UserError
from tests import oracles
from tests.conftest import tabular, write_cohort
from tests.made_up import made_up_run
from tests.test_competing import dying


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


def explanation(event):
    """Of a model that is its first factor, in 20 patients with these events."""
    values = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    time, names = np.arange(1.0, 21.0), ["age", "smoker"]
    losses, _ = factor_importance(lambda v: v[:, 0], values, event, time, names, seed=0, n_draws=20)
    return Explanation("external", [], 20, None, None, losses.assign(fold=0, ci_low=np.nan, ci_high=np.nan))


def test_factors_cannot_be_ranked_where_nobody_can_be_compared(run):
    nobody, some = explanation(np.zeros(20, bool)), explanation(np.arange(20) < 10)
    why = "among the 20 of the external patients looked at there are no two of whom one is known to have had"
    found = findings.factors(run, {"cox_ph": nobody})
    assert found.figure is None
    assert f"No factor of Cox PH can be ranked: {why} any fracture before the other" in found.said
    both = findings.factors(run, {"cox_ph": nobody, "deepsurv": some})
    assert both.figure is not None
    assert f"No factor of Cox PH can be ranked: {why}" in both.said
    assert re.search(r"upwards: DeepSurv: Age .* \([+−]\d\.\d{3}, 95 % interval not known\)", both.said)
    assert "nan" not in both.said


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


def test_sentences_do_not_carry_shares_on(tmp_path):
    def change(table):
        table["smoker"] = (np.arange(160) % 4 == 0).astype(int)
        late = (table["smoker"] == 1) & (table["time_days"] > 300)
        table.loc[late, "event"], table.loc[late, "time_days"] = 0, 300

    run = made_up_run(tmp_path, change=change)
    table, event = run.cohort.table, run.cohort.status
    no, yes = ((table["smoker"] == value).to_numpy() for value in (0, 1))
    time = table["time"].to_numpy()
    day = float(np.median(time))
    said = findings.follow_up(run).said
    alone = 1 - oracles.kaplan_meier(event[no], time[no], day)
    assert f"{100 * alone:.1f} % of " in said
    assert f"and a share not known (followed up to 300 days) of “Cost [$](x) `a` *b*: yes” (n = {yes.sum()})" in said
    assert share_said(run, event[yes], time[yes], 300.0) == f"{100 * event_share(event[yes], time[yes], 300.0):.1f} %"


def test_an_interval_of_net_benefit_that_is_not_known_is_said_once():
    assert clinical._per_thousand_interval(np.nan, np.nan) == "not known"
    assert clinical._per_thousand_interval(np.nan, 0.01) == "not known"
    assert clinical._per_thousand_interval(-0.0012, 0.0042) == "-1 to +4"


def held_out(table, n_test, time=None):
    """The first hundred train, so many test, the others are external; nobody held out has an event."""
    table["split"] = np.repeat(["train", "test", "external"], [100, n_test, 60 - n_test])
    table.loc[100:, "event"] = 0
    if time is not None:
        table.loc[100:, "time_days"] = time


def told(page):
    """The page's sections by id, without pictures."""
    parts = re.split(r'<section aria-labelledby="([^"]+)">', re.sub(r'src="data[^"]*"', "", page))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_external_patients_without_events_leave_the_test_patients_judged(tmp_path):
    def change(table):
        table["split"] = np.repeat(["train", "test", "external"], [80, 40, 40])
        table.loc[table["split"] == "external", "event"] = 0

    run = made_up_run(tmp_path, change=change)
    page = report.write_report(run).read_text(encoding="utf-8")
    table, differences = report.read_ablation(run)
    assert "external" in set(table["split"])  # it has Brier scores
    assert evaluated_split(table) == "test"
    parts = told(page)
    for part in ("time", "calibration", "decision", "groups", "subgroups"):
        assert "test patients" in parts[part]
        assert "external" not in parts[part]
    assert "There is no C-index of the 40 external patients (0 events)" in page
    forest = findings.forest(run, table, differences)
    assert "On the test patients, the 95 % interval of the difference from Cox PH" in forest.said
    assert [axes.get_title(loc="left") for axes in forest.figure.axes] == ["test (n = 40)"]
    brier = table.query(
        "metric == 'brier' and split == 'external' and experiment == 'cox_ph' and horizon_days == 1826"
    )
    assert f"{brier['mean'].iloc[0]:.3f}" in parts["results"]


def test_without_any_event_held_out_what_needs_none_is_shown(tmp_path):
    run = made_up_run(tmp_path, change=lambda table: held_out(table, 30))
    page = report.write_report(run).read_text(encoding="utf-8")
    table, _ = report.read_ablation(run)
    assert headline_horizon(table, "external") == 1826
    parts = told(page)
    assert (
        "There is no C-index of the 30 test patients (0 events) and the 30 external patients (0 events)"
        in parts["results"]
    )
    assert "No experiment is compared with another." in parts["results"]
    assert "there is no AUC, for nobody has had an event by then" in parts["time"]
    assert "By 5 years, 0.0\N{NO-BREAK SPACE}% have it." in parts["decision"]
    assert "nobody has had the event by then" in parts["calibration"]
    assert not re.search(r"\bnan\b", "".join(parts.values()), re.I)


def test_what_cannot_be_shown_is_said_with_its_split_and_reason(tmp_path):
    run = made_up_run(tmp_path, change=lambda table: held_out(table, 0, time=200))
    parts = told(report.write_report(run).read_text(encoding="utf-8"))
    why = (
        "Nothing can be shown of the external patients. AUC and Brier score at 1 year, 3 years, 5 years, 8 years are "
    )
    for part in ("time", "calibration", "decision"):
        assert f"{why}not reported on external: follow-up ends before." in parts[part]


@pytest.mark.parametrize("includes", [False, True])
def test_who_dies_is_censored_only_where_death_is_not_the_outcome(tmp_path, includes):
    cohort = write_cohort(
        tmp_path / "cohort", tabular(160), covariates={"age": "continuous"}, outcome_includes_death=includes
    )
    run = prepare(cohort, tmp_path / "out", "tiny")
    assert any("dies first is censored" in said for said in report._limits(run)) != includes


def test_whether_death_is_the_outcome_is_true_or_false(tmp_path):
    cohort = write_cohort(tmp_path, tabular(), covariates={"age": "continuous"}, outcome_includes_death="death")
    with pytest.raises(UserError, match="outcome_includes_death: 'death'; must be true or false"):
        read_cohort(cohort)


def test_a_death_is_the_outcome_or_competes_with_it(tmp_path):
    settings = {"outcome_includes_death": True, "competing_event": "death"}
    with pytest.raises(UserError, match="a death is the one or the other"):
        read_cohort(write_cohort(tmp_path, tabular(), covariates={"age": "continuous"}, **settings))
    settings["competing_event"] = "hip replacement"
    cohort = read_cohort(write_cohort(tmp_path, tabular(), covariates={"age": "continuous"}, **settings))
    assert (cohort.outcome_includes_death, cohort.competing_event) == (True, "hip replacement")


@pytest.mark.parametrize("split", ["test", ""])
def test_the_checklist_says_who_chose_the_test_patients_and_what_probabilities_are(tmp_path, split):
    table = dying(160).assign(split=np.where(np.arange(160) < 120, "", split))
    cohort = write_cohort(tmp_path / "a", table, covariates={"age": "continuous"}, competing_event="death")
    run = prepare(cohort, tmp_path / "out", "tiny")
    rows = checklist(run, pd.DataFrame({"experiment": [], "split": []}), pd.DataFrame())
    said = rows.set_index(("", "item")).iloc[:, -1]
    assert ("The test patients are those that the cohort's column split names." in said["12a"]) == (split == "test")
    assert ("The test patients were drawn at random, stratified by event." in said["12a"]) == (split == "")
    assert "absolute risks, since death may come first" in said["12g"]
    alone = write_cohort(tmp_path / "b", tabular(160), covariates={"age": "continuous"})
    rows = checklist(
        prepare(alone, tmp_path / "b-out", "tiny"), pd.DataFrame({"experiment": [], "split": []}), pd.DataFrame()
    )
    assert "probabilities by Breslow's baseline" in rows.set_index(("", "item")).iloc[:, -1]["12g"]


@pytest.mark.parametrize(("unknown_from", "told"), [(100, False), (95, True)])
def test_what_no_fold_can_learn_of_is_not_said_to_be_told(tmp_path, unknown_from, told):
    # of the last 60, all external, and perhaps of five training patients age is not known
    table = tabular(160).assign(split=["train"] * 100 + ["external"] * 60)
    table.loc[unknown_from:, "age"] = np.nan
    kinds = {"age": "continuous", "smoker": "binary"}
    cohort = write_cohort(tmp_path / "cohort", table, covariates=kinds, missing_covariates="impute")
    run = prepare(cohort, tmp_path / "out", "tiny")
    indicator = [standardise(run.cohort, rows)[:, 2] for rows in run.trained_on()]
    assert any(column.any() for column in indicator) == told
    said = missing_summary(run.cohort, run.trained_on())
    assert ("no model is told where Age, years is not known" in said) != told
    assert said in report._limits(run)
