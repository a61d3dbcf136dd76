"""The vertebra detector's network: one radiograph in, at every fourth pixel a centre's score and a box.

Anchor-free and single-stage, after CenterNet (Zhou et al., arXiv 1904.07850) and TTFNet (Liu et al., AAAI 2020): a
small U-shaped convolutional network, whose first step packs 4×4 pixels into channels. That costs a CPU little where a
convolution over one channel costs much, and leaves no resolution to be regained.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4
"""Pixels of the frame a cell of the output."""
FRAME = (448, 256)
"""Height and width of the frame that every radiograph is fitted into, pixels; multiples of 32."""
PRIOR = 0.01
"""What an untrained network answers for every cell, so that the first steps are not spent on the empty ones."""


class VertebraDetector(nn.Module):
    """Radiographs (n, 1, H, W) to centre logits (n, 1, H/4, W/4) and box distances (n, 4, H/4, W/4).

    Parameters
    ----------
    widths : four int
        Channels at strides 4, 8, 16 and 32.

    Notes
    -----
    Distances run from a cell's centre to the left, upper, right and lower side of the box around it, in pixels of the
    frame, all positive.
    """

    def __init__(self, *, widths: tuple[int, int, int, int] = (48, 80, 128, 192)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(STRIDE), _convolution(STRIDE**2, widths[0]), _Residual(widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(above, below, stride=2), _Residual(below), _Residual(below))
            for above, below in pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(below, above, 1) for above, below in pairwise(widths))
        self.merge = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        self.centre = nn.Sequential(_convolution(widths[0], widths[0]), nn.Conv2d(widths[0], 1, 1))
        self.sides = nn.Sequential(_convolution(widths[0], widths[0]), nn.Conv2d(widths[0], 4, 1))
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


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(width, width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
