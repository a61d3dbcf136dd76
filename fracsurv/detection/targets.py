"""What the detector shall answer for known boxes, and how far it is from that."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from fracsurv.detection.network import STRIDE

SPREAD = 0.15
"""Standard deviation of a centre's Gaussian, as a share of the box's side."""
BOX_WEIGHT = 2.0
LEAST_WEIGHT = 0.1
"""Cells whose heat is above this learn the box that they belong to, weighted by it."""


def cell_centres(shape: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """(h, w, 2) float: x and y, in frame pixels, of the centres of an output's cells."""
    y, x = torch.meshgrid(*(torch.arange(side, device=device) for side in shape), indexing="ij")
    return (torch.stack([x, y], dim=2) + 0.5) * STRIDE


def heatmap(boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The centre map of one radiograph and which box each cell belongs to.

    Parameters
    ----------
    boxes : Tensor (n, 4) float
        x_min, y_min, x_max, y_max in frame pixels.
    shape : (h, w) of the output.

    Returns
    -------
    heat : Tensor (h, w)
        Greatest over the boxes of exp(−d²/2), d the distance from the box's centre in standard deviations; exactly 1
        in the cell that holds a centre. 0 everywhere without boxes.
    owner : Tensor (h, w) int64
        Number of that box.
    """
    if len(boxes) == 0:
        return boxes.new_zeros(shape), torch.zeros(shape, dtype=torch.int64, device=boxes.device)
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    spread = (SPREAD * side).clamp_min(STRIDE / 2)
    at = cell_centres(shape, boxes.device)
    distance = ((at[None] - centre[:, None, None]) / spread[:, None, None]).square().sum(dim=3)
    heat, owner = torch.exp(-distance / 2).max(dim=0)
    cell = (centre / STRIDE).long()
    inside = ((cell >= 0) & (cell < torch.tensor(shape[::-1], device=boxes.device))).all(dim=1)
    heat[cell[inside, 1], cell[inside, 0]] = 1.0
    owner[cell[inside, 1], cell[inside, 0]] = torch.arange(len(boxes), device=boxes.device)[inside]
    return heat, owner


def detection_loss(logits: Tensor, sides: Tensor, boxes: list[Tensor]) -> Tensor:
    """Focal loss of the centres plus GIoU loss of the boxes, each per vertebra.

    Parameters
    ----------
    logits, sides : what the network gave, (n, 1, h, w) and (n, 4, h, w).
    boxes : list of n tensors (k, 4), frame pixels; k may be 0.
    """
    shape = tuple(logits.shape[2:])
    heats, owners = zip(*(heatmap(each, shape) for each in boxes), strict=True)
    heat, owner = torch.stack(heats), torch.stack(owners)
    n_boxes = max(1, sum(map(len, boxes)))
    logit = logits[:, 0]
    score = logit.sigmoid()
    positive = heat == 1
    # penalty-reduced focal loss: cells near a centre are hardly punished for thinking that they are it
    loss = torch.where(
        positive,
        (1 - score).square() * functional.softplus(-logit),
        (1 - heat).pow(4) * score.square() * functional.softplus(logit),
    ).sum()
    weight = torch.where(heat > LEAST_WEIGHT, heat, 0.0)
    chosen = weight > 0
    if not chosen.any():
        return loss / n_boxes
    at = cell_centres(shape, logits.device).expand(len(boxes), -1, -1, -1)[chosen]
    predicted = boxes_around(at, sides.permute(0, 2, 3, 1)[chosen])
    start = torch.tensor([0, *(len(each) for each in boxes[:-1])], device=logits.device).cumsum(0)
    wanted = torch.cat(boxes)[(owner + start[:, None, None])[chosen]]
    giou = generalized_box_iou_loss(predicted, wanted)
    return loss / n_boxes + BOX_WEIGHT * (giou * weight[chosen]).sum() / weight.sum()


def boxes_around(at: Tensor, sides: Tensor) -> Tensor:
    """(n, 4) boxes from cell centres (n, 2) and distances (n, 4) to the left, upper, right and lower side."""
    return torch.cat([at - sides[:, :2], at + sides[:, 2:]], dim=1)
