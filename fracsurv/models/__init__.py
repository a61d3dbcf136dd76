"""The protocol's models, one a file. A model knows nothing of files, cohorts or processes.

Every network maps `(tabular, image)` to (n,) log hazards in float32, higher = riskier. Where patients may be without
an image, a third argument, `has_image`, says who has one; see `MaskedEncoder`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FILES = {
    "AlphaFusion": "alpha_fusion", "ConvDeepSurv": "conv_deepsurv", "CoxFit": "cox", "DeepSurv": "deepsurv",
    "ImageRisk": "image_risk", "IntermediateFusion": "intermediate_fusion", "LateFusion": "late_fusion",
    "MaskedEncoder": "masking", "ViTDeepSurv": "vit_deepsurv", "build_model": "build", "count_parameters": "build",
    "fit_cox": "cox", "update_mean_features": "masking",
}  # fmt: skip
__all__ = list(_FILES)


def __getattr__(name: str) -> Any:
    """A model by its name, imported when it is first asked for: `fit_cox` needs no torch, which takes seconds."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
