"""The same numbers by other roads: memory format, bfloat16, graph capture; and as they were when first written.

Capturing a graph takes seconds: six networks that have every part between them; LTPA_FULL=1 captures all.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from networks import DISTINCT, images, narrow
from torch import nn
from torch.nn import functional as F

from ltpa.models import get_variant


def lively(variant, **options):
    """A network in evaluation mode whose normalisation fits its activations, so that its output follows its input."""
    model = narrow(variant, image_size=20, bn_weight="one", u_std=0.2, dropout=0.0, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(images(16, 20, seed=5, dtype=torch.float32))
    return model.eval()


def assert_far_apart(first, second, tolerance):
    """What is compared must differ between images by far more than the tolerance, or the comparison could not fail."""
    assert float((first - second).abs().max()) > 100 * tolerance


@pytest.mark.parametrize("variant", DISTINCT)
def test_channels_last(variant):
    model = lively(variant)
    x = images(2, 20, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        model.to(memory_format=torch.channels_last)
        got = model(x.to(memory_format=torch.channels_last))
    assert_far_apart(expected[0], expected[1], 1e-5)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


# Root mean square error against the spread of outputs over images. Dot products are sums of many terms, and softmax
# exponentiates their error.
HALF_TOLERANCES = {torch.bfloat16: {"dp": 0.75, "other": 0.2}, torch.float16: {"dp": 0.15, "other": 0.05}}


@pytest.mark.parametrize("dtype", HALF_TOLERANCES, ids=str)
@pytest.mark.parametrize("variant", DISTINCT)
def test_half_precision_stays_near_float32(variant, dtype):
    """Attention weights are normalised in float32 all the same."""
    model = lively(variant)
    x = images(4, 20, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", dtype):
            got, maps = model(x).float(), model.attention(x)
    spread = float((expected - expected.mean(dim=0)).square().mean().sqrt())
    limit = HALF_TOLERANCES[dtype]["dp" if "-dp" in variant else "other"]
    assert float((got - expected).square().mean().sqrt()) < limit * spread
    for level, weights in maps.items():
        if (variant, level) != ("vgg-pan", "conv10"):
            torch.testing.assert_close(weights.float().sum(dim=(1, 2)), torch.ones(4), atol=1e-5, rtol=0)


CAPTURED = [
    "vgg-gap",
    "vgg-pan",
    "vgg-att2-indep-dp",
    "vgg-att2-concat-pcsigmoid",
    "vgg-att3-concat-pc-up",
    "rn164-att2",
]
if os.environ.get("LTPA_FULL"):
    CAPTURED = DISTINCT


def shallow(variant, **options):
    """One unit per residual stage: graph capture takes time for every layer."""
    if get_variant(variant).recipe == "resnet":
        options["blocks_per_stage"] = 1
    return lively(variant, **options)


@pytest.mark.parametrize("variant", CAPTURED)
def test_export_with_any_batch_size(variant):
    model = shallow(variant)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images(2, 20, dtype=torch.float32),), dynamic_shapes=({0: batch},))
    x = images(5, 20, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        assert_far_apart(expected[0], expected[1], 1e-6)
        torch.testing.assert_close(program.module()(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", CAPTURED)
def test_training_step_captures_as_one_graph(variant):
    x, y = images(4, 20, dtype=torch.float32), torch.tensor([0, 1, 2, 3])
    gradients = []
    for capture in (False, True):
        torch.compiler.reset()
        model = shallow(variant, legacy_grad_avg=True)
        loss = torch.compile(model.loss, fullgraph=True, backend="eager") if capture else model.loss
        loss(x, y).backward()
        gradients.append([value.grad for value in model.parameters()])
    for captured, eager in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(captured, eager, atol=1e-6, rtol=1e-4)


COMPILED = DISTINCT if os.environ.get("LTPA_COMPILE_EVERY") else ["vgg-att-pc", "rn164-att"]


@pytest.mark.compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's default compiler needs g++ on a CPU")
@pytest.mark.parametrize("variant", COMPILED)
def test_compiled_code_agrees_with_eager(variant):
    """Two networks; set LTPA_COMPILE_EVERY=1 for all of them, which takes some minutes."""
    torch.compiler.reset()
    model = shallow(variant)
    x = images(2, 20, dtype=torch.float32)
    with torch.no_grad():
        expected = model(x)
        assert_far_apart(expected[0], expected[1], 1e-5)
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), expected, atol=1e-5, rtol=1e-4)


GOLDEN = Path(__file__).parents[1] / "golden/networks.json"
# Of numbers around 1, where float32 differs from float64 by up to 2e-4 and one processor from another by less.
GOLDEN_TOLERANCE = 5e-4


def summary(variant):
    """Numbers that pin initial weights and forward pass: of two images the logits, of the second features and maps.

    Features are mean, deviation and the first six; maps are averaged to 4 x 4 parts, uniform maps giving ones.
    """
    model, x = lively(variant), images(2, 20, dtype=torch.float32)
    with torch.no_grad():
        logits, features, maps = model(x), model.features(x)[1], model.attention(x)
    found = {"logits": logits, "features": torch.cat([features.mean()[None], features.std()[None], features[:6]])}
    for level, weights in maps.items():
        found[level] = F.adaptive_avg_pool2d(weights[1:], 4)[0] * weights[0].numel()
    return found


@pytest.mark.parametrize("variant", DISTINCT)
def test_golden_tensors(variant):
    """Written by torch 2.13 on a CPU; set LTPA_UPDATE_GOLDEN=1 to write them anew after an intended change."""
    found = summary(variant)
    if os.environ.get("LTPA_UPDATE_GOLDEN"):
        written = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        rounded = {name: [float(f"{value:.6g}") for value in tensor.flatten()] for name, tensor in found.items()}
        lines = [f' "{name}": {json.dumps(values)}' for name, values in (written | {variant: rounded}).items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    expected = json.loads(GOLDEN.read_text())[variant]
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        got = found[name].flatten()
        torch.testing.assert_close(got, torch.tensor(values), atol=GOLDEN_TOLERANCE, rtol=GOLDEN_TOLERANCE, msg=name)
        assert got.std() > 50 * GOLDEN_TOLERANCE, "numbers that are all alike would pin little"


def test_golden_tensors_are_of_every_network():
    assert list(json.loads(GOLDEN.read_text())) == DISTINCT
