"""Where a network looks: what each vertebra adds to the log hazard, Grad-CAM (ResNet), attention rollout (ViT)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer

from fracsurv.cohort.boxes import BOX_COLUMNS, N_SLOTS
from fracsurv.cohort.cohort import Cohort
from fracsurv.images.radiographs import source_kind
from fracsurv.vertebrae.slots import into_slots


def vertebra_contributions(
    call: Callable[..., Tensor], tabular: Tensor, images: Tensor, frames: Tensor | None
) -> Tensor:
    """Each patient's log hazard less the one without the vertebra, (n, 13) float32; above 0, it raises the risk.

    NaN where there is no vertebra.

    Parameters
    ----------
    call : callable
        (covariates, images) to (n,) log hazards; a network in evaluation mode.
    tabular : Tensor (n, p)
    images : Tensor (n, 13, H, W) or (n, 1, H, W)
        Normalised and padded. Without a vertebra its crop is all zeros, as an empty slot's; in a full radiograph its
        box has the mean of the picture around it.
    frames : Tensor (n, 13, 4) or None
        For full radiographs: x_min, y_min, x_max, y_max of each slot's box in the image's pixels, NaN = none.
    """
    with torch.no_grad():
        whole = call(tabular, images).float()
        result = torch.full((len(images), N_SLOTS), torch.nan)
        for slot in range(N_SLOTS):
            if frames is None:
                there = images[:, slot].flatten(1).any(dim=1)
                without = images.clone()
                without[:, slot] = 0
            else:
                there = torch.isfinite(frames[:, slot]).all(dim=1)
                without = torch.stack(
                    [_blanked(image, box) for image, box in zip(images, frames[:, slot], strict=True)]
                )
            if there.any():
                changed = call(tabular[there], without[there]).float()
                result[there.cpu(), slot] = (whole[there] - changed).cpu()
    return result


def _blanked(image: Tensor, box: Tensor) -> Tensor:
    """An image (1, H, W) whose box has the mean of a border around it, half as wide as the box."""
    if not torch.isfinite(box).all():
        return image
    height, width = image.shape[-2:]
    left, top, right, bottom = (int(side) for side in (*box[:2].floor(), *box[2:].ceil()))
    rim = max(1, (right - left) // 2)
    around = image[:, max(0, top) : bottom, max(0, left - rim) : min(width, right + rim)]
    result = image.clone()
    result[:, max(0, top) : min(height, bottom), max(0, left) : min(width, right)] = around.mean()
    return result


def vertebra_frames(cohort: Cohort, rows: np.ndarray, resized: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """Boxes of the 13 slots in a padded full image, (len(rows), 13, 4) in its pixels; NaN where a slot is empty.

    Parameters
    ----------
    resized, frame : (height, width)
        Of the stored picture, and of the zero-padded one.
    """
    part = cohort.of_rows(rows)
    index = part.slot_index
    of = {patient: boxes[BOX_COLUMNS].to_numpy(float) for patient, boxes in part.vertebrae.groupby("patient_id")}
    result = np.full((len(rows), N_SLOTS, 4), np.nan)
    top, left = (frame[0] - resized[0]) // 2, (frame[1] - resized[1]) // 2
    for number, (patient, name) in enumerate(zip(part.table["patient_id"], part.table["image"], strict=True)):
        if patient not in of:
            continue
        height, width = source_kind(part.folder / name, name=name)[1]
        across, down = resized[1] / width, resized[0] / height
        boxes = of[patient] * [across, down, across, down] + [left, top, left, top]
        result[number] = into_slots(boxes, index[number])
    return result


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
