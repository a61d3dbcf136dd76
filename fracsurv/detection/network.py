"""The vertebra detector's network and its loss: one radiograph in, at every fourth pixel a centre's score and a box.

Anchor-free and single-stage, after CenterNet (Zhou et al., arXiv 1904.07850) and TTFNet (Liu et al., AAAI 2020): a
small U-shaped convolutional network, whose first step packs 4×4 pixels into channels. That costs a CPU little where a
convolution over one channel costs much, and leaves no resolution to be regained.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

STRIDE = 4
"""Pixels of the frame a cell of the output."""
FRAME = (448, 256)
"""Height and width of the frame that every radiograph is fitted into, pixels; multiples of 32."""
PRIOR = 0.01
"""An untrained network's score of every cell, so that the first steps are not spent on the empty ones."""
SPREAD = 0.15
"""Standard deviation of a centre's Gaussian, as a share of the box's side."""
BOX_WEIGHT = 2.0
MIN_HEAT = 0.1
"""Cells whose heat is above this learn the box that they belong to, weighted by it."""


class VertebraDetector(nn.Module):
    """Radiographs (n, 1, H, W) to centre logits (n, 1, H/4, W/4) and box distances (n, 4, H/4, W/4).

    Distances run from a cell's centre to the left, upper, right and lower side of the box around it, in pixels of the
    frame, all positive.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (48, 80, 128, 192)  # channels at strides 4, 8, 16 and 32
        self.stem = nn.Sequential(nn.PixelUnshuffle(STRIDE), convolution(STRIDE**2, widths[0]), Residual(widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(convolution(above, below, stride=2), Residual(below), Residual(below))
            for above, below in pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(below, above, 1) for above, below in pairwise(widths))
        self.merge = nn.ModuleList(convolution(width, width) for width in widths[:-1])
        self.centre = nn.Sequential(convolution(widths[0], widths[0]), nn.Conv2d(widths[0], 1, 1))
        self.sides = nn.Sequential(convolution(widths[0], widths[0]), nn.Conv2d(widths[0], 4, 1))
        nn.init.constant_(self.centre[-1].bias, -torch.log(torch.tensor(1 / PRIOR - 1)).item())
        nn.init.constant_(self.sides[-1].bias, 1.0)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and distances, in float32 whatever the precision of the layers between."""
        levels = [self.stem(image)]
        for step in self.down:
            levels.append(step(levels[-1]))
        x = levels[-1]
        for level, lateral, merge in zip(
            reversed(levels[:-1]), reversed(self.lateral), reversed(self.merge), strict=True
        ):
            x = merge(level + functional.interpolate(lateral(x), scale_factor=2.0, mode="nearest"))
        sides = functional.softplus(self.sides(x).float()) * STRIDE
        return self.centre(x).float(), sides


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(width, width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


def convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def cell_centres(shape: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """(h, w, 2) float: x and y, in frame pixels, of the centres of an output's cells."""
    y, x = torch.meshgrid(*(torch.arange(side, device=device) for side in shape), indexing="ij")
    return (torch.stack([x, y], dim=2) + 0.5) * STRIDE


def heatmap(boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The centre map of one radiograph, of the output's shape (h, w), and which box each cell belongs to.

    Returns
    -------
    heat : Tensor (h, w)
        Maximum over the boxes of exp(−d²/2), d the distance from the box's centre in standard deviations; exactly 1
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

    `logits` (n, 1, h, w) and `sides` (n, 4, h, w) are the network's outputs; `boxes` are n tensors (k, 4) in frame
    pixels, k may be 0.
    """
    shape = tuple(logits.shape[2:])
    heats, owners = zip(*(heatmap(each, shape) for each in boxes), strict=True)
    heat, owner = torch.stack(heats), torch.stack(owners)
    n_boxes = max(1, sum(map(len, boxes)))
    logit = logits[:, 0]
    score = logit.sigmoid()
    positive = heat == 1
    # penalty-reduced focal loss: a high score in a cell near a centre costs little
    loss = torch.where(
        positive,
        (1 - score).square() * functional.softplus(-logit),
        (1 - heat).pow(4) * score.square() * functional.softplus(logit),
    ).sum()
    weight = torch.where(heat > MIN_HEAT, heat, 0.0)
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
