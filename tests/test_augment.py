"""Augmentation: each step equals torchvision's, sample by sample; the padding stays 0; draws are reproducible."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from fracsurv.images.radiographs import full_image_shape
from fracsurv.training.augmentation import (
    CropAugment,
    FullAugment,
    augment_crops,
    augment_full,
    change_crops,
    draw_crops,
    inside,
    mask_padding,
    normalise,
    pad_to,
    salt_and_pepper,
    transform,
)

BILINEAR = InterpolationMode.BILINEAR
CLOSE = {"rtol": 0, "atol": 2e-5}  # single precision, coordinates up to 1,000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=1):
    return torch.rand(*shape, generator=generator(seed))


def zoomed(x, scale):
    return reference.affine(x, angle=0, translate=[0, 0], scale=scale, shear=[0, 0], interpolation=BILINEAR)


@pytest.mark.parametrize("frame", [(64, 32), (70, 46), (71, 47), (70, 47), (71, 46)])
def test_rotation_zoom_and_flips_are_torchvisions(frame):
    x = images(4, 3, 64, 32)
    vertical, horizontal = torch.tensor([[True, False, True, False], [True, True, False, False]])
    degrees, zoom = torch.tensor([[10.0, -15.0, 0.0, 3.3], [1.1, 0.9, 1.0, 1.05]])
    flips = {"vertical": vertical, "horizontal": horizontal}
    turned, larger = (
        transform(x, **change, **flips, frame=frame) for change in ({"degrees": degrees}, {"zoom": zoom})
    )
    for i in range(4):
        padded = pad_to(x[i], *frame)
        rotated = reference.rotate(padded, degrees[i].item(), interpolation=BILINEAR)
        for ours, theirs in ((turned[i], rotated), (larger[i], zoomed(padded, zoom[i].item()))):
            flipped = reference.vertical_flip(theirs) if vertical[i] else theirs
            flipped = reference.horizontal_flip(flipped) if horizontal[i] else flipped
            torch.testing.assert_close(ours, flipped, **CLOSE)


@pytest.mark.parametrize("degrees", [-15.0, -7.0, 15.0])
def test_rotation_in_the_padded_frame_loses_nothing(degrees):
    (h, w), frame = full_image_shape(1)
    assert frame == (1121, 759)
    whole = transform(torch.ones(1, 1, h, w), degrees=torch.tensor([degrees]), frame=frame)
    assert whole.sum().item() == pytest.approx(h * w, rel=0.001)
    # without the padding the corners are cut
    assert transform(torch.ones(1, 1, h, w), degrees=torch.tensor([degrees])).sum() < 0.97 * h * w


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_normalise_maps_the_training_range_and_does_not_clip(dtype):
    x = torch.tensor([[10, 20], [110, 210]], dtype=dtype)
    ours = normalise(x, 10, 110)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, torch.tensor([[0.0, 0.1], [1.0, 2.0]]))
    floats = x.float()
    normalise(floats, 10, 110)
    assert torch.equal(floats, x.float())
    ranges = torch.tensor([10.0, 7.0]), torch.tensor([20.0, 7.0])  # one of each patient
    ours = normalise(torch.tensor([[[10, 20]], [[7, 7]]], dtype=dtype), *ranges)
    torch.testing.assert_close(ours, torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]))


def test_padding_is_exactly_zero_after_normalisation():
    crops = torch.zeros(2, 3, 9, 10, dtype=torch.uint8)
    sizes = torch.tensor([[[4, 5], [0, 0], [9, 10]], [[1, 2], [3, 3], [8, 9]]], dtype=torch.int16)
    for sample in range(2):
        for slot in range(3):
            h, w = sizes[sample, slot].tolist()
            top, left = (9 - h) // 2, (10 - w) // 2
            crops[sample, slot, top : top + h, left : left + w] = 150
    ours = mask_padding(normalise(crops, 100, 200), sizes)
    torch.testing.assert_close(ours, torch.where(crops == 150, 0.5, 0.0))
    assert (inside(sizes, (9, 10)) == (crops == 150)).all()


def test_pad_to_centres_and_refuses_what_does_not_fit():
    x = images(2, 3, 4, 5)
    padded = pad_to(x, 7, 9)
    assert padded.shape == (2, 3, 7, 9)
    torch.testing.assert_close(padded[..., 1:5, 2:7], x)
    assert padded.sum().item() == pytest.approx(x.sum().item(), rel=1e-6)
    with pytest.raises(ValueError, match="does not fit"):
        pad_to(x, 3, 9)


FRAME = (30, 36)
STILL = {"zoom": (1.0, 1.0), "vertical_flip": 0.0, "horizontal_flip": 0.0, "contrast": (1.0, 1.0), "noise_sd": 0.0}


def crop_batch(n=6, dtype=torch.uint8):
    """Pixels as in a store, their sizes, and a range that they do not fill."""
    sizes = torch.tensor([[20, 24], [0, 0], [13, 30], [30, 36], [1, 7]], dtype=torch.int16).expand(n, 5, 2)
    pixels = (images(n, 5, *FRAME) * 200 + 20).to(dtype)
    return pixels.mul_(inside(sizes, FRAME)), sizes, torch.full((n,), 10.0), torch.full((n,), 250.0)


def normalised(batch):
    pixels, sizes, low, high = batch
    return mask_padding(normalise(pixels, low, high), sizes)


def test_nothing_asked_is_normalisation_and_padding():
    x, batch = images(2, 1, 21, 12), crop_batch()
    torch.testing.assert_close(transform(x, frame=(30, 19)), pad_to(x, 30, 19), **CLOSE)
    torch.testing.assert_close(augment_crops(*batch, generator(), CropAugment(**STILL)), normalised(batch), **CLOSE)
    for frame in ((36, 36), (37, 41)):
        ours = augment_crops(*batch, generator(), CropAugment(**STILL), frame=frame)
        torch.testing.assert_close(ours, pad_to(normalised(batch), *frame), **CLOSE)


def test_padding_and_empty_slots_stay_zero():
    batch = crop_batch()
    y = augment_crops(*batch, generator(), CropAugment(**{**STILL, "noise_sd": 0.5, "contrast": (0.2, 0.3)}))
    where = inside(batch[1], FRAME)
    # zoom 1 goes through the bilinear grid as well: rounding may bring in 1e-6 of the next pixel
    assert y[~where].abs().max() < 1e-4
    assert (y - normalised(batch))[where].abs().mean() > 0.1
    y = augment_crops(*batch, generator(), CropAugment(noise_sd=0.5))
    assert (y[:, 1] == 0).all()  # the empty slot
    assert (y[:, [0, 2, 3, 4]].abs().sum((2, 3)) > 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("frame", [FRAME, (36, 36), (37, 41)])
def test_augment_crops_is_torchvisions_contrast_zoom_and_flips(dtype, frame):
    """Sample by sample, with the same draws: contrast over the pixels inside, about their mean; then geometry."""
    batch = crop_batch(dtype=torch.uint8)
    batch = (batch[0].to(dtype), *batch[1:])
    settings = CropAugment(noise_sd=0.0, contrast=(0.6, 1.4), zoom=(0.6, 1.7))
    ours = augment_crops(*batch, generator(3), settings, frame=frame)
    contrast, zoom, vertical, horizontal = torch.rand(4, len(ours), generator=generator(3))
    x, where = normalised(batch), inside(batch[1], FRAME)
    for i in range(len(ours)):
        # a picture of the inside alone, one row: its mean is the mean inside; brightness 0.2 lets nothing be clipped
        values = reference.adjust_contrast(x[i][where[i]].view(1, 1, -1) * 0.2 + 0.3, 0.6 + 0.8 * contrast[i].item())
        theirs = torch.zeros_like(x[i])
        theirs[where[i]] = (values.view(-1) - 0.3) / 0.2
        theirs = zoomed(pad_to(theirs, *frame), 0.6 * (1.7 / 0.6) ** zoom[i].item())
        theirs = reference.vertical_flip(theirs) if vertical[i] < 0.5 else theirs
        theirs = reference.horizontal_flip(theirs) if horizontal[i] < 0.5 else theirs
        torch.testing.assert_close(ours[i], theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("low", "high"), [(50_000, 50_400), (0, 65_535)])
def test_sixteen_bits_keep_their_digits_in_a_narrow_range(low, high):
    """Against the same steps in double precision."""
    n, frame = 4, (31, 34)
    sizes = torch.randint(1, 31, (n, 3, 2), generator=generator(1))
    pixels = torch.randint(low, high + 1, (n, 3, *frame), generator=generator(2)) * inside(sizes, frame)
    bounds = torch.full((n,), float(low)), torch.full((n,), float(high))
    draws = draw_crops(n, 3, frame, generator(3), CropAugment(noise_sd=0))
    ours = change_crops(pixels.to(torch.uint16), sizes, *bounds, draws, frame)
    doubled = [part.double() for part in (pixels, *bounds)]
    exact = draws._replace(contrast=draws.contrast.double(), zoom=draws.zoom.double())
    x = (doubled[0] - low) / (high - low) * inside(sizes, frame)
    mean = x.sum((1, 2, 3)) / sizes.prod(-1).sum(1)
    x = (mean + exact.contrast * (x.permute(1, 2, 3, 0) - mean)).permute(3, 0, 1, 2) * inside(sizes, frame)
    expected = transform(x, zoom=exact.zoom, vertical=exact.vertical, horizontal=exact.horizontal)
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-4)


def test_a_patient_without_crops_and_one_without_contrast():
    pixels, sizes, low, high = crop_batch(3)
    sizes = sizes.clone()
    sizes[1] = 0
    pixels[1] = 0
    pixels[2] = inside(sizes[2], FRAME) * 10  # as low as the lowest
    high[2] = low[2]
    y = augment_crops(pixels, sizes, low, high, generator(), CropAugment(noise_sd=0))
    assert torch.isfinite(y).all()
    assert not y[1:].any()


def test_the_draws_have_the_distribution_asked_for():
    """Of 4,000 patients: contrast uniform, zoom uniform in its logarithm, flips by half; none depends on another."""
    n = 4000
    pixels, sizes = torch.zeros(n, 1, 41, 41), torch.full((n, 1, 2), 41)
    pixels[:, :, 12:18, 8:16] = 100.0  # a bar above and left of the middle
    low, high = torch.zeros(n), torch.full((n,), 100.0)
    settings = CropAugment(noise_sd=0.0, contrast=(0.5, 1.5), zoom=(0.8, 1.25))
    y = augment_crops(pixels, sizes, low, high, generator(), settings)[:, 0].double()
    mean = pixels[0].mean().item() / 100
    contrast = (y.amax((1, 2)) - mean) / (1 - mean)
    dark = mean * (1 - contrast)
    bar = ((y - dark[:, None, None]) / contrast[:, None, None])[:, 4:37, 4:37]  # 0 to 1; within the smallest zoom
    at = torch.arange(33.0) - 16
    down = (bar.sum(2) * at).sum(1) / bar.sum((1, 2))
    right = (bar.sum(1) * at).sum(1) / bar.sum((1, 2))
    zoom = (down.abs() / 5.5).log() / math.log(1.25)  # rows 12 to 17 lie 5.5 above the middle
    seen = torch.stack([contrast - 0.5, (zoom + 1) / 2, (down > 0).double(), (right > 0).double()])
    for share in (0.1, 0.5, 0.9):  # binomial SD 0.005 to 0.008
        assert abs((seen[:2] < share).double().mean(1) - share).max() < 0.03
    assert seen[:2].amin() > -0.03  # the bar is sampled in whole pixels
    assert seen[:2].amax() < 1.03
    assert abs(seen[2:].mean(1) - 0.5).max() < 0.03
    assert abs(torch.corrcoef(seen) - torch.eye(4)).max() < 0.08  # SD 0.016


def test_noise_has_the_strength_asked_for_and_is_white():
    n = 64
    batch = torch.full((n, 13, 40, 40), 100), torch.full((n, 13, 2), 40), torch.zeros(n), torch.full((n,), 200.0)
    y = augment_crops(*batch, generator(), CropAugment(**{**STILL, "noise_sd": 0.05})) - 0.5
    # 20,800 draws a sample, 187,200 in all: standard errors of an SD 0.00025 and 0.00008, of a correlation 0.007
    assert y.std().item() == pytest.approx(0.05, abs=0.0005)
    assert y.mean().item() == pytest.approx(0, abs=0.0007)
    assert abs(y.std((1, 2, 3)) - 0.05).max() < 0.0013
    for other in (y.roll(1, 3), y.roll(1, 2), y.roll(1, 1)):
        assert abs((y * other).mean((1, 2, 3)) / 0.05**2).max() < 0.035
    # two crops have the same noise only where their places in the strip coincide: of 345,696 pairs, 2 are expected to
    crops = y.reshape(n * 13, -1) / 0.05
    alike = ((crops @ crops.T / 1600).abs() > 6 / 40).sum().item()  # correlation, six SD
    assert n * 13 <= alike <= n * 13 + 2 * 10
    # uncorrelated: their sum is as wide as if they had been drawn apart
    assert (crops.sum(0) / (n * 13) ** 0.5).std().item() == pytest.approx(1, abs=0.08)  # 1,600 numbers, SD 0.018
    assert ((crops**2).sum(0) / (n * 13)).std().item() < 0.15  # of squares, which have no sign: 0.05 if drawn apart
    # an eighth of the numbers that are drawn are different ones
    assert len(crops.abs().mul(1e4).round().unique()) > 20000
    flat = y.flatten(1) / 0.05
    # normal: shares beyond 1, 2 and 3 SD
    for bound, share in ((1, 0.3173), (2, 0.0455), (3, 0.0027)):
        assert (flat.abs() > bound).double().mean().item() == pytest.approx(share, rel=0.1, abs=0.0005)


def test_full_augmentation_stays_within_its_strengths():
    x = torch.zeros(400, 1, 64, 32)
    x[:, :, 4:8] = 1.0  # a bar near the top: where it ends tells flip, how it leans tells rotation
    frame = full_image_shape(64 / 1024)[1]
    y = augment_full(x, generator(), FullAugment(dropout=0.0), frame=frame)
    assert y.shape == (400, 1, *frame)
    # moments in double precision: some angles are tiny
    weight = y[:, 0].double().numpy()
    rows, columns = np.mgrid[: frame[0], : frame[1]]
    total = weight.sum((1, 2))
    row = (weight * rows).sum((1, 2)) / total
    column = (weight * columns).sum((1, 2)) / total
    lean = ((rows - row[:, None, None]) * (columns - column[:, None, None]) * weight).sum((1, 2))
    spread = ((columns - column[:, None, None]) ** 2 - (rows - row[:, None, None]) ** 2) * weight
    degrees = np.degrees(0.5 * np.arctan2(2 * lean, spread.sum((1, 2))))
    assert np.abs(degrees).max() < 15.5
    assert np.abs(degrees).max() > 13
    assert degrees.std() == pytest.approx(15 / math.sqrt(3), rel=0.1)  # uniform; 400 draws
    assert (row > frame[0] / 2).mean() == pytest.approx(0.5, abs=0.1)  # SD 0.025


def test_dropout_takes_its_share_and_no_padding():
    x = torch.full((4, 1, 200, 200), 0.5)
    still = FullAugment(dropout=0.1, degrees=0, vertical_flip=0)
    salted, full = salt_and_pepper(x, 0.1, generator()), augment_full(x, generator(), still)
    assert ((salted == 0) | (salted == 1) | (salted == 0.5)).all()
    for value in (0.0, 1.0):  # binomial, SD 0.00055
        assert (salted == value).double().mean().item() == pytest.approx(0.05, abs=0.003)
        assert ((full - value).abs() < 0.01).double().mean().item() == pytest.approx(0.05, abs=0.003)
    padded = augment_full(x, generator(), still, frame=(204, 212))
    assert padded[:, :, :2].abs().max() < 1e-4
    assert padded[:, :, :, :6].abs().max() < 1e-4


def test_the_generator_alone_decides_and_each_sample_is_drawn_apart():
    pixels, sizes, low, high = crop_batch(1)
    # five of one patient, in the dtype that would not be copied on its way
    batch = pixels.float().repeat(5, 1, 1, 1), sizes.expand(5, -1, -1), low.expand(5), high.expand(5)
    full = images(3, 1, 64, 32)
    before = batch[0].clone(), full.clone()
    apart = augment_crops(*batch, generator(), CropAugment(noise_sd=0))
    assert min((apart[i] - apart[j]).abs().max() for i in range(5) for j in range(i)) > 1e-3
    for call in (lambda g: augment_crops(*batch, g), lambda g: augment_full(full, g, frame=(70, 47))):
        torch.manual_seed(1)
        first = call(generator(5))
        torch.manual_seed(2)
        state = torch.get_rng_state()
        assert torch.equal(first, call(generator(5)))
        assert torch.equal(state, torch.get_rng_state())
        assert not torch.equal(first, call(generator(6)))
    assert torch.equal(batch[0], before[0])
    assert torch.equal(full, before[1])
