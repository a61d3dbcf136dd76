"""The protocol's networks: shapes, sizes, what is frozen and what learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fracsurv.config import load_experiments, load_profile
from fracsurv.models import AlphaFusion, ConvDeepSurv, DeepSurv, ViTDeepSurv, build_model, count_parameters
from fracsurv.models.vit_deepsurv import PatchProjection

PROTOCOL = load_experiments()
NETWORKS = [name for name, row in PROTOCOL.items() if row.model == "network"]

# What stands in `ConvDeepSurv` for torchvision's ResNet-50: 25,557,032 parameters in all, of which the first
# convolution 64·3·49 = 9,408 and the classification layer 2048·1000 + 1000 = 2,049,000.
RESNET50_BODY = 25_557_032 - 9_408 - 2_049_000
# vit_b_32 at 224: 88,224,232 parameters; first convolution 768·3·32² + 768, 50 positions of 768.
VIT_B_32_BODY = 88_224_232 - (768 * 3 * 32**2 + 768) - 50 * 768
DEEPSURV = (10 * 64 + 64) + (64 * 128 + 128) + (128 + 1)


def small(name: str, alpha: float | None = None) -> nn.Module:
    """A row of the protocol with the tiny profile's encoders."""
    row = load_profile("tiny").apply(PROTOCOL[name])
    return build_model(
        fusion=row.fusion,
        input=row.input,
        encoder=row.encoder,
        image_size=64,
        alpha=alpha,
        frozen=tuple(row.pretrained),
    )


def batch(name: str, n: int = 4) -> tuple[torch.Tensor, ...]:
    kind = PROTOCOL[name].input
    generator = torch.Generator().manual_seed(0)
    tabular = torch.randn(n, 10, generator=generator)
    if kind == "none":
        return (tabular,)
    return tabular, torch.rand(n, 1 if kind == "full" else 13, 64, 64, generator=generator)


def test_deepsurv_layer_by_layer():
    model = DeepSurv(n_inputs=10)
    kinds = [type(layer).__name__ for layer in model.body]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout"]
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (10, 64), (64, 128), (128, 1),
    ]  # fmt: skip
    assert count_parameters(model) == DEEPSURV
    assert model.body(torch.zeros(5, 10)).shape == (5, 128)
    assert model(torch.zeros(5, 10)).shape == (5,)


@pytest.mark.parametrize(("channels", "frame"), [(1, (1121, 759)), (13, (230, 272))])
def test_conv_deepsurv_at_the_protocols_size(channels, frame):
    model = ConvDeepSurv(channels=channels).eval()
    assert count_parameters(model) == RESNET50_BODY + 64 * channels * 49 + 2048 + 1
    with torch.no_grad():
        image = torch.zeros(1, channels, *frame)
        assert model.encoder(image).shape == (1, 2048)
        assert model(None, image).shape == (1,)


def test_vit_deepsurv_at_the_protocols_size():
    model = ViTDeepSurv(channels=13, image_size=272).eval()
    vit = model.encoder.backbone
    assert vit.encoder.pos_embedding.shape == (1, 65, 768)  # 8×8 patches and the class token
    assert vit.conv_proj.weight.shape == (768, 13, 32, 32)
    assert len(vit.encoder.layers) == 12
    expected = VIT_B_32_BODY + (768 * 13 * 32**2 + 768) + 65 * 768 + (1000 + 1)
    assert count_parameters(model) == expected
    with torch.no_grad():
        assert model.encoder(torch.zeros(1, 13, 272, 272)).shape == (1, 1000)
        assert model(None, torch.zeros(1, 13, 272, 272)).shape == (1,)


@pytest.mark.parametrize(("height", "width", "patch"), [(68, 68, 8), (35, 38, 4), (33, 40, 5)])
def test_a_patch_projection_is_the_convolution(height, width, patch):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 6, patch, stride=patch)
    ours = PatchProjection(3, 6, patch, stride=patch)
    ours.load_state_dict(conv.state_dict())
    image = torch.randn(2, 3, height, width)
    for layout in (torch.contiguous_format, torch.channels_last):
        found, expected = (layer(image.to(memory_format=layout)) for layer in (ours, conv))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for layer, result in ((ours, found), (conv, expected)):
            layer.zero_grad()
            (result**2).sum().backward()
        torch.testing.assert_close(ours.weight.grad, conv.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("image_size", "patch"), [(272, 32), (136, 16), (68, 8), (54, 6), (35, 4), (41, 5)])
