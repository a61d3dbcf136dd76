"""The Cox loss against its definition, R, lifelines and torchsurv, its gradient, and its corners."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import lifelines
import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fracsurv import losses
from fracsurv.losses import cox_nll
from tests import oracles

REFERENCE = Path(__file__).parent / "reference"
TIES = ("efron", "breslow")


def tensors(event, time, risk, strata=None, weights=None):
    options = {"strata": None if strata is None else torch.as_tensor(strata)}
    options["weights"] = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)
    return (
        torch.as_tensor(np.asarray(event, dtype=bool)),
        torch.as_tensor(np.asarray(time, dtype=float)),
        torch.as_tensor(np.asarray(risk, dtype=float)),
    ), options


@st.composite
def batches(draw, max_size=12):
    """Event, time, risk, strata, weights with many ties."""
    n = draw(st.integers(1, max_size))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    return {
        "event": column(st.booleans()),
        "time": column(st.integers(1, 6)),
        "risk": column(st.floats(-4, 4)),
        "strata": column(st.integers(0, 2)),
        "weights": column(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
    }


@given(batch=batches(), ties=st.sampled_from(TIES), with_strata=st.booleans(), with_weights=st.booleans())
@settings(max_examples=200, deadline=None)
def test_is_its_definition(batch, ties, with_strata, with_weights):
    if not with_strata:
        batch["strata"] = None
    if not with_weights:
        batch["weights"] = None
    (event, time, risk), options = tensors(**batch)
    expected = oracles.cox_nll(ties=ties, **batch)
    found = cox_nll(event, time, risk, ties=ties, reduction="sum", **options)
    assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    events = np.asarray(batch["event"])
    total = events.sum() if batch["weights"] is None else np.asarray(batch["weights"])[events].sum()
    mean = cox_nll(event, time, risk, ties=ties, **options).item()
    assert mean == pytest.approx(expected / total if total > 0 else 0.0, rel=1e-12, abs=1e-12)


@pytest.fixture(scope="module")
def patients():
    return pd.read_csv(REFERENCE / "cox_patients.csv")


# tests/reference/cox.R: coxph(Surv(time, event) ~ risk [+ strata(strata)], weights =, ties =, init = 1,
# iter.max = 0)$loglik[1], and residuals(fit, "martingale").
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("with_strata", [False, True])
@pytest.mark.parametrize("with_weights", [False, True])
def test_value_and_gradient_are_those_of_r(patients, ties, with_strata, with_weights):
    values = pd.read_csv(REFERENCE / "cox_values.csv")
    row = (values["what"] == ties) & (values["strata"] == with_strata) & (values["weights"] == with_weights)
    strata = patients["strata"].to_numpy() if with_strata else None
    weights = patients["weights"].to_numpy() if with_weights else None
    (event, time, risk), options = tensors(patients["event"], patients["time"], patients["risk"], strata, weights)
    risk.requires_grad_()
    loss = cox_nll(event, time, risk, ties=ties, reduction="sum", **options)
    assert -loss.item() == pytest.approx(values.loc[row, "value"].item(), rel=1e-12)
    loss.backward()
    residual = patients[f"residual_{ties}_{int(with_strata)}_{int(with_weights)}"].to_numpy()
    expected = residual if weights is None else residual * weights
    np.testing.assert_allclose(-risk.grad.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_is_lifelines_log_likelihood(patients):
    model = lifelines.CoxPHFitter().fit(patients[["event", "time", "risk"]], "time", "event")  # Efron
    (event, time, risk), _ = tensors(patients["event"], patients["time"], patients["risk"])
    loss = cox_nll(event, time, risk * model.params_["risk"], reduction="sum")
    assert -loss.item() == pytest.approx(model.log_likelihood_, rel=1e-9)


# torchsurv 0.2.0 compiles a function with torch.jit.script when it is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("ties", TIES)
def test_is_torchsurv(patients, ties):
    from torchsurv.loss.cox import neg_partial_log_likelihood

    (event, time, risk), _ = tensors(patients["event"], patients["time"], patients["risk"])
    time = time.float()
    with pytest.warns(UserWarning, match="Ties in `time` detected"):
        expected = neg_partial_log_likelihood(risk.float(), event, time, ties_method=ties, reduction="sum")
    found = cox_nll(event, time, risk.float(), ties=ties, reduction="sum")
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("with_strata", [False, True])
@pytest.mark.parametrize("with_weights", [False, True])
def test_gradient_is_the_derivative(patients, ties, with_strata, with_weights):
    some = patients.head(30)
    strata = some["strata"].to_numpy() if with_strata else None
    weights = some["weights"].to_numpy() if with_weights else None
    (event, time, risk), options = tensors(some["event"], some["time"], some["risk"], strata, weights)
    assert torch.autograd.gradcheck(lambda r: cox_nll(event, time, r, ties=ties, **options), risk.requires_grad_())


@given(batch=batches(), ties=st.sampled_from(TIES), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_row_order_unit_of_time_and_a_constant_do_not_matter(batch, ties, seed):
    (event, time, risk), options = tensors(**batch)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(time)))
    shuffled = {name: value[order] for name, value in options.items()}
    expected = cox_nll(event, time, risk, ties=ties, **options).item()
    for changed in (
        cox_nll(event[order], time[order], risk[order], ties=ties, **shuffled),
        cox_nll(event, time * 365.25, risk, ties=ties, **options),
        cox_nll(event, time, risk + 7.0, ties=ties, **options),
    ):
        assert changed.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("n", [1, 5])
def test_no_events_give_exactly_zero_and_zero_gradients(ties, reduction, n):
    risk = torch.linspace(-3, 3, n).requires_grad_()
    loss = cox_nll(torch.zeros(n, dtype=torch.bool), torch.ones(n), risk, ties=ties, reduction=reduction)
    loss.backward()
    assert loss.item() == 0.0
    assert risk.grad.tolist() == [0.0] * n


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("with_strata", [False, True])
def test_far_apart_risks_neither_overflow_nor_lose_the_small_ones(ties, with_strata):
    # The riskiest leaves first. Each denominator is then its own risk (and the next one's, 2 lower, at the end),
    # so the loss is log(1 + e^-2) + 0: a sum of plain exponentials would give inf or log 0.
    event, time = torch.tensor([1, 1, 1, 0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    risk = torch.tensor([1e4, 0.0, -1e4, -1e4 - 2], requires_grad=True)
    strata = torch.zeros(4, dtype=torch.int64) if with_strata else None
    loss = cox_nll(event, time, risk, ties=ties, strata=strata, reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(np.log1p(np.exp(-2)), rel=1e-3)  # float32 holds 1e4 to 5e-4
    small = 1 / (1 + np.exp(2))
    np.testing.assert_allclose(risk.grad.numpy(), [0, 0, -small, small], atol=1e-4)
    reverse = cox_nll(event, time.flip(0), risk, ties=ties, strata=strata, reduction="sum")
    assert torch.isfinite(reverse)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(patients, dtype):
    (event, time, risk), _ = tensors(patients["event"], patients["time"], patients["risk"])
    half = risk.to(dtype).requires_grad_()
    loss = cox_nll(event, time, half)
    assert loss.dtype == torch.float32
    assert loss.item() == cox_nll(event, time, half.detach().float()).item()
    loss.backward()
    assert half.grad.dtype == dtype
    whole = time.round()
    assert cox_nll(event, whole.to(dtype), risk).item() == cox_nll(event, whole.to(dtype).double(), risk).item()


def test_a_column_of_risks_is_taken_as_a_vector(patients):
    (event, time, risk), _ = tensors(patients["event"], patients["time"], patients["risk"])
    assert cox_nll(event, time, risk[:, None]).item() == cox_nll(event, time, risk).item()


GOOD = {"event": torch.tensor([1, 0, 1]), "time": torch.ones(3), "risk": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ties": "exact"}, "ties.*'exact'"),
        ({"reduction": "none"}, "reduction.*'none'"),
        ({"risk": torch.tensor([1, 2, 3])}, "risk.*torch.int64"),
        ({"risk": torch.zeros(3, 2)}, r"risk.*\(3, 2\)"),
        ({"risk": torch.tensor([0.0, 1.0, torch.nan])}, r"risk\[2\] = nan"),
        ({"time": torch.ones(2)}, r"time.*3 wanted.*\(2,\)"),
        ({"time": torch.tensor([0.0, torch.inf, 1.0])}, r"time\[1\] = inf"),
        ({"event": torch.tensor([0, 2, 1])}, r"0/1, got event\[1\] = 2"),
        ({"weights": torch.tensor([1.0, -1.0, 1.0])}, r">= 0, got weights\[1\] = -1.0"),
        ({"weights": 2.0}, "weights.*float"),
        ({"weights": torch.ones(3, requires_grad=True)}, "weights.*gradient"),
        ({"strata": torch.zeros(3)}, "strata.*torch.float32"),
    ],
)
def test_refuses(change, named):
    with pytest.raises(ValueError, match=named):
        cox_nll(**GOOD | change)


@given(batch=batches(), ties=st.sampled_from(TIES), with_weights=st.booleans())
@settings(max_examples=100, deadline=None)
def test_plain_sums_and_logarithms_agree_in_value_and_gradient(batch, ties, with_weights):
    batch["strata"] = None
    if not with_weights:
        batch["weights"] = None
    (event, time, risk), options = tensors(**batch)
    found = []
    for widest in (losses.WIDEST, -1.0):
        with mock.patch.object(losses, "WIDEST", widest):
            leaf = risk.clone().requires_grad_()
            loss = cox_nll(event, time, leaf, ties=ties, **options)
            loss.backward()
            found.append([loss.item(), *leaf.grad.tolist()])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("width", [599.0, 601.0, 700.0, 730.0, 1500.0, 2e4])
def test_either_side_of_the_widest_range_has_full_precision(ties, width):
    """The riskiest leave first, two at a time; each pair's denominators hold nothing else that counts."""
    n = 12
    risk = torch.repeat_interleave(torch.linspace(width, 0, n // 2, dtype=torch.float64), 2).requires_grad_()
    time = torch.repeat_interleave(torch.arange(n // 2), 2).double()
    loss = cox_nll(torch.ones(n, dtype=torch.bool), time, risk, ties=ties, reduction="sum")
    loss.backward()
    each = np.log(2) if ties == "efron" else 2 * np.log(2)
    assert loss.item() == pytest.approx(n / 2 * each, rel=1e-11)  # float64 holds 2e4 to 4e-12
    np.testing.assert_allclose(risk.grad.numpy(), 0, atol=1e-11)


@pytest.mark.parametrize("width", [590.0, 610.0, 5000.0])
@pytest.mark.parametrize("with_strata", [False, True])
def test_float32_risks_lose_nothing_in_the_sums(width, with_strata):
    rng = np.random.default_rng(0)
    risk = torch.tensor(rng.normal(size=300) + 1000, dtype=torch.float32)
    risk[0] -= width
    event, time = torch.tensor(rng.random(300) < 0.4), torch.tensor(rng.integers(1, 50, 300))
    strata = torch.tensor(rng.integers(0, 3, 300)) if with_strata else None
    found = []
    for precision in (torch.float32, torch.float64):
        leaf = risk.detach().clone().to(precision).requires_grad_()
        cox_nll(event, time, leaf, strata=strata, reduction="sum").backward()
        found.append(leaf.grad.double().numpy())
    np.testing.assert_allclose(found[0], found[1], atol=3e-7 * np.abs(found[1]).max())


@pytest.mark.parametrize("weights", [[1e39, 1.0, 1.0], [1e-50] * 3, [1.0, 1e-100, 1e-100], [1e-200] * 3, [1e45] * 3])
@pytest.mark.parametrize("risk", [[0.0, 0.0, 0.0], [0.0, -500.0, -599.0]])
def test_weights_of_any_size_count(weights, risk):
    event, time = torch.tensor([1, 1, 0]), torch.tensor([1.0, 2.0, 3.0])
    weights, exact = torch.tensor(weights, dtype=torch.float64), torch.tensor(risk, dtype=torch.float64)
    w = [float(each) for each in weights]
    e = [mpmath.exp(each) for each in risk]
    first = w[0] * (mpmath.log(sum(a * b for a, b in zip(w, e, strict=True))) - risk[0])
    expected = first + w[1] * (mpmath.log(w[1] * e[1] + w[2] * e[2]) - risk[1])
    for precision in (torch.float32, torch.float64):
        leaf = exact.detach().clone().to(precision).requires_grad_()
        loss = cox_nll(event, time, leaf, weights=weights)
        loss.backward()
        assert loss.item() == pytest.approx(float(expected / (w[0] + w[1])), rel=1e-5, abs=1e-12)
        assert torch.isfinite(leaf.grad).all()


def test_without_a_gradient_the_value_is_the_same():
    event, time, risk = torch.tensor([1, 0, 1]), torch.arange(3.0), torch.tensor([0.3, -1.0, 2.0])
    value = cox_nll(event, time, risk)
    assert not value.requires_grad
    with torch.no_grad():
        assert cox_nll(event, time, risk.clone().requires_grad_()).item() == value.item()


@pytest.mark.parametrize("strata", [None, torch.zeros(3, dtype=torch.bool)])
def test_a_second_derivative_is_refused(strata):
    risk = torch.zeros(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(cox_nll(GOOD["event"], GOOD["time"], risk, strata=strata), risk, create_graph=True)


@given(batch=batches(), ties=st.sampled_from(TIES), parts=st.sets(st.sampled_from(["strata", "weights"])))
@settings(max_examples=80, deadline=None)
def test_a_gpus_arrays_give_what_numpys_give(batch, ties, parts):
    """The same lines compute with torch's arrays, as they do on a GPU, and with NumPy's."""
    (event, time, risk), options = tensors(**batch)
    options = {name: value if name in parts else None for name, value in options.items()}
    found = []
    for on_cpu in (True, False):
        for reduction in ("sum", "mean"):
            leaf = risk.clone().requires_grad_()
            with mock.patch.object(losses, "_is_on_cpu", lambda _, on_cpu=on_cpu: on_cpu):
                loss = cox_nll(event, time, leaf, ties=ties, reduction=reduction, **options)
                assert cox_nll(event, time, risk, ties=ties, reduction=reduction, **options) == loss
            loss.backward()
            found.append([loss.item(), *leaf.grad.tolist()])
    np.testing.assert_allclose(found[2:], found[:2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("with_strata", [False, True])
@pytest.mark.parametrize("absent", [-800.0, 640.0, 720.0, 745.0, 1e5, 1e30])
def test_a_weight_of_zero_is_an_absent_row_whatever_its_risk(absent, with_strata):
    event, time = torch.tensor([1, 1, 0, 1, 0]), torch.tensor([1.0, 2, 3, 2, 4])
    weights = torch.tensor([0.0, 1, 2, 1, 1])
    risk = torch.tensor([absent, 0.3, -0.5, 1, 0.2], dtype=torch.float64, requires_grad=True)
    strata = torch.zeros(5, dtype=torch.int64) if with_strata else None
    loss = cox_nll(event, time, risk, weights=weights, strata=strata)
    loss.backward()
    kept = risk.detach()[1:].requires_grad_()
    wanted = cox_nll(event[1:], time[1:], kept, weights=weights[1:])
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    np.testing.assert_allclose(risk.grad, [0, *kept.grad.tolist()], rtol=1e-12)
    censored = cox_nll(torch.zeros(5), time, risk, weights=weights, strata=strata)
    assert censored.item() == 0


def test_one_far_risk_costs_the_others_nothing():
    """In logarithms nothing is taken off all risks: two ordinary ones keep their digits beside one of 1e17."""
    for far in (1e14, 1e17):
        risk = torch.tensor([far, 0.0, 5.0], dtype=torch.float64, requires_grad=True)
        cox_nll(torch.tensor([1, 1, 0]), torch.tensor([1.0, 2, 3]), risk, reduction="sum").backward()
        share = 1 / (1 + np.exp(-5.0))
        np.testing.assert_allclose(risk.grad, [0, -share, share], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [40, 1500])
def test_what_is_given_is_left_as_it_is(n):
    rng = np.random.default_rng(0)
    given_ = [rng.random(n) < 0.4, rng.integers(1, 99, n).astype(float), rng.normal(size=n), rng.random(n)]
    event, time, risk, weights = before = [torch.from_numpy(each.copy()) for each in given_]
    for on_cpu in (True, False):
        with mock.patch.object(losses, "_is_on_cpu", lambda _, on_cpu=on_cpu: on_cpu):
            for options in ({}, {"weights": weights}, {"strata": (time % 3).long()}):
                cox_nll(event, time, risk.detach().requires_grad_(), **options).backward()
    for tensor, array in zip(before, given_, strict=True):
        np.testing.assert_array_equal(tensor, array)


def test_times_are_sorted_whatever_they_are():
    rng = np.random.default_rng(0)
    days = rng.integers(0, 3650, 500)
    wide, half = rng.integers(-(10**6), 10**6, 500), rng.integers(0, 10, 500) + 0.5
    for time in (days, days.astype(np.float32), rng.normal(size=500), wide, half, np.zeros(5), np.zeros(0)):
        for many in (time, np.tile(time, 3), np.tile(time, 3).astype(np.float32)):  # another way from FEW on
            order = losses._longest_first(many)
            assert sorted(order) == list(range(len(many)))
            assert (np.diff(many[order]) <= 0).all()
    extreme = np.abs(rng.normal(size=1500)) * 10.0 ** rng.integers(-310, 308, 1500)
    close = np.nextafter(2.0**24, np.inf, dtype=np.float32) + 2 * rng.permutation(2000).astype(np.float32)
    ends = np.r_[1.7e308, 0.0, -0.0, 5e-324, 2.0**16, 65535.5, 1.0]
    for time in (
        np.r_[extreme, ends],
        np.r_[-extreme, ends],
        np.r_[close, np.float32(1)],
        (1 << 40) + days.repeat(3),
    ):
        assert (np.diff(time[losses._longest_first(time)]) <= 0).all()
    narrow = rng.integers(-128, 128, 2000).astype(np.int8)
    assert (np.diff(narrow[losses._longest_first(narrow)].astype(int)) <= 0).all()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("unit", [1.0, 0.5, 0.0])
def test_large_cohorts_are_their_definition_too(ties, unit):
    """Beyond `FEW` patients times are sorted otherwise: whole days, half days, and no ties."""
    rng = np.random.default_rng(3)
    n = 2500
    time = rng.exponential(1000, n).astype(np.float32) if unit == 0 else unit * rng.integers(1, 700, n)
    event, risk = rng.random(n) < 0.4, rng.normal(size=n)
    leaf = torch.from_numpy(risk).requires_grad_()
    loss = cox_nll(torch.from_numpy(event), torch.from_numpy(time), leaf, ties=ties, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    wanted, slope = 0.0, -event.astype(float)
    for day in np.unique(time[event]):
        at_risk, died = np.exp(risk) * (time >= day), np.exp(risk) * ((time == day) & event)
        d = int(((time == day) & event).sum())
        for k in range(d):
            share = k / d if ties == "efron" else 0.0
            total = at_risk.sum() - share * died.sum()
            wanted += np.log(total)
            slope += (at_risk - share * died) / total
    wanted -= risk[event].sum()
    assert loss.item() == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-12)
