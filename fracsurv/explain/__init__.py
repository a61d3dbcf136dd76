"""What a fitted network looks at, vertebra by vertebra, place by place, factor by factor; and whether it is right."""

from fracsurv.explain.factors import factor_importance
from fracsurv.explain.maps import attention_rollout, grad_cam
from fracsurv.explain.occlusion import occluded, vertebra_frames
from fracsurv.explain.record import PATIENTS, Explanation, explain, explainable, read_explanation, read_explanations
from fracsurv.explain.truth import fracture_auc, true_grades

__all__ = [
    "PATIENTS",
    "Explanation",
    "attention_rollout",
    "explain",
    "explainable",
    "factor_importance",
    "fracture_auc",
    "grad_cam",
    "occluded",
    "read_explanation",
    "read_explanations",
    "true_grades",
    "vertebra_frames",
]
