"""Image encoders, none pretrained, and the risk models that are one encoder and one linear layer.

`ConvDeepSurv` is built on torchvision's ResNets, `ViTDeepSurv` on its VisionTransformer. The protocol's
encoders are `resnet50` and `vit_b_32`; `resnet18` and `vit_tiny` are what the small profiles put in their
place, and every table says so.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# torchvision is imported where a network is made: it takes seconds, and much of fracsurv makes none

VIT_SIZES = {
    "vit_b_32": {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072},
    "vit_tiny": {"num_layers": 3, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 512},
}
N_TOKENS_A_SIDE = 8
VIT_FEATURES = 1000


class ConvEncoder(nn.Module):
    """A ResNet without its classification layer: (n, channels, H, W) to (n, 2,048) features (ResNet-50)."""

    def __init__(self, name: str, *, channels: int) -> None:
        from torchvision import models

        super().__init__()
        self.backbone = getattr(models, name)(weights=None)
        first = self.backbone.conv1
        self.backbone.conv1 = nn.Conv2d(
            channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False
        )
        # the same initialisation as torchvision gives the layer that is replaced
        nn.init.kaiming_normal_(self.backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.n_features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Features of a normalised float image."""
        return self.backbone(image)


class ViTEncoder(nn.Module):
    """A vision transformer over 8×8 patches of a square image, whose 1,000 outputs are the features.

    Smaller images have smaller patches, in proportion, so that there are always 64 tokens and a class token.

    At the protocol's 272 pixels and patches of 32, eight patches a side cover 256 pixels: the last 16 rows and
    columns fall to no patch, as in the thesis. Crops are centred in zeros, so
    what is lost is padding except for the widest boxes. torchvision starts the last layer at zero, so the
    first step of a training moves that layer alone.
    """

    def __init__(self, name: str, *, channels: int, image_size: int) -> None:
        from torchvision.models import VisionTransformer

        super().__init__()
        patch = round(image_size * 32 / 272)  # 32 at the protocol's size, 8 at a quarter of it
        if patch * N_TOKENS_A_SIDE > image_size:
            patch = image_size // N_TOKENS_A_SIDE
        self._seen = patch * N_TOKENS_A_SIDE
        self.backbone = VisionTransformer(
            image_size=patch * N_TOKENS_A_SIDE, patch_size=patch, num_classes=VIT_FEATURES, **VIT_SIZES[name]
        )
        first = self.backbone.conv_proj
        self.backbone.conv_proj = PatchProjection(channels, first.out_channels, patch, stride=patch)
        fan_in = channels * patch * patch
        nn.init.trunc_normal_(self.backbone.conv_proj.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.backbone.conv_proj.bias)
        self.n_features = VIT_FEATURES

    def forward(self, image: Tensor) -> Tensor:
        """Features of a normalised float image of `image_size` × `image_size` pixels."""
        return self.backbone(image[..., : self._seen, : self._seen])


class PatchProjection(nn.Conv2d):
    """A convolution whose kernel is as wide as its stride, as the one matrix product that it is.

    cuDNN takes six times as long for 13 channels of 32×32 (one H200).
    """

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, H, W) to (n, out_channels, H // patch, W // patch)."""
        patch, _ = self.kernel_size
        down, right = image.shape[-2] // patch, image.shape[-1] // patch
        patches = image[..., : down * patch, : right * patch].unflatten(3, (right, patch)).unflatten(2, (down, patch))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (n, down, right, channels · patch · patch)
        projected = nn.functional.linear(patches, self.weight.flatten(1), self.bias)
        return projected.permute(0, 3, 1, 2)


class ImageRisk(nn.Module):
    """An encoder and one linear layer: (n, channels, H, W) to (n,) log hazards, higher = riskier."""

    def __init__(self, encoder: ConvEncoder | ViTEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.n_features, 1)

    def features(self, image: Tensor, *has_image: Tensor) -> Tensor:
        """(n, n_features) image features, the input of intermediate fusion; `has_image`: see `MaskedEncoder`."""
        return self.encoder(image, *has_image)

    def forward(self, tabular: Tensor | None, image: Tensor, *has_image: Tensor) -> Tensor:
        """Log hazards, in float32 whatever the encoder's precision; `tabular` is not looked at."""
        features = self.encoder(image, *has_image)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float()).squeeze(1)


class ConvDeepSurv(ImageRisk):
    """C-DS: ResNet-50 (1 or 13 channels, no pretrained weights), 2,048 features, linear to one log hazard."""

    def __init__(self, *, channels: int, encoder: str = "resnet50") -> None:
        super().__init__(ConvEncoder(encoder, channels=channels))


class ViTDeepSurv(ImageRisk):
    """ViT-DS: vit_b_32 (13 channels, 272 pixels, 65 tokens), 1,000 features, linear to one log hazard."""

    def __init__(self, *, channels: int = 13, image_size: int = 272, encoder: str = "vit_b_32") -> None:
        super().__init__(ViTEncoder(encoder, channels=channels, image_size=image_size))
