"""The verdict of a validation on other patients: its rule, and why a model is not recalibrated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fracsurv.cohort.summary import followed
from fracsurv.predict.recalibrate import METHODS, Prediction, recalibrate
from fracsurv.predict.validate import ENSEMBLE, Validated, _recalibrated
from fracsurv.report.clinical_figures import panel
from fracsurv.report.validation_words import Study, cautions, validation_answer

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
    columns = ["model", "metric", "horizon", "threshold", "value", "low", "high"]
    table = pd.DataFrame(
        [(ENSEMBLE, metric, day, np.nan, *estimate) for (metric, day), estimate in rows.items()], columns=columns
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
        ({"events": 150, "later": 60}, "Nothing is seen against it", ["90 events", "150"]),
        ({"at": (1.3, 1.1, 1.5)}, "Only in part", ["too few", "1.300"]),
        ({"at": (0.7, 0.6, 0.9), "events": 40}, "Only in part", ["too many", "0.700"]),
        ({"whole": (1.3, 1.1, 1.5)}, "Only in part", ["too few", "1.300"]),
        ({"whole": (0.7, 0.6, 0.9)}, "Only in part", ["too many", "0.700"]),
        ({"slope": (1.5, 1.2, 1.8)}, "Only in part", ["too close together", "1.500"]),
        ({"slope": (0.5, 0.3, 0.7), "events": 40}, "Only in part", ["too far apart", "0.500"]),
        ({"horizon": False, "slope": (0.5, 0.3, 0.7)}, "Only in part", []),
        ({"c": (0.55, 0.5, 0.6)}, "No", ["0.550"]),
        ({"c": (0.52, 0.47, 0.57)}, "No", ["0.520"]),
        ({"c": WIDE}, "No", ["not known"]),
        # the rule asks for the ratio at a horizon: right figures over all follow-up are no yes
        ({"horizon": False, "events": 400}, "It cannot be told", ["not known"]),
        ({"slope": WIDE}, "It cannot be told", ["not known"]),
    ],
)
def test_the_verdict_follows_the_rule(changed, verdict, faults):
    found = study(**changed)
    said = validation_answer(found)
    assert re.match(rf"{verdict}\b", said)
    assert all(fault in said for fault in faults)
    assert f"{len(found.cohort)} patients" in said
    if verdict == "Only in part" and "horizon" not in changed:  # what is right is named too
        assert all(f"{VALUES[right]:.3f}" in said for right in {"at", "whole", "slope"} - set(changed))


@pytest.mark.parametrize(
    ("event", "time", "given"),
    [
        ([0, 0, 1, 1], [5, 5, 9, 9], [0.9, 0.8, 0.2, 0.1]),  # nobody has had the event by 4
        ([1, 1, 0, 0], [1, 2, 1, 2], [0.9, 0.8, 0.2, 0.1]),  # nobody is known to be without it
        ([1, 1, 0, 0], [1, 2, 9, 9], [0.9, 0.8, 0.2, 0.1]),  # the predictions part both
        ([1, 1, 0, 0], [1, 5, 9, 2], [0.3] * 4),
    ],
)
def test_a_slope_that_does_not_exist_is_not_known(event, time, given):
    drawn, slope, _ = panel(np.array(event, bool), np.array(time, float), np.array(given), 4.0, (np.nan, np.nan))
    assert slope.startswith("not known (")
    assert "nan" not in drawn.words


def test_the_median_of_follow_up_is_that_of_reverse_kaplan_meier():
    """At 2 one of three is censored, at 4 the last: the median is 4, where that of the times is 2.5."""
    for event, median in (([1, 0, 1, 0], "4 days"), ([0, 0, 1, 1], "2 days"), ([1, 1, 1, 1], "not reached")):
        cohort = Patients(pd.DataFrame({"time": [1.0, 2.0, 3.0, 4.0], "event": np.array(event, bool)}))
        assert followed(cohort).endswith(f"{median}, longest 4 days")


def recalibrated(strength=1.0, seed=0, sign=1, n_events=200, day=2.0):
    """Which recalibrations of 200 patients are made, and of the others why not; and whether a slope fits them all."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=200)
    died, left = rng.exponential(np.exp(-strength * risk) / 0.1), rng.uniform(1, 6, 200)
    had, until = died <= left, np.minimum(died, left)
    had &= np.cumsum(had) <= n_events
    hazard = 0.1 * np.exp(sign * risk)
    given = Prediction(sign * risk, np.exp(-np.outer(hazard, [2.0])), hazard * until)
    day = np.sort(until)[-2:].mean() if day is None else day  # None: one that a patient alone reaches
    fitted, crossed, absent = _recalibrated(had, until, given, np.array([day]), 0)
    assert list(fitted) == list(crossed) == [method for method in METHODS if method not in absent]
    return absent, recalibrate("slope", had, until, given) is not None


def test_a_model_that_is_not_recalibrated_has_its_reason():
    absent, _ = recalibrated(n_events=19)
    assert set(absent) == set(METHODS)
    (line,) = [line for line in cautions(study(events=30, later=11, absent=absent)) if "recalibrated" in line]
    assert re.findall(r"\d+", line)[-2:] == ["20", "19"]  # those it takes, those that count
    absent, _ = recalibrated(sign=-1)
    assert list(absent) == ["slope"]
    assert "above 0" in absent["slope"]
    absent, _ = recalibrated(day=None)
    assert set(absent) == {"baseline", "slope"}
    assert all("horizon" in reason for reason in absent.values())
    found = (recalibrated(strength=0.0, seed=seed) for seed in range(200))
    absent = next(absent for absent, fits in found if fits and "slope" in absent)  # above 0 by a hair
    assert list(absent) == ["slope"]
    assert "10 parts" in absent["slope"]
