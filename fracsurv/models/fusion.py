"""The protocol's ways of putting image and clinical risk together.

Every model here maps `(tabular, image)` to (n,) log hazards in float32, higher = riskier. Where patients may be
without a picture, a third argument, `has_image`, says who has one; see `masking.MaskedEncoder`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fracsurv.models.deepsurv import N_FEATURES, DeepSurv
from fracsurv.models.encoders import ImageRisk


class IntermediateFusion(nn.Module):
    """IF-MLP: image features beside 128 tabular ones → Linear 128 → BatchNorm → ReLU → Linear 1."""

    def __init__(self, *, image: ImageRisk, tabular: DeepSurv) -> None:
        super().__init__()
        self.image = image.encoder
        self.tabular = tabular.body
        self.head = nn.Sequential(
            nn.Linear(image.encoder.n_features + N_FEATURES, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 1),
        )

    def image_part(self, image: Tensor, *has_image: Tensor) -> Tensor:
        """(n, n_features): all that the fusion sees of an image."""
        return self.image(image, *has_image)

    def with_image_part(self, tabular: Tensor, features: Tensor) -> Tensor:
        """Log hazards from covariates and image features that are already known."""
        with torch.autocast(features.device.type, enabled=False):
            joint = torch.cat([features.float(), self.tabular(tabular)], dim=1)
            return self.head(joint).squeeze(1)

    def forward(self, tabular: Tensor, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards from concatenated features; everything is trained end to end."""
        return self.with_image_part(tabular, self.image_part(image, *has_image))


class _Frozen(nn.Module):
    """A pretrained part: no gradient reaches it, and it stays in evaluation mode (no dropout, fixed norms)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> _Frozen:
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
        self.image = _Frozen(image)
        self.tabular = _Frozen(tabular)
        self.head = nn.Linear(2, 1)

    def combine(self, tabular_risk: Tensor, image_risk: Tensor) -> Tensor:
        """Log hazard from two that are already known, so that frozen models need not be run again."""
        with torch.autocast(tabular_risk.device.type, enabled=False):
            return self.head(torch.stack([tabular_risk, image_risk], dim=1)).squeeze(1)

    def forward(self, tabular: Tensor, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards from covariates and image, through both frozen models."""
        return self.combine(self.tabular(tabular, None), self.image(tabular, image, *has_image))


class AlphaFusion(nn.Module):
    """α-model: r = α·r_tab + (1 − α)·r_img with a fixed α.

    Parameters
    ----------
    alpha : float
        Weight of the clinical risk, from 0 to 1.
    freeze_tabular : bool
        Whether `tabular` is pretrained and frozen, so that only the image model learns.
    """

    def __init__(self, *, image: ImageRisk, tabular: DeepSurv, alpha: float, freeze_tabular: bool = False) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        self.image = image
        self.tabular = _Frozen(tabular) if freeze_tabular else tabular
        self.alpha = alpha

    def image_part(self, image: Tensor, *has_image: Tensor) -> Tensor:
        """(n,): the image's log hazards, all that the fusion sees of it."""
        return self.image(None, image, *has_image)

    def with_image_part(self, tabular: Tensor, image_risk: Tensor) -> Tensor:
        """Log hazards from covariates and the image's log hazards."""
        return self.alpha * self.tabular(tabular, None) + (1 - self.alpha) * image_risk

    def forward(self, tabular: Tensor, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards from covariates and image."""
        return self.with_image_part(tabular, self.image_part(image, *has_image))
