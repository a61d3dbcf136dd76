"""What a fitted network looks at, vertebra by vertebra, place by place, factor by factor; and whether it is right.

What reads is here; what computes, and so imports torch, is in `fold_models`, `maps` and `occlusion`.
"""

from fracsurv.explain.factors import factor_importance
from fracsurv.explain.record import PATIENTS, Explanation, explainable, read_explanation, read_explanations
from fracsurv.explain.truth import fracture_auc, true_grades

__all__ = [
    "PATIENTS",
    "Explanation",
    "explainable",
    "factor_importance",
    "fracture_auc",
    "read_explanation",
    "read_explanations",
    "true_grades",
]
