"""The same numbers by other roads: memory format, bfloat16, graph capture; and as they were when first written."""

import shutil

import pytest
import torch
from networks import images, narrow
from torch import nn

from ltpa.models import get_variant, list_models


def lively(variant, **options):
    """A network in evaluation mode whose normalisation fits its activations, so that its output follows its input."""
    model = narrow(variant, image_size=16, bn_weight="one", u_std=0.2, dropout=0.0, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(images(16, 16, seed=5, dtype=torch.float32))
    return model.eval()


def assert_far_apart(first, second, tolerance):
    """What is compared must differ between images by far more than the tolerance, or the comparison could not fail."""
    assert float((first - second).abs().max()) > 100 * tolerance


@pytest.mark.parametrize("variant", list_models())
def test_channels_last(variant):
    model = lively(variant)
    x = images(2, 16, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        model.to(memory_format=torch.channels_last)
        got = model(x.to(memory_format=torch.channels_last))
    assert_far_apart(expected[0], expected[1], 1e-5)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", list_models())
def test_bfloat16_stays_near_float32(variant):
    """Error against the spread of outputs over images; attention weights are normalised in float32 all the same."""
    model = lively(variant)
    x = images(4, 16, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            got, maps = model(x).float(), model.attention(x)
    spread = float((expected - expected.mean(dim=0)).square().mean().sqrt())
    limit = (
        0.75 if "-dp" in variant else 0.2
    )  # dot products are sums of many terms, and softmax exponentiates their error
    assert float((got - expected).square().mean().sqrt()) < limit * spread
    for level, weights in maps.items():
        if (variant, level) != ("vgg-pan", "conv10"):
            torch.testing.assert_close(weights.float().sum(dim=(1, 2)), torch.ones(4), atol=1e-5, rtol=0)


def shallow(variant, **options):
    """One unit per residual stage: graph capture takes time for every layer."""
    if get_variant(variant).recipe == "resnet":
        options["blocks_per_stage"] = 1
    return lively(variant, **options)


@pytest.mark.parametrize("variant", list_models())
def test_export_with_any_batch_size(variant):
    model = shallow(variant)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images(2, 16, dtype=torch.float32),), dynamic_shapes=({0: batch},))
    x = images(5, 16, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        assert_far_apart(expected[0], expected[1], 1e-6)
        torch.testing.assert_close(program.module()(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", list_models())
def test_training_step_captures_as_one_graph(variant):
    x, y = images(4, 16, dtype=torch.float32), torch.tensor([0, 1, 2, 3])
    gradients = []
    for capture in (False, True):
        torch.compiler.reset()
        model = shallow(variant, legacy_grad_avg=True)
        loss = torch.compile(model.loss, fullgraph=True, backend="eager") if capture else model.loss
        loss(x, y).backward()
        gradients.append([value.grad for value in model.parameters()])
    for captured, eager in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(captured, eager, atol=1e-6, rtol=1e-4)


@pytest.mark.compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's default compiler needs g++ on a CPU")
def test_compiled_code_agrees_with_eager():
    model = shallow("vgg-att-pc")
    x = images(2, 16, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        assert_far_apart(expected[0], expected[1], 1e-5)
        torch.testing.assert_close(torch.compile(model)(x), expected, atol=1e-5, rtol=1e-4)


# First two logits of the second of two images for a network of width 1/16 and 5 classes, seed 0 (torch 2.13, CPU). They
# pin initialisation order and forward pass. The tolerance covers the last digits of other processors' instructions.
GOLDEN: dict[str, tuple[float, float]] = {
    "vgg": (-0.088843, -0.079724),
    "vgg-gap": (-0.219198, -0.105993),
    "vgg-pan": (-0.054985, -0.131700),
    "rn164": (0.027733, 0.213654),
    "vgg-att-dp": (-0.174522, -0.188730),
    "vgg-att2-indep-dp": (-1.668681, -1.558489),
    "vgg-att2-concat-dp": (0.015256, -0.025746),
    "vgg-att-pc": (-0.067475, 0.046484),
    "vgg-att2-indep-pc": (-1.474265, -1.748854),
    "vgg-att2-concat-pc": (-0.015186, 0.001915),
    "vgg-att3-concat-pc": (0.128055, -0.107096),
    "rn164-att": (0.853116, -1.200600),
    "rn164-att2": (-0.510142, 0.036672),
    "vgg-att2-concat-pctanh": (-0.014680, 0.001159),
    "vgg-att2-concat-pcsigmoid": (-0.012025, -0.003035),
    "vgg-att2-concat-local": (-0.134095, -0.085602),
    "vgg-att2-concat-pc-globals2": (-0.210021, 0.288680),
    "vgg-att3-concat-pc-up": (-0.087962, 0.110791),
}


@pytest.mark.parametrize("variant", list_models())
def test_golden_logits(variant):
    model = narrow(variant, bn_weight="one").eval()
    with torch.no_grad():
        logits = model(images(2, 32, dtype=torch.float32))[1, :2]
    torch.testing.assert_close(logits, torch.tensor(GOLDEN[variant]), atol=2e-5, rtol=1e-4)
