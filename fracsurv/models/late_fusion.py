"""LF-FC: one linear layer on the log hazards of two finished models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fracsurv.models.deepsurv import DeepSurv
from fracsurv.models.image_risk import ImageRisk


class Frozen(nn.Module):
    """A pretrained part: it gets no gradient and stays in evaluation mode (no dropout, fixed norms)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.module.eval()
        return self

    def forward(self, tabular: Tensor, image: Tensor | None, *has_image: Tensor) -> Tensor:
        with torch.no_grad():
            return self.module(tabular, image, *has_image)


class LateFusion(nn.Module):
    """LF-FC: two pretrained, frozen models; Linear(2 → 1) on their two log hazards is all that trains."""

    def __init__(self, *, image: ImageRisk, tabular: DeepSurv) -> None:
        super().__init__()
        self.image = Frozen(image)
        self.tabular = Frozen(tabular)
        self.head = nn.Linear(2, 1)

    def combine(self, tabular_risk: Tensor, image_risk: Tensor) -> Tensor:
        """Log hazards from the two models' own, so that the frozen models need not be run again."""
        with torch.autocast(tabular_risk.device.type, enabled=False):
            return self.head(torch.stack([tabular_risk, image_risk], dim=1)).squeeze(1)

    def forward(self, tabular: Tensor, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards from covariates and image, through both frozen models."""
        return self.combine(self.tabular(tabular, None), self.image(tabular, image, *has_image))
