"""The network that an experiment names."""

from __future__ import annotations

from torch import nn

from fracsurv.config import RESNETS, VITS
from fracsurv.models.alpha_fusion import AlphaFusion
from fracsurv.models.conv_deepsurv import ConvDeepSurv
from fracsurv.models.deepsurv import DeepSurv
from fracsurv.models.image_risk import ImageRisk
from fracsurv.models.intermediate_fusion import IntermediateFusion
from fracsurv.models.late_fusion import LateFusion
from fracsurv.models.masking import MaskedEncoder
from fracsurv.models.vit_deepsurv import ViTDeepSurv


def build_model(
    *,
    fusion: str,
    input: str = "none",
    encoder: str | type[nn.Module] = "none",
    n_covariates: int = 10,
    image_size: int = 272,
    alpha: float | None = None,
    frozen: tuple[str, ...] = (),
    masks: bool = False,
) -> nn.Module:
    """A newly initialised network, drawn from torch's global generator.

    `fusion`, `input`, `encoder` and `alpha` are those of an experiment: 'full' has 1 channel, 'crops' 13, input
    'none' is DeepSurv. An encoder may be a class, called with the number of channels. `image_size` is the side of a
    vision transformer's square crops, in pixels. `frozen` names the parts ('tabular', 'image') that are pretrained
    and do not train; late fusion freezes both. With `masks`, patients may lack an image, and the network takes
    `has_image` as a third argument (`MaskedEncoder`).
    """
    tabular = DeepSurv(n_inputs=n_covariates)
    if input == "none":
        return tabular
    channels = {"full": 1, "crops": 13}[input]
    if encoder in RESNETS:
        image = ConvDeepSurv(channels=channels, encoder=encoder)
    elif encoder in VITS:
        image = ViTDeepSurv(channels=channels, image_size=image_size, encoder=encoder)
    else:
        image = ImageRisk(encoder(channels))
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
