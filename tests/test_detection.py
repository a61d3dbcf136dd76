"""The vertebra detector's parts against definitions and brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fracsurv.detection.inference import Detections, decode, letterbox
from fracsurv.detection.network import FRAME, STRIDE, VertebraDetector, cell_centres, detection_loss, heatmap
from fracsurv.detection.scores import average_precision, best_threshold, matches, sensitivity_at
from fracsurv.detection.single_column import one_column
from fracsurv.detection.training import DetectorAugment, augment

BOXES = torch.tensor([[100.0, 40, 140, 70], [104, 75, 144, 104], [110, 110, 152, 140]])
SHAPE = (FRAME[0] // STRIDE, FRAME[1] // STRIDE)


def test_network_shapes_and_size():
    model = VertebraDetector()
    logits, sides = model(torch.rand(2, 1, *FRAME))
    assert logits.shape == (2, 1, *SHAPE)
    assert sides.shape == (2, 4, *SHAPE)
    assert (sides > 0).all()
    assert logits.sigmoid().max() < 0.2  # an untrained network sees nothing
    assert 4 * sum(p.numel() for p in model.parameters()) < 20e6  # bytes, in float32


def test_the_right_outputs_cost_nothing_and_every_mistake_does():
    heat, owner = heatmap(BOXES, SHAPE)
    at, wanted = cell_centres(SHAPE), BOXES[owner]
    sides = torch.cat([at - wanted[..., :2], wanted[..., 2:] - at], dim=2).permute(2, 0, 1).clamp_min(0.01)[None]
    logits = torch.where(heat == 1, 30.0, -30.0)[None, None]
    assert detection_loss(logits, sides, [BOXES]).item() == pytest.approx(0, abs=1e-3)
    (found,) = decode(logits.sigmoid(), sides)
    np.testing.assert_allclose(found.boxes[found.boxes[:, 1].argsort()], BOXES, atol=1e-4)
    assert found.score == pytest.approx(np.ones(3), abs=1e-6)
    assert detection_loss(logits, sides + 3, [BOXES]) > 0.1  # boxes too large
    assert detection_loss(torch.full_like(logits, -30), sides, [BOXES]) > 1  # all missed
    assert detection_loss(logits, sides, [BOXES[:2]]) > 1  # one that is not there
    assert detection_loss(logits, sides, [BOXES[:0]]) > 1


def test_no_boxes_at_all_give_finite_gradients():
    model = VertebraDetector()
    detection_loss(*model(torch.rand(2, 1, 64, 64)), [BOXES[:0], BOXES[:0]]).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("shape", [(416, 229), (1400, 600), (300, 900), (20, 15)])
def test_letterbox_keeps_proportions_and_takes_boxes_there_and_back(shape):
    frame, placement = letterbox(np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16))
    assert (frame.shape, frame.dtype) == (FRAME, np.uint8)
    boxes = np.array([[0.0, 0, shape[1], shape[0]], [2, 3, 10, 12]])
    placed = placement.to_frame(boxes)
    assert (placed[:, :2] >= -1).all()
    assert (placed[:, 2:] <= np.array(FRAME[::-1]) + 1).all()
    np.testing.assert_allclose(placement.to_image(placed), boxes, atol=1e-9)
    assert (placed[1, 2] - placed[1, 0]) / (placed[1, 3] - placed[1, 1]) == pytest.approx(8 / 9)


def test_letterbox_ignores_exposure_and_burnt_in_marks():
    image = np.random.default_rng(1).integers(1000, 3000, (448, 256)).astype(np.uint16)
    plain = letterbox(image)[0].astype(int)
    assert np.abs(plain - letterbox((image * 1.3).astype(np.uint16))[0]).max() <= 1
    marked = image.copy()
    marked[:4, :20] = 65535
    assert np.abs(plain - letterbox(marked)[0])[4:].max() <= 2
    assert (letterbox(np.full((50, 40), 7, np.uint16))[0] == 0).all()


def blobs(boxes, n=1):
    image = torch.zeros(n, 1, *FRAME)
    for x_min, y_min, x_max, y_max in boxes.long().tolist():
        image[:, :, y_min:y_max, x_min:x_max] = 1.0
    return image


STILL = {"degrees": 0.0, "zoom": (1, 1), "shift": 0, "flip": 0}
QUIET = {"gamma": (1, 1), "contrast": (1, 1), "noise_sd": 0, "blur": 0, "implants": 0, "invert": 0}


@pytest.mark.parametrize(
    "moved",
    [{"degrees": 12.0}, {"zoom": (0.8, 1.2)}, {"shift": 0.06}, {"flip": 1.0},
     {"degrees": 12.0, "zoom": (0.8, 1.2), "shift": 0.06, "flip": 0.5}],
)  # fmt: skip
def test_boxes_move_with_the_picture(moved):
    generator, how = torch.Generator().manual_seed(3), DetectorAugment(**STILL | moved, **QUIET)
    for box in BOXES:
        image, placed = augment(blobs(box[None], 8), [box[None]] * 8, generator, how)
        for picture, boxes in zip(image[:, 0], placed, strict=True):
            y, x = torch.nonzero(picture > 0.5, as_tuple=True)
            centre = torch.stack([x.float().mean() + 0.5, y.float().mean() + 0.5])
            assert torch.allclose((boxes[0, :2] + boxes[0, 2:]) / 2, centre, atol=0.6)
            if how.degrees == 0:
                shown = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
                assert torch.allclose(boxes[0], shown, atol=1.2)


def test_boxes_that_leave_the_frame_are_gone():
    edge = torch.tensor([[0.0, 200, 6, 230]])
    how = DetectorAugment(**STILL | {"zoom": (1.2, 1.2)}, **QUIET)
    assert len(augment(blobs(edge), [edge], torch.Generator().manual_seed(0), how)[1][0]) == 0


def test_augmentation_is_the_generators_and_leaves_the_given_batch_alone():
    image = blobs(BOXES, 6) * 0.5 + 0.2
    first, again, other = (augment(image, [BOXES] * 6, torch.Generator().manual_seed(k))[0] for k in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(image, blobs(BOXES, 6) * 0.5 + 0.2)


# one column


def spine(n=14, step=25.0, lean=0.0):
    y = 20 + step * np.arange(n)
    x = 120 + lean * (y - y[0])
    return np.stack([x - 16, y - 10, x + 16, y + 10], axis=1)


@given(st.permutations(range(14)), st.floats(-0.4, 0.4))
def test_a_leaning_spine_is_kept_whole_and_ordered(order, lean):
    kept = one_column(spine(lean=lean)[list(order)], np.full(14, 0.9))
    np.testing.assert_array_equal(np.array(order)[kept], np.arange(14))


def test_duplicates_and_strays_go_and_gaps_stay():
    boxes = spine()
    every = np.vstack([boxes, boxes[4] + [2, 3, 2, 3], [200.0, 300, 240, 330]])  # a double and a hip
    score = np.r_[np.full(14, 0.9), 0.5, 0.95]
    assert one_column(every, score).tolist() == list(range(14))
    score[4], score[14] = 0.5, 0.9
    assert one_column(every, score).tolist() == [0, 1, 2, 3, 14, *range(5, 14)]
    assert len(one_column(np.delete(boxes, [5, 6], axis=0), np.full(12, 0.8))) == 12
    assert len(one_column(np.zeros((0, 4)), np.zeros(0))) == 0
    assert one_column(spine(1), np.array([0.4])).tolist() == [0]


def test_the_chain_is_the_best_of_all():
    """Against every chain there is, for small numbers of boxes."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        centre, side = rng.uniform(0, 60, (6, 2)), rng.uniform(8, 20, (6, 2))
        boxes, score = np.hstack([centre - side / 2, centre + side / 2]), rng.uniform(0.1, 1, 6)

        def value(chain, boxes=boxes, score=score):
            total = score[chain[0]]
            for i, j in pairwise(chain):
                a, b = boxes[i], boxes[j]
                w, h = (a[2] - a[0] + b[2] - b[0]) / 2, (a[3] - a[1] + b[3] - b[1]) / 2
                dx, dy = abs(a[0] + a[2] - b[0] - b[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2
                step = dx / w / max(1, dy / h)
                if min(a[3], b[3]) - max(a[1], b[1]) > 0.5 * min(a[3] - a[1], b[3] - b[1]) or step >= 1:
                    return -np.inf
                total += score[j] - step**2
            return total

        by_height = np.argsort(boxes[:, 1] + boxes[:, 3])
        chains = [list(by_height[list(c)]) for n in range(1, 7) for c in combinations(range(6), n)]
        assert value(list(one_column(boxes, score))) == pytest.approx(max(map(value, chains)))


# scores


def test_matches_take_each_vertebra_once():
    truth = spine(3)
    found = Detections(np.vstack([truth, truth[1] + 1]), np.array([0.9, 0.6, 0.8, 0.7]))
    assert matches(found, truth, 0.5).tolist() == [0, -1, 2, 1]


def test_average_precision_by_hand():
    """Two images, three vertebrae; hits and misses in order of score: hit, miss, hit; one vertebra is never found.

    Precision at recall 1/3 is 1, at 2/3 it is 2/3, beyond it 0: 34 of COCO's 101 recalls are up to 1/3, 33 up to 2/3.
    """
    truth = [spine(2), spine(1)]
    found = [
        Detections(np.array([truth[0][0], [200.0, 200, 220, 220]]), np.array([0.9, 0.8])),
        Detections(truth[1], np.array([0.7])),
    ]
    assert average_precision(found, truth, 0.5) == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert sensitivity_at(found, truth, 0.0) == pytest.approx(1 / 3)
    assert sensitivity_at(found, truth, 0.5) == pytest.approx(2 / 3)
    assert best_threshold(found, truth) == 0.7


def test_perfect_and_empty_detections():
    truth = [spine(4), spine(3)]
    assert average_precision([Detections(t, np.linspace(0.5, 0.9, len(t))) for t in truth], truth, 0.95) == 1.0
    none = [Detections(np.zeros((0, 4)), np.zeros(0))] * 2
    assert average_precision(none, truth, 0.5) == sensitivity_at(none, truth, 0.5) == 0.0
