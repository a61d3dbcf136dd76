"""DeepSurv: a Cox model whose log hazard is a small network of the clinical covariates."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

N_FEATURES = 128


class DeepSurv(nn.Module):
    """n → 64 → ReLU → Dropout → 128 → ReLU → Dropout → 1 (Katzman et al., BMC Med Res Methodol 2018;18:24).

    `hidden` gives other widths. Intermediate fusion takes the 128 features of `body`. The thesis does not give the
    dropout; 0.2 is fracsurv's choice.
    """

    def __init__(
        self, *, n_inputs: int = 10, dropout: float = 0.2, hidden: tuple[int, ...] = (64, N_FEATURES)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((n_inputs, *hidden)):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], 1)

    def forward(self, tabular: Tensor, image: Tensor | None = None) -> Tensor:
        """Log hazards of (n, n_inputs) float32 covariates; `image` is ignored."""
        with torch.autocast(tabular.device.type, enabled=False):
            return self.head(self.body(tabular)).squeeze(1)
