"""Augmentation: each step equals torchvision's, sample by sample; the padding stays 0; draws are reproducible."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from fracsurv.augment import (
    CropAugment,
    FullAugment,
    adjust_contrast,
    augment_crops,
    augment_full,
    inside,
    mask_padding,
    normalise,
    pad_to,
    salt_and_pepper,
    transform,
)
from fracsurv.radiographs import full_image_shape

BILINEAR = InterpolationMode.BILINEAR
CLOSE = {"rtol": 0, "atol": 2e-5}  # single precision, coordinates up to 1,000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=1):
    return torch.rand(*shape, generator=generator(seed))


@pytest.mark.parametrize("frame", [(64, 32), (70, 46), (71, 47), (70, 47), (71, 46)])
def test_rotation_and_flip_are_torchvisions(frame):
    x = images(4, 1, 64, 32)
    degrees = torch.tensor([10.0, -15.0, 0.0, 3.3])
    vertical = torch.tensor([True, False, True, False])
    ours = transform(x, degrees=degrees, vertical=vertical, frame=frame)
    for i in range(4):
        theirs = reference.rotate(pad_to(x[i], *frame), degrees[i].item(), interpolation=BILINEAR)
        theirs = reference.vertical_flip(theirs) if vertical[i] else theirs
        torch.testing.assert_close(ours[i], theirs, **CLOSE)


def test_zoom_and_flips_are_torchvisions():
    x = images(4, 13, 58, 68)
    zoom = torch.tensor([1.1, 0.9, 1.0, 1.05])
    vertical, horizontal = torch.tensor([[True, False, True, False], [True, True, False, False]])
    ours = transform(x, zoom=zoom, vertical=vertical, horizontal=horizontal)
    for i in range(4):
        theirs = reference.affine(
            x[i], angle=0, translate=[0, 0], scale=zoom[i].item(), shear=[0, 0], interpolation=BILINEAR
        )
        theirs = reference.vertical_flip(theirs) if vertical[i] else theirs
        theirs = reference.horizontal_flip(theirs) if horizontal[i] else theirs
        torch.testing.assert_close(ours[i], theirs, **CLOSE)


def test_contrast_is_torchvisions_where_nothing_is_clipped():
    x = images(3, 1, 20, 30) * 0.2 + 0.4
    factor = torch.tensor([0.5, 1.0, 1.7])
    ours = adjust_contrast(x, factor, torch.ones_like(x, dtype=torch.bool))
    for i in range(3):
        torch.testing.assert_close(ours[i], reference.adjust_contrast(x[i], factor[i].item()), **CLOSE)


def test_contrast_takes_the_mean_inside_the_crops():
    where = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    where[0, 0, :2] = True
    x = torch.where(where, torch.tensor([1.0, 3.0, 1.0, 3.0]), torch.tensor(0.0))
    ours = adjust_contrast(x, torch.tensor([2.0]), where)
    expected = torch.where(where, torch.tensor([0.0, 4.0, 0.0, 4.0]), torch.tensor(0.0))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("degrees", [-15.0, -7.0, 15.0])
def test_rotation_in_the_padded_frame_loses_nothing(degrees):
    (h, w), frame = full_image_shape(1)
    assert frame == (1121, 759)
    whole = transform(torch.ones(1, 1, h, w), degrees=torch.tensor([degrees]), frame=frame)
    assert whole.sum().item() == pytest.approx(h * w, rel=0.001)
    # without the padding the corners are cut
    assert transform(torch.ones(1, 1, h, w), degrees=torch.tensor([degrees])).sum() < 0.97 * h * w


def test_nothing_asked_is_only_padding():
    x = images(2, 1, 21, 12)
    torch.testing.assert_close(transform(x, frame=(30, 19)), pad_to(x, 30, 19), **CLOSE)


def test_salt_and_pepper_share():
    x = torch.full((4, 1, 200, 200), 0.5)
    y = salt_and_pepper(x, 0.1, generator())
    n = x.numel()
    for value in (0.0, 1.0):  # binomial, SD 0.00055
        assert (y == value).sum().item() / n == pytest.approx(0.05, abs=0.003)
    assert ((y == 0) | (y == 1) | (y == 0.5)).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_normalise_maps_the_training_range_and_does_not_clip(dtype):
    x = torch.tensor([[10, 20], [110, 210]], dtype=dtype)
    ours = normalise(x, 10, 110)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, torch.tensor([[0.0, 0.1], [1.0, 2.0]]))


def test_normalise_per_patient():
    x = torch.tensor([[[0, 100]], [[50, 60]], [[7, 7]]], dtype=torch.uint8)
    ours = normalise(x, torch.tensor([0.0, 50.0, 7.0]), torch.tensor([100.0, 60.0, 7.0]))
    torch.testing.assert_close(ours, torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]]))


def test_normalise_leaves_its_input_alone():
    x = torch.tensor([1.0, 2.0])
    normalise(x, 1, 3)
    assert x.tolist() == [1.0, 2.0]


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


def crop_batch(n=6):
    sizes = torch.tensor([[20, 24], [0, 0], [13, 30], [30, 36]], dtype=torch.int16).expand(n, 4, 2)
    return mask_padding(images(n, 4, 30, 36) + 0.1, sizes), sizes


def test_empty_slots_stay_zero_and_crops_do_not():
    x, sizes = crop_batch()
    y = augment_crops(x, generator(), CropAugment(noise_sd=0.5), sizes=sizes)
    assert (y[:, 1] == 0).all()
    assert (y[:, [0, 2, 3]].abs().sum((2, 3)) > 0).all()


def test_padding_stays_zero_without_geometry():
    x, sizes = crop_batch()
    still = CropAugment(zoom=(1.0, 1.0), vertical_flip=0, horizontal_flip=0, noise_sd=0.5, contrast=(0.2, 0.3))
    y = augment_crops(x, generator(), still, sizes=sizes)
    where = inside(sizes, (30, 36))
    # zoom 1 goes through the bilinear grid as well: rounding may bring in 1e-6 of the next pixel
    assert y[~where].abs().max() < 1e-4
    assert (y - x)[where].abs().mean() > 0.1


def test_crops_without_sizes_are_where_x_is_not_zero():
    x, sizes = crop_batch()
    torch.testing.assert_close(
        augment_crops(x, generator(), sizes=sizes), augment_crops(x, generator()), rtol=0, atol=1e-6
    )


def test_augment_crops_is_contrast_noise_then_geometry():
    # The same draws in the documented order, put through the steps that are tested above.
    x, sizes = crop_batch()
    ours = augment_crops(x, generator(3), sizes=sizes)
    g = generator(3)
    contrast, zoom, vertical, horizontal = torch.rand(4, len(x), generator=g)
    noise = torch.randn(x.shape, generator=g)
    where = inside(sizes, (30, 36))
    changed = adjust_contrast(x, 0.9 + 0.2 * contrast, where) + 0.005 * noise * where
    zoom = 0.9 * (1.1 / 0.9) ** zoom
    expected = transform(changed, zoom=zoom, vertical=vertical < 0.5, horizontal=horizontal < 0.5)
    torch.testing.assert_close(ours, expected, **CLOSE)


def test_noise_has_the_strength_asked_for():
    x = torch.full((8, 13, 40, 40), 0.5)
    only_noise = CropAugment(zoom=(1, 1), vertical_flip=0, horizontal_flip=0, contrast=(1, 1), noise_sd=0.05)
    y = augment_crops(x, generator(), only_noise, sizes=torch.full((8, 13, 2), 40))
    # 166,400 draws: the standard error of their SD is 0.00009
    assert (y - x).std().item() == pytest.approx(0.05, abs=0.0005)


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


def test_dropout_does_not_touch_the_padding():
    y = augment_full(
        torch.full((3, 1, 64, 32), 0.5),
        generator(),
        FullAugment(dropout=0.3, degrees=0, vertical_flip=0),
        frame=(70, 47),
    )
    assert y[:, :, :2].abs().max() < 1e-4
    assert y[:, :, :, :6].abs().max() < 1e-4


def test_the_generator_alone_decides():
    x, sizes = crop_batch()
    full = images(3, 1, 64, 32)
    for call in (
        lambda g: augment_crops(x, g, sizes=sizes),
        lambda g: augment_full(full, g, frame=(70, 47)),
    ):
        torch.manual_seed(1)
        first = call(generator(5))
        torch.manual_seed(2)
        state = torch.get_rng_state()
        assert torch.equal(first, call(generator(5)))
        assert torch.equal(state, torch.get_rng_state())
        assert not torch.equal(first, call(generator(6)))


def test_the_input_is_left_alone():
    x, sizes = crop_batch()
    full = images(3, 1, 64, 32)
    before = x.clone(), full.clone()
    augment_crops(x, generator(), sizes=sizes)
    augment_full(full, generator(), frame=(70, 47))
    assert torch.equal(x, before[0])
    assert torch.equal(full, before[1])


def test_samples_are_drawn_apart():
    x = images(1, 4, 30, 36).expand(5, -1, -1, -1)
    y = augment_crops(x, generator(), CropAugment(noise_sd=0), sizes=torch.full((5, 4, 2), 20))
    assert min((y[i] - y[j]).abs().max() for i in range(5) for j in range(i)) > 1e-3
