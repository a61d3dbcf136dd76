"""What a validation says: every answer and caution, from tables made up for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fracsurv.cohort.summary import followed
from fracsurv.metrics import Estimate
from fracsurv.predict.recalibrate import METHODS, Prediction, recalibrate
from fracsurv.predict.validate import ENSEMBLE, Validated, _recalibrated
from fracsurv.report.clinical_figures import panel, ratio_words
from fracsurv.report.validation_words import (
    Study,
    cautions,
    limits,
    validation_answer,
)

RIGHT = {
    ("c_index", None): (0.70, 0.65, 0.75),
    ("observed_to_expected", 1826.0): (1.02, 0.90, 1.15),
    ("observed_to_expected", None): (1.01, 0.92, 1.10),
    ("calibration_slope", None): (0.97, 0.80, 1.14),
}
NAMED = dict(zip(("c", "at", "whole", "slope"), RIGHT, strict=True))
VALUES = {name: RIGHT[key][0] for name, key in NAMED.items()}
WIDE = (np.nan, np.nan, np.nan)


@dataclass
class Patients:
    """As much of a cohort as words need."""

    table: pd.DataFrame
    time_unit: str = "days"
    provenance: str = "simulated"
    outcome_includes_death: bool = False

    @property
    def status(self) -> np.ndarray:
        return self.table["event"].to_numpy(int)

    def __len__(self) -> int:
        return len(self.table)


def study(events: int = 150, later: int = 0, n: int = 400, horizon: bool = True, absent=None, **changed) -> Study:
    """A study of `n` patients with `events` events, of which `later` after the training's follow-up of 3000 days."""
    rows = RIGHT | {NAMED[name]: estimate for name, estimate in changed.items()}
    if not horizon:
        del rows["observed_to_expected", 1826.0]
    table = pd.DataFrame(
        [
            {
                "model": ENSEMBLE,
                "metric": metric,
                "horizon": day,
                "threshold": np.nan,
                "value": v,
                "low": a,
                "high": b,
            }
            for (metric, day), (v, a, b) in rows.items()
        ]
    ).astype({"horizon": float})
    time = np.full(n, 2000.0)
    time[:later] = 3300
    cohort = Patients(pd.DataFrame({"time": time, "event": np.arange(n) < events}))
    about = {"provenance": "simulated", "patients": 1}
    applied = SimpleNamespace(experiment=SimpleNamespace(input="none", title="Cox PH"), alpha=None, about=about)
    models = SimpleNamespace(applied=[applied], horizons=np.array([1826.0]))
    days = np.array([1826.0] if horizon else [])
    made = Validated("cox_ph", models, days, 3000.0, {}, {}, absent or {}, events - later, table)
    return Study(Path("run"), cohort, [made], 50, 0)


@pytest.mark.parametrize(
    ("changed", "verdict", "faults"),
    [
        ({}, "Yes", []),
        ({"events": 100}, "Yes", []),
        ({"events": 99}, "Nothing is seen against it", ["99 events"]),
        ({"events": 1}, "Nothing is seen against it", ["1 event)"]),
        ({"events": 150, "later": 60}, "Nothing is seen against it", ["90 events", "of 150 in all"]),
        ({"at": (1.3, 1.1, 1.5)}, "Only in part", ["it expects too few events", "1.300"]),
        ({"at": (0.7, 0.6, 0.9), "events": 40}, "Only in part", ["it expects too many events", "0.700"]),
        ({"whole": (1.3, 1.1, 1.5)}, "Only in part", ["it expects too few over all follow-up", "1.300"]),
        ({"whole": (0.7, 0.6, 0.9)}, "Only in part", ["it expects too many over all follow-up", "0.700"]),
        ({"slope": (1.5, 1.2, 1.8)}, "Only in part", ["its risks lie too close together", "1.500"]),
        ({"slope": (0.5, 0.3, 0.7), "events": 40}, "Only in part", ["its risks lie too far apart", "0.500"]),
        ({"horizon": False, "slope": (0.5, 0.3, 0.7)}, "Only in part", []),
        ({"c": (0.55, 0.5, 0.6)}, "No", ["0.550"]),
        ({"c": (0.52, 0.47, 0.57)}, "No", ["0.520"]),
        ({"c": WIDE}, "No", ["C-index not known"]),
        # the rule asks for the ratio at a horizon: right figures over all follow-up are no yes
        ({"horizon": False, "events": 400}, "It cannot be told whole", ["at a horizon not known"]),
        ({"slope": WIDE}, "It cannot be told whole", ["calibration slope not known"]),
    ],
)
def test_the_verdict_follows_the_rule(changed, verdict, faults):
    found = study(**changed)
    said = validation_answer(found)
    assert said.startswith(verdict)
    assert all(fault in said for fault in faults)
    assert f"{len(found.cohort)} patients" in said
    if verdict == "Only in part" and "horizon" not in changed:  # what is right is named too
        others = said.split("not seen to be wrong: ")[1]
        assert all(f"{VALUES[right]:.3f}" in others for right in {"at", "whole", "slope"} - set(changed))


