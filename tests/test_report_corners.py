"""What a report says where something cannot be known: of patients without events, of groups followed too briefly."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from fracsurv.cohort.cohort import read_cohort
from fracsurv.report import findings, report
from fracsurv.report.checklist import checklist
from fracsurv.report.findings.finding import share_said
from fracsurv.study.prepare import prepare
from fracsurv.study.protocol import evaluated_split, headline_horizon
from fracsurv.study.time_dependent import event_share
from fracsurv.utils.errors import UserError
from tests import oracles
from tests.conftest import tabular, write_cohort
from tests.made_up import made_up_run
from tests.test_competing import dying


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


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
