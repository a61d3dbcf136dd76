"""The protocol's ten clinical risk factors: their kinds and their labels in tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

PROTOCOL_COVARIATES = {
    "age": "continuous",
    "bmi": "continuous",
    "prior_fracture": "binary",
    "parental_hip_fracture": "binary",
    "smoker": "binary",
    "glucocorticoids": "binary",
    "rheumatoid_arthritis": "binary",
    "alcohol": "binary",
    "secondary_osteoporosis": "binary",
    "t_score": "normalised",
}
LABELS = {
    "age": "Age, years",
    "bmi": "BMI, kg/m²",
    "prior_fracture": "Prior fracture",
    "parental_hip_fracture": "Parental history of hip fracture",
    "smoker": "Current smoker",
    "glucocorticoids": "Glucocorticoid use",
    "rheumatoid_arthritis": "Rheumatoid arthritis",
    "alcohol": "Excessive alcohol",
    "secondary_osteoporosis": "Secondary osteoporosis",
    "t_score": "Bone mineral density, T-score",
}
MISSING = "_missing"
"""Ends the name of the column that says where a covariate is missing."""


def label_of(name: str, labels: Mapping[str, str]) -> str:
    """What to call a covariate: the cohort's label, the protocol's, or its name."""
    return labels.get(name, LABELS.get(name, name.replace("_", " ")))


def constant_indicators(table: pd.DataFrame, indicators: Iterable[str]) -> list[str]:
    """Those columns of `Cohort.indicators` that are constant in a table, so that nothing can be learnt from them."""
    return [name for name in indicators if table[name.removesuffix(MISSING)].isna().nunique() < 2]
