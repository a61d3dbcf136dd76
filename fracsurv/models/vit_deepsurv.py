"""ViT-DS: a vision transformer of the stacked vertebra crops, not pretrained.

The protocol's encoder is `vit_b_32`; the small profiles use `vit_tiny`, and every table says so.
"""

from __future__ import annotations

from torch import Tensor, nn

from fracsurv.models.image_risk import ImageRisk

VIT_SIZES = {
    "vit_b_32": {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072},
    "vit_tiny": {"num_layers": 3, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 512},
}


class PatchProjection(nn.Conv2d):
    """A convolution whose kernel is as wide as its stride, computed as one matrix product.

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


class ViTEncoder(nn.Module):
    """A vision transformer over 8×8 patches of a square image, whose 1,000 outputs are the features.

    Smaller images have smaller patches, so that there are always 64 tokens and a class token. At the protocol's 272
    pixels, eight patches of 32 cover 256: the last 16 rows and columns are lost, as in the thesis; they are padding
    except for the widest boxes. torchvision initialises the last layer with zeros, so the first training step changes
    that layer alone.
    """

    def __init__(self, name: str, *, channels: int, image_size: int) -> None:
        from torchvision.models import VisionTransformer  # here: it takes seconds to import

        super().__init__()
        patch = min(round(image_size * 32 / 272), image_size // 8)  # 32 at the protocol's size, 8 at a quarter of it
        self._seen = 8 * patch
        self.n_features = 1000
        self.backbone = VisionTransformer(self._seen, patch, num_classes=self.n_features, **VIT_SIZES[name])
        first = self.backbone.conv_proj
        self.backbone.conv_proj = projection = PatchProjection(channels, first.out_channels, patch, stride=patch)
        nn.init.trunc_normal_(projection.weight, std=(channels * patch * patch) ** -0.5)
        nn.init.zeros_(projection.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Features of a normalised float image of `image_size` × `image_size` pixels."""
        return self.backbone(image[..., : self._seen, : self._seen])


class ViTDeepSurv(ImageRisk):
    """ViT-DS: vit_b_32 (13 channels, 272 pixels, 65 tokens), 1,000 features, linear to one log hazard."""

    def __init__(self, *, channels: int = 13, image_size: int = 272, encoder: str = "vit_b_32") -> None:
        super().__init__(ViTEncoder(encoder, channels=channels, image_size=image_size))
