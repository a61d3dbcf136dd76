"""Six keypoints on a vertebra's crop, each coordinate with a scale: where it is, and how sure that is."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from fracsurv.cohort.boxes import CHI2_90
from fracsurv.detection.network import _convolution, _Residual
from fracsurv.images.radiographs import resize

SIZE = (48, 64)
"""Height and width, in pixels, of the picture of one vertebra."""
MARGIN = 0.15
"""Share of the box's sides that is shown around it on every side: the keypoints of a box a little off stay inside."""
N_KEYPOINTS = 6
LEAST_SCALE = 1e-3
LEAST_SPREAD = 0.01
"""Variance of the log sizes below which no slope can be told."""


class KeypointNetwork(nn.Module):
    """Pictures of vertebrae (n, 1, 48, 64) to means and scales (n, 6, 2) of their keypoints, shares of the picture.

    The means are expectations over six maps (Sun et al., ECCV 2018: integral regression), so they are finer than a
    pixel and differentiable; the scales come from pooled features. `calibration`, a factor and an exponent for each
    keypoint, is set after training on vertebrae that were not trained on.
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _convolution(4, width), _Residual(width))
        self.down = nn.Sequential(_convolution(width, 2 * width, stride=2), _Residual(2 * width))
        self.deep = nn.Sequential(
            _convolution(2 * width, 3 * width, stride=2), _Residual(3 * width), _Residual(3 * width)
        )
        self.up_deep = nn.Conv2d(3 * width, 2 * width, 1)
        self.up_down = nn.Conv2d(2 * width, width, 1)
        self.maps = nn.Sequential(_convolution(width, width), nn.Conv2d(width, N_KEYPOINTS, 1))
        self.spread = nn.Sequential(nn.Linear(3 * width, 64), nn.ReLU(), nn.Linear(64, 2 * N_KEYPOINTS))
        self.register_buffer("calibration", torch.ones(2, N_KEYPOINTS))
        nn.init.constant_(self.spread[-1].bias, -3.0)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Means and calibrated standard deviations, (n, 6, 2) each, float32, x before y, in shares of the picture."""
        shallow = self.stem(picture)
        middle = self.down(shallow)
        deep = self.deep(middle)
        x = middle + functional.interpolate(self.up_deep(deep), scale_factor=2.0, mode="nearest")
        x = shallow + functional.interpolate(self.up_down(x), scale_factor=2.0, mode="nearest")
        with torch.autocast(picture.device.type, enabled=False):
            weight = self.maps[1](self.maps[0](x.float())).flatten(2).softmax(dim=2)
            height, width = x.shape[2:]
            y, column = torch.meshgrid(
                (torch.arange(height, device=x.device) + 0.5) / height,
                (torch.arange(width, device=x.device) + 0.5) / width,
                indexing="ij",
            )
            mean = weight @ torch.stack([column.flatten(), y.flatten()], dim=1)
            spread = self.spread(deep.float().mean(dim=(2, 3))).view(-1, N_KEYPOINTS, 2)
            scale = functional.softplus(spread) + LEAST_SCALE
            factor, exponent = self.calibration[:, :, None]
            size = scale.prod(dim=2, keepdim=True).sqrt()  # both coordinates alike: the ellipse keeps its shape
            return mean, scale * factor * size ** (exponent - 1)


def keypoint_loss(mean: Tensor, scale: Tensor, keypoints: Tensor) -> Tensor:
    """Negative log-likelihood of normal errors, a coordinate; keypoints (n, 6, 2), NaN = unknown and left out."""
    known = torch.isfinite(keypoints)
    error = torch.where(known, keypoints, mean.detach()) - mean
    loss = torch.log(scale) + (error / scale).square() / 2
    return loss[known].mean()


def calibrate(model: KeypointNetwork, mean: Tensor, scale: Tensor, keypoints: Tensor) -> None:
    """Set `calibration` so that 90 % of these vertebrae's keypoints lie in their 90 % ellipses, sharp or blurred.

    A network's scales may tell the hard vertebrae from the easy ones without telling how much harder they are. So the
    ellipse's size is taken to the power that fits the errors best (the slope of log error on log size, between a half
    and two), then times the factor that makes nine in ten fall inside.

    `mean`, `scale`: the model's, uncalibrated, for vertebrae that it was not trained on.
    """
    size = scale.prod(dim=2, keepdim=True).sqrt()
    for k in range(N_KEYPOINTS):
        error = (keypoints - mean)[:, k]
        known = error.isfinite().all(dim=1)
        if known.sum() < 2:
            continue
        error, log_size = error[known], size[known, k, 0].log()
        log_error = error.norm(dim=1).clamp_min(1e-9).log()
        apart = log_size - log_size.mean()
        spread = apart.square().mean()
        slope = (apart * log_error).mean() / spread if spread > LEAST_SPREAD else torch.tensor(1.0)
        exponent = slope.clamp(0.5, 2.0)
        distance = (error / (scale[known, k] * size[known, k] ** (exponent - 1))).norm(dim=1)
        model.calibration[0, k] = torch.quantile(distance, 0.9) / CHI2_90**0.5
        model.calibration[1, k] = exponent


def vertebra_picture(image: np.ndarray, box: np.ndarray, coarse: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A vertebra and its surroundings at the network's size, and the rectangle of the image that it shows.

    Parameters
    ----------
    image : ndarray (h, w), uint8 or uint16
    box : (4,) x_min, y_min, x_max, y_max in image pixels
    coarse : float
        Below 1: as a radiograph with so many pixels in the place of one would show it.

    Returns
    -------
    picture : ndarray `SIZE`, float32
        Grey levels with mean 0 and SD 1 (a constant picture is 0). What lies outside the image repeats its edge.
    shown : ndarray (4,)
        The rectangle, in image pixels: keypoint = shown[:2] + share · (shown[2:] − shown[:2]).
    """
    box = np.asarray(box, float)
    border = MARGIN * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    low, high = np.floor(box + border)[:2].astype(int), np.ceil(box + border)[2:].astype(int)
    rows = np.arange(low[1], high[1]).clip(0, image.shape[0] - 1)
    columns = np.arange(low[0], high[0]).clip(0, image.shape[1] - 1)
    region = np.ascontiguousarray(image[rows[:, None], columns])
    if coarse < 1:
        size = tuple(max(2, round(side * coarse)) for side in region.shape[::-1])
        # a coarser detector's pixels hold the mean over their area
        region = np.asarray(Image.fromarray(region.astype(np.float32)).resize(size, Image.Resampling.BOX))
        region = np.rint(region).astype(image.dtype)
    picture = resize(region, SIZE).astype(np.float32)
    return (picture - picture.mean()) / max(float(picture.std()), 1e-6), np.r_[low, high].astype(float)
