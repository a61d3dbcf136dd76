"""IF-MLP: image features and clinical features in one network, trained end to end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fracsurv.models.deepsurv import N_FEATURES, DeepSurv
from fracsurv.models.image_risk import ImageRisk


class IntermediateFusion(nn.Module):
    """IF-MLP: image features beside 128 tabular ones → Linear 128 → BatchNorm → ReLU → Linear 1."""

    def __init__(self, *, image: ImageRisk, tabular: DeepSurv) -> None:
        super().__init__()
        self.image = image.encoder
        self.tabular = tabular.body
        self.head = nn.Sequential(
            nn.Linear(image.encoder.n_features + N_FEATURES, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 1)
        )

    def image_part(self, image: Tensor, *has_image: Tensor) -> Tensor:
        """(n, n_features) image features, the fusion's only input from the image."""
        return self.image(image, *has_image)

    def with_image_part(self, tabular: Tensor, features: Tensor) -> Tensor:
        """Log hazards from covariates and known image features."""
        with torch.autocast(features.device.type, enabled=False):
            joint = torch.cat([features.float(), self.tabular(tabular)], dim=1)
            return self.head(joint).squeeze(1)

    def forward(self, tabular: Tensor, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards from concatenated features; everything is trained end to end."""
        return self.with_image_part(tabular, self.image_part(image, *has_image))