def test_cautions_and_limits_count_events_and_horizons():
    late = study(events=150, later=60)
    assert cautions(late)[0].startswith("Few events: 90")
    assert not any(line.startswith("Few events") for line in cautions(study()))
    assert any("60 patients followed for longer" in line for line in limits(late))
    assert not any("followed for longer" in line for line in limits(study()))
    assert any("Nothing is reported at 5 years" in line for line in cautions(study(horizon=False)))
    deadly = replace(late, cohort=replace(late.cohort, outcome_includes_death=True))
    assert ["dies first" in " ".join(limits(each)) for each in (late, deadly)] == [True, False]


@pytest.mark.parametrize(
    ("event", "time", "words"),
    [
        ([0, 0, 1, 1], [5, 5, 9, 9], "not known (nobody has had the event by then)"),
        ([1, 1, 0, 0], [1, 2, 1, 2], "not known (nobody is known to be without the event by then)"),
        ([1, 1, 0, 0], [1, 2, 9, 9], "not known (the predictions part those with the event from those without, "),
    ],
)
def test_what_is_not_known_of_calibration_is_said_with_its_reason(event, time, words):
    given = np.array([0.9, 0.8, 0.2, 0.1])
    drawn, slope, _ = panel(np.array(event, bool), np.array(time, float), given, 4.0, (np.nan, np.nan))
    assert slope.startswith(words)
    assert drawn.words.startswith("slope not known\nintercept ")
    assert "nan" not in drawn.words


def test_equal_predictions_have_no_slope_and_that_is_said():
    event, time = np.array([True, True, False, False]), np.array([1.0, 5.0, 9.0, 2.0])
    assert panel(event, time, np.full(4, 0.3), 4.0, (np.nan, np.nan))[1] == "not known (all are given the same risk)"


def test_a_ratio_in_words():
    assert ratio_words(Estimate(1.5, 1.2, 1.875), 30) == "1.50 [1.20, 1.88]"
    assert ratio_words(Estimate(0.0, np.nan, np.nan), 0) == (
        "0.00 [interval not known] (nobody has had the event within the models' training follow-up)"
    )
    assert ratio_words(Estimate(*WIDE), 3) == "not known (no event was expected)"


def test_the_median_of_follow_up_is_that_of_reverse_kaplan_meier():
    """At 2 one of three is censored, at 4 the last: the median is 4, where that of the times is 2.5."""
    cohort = Patients(pd.DataFrame({"time": [1.0, 2.0, 3.0, 4.0], "event": [True, False, True, False]}))
    assert followed(cohort) == "median (reverse Kaplan–Meier) 4 days, longest 4 days"
    cohort.table["event"] = [False, False, True, True]
    assert followed(cohort) == "median (reverse Kaplan–Meier) 2 days, longest 4 days"
    cohort.table["event"] = True
    assert followed(cohort) == "median (reverse Kaplan–Meier) not reached, longest 4 days"


class TestNoRecalibration:
    def given(self, risk, time):
        hazard = 0.1 * np.exp(risk)
        return Prediction(risk, np.exp(-np.outer(hazard, [2.0])), hazard * time)

    def patients(self, n=200, strength=1.0, seed=0):
        rng = np.random.default_rng(seed)
        risk = rng.normal(size=n)
        died, left = rng.exponential(np.exp(-strength * risk) / 0.1), rng.uniform(1, 6, n)
        return died <= left, np.minimum(died, left), risk

    def test_for_few_events_names_those_that_count(self):
        had, until, risk = self.patients()
        had &= np.cumsum(had) <= 19
        _, _, absent = _recalibrated(had, until, self.given(risk, until), np.array([2.0]), 0)
        assert set(absent) == set(METHODS)
        (line,) = [line for line in cautions(study(events=30, later=11, absent=absent)) if "recalibrated" in line]
        assert "20 events" in line
        assert line.endswith("there: 19.")

    def test_for_a_slope_below_0_names_the_slope_alone(self):
        had, until, risk = self.patients()
        fitted, crossed, absent = _recalibrated(had, until, self.given(-risk, until), np.array([2.0]), 0)
        assert list(fitted) == list(crossed) == ["intercept", "baseline"]
        assert absent == {"slope": "its slope is not above 0"}

    def test_for_a_horizon_that_nine_parts_do_not_reach_names_that(self):
        had, until, risk = self.patients()
        last = np.sort(until)[-2:].mean()  # of one patient alone
        _, _, absent = _recalibrated(had, until, self.given(risk, until), np.array([last]), 0)
        assert absent == dict.fromkeys(
            ("baseline", "slope"), "follow-up ends before the last horizon without one of 10 parts"
        )

    def test_for_a_slope_that_is_above_0_by_a_hair_names_the_part(self):
        for seed in range(200):
            had, until, risk = self.patients(strength=0.0, seed=seed)
            given = self.given(risk, until)
            _, _, absent = _recalibrated(had, until, given, np.array([2.0]), 0)
            if recalibrate("slope", had, until, given) is not None and "slope" in absent:
                break
        assert absent == {"slope": "its slope is not above 0 without one of 10 parts"}
