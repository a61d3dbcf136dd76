"""Patients met in training: told by their rows only where strangers would hardly be so alike."""

from __future__ import annotations

import numpy as np
import pytest

from fracsurv.predict.train_overlap import alike


def strangers(rng, n: int, *, binary: bool, unit: float):
    """Log hazards (n, 2) of two models, and follow-up (n, 2): time in whole `unit`s, event."""
    values = rng.integers(0, 2, (n, 3)) if binary else rng.normal(size=(n, 3))
    risks = values @ np.array([[0.8, 0.7], [0.5, 0.6], [0.2, 0.1]])
    died, left = rng.exponential(4000 / np.exp(risks[:, 0])), rng.uniform(700, 3300, n)
    return risks, np.column_stack([np.ceil(np.minimum(died, left) / unit), died <= left])


@pytest.mark.parametrize(("binary", "unit"), [(True, 365), (True, 1), (False, 365), (False, 1)])
def test_strangers_are_no_acquaintances_however_coarse_the_table(binary, unit):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        trained, here = strangers(rng, 250, binary=binary, unit=unit), strangers(rng, 200, binary=binary, unit=unit)
        found.append(alike(*here, *trained))
    if binary and unit == 365:
        assert np.mean([each.rows.sum() for each in found]) > 100  # most of 200 are "the same" by chance
    assert sum(each.beyond_chance for each in found) <= 1


@pytest.mark.parametrize(("n", "met"), [(200, 3), (30, 6), (20000, 2)])
def test_a_few_acquaintances_are_told_where_a_row_says_who_it_is(n, met):
    rng = np.random.default_rng(1)
    trained, here = strangers(rng, 250, binary=False, unit=1), strangers(rng, n, binary=False, unit=1)
    here[0][5 : 5 + met], here[1][5 : 5 + met] = trained[0][:met] + 1e-9, trained[1][:met]
    found = alike(*here, *trained)
    np.testing.assert_array_equal(np.flatnonzero(found.rows), 5 + np.arange(met))
    assert found.by_chance < 0.6
    assert found.beyond_chance


def test_who_is_alike_is_whoever_a_loop_finds():
    rng = np.random.default_rng(2)
    trained, here = strangers(rng, 80, binary=True, unit=365), strangers(rng, 60, binary=True, unit=365)
    known = {(*risk.round(5), *followed) for risk, followed in zip(*trained, strict=True)}
    wanted = [(*risk.round(5), *followed) in known for risk, followed in zip(*here, strict=True)]
    assert 0 < sum(wanted) < 60
    np.testing.assert_array_equal(alike(*here, *trained).rows, wanted)


def test_one_patient_or_two_tell_nothing():
    for n in (1, 2):
        risks, followed = strangers(np.random.default_rng(3), n, binary=False, unit=1)
        found = alike(risks, followed, risks, followed)
        assert found.rows.all()
        assert not found.beyond_chance
