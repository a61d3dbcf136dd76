"""Six keypoints of a vertebra with their standard deviations: the network, its training and its calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from fracsurv.cohort.boxes import CHI2_90
from fracsurv.detection.network import Residual, convolution
from fracsurv.detection.sources import Labelled
from fracsurv.detection.training import KeypointRecipe, fit, transform
from fracsurv.images.radiographs import resize
from fracsurv.utils.devices import precision_of, reproducible
from fracsurv.utils.errors import UserError

SIZE = (48, 64)
"""Height and width, in pixels, of the picture of one vertebra."""
MARGIN = 0.15
"""Share of the box's sides that is shown around it on every side: the keypoints of a box a little off stay inside."""
N_KEYPOINTS = 6
MIN_SCALE = 1e-3
MIN_SPREAD = 0.01
"""Variance of the log sizes below which no slope is estimated."""
MIN_VERTEBRAE = 200
"""Fewer vertebrae than this are too few to train on."""


class KeypointNetwork(nn.Module):
    """Pictures of vertebrae (n, 1, 48, 64) to means and scales (n, 6, 2) of their keypoints, shares of the picture.

    The means are expectations over six maps (Sun et al., ECCV 2018: integral regression), so they are finer than a
    pixel and differentiable; the scales come from pooled features. `calibrate` sets `calibration`, a factor and an
    exponent for each keypoint.
    """

    def __init__(self) -> None:
        super().__init__()
        width = 32
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), convolution(4, width), Residual(width))
        self.down = nn.Sequential(convolution(width, 2 * width, stride=2), Residual(2 * width))
        self.deep = nn.Sequential(
            convolution(2 * width, 3 * width, stride=2), Residual(3 * width), Residual(3 * width)
        )
        self.up_deep = nn.Conv2d(3 * width, 2 * width, 1)
        self.up_down = nn.Conv2d(2 * width, width, 1)
        self.maps = nn.Sequential(convolution(width, width), nn.Conv2d(width, N_KEYPOINTS, 1))
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
            scale = functional.softplus(spread) + MIN_SCALE
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

    A network's scales may order vertebrae rightly and still be too alike. So the ellipse's size is taken to the power
    that fits the errors best (the slope of log error on log size, from 0.5 to 2), then times the factor by which nine
    in ten fall inside. `mean` and `scale` are the model's, uncalibrated, for vertebrae that it was not trained on.
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
        slope = (apart * log_error).mean() / spread if spread > MIN_SPREAD else torch.tensor(1.0)
        exponent = slope.clamp(0.5, 2.0)
        distance = (error / (scale[known, k] * size[known, k] ** (exponent - 1))).norm(dim=1)
        model.calibration[0, k] = torch.quantile(distance, 0.9) / CHI2_90**0.5
        model.calibration[1, k] = exponent


