"""What C-DS and ViT-DS share: the risk from an image encoder's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImageRisk(nn.Module):
    """An encoder and one linear layer: (n, channels, H, W) to (n,) log hazards, higher = riskier.

    Parameters
    ----------
    encoder : nn.Module
        Maps (n, channels, H, W) float images to (n, `n_features`) features; has the attribute `n_features`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.n_features, 1)

    def forward(self, tabular: Tensor | None, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards, in float32 whatever the encoder's precision.

        `tabular` is ignored; `has_image`: see `MaskedEncoder`.
        """
        features = self.encoder(image, *has_image)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float()).squeeze(1)
