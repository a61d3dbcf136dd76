"""The protocol's networks. `build` makes the one that an experiment names; nothing here knows of files."""

from __future__ import annotations

from torch import nn

from fracsurv.config import RESNETS
from fracsurv.models.deepsurv import DeepSurv
from fracsurv.models.encoders import ConvDeepSurv, ImageRisk, ViTDeepSurv
from fracsurv.models.fusion import AlphaFusion, IntermediateFusion, LateFusion
from fracsurv.models.masking import MaskedEncoder, settle

__all__ = [
    "AlphaFusion",
    "ConvDeepSurv",
    "DeepSurv",
    "ImageRisk",
    "IntermediateFusion",
    "LateFusion",
    "MaskedEncoder",
    "ViTDeepSurv",
    "build",
    "count_parameters",
    "settle",
]

CHANNELS = {"full": 1, "crops": 13}


def build(
    *,
    fusion: str,
    input: str = "none",
    encoder: str = "none",
    n_covariates: int = 10,
    image_size: int = 272,
    alpha: float | None = None,
    frozen: tuple[str, ...] = (),
    masks: bool = False,
) -> nn.Module:
    """Build an experiment's network, newly initialised from torch's global generator.

    Parameters
    ----------
    fusion : {'none', 'intermediate', 'late', 'alpha'}
    input : {'none', 'full', 'crops'}
        1 channel for a full radiograph, 13 for the stacked crops; 'none' is DeepSurv.
    encoder : str
        One of `choices.ENCODERS`, or 'none' for DeepSurv.
    image_size : int
        Side of the square crops of a vision transformer, in pixels.
    alpha : float, optional
        Weight of the clinical risk of an α-model.
    frozen : tuple of {'tabular', 'image'}
        Parts that are pretrained and do not train. Late fusion freezes both.
    masks : bool
        Whether patients may be without a picture; see `MaskedEncoder`. The network then takes as a third argument who
        has one.
    """
    tabular = DeepSurv(n_inputs=n_covariates)
    if input == "none":
        return tabular
    image: ImageRisk
    if encoder in RESNETS:
        image = ConvDeepSurv(channels=CHANNELS[input], encoder=encoder)
    else:
        image = ViTDeepSurv(channels=CHANNELS[input], image_size=image_size, encoder=encoder)
    if masks:
        image.encoder = MaskedEncoder(image.encoder)
    if fusion == "none":
        return image
    if fusion == "intermediate":
        return IntermediateFusion(image=image, tabular=tabular)
    if fusion == "late":
        return LateFusion(image=image, tabular=tabular)
    return AlphaFusion(image=image, tabular=tabular, alpha=alpha, freeze_tabular="tabular" in frozen)


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters, or of those that receive gradients."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
