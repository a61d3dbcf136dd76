"""C-DS: a residual network of a radiograph or of the stacked vertebra crops, none of it pretrained.

The protocol's encoder is torchvision's `resnet50`; the small profiles use `resnet18`, and every table says so.
"""

from __future__ import annotations

from torch import Tensor, nn

from fracsurv.models.image_risk import ImageRisk


class ConvEncoder(nn.Module):
    """A ResNet without its classification layer: (n, channels, H, W) to (n, 2,048) features (ResNet-50)."""

    def __init__(self, name: str, *, channels: int) -> None:
        from torchvision import models  # here: it takes seconds to import

        super().__init__()
        self.backbone = getattr(models, name)(weights=None)
        first = self.backbone.conv1
        self.backbone.conv1 = nn.Conv2d(
            channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False
        )
        # torchvision's own initialisation of the layer that is replaced
        nn.init.kaiming_normal_(self.backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.n_features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Features of a normalised float image."""
        return self.backbone(image)


class ConvDeepSurv(ImageRisk):
    """C-DS: ResNet-50 (1 or 13 channels, no pretrained weights), 2,048 features, linear to one log hazard."""

    def __init__(self, *, channels: int, encoder: str = "resnet50") -> None:
        super().__init__(ConvEncoder(encoder, channels=channels))
