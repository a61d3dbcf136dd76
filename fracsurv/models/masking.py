"""What stands in for the image features of a patient without a radiograph: the mean of those who have one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fracsurv.models.encoders import ConvEncoder, ViTEncoder
from fracsurv.parallel import Team

MOMENTUM = 0.1
FEWEST = 2
"""Pictures of which a training batch's statistics can be made: of a single one BatchNorm makes none."""


class MaskedEncoder(nn.Module):
    """An encoder that is shown the pictures that there are; who has none gets the mean features.

    In training these are the mean over the batch's patients with a picture, through which no gradient goes; in
    evaluation the running mean of those means, so that nobody's features depend on who else is judged. No Cox loss
    sees a constant: an arbitrary one, as the features of a blank picture would be, would set these patients apart.
    The linear layer of an image's risk gives to the mean features the mean log hazard.

    Parameters
    ----------
    encoder : ConvEncoder or ViTEncoder

    Attributes
    ----------
    mean : Tensor (n_features,), float32
        The running mean, a buffer: that of all batches so far, from the tenth on of the last ones, as BatchNorm's.
    n_batches : Tensor (), int64
        Batches that it was made of; a buffer.
    team : Team
        The processes that have a share of every batch each; `synchronise` sets it.
    """

    def __init__(self, encoder: ConvEncoder | ViTEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.n_features = encoder.n_features
        self.register_buffer("mean", torch.zeros(encoder.n_features))
        self.register_buffer("n_batches", torch.tensor(0))
        self.team = Team()

    @property
    def backbone(self) -> nn.Module:
        """The encoder's network."""
        return self.encoder.backbone

    def forward(self, images: Tensor, pictured: Tensor | None = None) -> Tensor:
        """(n, n_features) float32 features of all patients.

        Parameters
        ----------
        images : Tensor (n_pictured, channels, H, W)
            Of those who have one, in order.
        pictured : Tensor (n,), bool, on the host
            Who that is; None: everybody. When several processes train, of the whole batch, of which `images` are
            this process's share.

        Notes
        -----
        A training batch with fewer than two pictures gives everybody the running mean and teaches the encoder
        nothing, as a last batch of one patient is left out elsewhere.
        """
        if pictured is None:
            return self.encoder(images)
        n_pictured = int(pictured.sum())
        mine = pictured[self.team.share.mine] if self.training and not self.team.is_alone else pictured
        if n_pictured < (FEWEST if self.training else 1):
            return self.mean.expand(len(mine), -1)
        features = self.encoder(images)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            mean = self._batch_mean(features, n_pictured) if self.training else self.mean
            at = mine.nonzero().squeeze(1).to(features.device, non_blocking=True)
            return mean.expand(len(mine), -1).index_copy(0, at, features)

    @torch.no_grad()
    def _batch_mean(self, features: Tensor, n_pictured: int) -> Tensor:
        """Mean over the whole batch's pictures, (n_features,), which joins the running mean."""
        total = features.sum(dim=0)
        mean = (total if self.team.is_alone else self.team.sum_(total)) / n_pictured
        self.n_batches += 1
        # the plain mean of the first batches: beginning at 0 would pull a short training's towards it
        self.mean.lerp_(mean, (1 / self.n_batches).clamp(min=MOMENTUM))
        return mean
