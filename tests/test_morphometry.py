"""Heights, ratios, Genant's grade and type, and the chance of each grade."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fracsurv.vertebrae.morphometry import (
    THESIS_TOLERANCES,
    TYPES,
    grade_probabilities,
    morphometry,
)


def vertebra(ha, hm, hp, top=0.0):
    """Six keypoints of a body of these heights, 30 wide, its upper endplate at `top`."""
    upper = [[0, top], [15, top], [30, top]]
    return [*upper, [0, top + ha], [15, top + hm], [30, top + hp]]


# worked by hand: heights, then grade and type by Genant's rule
CASES = [
    ((20, 20, 20), 0, "normal"),
    ((16.2, 18, 20), 0, "normal"),  # 19 %
    ((16, 20, 20), 1, "wedge"),  # exactly 20 %
    ((15, 20, 20), 2, "wedge"),  # 25 %
    ((12, 20, 20), 3, "wedge"),  # 40 %
    ((20, 15.8, 20), 1, "biconcave"),
    ((20, 14, 19), 2, "biconcave"),
    ((20, 20, 11), 3, "crush"),
    ((8.01, 9.5, 10), 0, "normal"),
    ((7.51, 9, 10), 1, "wedge"),
    ((10, 7.8, 9), 1, "biconcave"),
    ((10, 8.8, 7.9), 1, "crush"),
]


@pytest.mark.parametrize(("heights", "grade", "kind"), CASES)
def test_grade_and_type_by_hand(heights, grade, kind):
    found = morphometry(np.array([vertebra(*heights)]))
    assert found.grade.item() == grade
    assert TYPES[found.type.item()] == kind
    np.testing.assert_allclose([found.ha.item(), found.hm.item(), found.hp.item()], heights)
    single = morphometry(torch.tensor([vertebra(*heights)], dtype=torch.float32))
    assert single.grade.item() == grade  # which reaches a tolerance too
    ha, hm, hp = heights
    np.testing.assert_allclose([found.apr.item(), found.mpr.item(), found.mar.item()], [ha / hp, hm / hp, hm / ha])


def test_the_thesis_counts_15_percent_and_wrong_shapes_are_refused():
    points = np.array([vertebra(16.8, 20, 20)])  # 16 %
    assert morphometry(points).grade.item() == 0
    assert morphometry(points, tolerances=THESIS_TOLERANCES).grade.item() == 1
    with pytest.raises(ValueError, match=r"n, 6, 2\), got \(6, 2\)"):
        morphometry(points[0])


@given(st.floats(-np.pi, np.pi), st.floats(0.1, 10), st.floats(4, 10), st.floats(4, 10), st.floats(4, 10))
def test_ratios_do_not_depend_on_tilt_or_size(angle, size, ha, hm, hp):
    points = np.array([vertebra(ha, hm, hp)], float)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    a, b = morphometry(points), morphometry(size * points @ turn.T + 100)
    for name in ("apr", "mpr", "mar", "losses"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-9)


def test_neighbours_show_a_body_that_lost_height_all_over():
    spine = np.array([vertebra(20, 20, 20), vertebra(14, 14, 14), vertebra(20, 20, 20)])
    assert morphometry(spine).grade.tolist() == [0, 0, 0]
    found = morphometry(spine, ordered=True)
    assert found.grade.tolist() == [0, 2, 0]  # 30 % below its neighbours
    assert TYPES[found.type[1]] == "crush"
    np.testing.assert_allclose(found.hpr, [20 / 14, 0.7, 20 / 14])


@pytest.mark.parametrize(
    ("where", "kept", "grade"),
    [((5,), 0.7, 2), ((5, 6), 0.7, 2), ((5, 6, 7), 0.55, 3), ((0, 1), 0.7, 2), ((12,), 0.7, 2), ((3, 4, 9), 0.78, 1)],
)
def test_crushed_neighbours_do_not_hide_one_another(where, kept, grade):
    """Fractures cluster: what is expected of a body comes from the whole spine, whose heights grow downwards."""
    heights = 20 + 0.7 * np.arange(13)
    heights[list(where)] *= kept
    spine = np.array([vertebra(h, h, h) for h in heights])
    wanted = [grade if i in where else 0 for i in range(13)]
    assert morphometry(spine, ordered=True).grade.tolist() == wanted
    spine[8] = np.nan  # nor does a missing one
    wanted[8] = 0
    assert morphometry(spine, ordered=True).grade.tolist() == wanted


def test_a_missing_neighbour_is_left_out_of_the_mean():
    spine = np.array([vertebra(20, 20, 20), np.full((6, 2), np.nan), vertebra(18, 18, 18), vertebra(20, 20, 20)])
    found = morphometry(spine, ordered=True)
    np.testing.assert_allclose(found.hpr, [np.nan, np.nan, 0.9, 20 / 18])
    assert found.grade.tolist() == [0, 0, 0, 0]
    assert found.type.tolist() == [0, 0, 0, 0]


def test_losses_are_differentiable():
    rng = np.random.default_rng(0)
    points = torch.tensor(
        [vertebra(*rng.uniform(10, 22, 3)) for _ in range(40)], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda p: morphometry(p).losses, points[:5].detach().requires_grad_())


def test_chances_of_grades_follow_the_normal_distribution():
    """Only the lower anterior point is uncertain, upright: the loss is normal, and the chances are its tails."""
    mean = torch.tensor([vertebra(16.4, 20, 20)], dtype=torch.float64)
    scale = torch.zeros_like(mean)
    scale[0, 3, 1] = 1.0
    chances = grade_probabilities(mean, scale, n_draws=20_000)[0].numpy()
    # ha ~ N(16.4, 1); grades 1, 2, 3 from ha ≤ 16, 15, 12
    below = norm.cdf([16, 15, 12], 16.4, 1)
    np.testing.assert_allclose(
        chances, [1 - below[0], below[0] - below[1], below[1] - below[2], below[2]], atol=0.015
    )
    assert chances.sum() == pytest.approx(1)


def test_chances_are_the_same_twice_unknown_for_unknown_keypoints_and_certain_for_certain_ones():
    mean = torch.tensor([vertebra(16, 20, 20), vertebra(20, 20, 20)], dtype=torch.float64)
    mean[1] = torch.nan
    scale = torch.full_like(mean, 0.5)
    first, again = (grade_probabilities(mean, scale) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.isnan(first[1]).all()
    assert grade_probabilities(mean[:1], torch.full_like(scale[:1], torch.nan)).isnan().all()
    mean = torch.tensor([vertebra(*heights) for heights, _, _ in CASES], dtype=torch.float64)
    certain = grade_probabilities(mean, torch.zeros_like(mean), n_draws=4)
    assert certain.argmax(dim=1).tolist() == [grade for _, grade, _ in CASES]
    assert (certain.amax(dim=1) == 1).all()
