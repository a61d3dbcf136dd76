"""Patients without an image: their image features are the mean of the patients who have one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class MaskedEncoder(nn.Module):
    """An encoder that sees only the images that exist; patients without one get the mean features.

    In training, that is the mean over the batch's patients with an image, without a gradient. In evaluation, it is
    the mean over the training patients with an image, `mean` (n_features,): nobody's features depend on who else is
    evaluated. Arbitrary features, as those of a blank image, would set these patients apart. A linear layer maps the
    mean features to the mean log hazard.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.n_features = encoder.n_features
        self.register_buffer("mean", torch.zeros(encoder.n_features))

    @property
    def backbone(self) -> nn.Module:
        """The encoder's network."""
        return self.encoder.backbone

    def forward(self, images: Tensor, has_image: Tensor | None = None) -> Tensor:
        """(n, n_features) float32 features of all patients.

        `images` (n_images, channels, H, W) are of the patients who have one, in order. `has_image` (n,), bool, on the
        host, says who; None: everybody. In a training batch with fewer than two images everybody gets the mean of
        evaluation, and the encoder does not learn.
        """
        if has_image is None:
            return self.encoder(images)
        n_images = int(has_image.sum())
        if n_images < (2 if self.training else 1):  # BatchNorm takes no variance of a single image
            return self.mean.expand(len(has_image), -1)
        features = self.encoder(images)
        with torch.autocast(features.device.type, enabled=False):
            features, mean = features.to(self.mean.dtype), self.mean
            if self.training:
                mean = features.detach().sum(dim=0) / n_images
            at = has_image.nonzero().squeeze(1).to(features.device, non_blocking=True)
            return mean.expand(len(has_image), -1).index_copy(0, at, features)


@torch.no_grad()
def update_mean_features(
    model: nn.Module,
    inputs: Callable[..., tuple[Tensor, ...]],
    train: np.ndarray,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 128,
) -> None:
    """Set a network's `MaskedEncoder.mean` to the mean features of the rows `train` that have an image.

    The images are not augmented. A running mean of the training batches would differ: there images are augmented,
    and normalised by their batch. A network without such an encoder, and a frozen encoder, stay as they are. `inputs`
    maps (rows, None) to (covariates, images of those who have one, has_image), as `training.data.NetworkInputs`;
    `dtype` is the encoder's autocast precision.
    """
    for encoder in (layer for layer in model.modules() if isinstance(layer, MaskedEncoder)):
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            continue
        model.eval()
        total, n_images = encoder.mean.new_zeros(encoder.n_features, dtype=torch.float64), 0
        for start in range(0, len(train), batch_size):
            _, images, _ = inputs(train[start : start + batch_size], None)
            if len(images):
                with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
                    features = encoder.encoder(images)
                total += features.double().sum(dim=0)
                n_images += len(images)
        encoder.mean.copy_(total / max(n_images, 1))
