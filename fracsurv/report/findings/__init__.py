"""Figures of a run's results, each with the sentence that it supports; notebooks and report show the same ones."""

from fracsurv.report.findings.chance import chance_notes
from fracsurv.report.findings.clinical import calibration, decision_curve, risk_groups
from fracsurv.report.findings.cohort import follow_up
from fracsurv.report.findings.comparison import (
    chance_range,
    chosen_and_judged,
    forest,
    furthest,
    over_time,
)
from fracsurv.report.findings.competing import competing, competing_table
from fracsurv.report.findings.explanation import (
    factors,
    fractured_first,
    places,
    vertebrae,
)
from fracsurv.report.findings.finding import Finding, highlighted
from fracsurv.report.findings.groups import in_groups
from fracsurv.report.findings.pictures import crops, radiographs
from fracsurv.report.findings.training import late_weights, learning, sweep

__all__ = [
    "Finding",
    "calibration",
    "chance_notes",
    "chance_range",
    "chosen_and_judged",
    "competing",
    "competing_table",
    "crops",
    "decision_curve",
    "factors",
    "follow_up",
    "forest",
    "fractured_first",
    "furthest",
    "highlighted",
    "in_groups",
    "late_weights",
    "learning",
    "over_time",
    "places",
    "radiographs",
    "risk_groups",
    "sweep",
    "vertebrae",
]
