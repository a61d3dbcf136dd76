"""DeepSurv: a Cox model whose log hazard is a small network of the clinical covariates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_FEATURES = 128


class DeepSurv(nn.Module):
    """n → 64 → ReLU → Dropout → 128 → ReLU → Dropout → 1.

    Parameters
    ----------
    n_inputs : int
        Number of covariates; ten in the protocol.
    dropout : float
        Share of activations dropped in training. The thesis does not give it; 0.2 is fracsurv's choice.

    Notes
    -----
    Katzman et al., BMC Med Res Methodol 2018;18:24. As a feature extractor (`features`) the last layer is
    left out: 128 features.
    """

    def __init__(self, *, n_inputs: int = 10, dropout: float = 0.2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(n_inputs, 64),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, N_FEATURES),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(N_FEATURES, 1)

    def features(self, tabular: Tensor) -> Tensor:
        """(n, n_inputs) covariates to (n, 128) features, in float32 under any autocast."""
        with torch.autocast(tabular.device.type, enabled=False):
            return self.body(tabular)

    def forward(self, tabular: Tensor, image: Tensor | None = None) -> Tensor:
        """(n, n_inputs) float32 covariates to (n,) log hazards, higher = riskier; `image` is not looked at."""
        with torch.autocast(tabular.device.type, enabled=False):
            return self.head(self.features(tabular)).squeeze(1)
