"""What is different on a GPU: where pixels lie, what is compiled, and that a fit comes out the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fracsurv.models import build_model
from fracsurv.training import checkpoint
from fracsurv.training.augmentation import CropAugment, augment_crops, change_crops, inside
from fracsurv.training.compilation import compiled
from fracsurv.training.loop import Network, Patients, Recipe, fit, forward, predict, train_step
from fracsurv.utils.devices import reproducible
from tests.killing import killed_in

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    # of PyTorch's own making: cuBLAS first used in the backward pass's thread; the compiler's tracing; the warming up
    # of CUDA graphs, which records an empty one
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning"),
]
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def test_augmentation_is_the_cpus_compiled_or_not():
    rng = np.random.default_rng(0)
    sizes = torch.from_numpy(rng.integers(0, 30, (4, 13, 2)))
    pixels = torch.from_numpy(rng.integers(0, 255, (4, 13, 30, 36), dtype=np.uint8)) * inside(sizes, (30, 36))
    fixed = CropAugment(vertical_flip=1, horizontal_flip=1, zoom=(1.1, 1.1), contrast=(0.8, 0.8), noise_sd=0)

    def augmented(device, settings, change=change_crops):
        given = [part.to(device) for part in (pixels, sizes, torch.zeros(4), torch.full((4,), 250.0))]
        drawn = torch.Generator(device).manual_seed(0)
        return augment_crops(*given, drawn, settings, frame=(36, 36), change=change).cpu()

    torch.testing.assert_close(augmented(GPU, fixed), augmented(CPU, fixed), rtol=0, atol=1e-4)
    drawn = [augmented(GPU, CropAugment(), change) for change in (change_crops, compiled(change_crops, 4))]
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-4)


@pytest.mark.parametrize("encoder", ["resnet18", "vit_tiny"])
def test_a_step_is_the_cpus(encoder):
    """Loss, log hazards and gradients of the same weights, in float32."""
    rng, drawn = np.random.default_rng(0), torch.Generator().manual_seed(1)
    tabular, image = torch.randn(12, 10, generator=drawn), torch.rand(12, 13, 34, 34, generator=drawn)
    event, time = torch.from_numpy(rng.random(12) < 0.5), torch.from_numpy(rng.integers(1, 9, 12).astype(float))
    results = []
    for device in (CPU, GPU):
        torch.manual_seed(0)
        model = build_model(fusion="intermediate", input="crops", encoder=encoder, image_size=34).eval()
        for weights in model.parameters():
            if not weights.any():  # a fresh transformer's last layer: nothing before it would have a gradient
                torch.nn.init.normal_(weights, std=0.02)
        model.to(device)
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        with reproducible():
            output = forward(model, (tabular.to(device), image.to(device)), torch.float32)
            loss, risk = train_step(output, event, time, still)
        gradients = [weights.grad.cpu() for weights in model.parameters() if weights.grad is not None]
        results.append((loss, risk, *gradients))
    assert sum(bool(gradient.any()) for gradient in results[0][2:]) == len(results[0]) - 2
    for ours, theirs in zip(*results, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-4 * float(ours.abs().max()) + 1e-7


def run(folder, encoder="resnet18", **options):
    rng = np.random.default_rng(0)
    n = 90
    tabular = torch.from_numpy(rng.normal(size=(n, 10)).astype(np.float32)).to(GPU)
    image = torch.from_numpy(rng.random((n, 13, 34, 34)).astype(np.float32)).to(GPU)
    time = rng.exponential(size=n) * np.exp(-2 * tabular[:, 0].cpu().numpy())
    torch.manual_seed(0)
    model = build_model(fusion="intermediate", input="crops", encoder=encoder, image_size=34).to(GPU)
    if encoder == "resnet18":
        model = model.to(memory_format=torch.channels_last)

    def inputs(rows, _):
        at = torch.from_numpy(rows).to(GPU)
        return tabular[at], image[at]

    recipe = Recipe(lr=1e-4, scheduler="none", epochs=4, batch_size=25, seed=1, validate_every=1, **options)
    network, patients = Network(model, model, inputs), Patients(time < 1, time, np.arange(60), np.arange(60, n))
    fitted = fit(network, patients, folder, recipe, progress=False)
    return fitted, predict(network, np.arange(n), dtype=recipe.dtype)


@pytest.mark.parametrize("encoder", ["resnet18", "vit_tiny"])
@pytest.mark.parametrize("compiled", [False, True])
def test_two_fits_are_the_same_bit_for_bit(tmp_path, encoder, compiled):
    options = {"encoder": encoder, "dtype": torch.bfloat16, "compiled": compiled}
    (first, one), (_, two) = run(tmp_path / "a", **options), run(tmp_path / "b", **options)
    np.testing.assert_array_equal(one, two)
    assert first.history["train_loss"].iloc[-1] < first.history["train_loss"].iloc[0]
    assert {"feeding_s", "augmentation_s"}.isdisjoint(first.timing)  # these inputs time none
    assert (first.timing["model_s"] > 0).all()


def test_compiled_is_the_plain_one():
    """In evaluation, for the dropped units are drawn in another order; other sizes of batch are not compiled."""
    torch.manual_seed(0)
    model = build_model(fusion="intermediate", input="crops", encoder="resnet18").to(GPU).eval()
    batch = torch.randn(12, 10, device=GPU), torch.rand(12, 13, 34, 34, device=GPU)
    fast = compiled(model, 12, mode="reduce-overhead")
    for _ in range(3):
        torch.testing.assert_close(fast(*batch), model(*batch), rtol=5e-3, atol=5e-4)
    few = [part[:5] for part in batch]
    assert torch.equal(fast(*few), model(*few))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_killed_fit_resumes(tmp_path, monkeypatch, compiled):
    _, expected = run(tmp_path / "a", compiled=compiled)
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    killed_in(monkeypatch, 2, run, tmp_path / "b", compiled=compiled)
    _, resumed = run(tmp_path / "b", compiled=compiled)
    np.testing.assert_array_equal(resumed, expected)
