"""Where in the picture a network looks: Grad-CAM for a ResNet, attention rollout for a vision transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer


def grad_cam(call: Callable[..., Tensor], layer: nn.Module, tabular: Tensor, images: Tensor) -> Tensor:
    """Grad-CAM of the log hazard at a convolutional layer (Selvaraju et al. 2017), by captum.

    Parameters
    ----------
    call : callable
        (covariates, images) to (n,) log hazards; a network in evaluation mode.
    layer : module
        Its last convolutional stage.

    Returns
    -------
    Tensor (n, H, W), float32
        At the size of `images`, bilinear between the layer's few places. Above 0 where the picture raises the log
        hazard; what lowers it is 0. For 13 crops one map: a place is the same place in all of them.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    found = LayerGradCam(lambda image, covariates: call(covariates, image), layer).attribute(
        images, additional_forward_args=(tabular,), relu_attributions=True
    )
    return LayerAttribution.interpolate(found.float(), images.shape[-2:], "bilinear").squeeze(1).detach()


def attention_rollout(transformer: VisionTransformer, images: Tensor) -> Tensor:
    """How much of each patch reaches the class token through all layers (Abnar and Zuidema 2020).

    Attention averaged over the heads, half of each layer being the residual path. It says where information comes
    from, not whether it raises or lowers the risk.

    Parameters
    ----------
    transformer : VisionTransformer
        In evaluation mode.
    images : Tensor (n, channels, S, S)

    Returns
    -------
    Tensor (n, S, S), float32
        Shares of the patches, which add up to 1 less the class token's own, at the size of the images.
    """
    inputs: list[Tensor] = []
    hooks = [
        layer.self_attention.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        for layer in transformer.encoder.layers
    ]
    with torch.no_grad():
        try:
            transformer(images)
        finally:
            for hook in hooks:
                hook.remove()
        reached = None
        for layer, seen in zip(transformer.encoder.layers, inputs, strict=True):
            weights = layer.self_attention(seen, seen, seen, need_weights=True, average_attn_weights=True)[1].float()
            step = (weights + torch.eye(weights.shape[-1], device=weights.device)) / 2
            reached = step if reached is None else step @ reached
    patches = reached[:, 0, 1:]
    side = round(patches.shape[1] ** 0.5)
    return functional.interpolate(patches.reshape(-1, 1, side, side), images.shape[-2:], mode="nearest").squeeze(1)