def vertebra_picture(image: np.ndarray, box: np.ndarray, pixel_share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A box (4,) of a radiograph with its surroundings at the network's size, and the rectangle that it shows.

    The picture is float32 with mean 0 and SD 1 (0 if constant); what lies outside the radiograph repeats its edge. Of
    the rectangle (4,), in the radiograph's pixels: keypoint = shown[:2] + share · (shown[2:] − shown[:2]). With a
    `pixel_share` below 1 the picture is as coarse as a radiograph with so many pixels in the place of one.
    """
    box = np.asarray(box, float)
    border = MARGIN * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    low, high = np.floor(box + border)[:2].astype(int), np.ceil(box + border)[2:].astype(int)
    rows = np.arange(low[1], high[1]).clip(0, image.shape[0] - 1)
    columns = np.arange(low[0], high[0]).clip(0, image.shape[1] - 1)
    region = np.ascontiguousarray(image[rows[:, None], columns])
    if pixel_share < 1:
        size = tuple(max(2, round(side * pixel_share)) for side in region.shape[::-1])
        # a coarser detector's pixels hold the mean over their area
        region = np.asarray(Image.fromarray(region.astype(np.float32)).resize(size, Image.Resampling.BOX))
        region = np.rint(region).astype(image.dtype)
    picture = resize(region, SIZE).astype(np.float32)
    return (picture - picture.mean()) / max(float(picture.std()), 1e-6), np.r_[low, high].astype(float)


def train_keypoints(
    train: Sequence[Labelled],
    held_out: tuple[np.ndarray, np.ndarray],
    recipe: KeypointRecipe,
    *,
    progress: bool = True,
) -> KeypointNetwork:
    """A network trained on the vertebrae that have keypoints; calibrated, in evaluation mode, on the CPU.

    The boxes of `train`, as an annotator drew them, are jittered. The scales are calibrated on `held_out`: pictures
    (n, 48, 64) and keypoints, in shares of them, of other radiographs' vertebrae in boxes that the detector found.

    Raises
    ------
    UserError
        Where fewer than `MIN_VERTEBRAE` vertebrae to train on have keypoints.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures, keypoints = training_pictures(train, np.random.default_rng(recipe.seed), recipe, progress)
    if len(pictures) < MIN_VERTEBRAE:
        raise UserError(f"{len(pictures)} vertebrae with keypoints to train on; at least {MIN_VERTEBRAE} are needed")
    dtype = precision_of(device, "auto")
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = KeypointNetwork().to(device, memory_format=torch.channels_last)

        def loss_of_rows(rows: np.ndarray) -> Tensor:
            picture, wanted = torch.from_numpy(pictures[rows]).unsqueeze(1), torch.from_numpy(keypoints[rows])
            picture, wanted = _augment(picture, wanted, generator)
            picture = picture.to(device).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                mean, scale = model(picture)
            return keypoint_loss(mean, scale, wanted.to(device))

        fit(model, loss_of_rows, np.arange(len(pictures)), recipe, "keypoints", progress=progress)
    shown, known = held_out
    if len(shown):
        mean, scale = predict_keypoints(model, shown, precision="auto")
        calibrate(model.cpu(), mean, scale, torch.from_numpy(known))
    return model.cpu().eval()


def predict_keypoints(
    model: KeypointNetwork, pictures: np.ndarray, *, batch_size: int = 256, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (n, 6, 2), in shares of the pictures (n, 48, 64); see `detect` for float32."""
    device = next(model.parameters()).device
    dtype = precision_of(device, precision)
    model.eval()
    found = []
    with torch.no_grad(), reproducible(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        for start in range(0, len(pictures), batch_size):
            batch = torch.from_numpy(pictures[start : start + batch_size]).unsqueeze(1).to(device)
            found.append(model(batch.contiguous(memory_format=torch.channels_last)))
    return tuple(torch.cat(part).cpu() for part in zip(*found, strict=True))


def training_pictures(
    found: Sequence[Labelled], rng: np.random.Generator, recipe: KeypointRecipe, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and keypoints, as `stack_pictures`, of all vertebrae with keypoints, in jittered boxes."""
    pairs = []
    for each in tqdm(found, desc="vertebrae", unit="image", disable=not progress, leave=False):
        if not np.isfinite(each.keypoints).all(axis=(1, 2)).any():
            continue
        side = np.tile(each.boxes[:, 2:] - each.boxes[:, :2], 2)
        boxes = each.boxes + recipe.jitter * side * rng.normal(size=each.boxes.shape)
        pixel_share = np.where(rng.random(len(boxes)) < 0.5, recipe.coarsest ** rng.random(len(boxes)), 1.0)
        pairs += vertebra_pictures(each.read(), boxes, each.keypoints, pixel_share)
    return stack_pictures(pairs)


def vertebra_pictures(
    image: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray, pixel_share: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`vertebra_picture` and keypoints (6, 2), in shares of it, of each box (n, 4) with known keypoints (n, 6, 2)."""
    pixel_share = np.ones(len(boxes)) if pixel_share is None else pixel_share
    for k in np.flatnonzero(np.isfinite(keypoints).all(axis=(1, 2))):
        picture, shown = vertebra_picture(image, boxes[k], pixel_share[k])
        yield picture, (keypoints[k] - shown[:2]) / (shown[2:] - shown[:2])


def stack_pictures(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 48, 64) and keypoints (n, 6, 2), float32; n may be 0."""
    if not pairs:
        return np.zeros((0, *SIZE), np.float32), np.zeros((0, 6, 2), np.float32)
    pictures, keypoints = zip(*pairs, strict=True)
    return np.stack(pictures), np.stack(keypoints).astype(np.float32)


def _augment(picture: Tensor, keypoints: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotated by up to 15°, zoomed by up to 15 %, brighter or darker, noisy, sometimes inverted; keypoints alike."""
    moved, matrix, shift = transform(picture, generator, degrees=15.0, zoom=(0.87, 1.15), shift=0.05)
    size = torch.tensor([picture.shape[3], picture.shape[2]], dtype=torch.float32)
    points = (keypoints - 0.5) * size
    points = (points @ matrix.transpose(1, 2) + shift[:, None]) / size + 0.5
    n = len(picture)
    gain = torch.exp(0.3 * torch.randn((n, 1, 1, 1), generator=generator))
    offset = 0.2 * torch.randn((n, 1, 1, 1), generator=generator)
    sign = 1 - 2 * (torch.rand((n, 1, 1, 1), generator=generator) < 0.3).float()
    noise = torch.randn(picture.shape, generator=generator)
    noise *= 0.2 * torch.rand((n, 1, 1, 1), generator=generator)
    return sign * (gain * moved + offset) + noise, points
