"""What C-DS and ViT-DS share: the log hazard from an image encoder's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImageRisk(nn.Module):
    """An encoder, which maps images to (n, `encoder.n_features`) features, and one linear layer."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.n_features, 1)

    def forward(self, tabular: Tensor | None, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards of (n, channels, H, W) images; `tabular` is ignored. `has_image`: see `MaskedEncoder`."""
        features = self.encoder(image, *has_image)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float()).squeeze(1)
