"""What stands in for the image features of a patient without a radiograph: the mean of those who have one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fracsurv.models.encoders import ConvEncoder, ViTEncoder
from fracsurv.training.parallel import Team

FEWEST = 2
"""Pictures of which a training batch's statistics can be made: of a single one BatchNorm makes none."""


class MaskedEncoder(nn.Module):
    """An encoder that is shown the pictures that there are; who has none gets the mean features.

    In training that is the mean over the batch's patients with a picture, through which no gradient goes; in
    evaluation the mean over the training patients with a picture, as they are in evaluation, so that nobody's
    features depend on who else is judged. Arbitrary ones, as those of a blank picture would be, would set these
    patients apart. To the mean features a linear layer gives the mean log hazard.

    Parameters
    ----------
    encoder : ConvEncoder or ViTEncoder

    Attributes
    ----------
    mean : Tensor (n_features,), float32
        That of evaluation, a buffer; `settle` computes it.
    team : Team
        The processes that have a share of every batch each; `synchronise` sets it.
    """

    def __init__(self, encoder: ConvEncoder | ViTEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.n_features = encoder.n_features
        self.register_buffer("mean", torch.zeros(encoder.n_features))
        self.team = Team()

    @property
    def backbone(self) -> nn.Module:
        """The encoder's network."""
        return self.encoder.backbone

    def forward(self, images: Tensor, has_image: Tensor | None = None) -> Tensor:
        """(n, n_features) float32 features of all patients.

        Parameters
        ----------
        images : Tensor (n_pictured, channels, H, W)
            Of those who have one, in order.
        has_image : Tensor (n,), bool, on the host
            Who that is; None: everybody. When several processes train, of the whole batch, of which `images` are
            this process's share.

        Notes
        -----
        A training batch with fewer than two pictures gives everybody the mean of evaluation and teaches the encoder
        nothing, as a last batch of one patient is left out elsewhere.
        """
        if has_image is None:
            return self.encoder(images)
        n_pictured = int(has_image.sum())
        mine = has_image[self.team.share.mine] if self.training and not self.team.is_alone else has_image
        if n_pictured < (FEWEST if self.training else 1):
            return self.mean.expand(len(mine), -1)
        features = self.encoder(images)
        with torch.autocast(features.device.type, enabled=False):
            features, mean = features.to(self.mean.dtype), self.mean
            if self.training:
                total = features.detach().sum(dim=0)
                mean = (total if self.team.is_alone else self.team.sum_(total)) / n_pictured
            at = mine.nonzero().squeeze(1).to(features.device, non_blocking=True)
            return mean.expand(len(mine), -1).index_copy(0, at, features)


@torch.no_grad()
def settle(
    model: nn.Module,
    inputs: Callable[..., tuple[Tensor, ...]],
    train: np.ndarray,
    *,
    dtype: torch.dtype = torch.float32,
    team: Team | None = None,
    batch_size: int = 128,
) -> None:
    """Give a network's `MaskedEncoder` the mean features of the rows `train` that have a picture, not augmented.

    A running mean of the features met in training would be another: pictures are augmented there and normalised by
    their batch, so that it may lie far from the middle of the features in evaluation. A network without such an
    encoder, and one whose encoder is frozen, are left as they are.

    Parameters
    ----------
    inputs : callable
        As `training.fit` takes it.
    dtype : torch.dtype
        In which the encoder computes.
    """
    team = team or Team()
    for encoder in (layer for layer in model.modules() if isinstance(layer, MaskedEncoder)):
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            continue
        model.eval()
        mine = train[team.share_of(len(train)).mine]
        total = encoder.mean.new_zeros(encoder.n_features + 1, dtype=torch.float64)  # the last: how many they are
        for start in range(0, len(mine), batch_size):
            _, images, _ = inputs(mine[start : start + batch_size], None)
            if len(images):
                with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
                    features = encoder.encoder(images)
                total[:-1] += features.double().sum(dim=0)
                total[-1] += len(images)
        total = total if team.is_alone else team.sum_(total)
        encoder.mean.copy_(total[:-1] / total[-1].clamp(min=1))