def test_a_vision_transformer_has_64_patches_at_every_size(image_size, patch):
    model = ViTDeepSurv(channels=2, image_size=image_size, encoder="vit_tiny").eval()
    assert model.encoder.backbone.conv_proj.kernel_size == (patch, patch)
    image = torch.rand(1, 2, image_size, image_size)
    beyond = image.clone()
    beyond[..., 8 * patch :, :] = beyond[..., 8 * patch :] = 9.0  # falls to no patch
    with torch.no_grad():
        torch.nn.init.normal_(model.encoder.backbone.heads.head.weight)
        assert torch.equal(model(None, image), model(None, beyond))


@pytest.mark.parametrize(("name", "width"), [("cds_full_if", 2048), ("cds_crops_if", 2048), ("vit_crops_if", 1000)])
def test_intermediate_fusion_head(name, width):
    row = PROTOCOL[name]
    model = build_model(fusion=row.fusion, input=row.input, encoder=row.encoder)
    first, norm, relu, last = model.head
    assert (first.in_features, first.out_features) == (width + 128, 128)
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(relu, nn.ReLU)
    assert (last.in_features, last.out_features) == (128, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_log_hazard_a_patient_and_gradients_where_they_belong(name):
    frozen = set(PROTOCOL[name].pretrained)
    model = small(name, alpha=0.4).train()
    risk = model(*batch(name))
    assert risk.shape == (4,)
    assert risk.dtype == torch.float32
    # a weighted sum, since BatchNorm makes the gradient of a plain one vanish
    (risk * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
    for key, parameter in model.named_parameters():
        part = key.split(".")[0]
        if part in frozen:
            assert not parameter.requires_grad, key
            assert parameter.grad is None, key
        else:
            assert parameter.grad is not None, key
    learning = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning == {key.split(".")[0] for key, _ in model.named_parameters()} - frozen


def test_late_fusion_trains_three_numbers():
    model = small("cds_crops_lf")
    assert count_parameters(model, trainable=True) == 3
    assert model.head.weight.shape == (1, 2)


@pytest.mark.parametrize("name", ["cds_crops_lf", "cds_crops_alpha_tab"])
def test_frozen_parts_neither_drop_out_nor_learn_statistics(name):
    model = small(name, alpha=0.5).train()
    frozen = [getattr(model, part) for part in PROTOCOL[name].pretrained]
    before = [value.clone() for part in frozen for value in part.state_dict().values()]
    assert not any(module.training for part in frozen for module in part.module.modules())
    tabular, image = batch(name)
    assert torch.equal(model.tabular(tabular, None), model.tabular(tabular, None))
    model(tabular, image)
    after = [value for part in frozen for value in part.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_late_fusion_of_known_risks_is_late_fusion_of_inputs():
    model = small("cds_crops_lf").eval()
    tabular, image = batch("cds_crops_lf")
    with torch.no_grad():
        known = model.combine(model.tabular(tabular, None), model.image(tabular, image))
        assert torch.equal(known, model(tabular, image))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_weighs_the_clinical_risk(alpha):
    model = small("cds_crops_alpha", alpha=alpha).eval()
    tabular, image = batch("cds_crops_alpha")
    with torch.no_grad():
        expected = alpha * model.tabular(tabular, None) + (1 - alpha) * model.image(tabular, image)
        torch.testing.assert_close(model(tabular, image), expected)


def test_alpha_outside_its_range():
    with pytest.raises(ValueError, match=r"alpha must be from 0 to 1, got 1\.2"):
        AlphaFusion(image=ConvDeepSurv(channels=13, encoder="resnet18"), tabular=DeepSurv(), alpha=1.2)


@pytest.mark.parametrize("name", NETWORKS)
def test_log_hazards_are_float32_under_bfloat16(name):
    """Eight bits of a log hazard would tie patients who are not tied."""
    model = small(name, alpha=0.5).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        risk = model(*batch(name))
        assert risk.dtype == torch.float32
        if PROTOCOL[name].fusion == "late":
            assert model.combine(*torch.rand(2, 3)).dtype == torch.float32
    assert not torch.equal(risk, risk.bfloat16().float())
