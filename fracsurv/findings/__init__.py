"""Figures of a run's results, each with the sentence that it supports; notebooks and report show the same ones."""

from fracsurv.findings.clinical import calibration, decision_curve, risk_groups
from fracsurv.findings.cohort import follow_up
from fracsurv.findings.comparison import chance_range, chosen_and_judged, forest, furthest, over_time
from fracsurv.findings.competing import competing, competing_table
from fracsurv.findings.doubt import doubts
from fracsurv.findings.explanation import factors, fractured_first, places, vertebrae
from fracsurv.findings.finding import Finding, highlighted
from fracsurv.findings.groups import in_groups
from fracsurv.findings.pictures import crops, radiographs
from fracsurv.findings.training import late_weights, learning, sweep

__all__ = [
    "Finding",
    "calibration",
    "chance_range",
    "chosen_and_judged",
    "competing",
    "competing_table",
    "crops",
    "decision_curve",
    "doubts",
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
