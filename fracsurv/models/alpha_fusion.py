"""α-model: a weighted sum of a clinical and an image log hazard, with a fixed weight α."""

from __future__ import annotations

from torch import Tensor, nn

from fracsurv.models.deepsurv import DeepSurv
from fracsurv.models.image_risk import ImageRisk
from fracsurv.models.late_fusion import Frozen


class AlphaFusion(nn.Module):
    """α-model: r = α·r_tab + (1 − α)·r_img with a fixed α, the weight of the clinical risk, from 0 to 1.

    With `freeze_tabular` the clinical model is pretrained and frozen, and only the image model is trained.
    """

    def __init__(self, *, image: ImageRisk, tabular: DeepSurv, alpha: float, freeze_tabular: bool = False) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        self.image = image
        self.tabular = Frozen(tabular) if freeze_tabular else tabular
        self.alpha = alpha

    def image_part(self, image: Tensor, *has_image: Tensor) -> Tensor:
        """(n,) log hazards of the image, the fusion's only input from it."""
        return self.image(None, image, *has_image)

    def with_image_part(self, tabular: Tensor, image_risk: Tensor) -> Tensor:
        """Log hazards from covariates and the image's log hazards."""
        return self.alpha * self.tabular(tabular, None) + (1 - self.alpha) * image_risk

    def forward(self, tabular: Tensor, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards from covariates and image."""
        return self.with_image_part(tabular, self.image_part(image, *has_image))
