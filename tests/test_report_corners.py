"""What a report says where something cannot be known: of patients without events, of groups followed too briefly."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fracsurv.cohort.cohort import read_cohort
from fracsurv.report import findings, report
from fracsurv.report.findings.finding import share_said
from fracsurv.study.protocol import evaluated_split, headline_horizon
from fracsurv.study.time_dependent import event_share
from fracsurv.utils.errors import UserError
from tests import oracles
from tests.conftest import tabular, write_cohort
from tests.made_up import made_up_run


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
    assert re.search(rf"not known .*300 days.*n = {yes.sum()}", said)
    assert share_said(run, event[yes], time[yes], 300.0) == f"{100 * event_share(event[yes], time[yes], 300.0):.1f} %"


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
    assert "40 external patients (0 events)" in parts["results"]
    forest = findings.forest(run, table, differences)
    assert [axes.get_title(loc="left") for axes in forest.figure.axes] == ["test (n = 40)"]
    brier = table.query(
        "metric == 'brier' and split == 'external' and experiment == 'cox_ph' and horizon_days == 1826"
    )
    assert f"{brier['mean'].iloc[0]:.3f}" in parts["results"]


def test_without_any_event_held_out_what_needs_none_is_shown(tmp_path):
    def change(table):
        table["split"] = np.repeat(["train", "test", "external"], [100, 30, 30])
        table.loc[100:, "event"] = 0

    run = made_up_run(tmp_path, change=change)
    page = report.write_report(run).read_text(encoding="utf-8")
    table, _ = report.read_ablation(run)
    assert headline_horizon(table, "external") == 1826
    parts = told(page)
    assert "30 test patients (0 events)" in parts["results"]
    assert "30 external patients (0 events)" in parts["results"]
    assert "0.0\N{NO-BREAK SPACE}%" in parts["decision"]
    assert not re.search(r"\bnan\b", "".join(parts.values()), re.I)


def test_a_death_is_the_outcome_or_competes_with_it(tmp_path):
    def read(**settings):
        return read_cohort(write_cohort(tmp_path, tabular(), covariates={"age": "continuous"}, **settings))

    with pytest.raises(UserError, match="outcome_includes_death: 'death'; must be true or false"):
        read(outcome_includes_death="death")
    with pytest.raises(UserError, match="a death is the one or the other"):
        read(outcome_includes_death=True, competing_event="death")
    cohort = read(outcome_includes_death=True, competing_event="hip replacement")
    assert (cohort.outcome_includes_death, cohort.competing_event) == (True, "hip replacement")
