"""Scores are computed in float32 or more under autocast: large activations overflow in float16, and maps with them."""

import pytest
import torch
from networks import images, narrow, two_stream_options
from torch import nn

from ltpa.models.attention import COMPATIBILITIES, NORMALISATIONS, AttentionUnit
from ltpa.models.heads import PREDICTIONS
from ltpa.models.protopnet import PrototypeNetwork
from ltpa.models.registry import parse_options
from ltpa.models.twostream.spatial import SpatialHead
from ltpa.models.twostream.temporal import TimeAttention

CHANNELS, LARGEST_HALF = 512, 65_504


def drawn(*shape, below=1.0, seed=0):
    return below * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def half():
    return torch.autocast("cpu", torch.float16)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("kind", COMPATIBILITIES)
def test_maps_of_large_activations_are_finite(kind, normalisation):
    """Local features and g as half precision has them, their scores far beyond what it can hold."""
    unit = AttentionUnit(CHANNELS, CHANNELS, kind, normalisation, "global")
    if kind != "dp":
        nn.init.constant_(unit.compatibility.u.weight, 300.0 if kind == "tanh" else 10.0)
    local, g = drawn(2, CHANNELS, 6, 6, below=40).half(), drawn(2, CHANNELS, below=40, seed=1).half()
    with torch.no_grad():
        expected = unit.compatibility(local.float(), g.float())
        assert expected.max() > LARGEST_HALF
        with half():
            scores, (vector, weights) = unit.compatibility(local, g), unit(local, g)
    assert scores.dtype == weights.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(2), atol=1e-5, rtol=0)
    assert vector.isfinite().all() and (vector <= 40).all()


@pytest.mark.parametrize("kind", COMPATIBILITIES)
def test_a_network_of_half_precision_computes_its_scores_in_single_precision(kind):
    unit = AttentionUnit(CHANNELS, CHANNELS, kind, "softmax", "global").half()
    with torch.no_grad():
        local = drawn(2, CHANNELS, 4, 4, below=40).half()
        vector, weights = unit(local, drawn(2, CHANNELS, below=40, seed=1).half())
    assert (vector.dtype, weights.dtype) == (torch.float16, torch.float32)
    torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(2), atol=1e-5, rtol=0)


def test_the_gate_of_pan_is_finite():
    model = narrow("vgg-pan", image_size=20, bn_weight="one", dropout=0.0)
    with torch.no_grad():
        model.gate.u.weight.copy_(60_000 * torch.sign(model.gate.u.weight))
        x = images(4, 20, dtype=torch.float32)
        maps = model.local_features(x)
        assert model.gate(maps["conv10"], model.gate_branch(maps["conv10"])).abs().max() > LARGEST_HALF
        with half():
            logits, gate = model(x), model.attention(x)["conv10"]
    assert gate.dtype == torch.float32 and gate.isfinite().all() and logits.isfinite().all()


@pytest.mark.parametrize("form", ["per-step", "shared"])
def test_attention_over_steps_is_finite(form):
    attention = TimeAttention(two_stream_options(time_attention=form, steps=3))
    nn.init.constant_(attention.score.weight if form == "shared" else attention.vectors, 500.0)
    states = drawn(2, 3, 512)
    with torch.no_grad(), half():
        weights = attention(states.half())
    expected = torch.softmax(500 * states.half().double().sum(-1), dim=1)
    assert (500 * states.sum(-1)).min() > LARGEST_HALF
    torch.testing.assert_close(weights.double(), expected, rtol=0, atol=0.05)  # scores of 1e5 are known to 1e-2
    assert weights.dtype == torch.float32


def test_attention_over_positions_is_finite():
    head = SpatialHead(two_stream_options(key_channels=256), CHANNELS, 5)
    with torch.no_grad(), half():
        looks = head._look(drawn(2, 9, 320, below=40).half(), drawn(2, 320, below=40, seed=1).half())
    torch.testing.assert_close(looks.sum(dim=1), torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_joint_predictions_are_normalised_in_single_precision(prediction):
    logits = [drawn(2, 5, below=30, seed=seed).half() for seed in (0, 1)]
    joint = PREDICTIONS[prediction](logits)
    expected = PREDICTIONS[prediction]([level.double() for level in logits])
    torch.testing.assert_close(joint.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_class_activation_map_is_finite():
    model = narrow("vgg-gap", image_size=20, bn_weight="one", dropout=0.0)
    x = images(2, 20, dtype=torch.float32)
    with torch.no_grad():
        nn.init.constant_(model.head.weight, 60_000.0)
        classes = torch.tensor([0, 3])
        assert model.class_activation_map(x, classes).max() > LARGEST_HALF
        with half():
            maps = model.class_activation_map(x, classes)
    assert maps.isfinite().all()


def test_distances_to_prototypes_do_not_cancel_in_half_precision():
    """The three terms of a squared distance are each a thousand times as large as the distance of a near prototype."""
    network = PrototypeNetwork(narrow("vgg-gap", image_size=20).eval(), 3, 1, 128, 14)
    with torch.no_grad():
        latent = (network.prototypes[0] + 1e-2)[None, :, None, None]
        with half():
            distances = network.distances(latent)
    assert distances[0, 0].item() == pytest.approx(128 * 1e-4, rel=0.05)


def test_options_of_the_attention_reach_the_network():
    """Epsilon, biases and the block before the classifier are options of their own."""
    assert parse_options({"family": "resnet"}).bn_eps == 1e-3
    for name in ("vgg-att3-concat-pc", "rn164-att2"):
        for project in ("global", "local"):
            options = {"head_norm": False, "attention_bias": False, "bn_eps": 1e-4, "project": project}
            model = narrow(name, **options)
            biased = {key for key, _ in narrow(name, project=project).named_parameters()}
            left_out = biased - {key for key, _ in model.named_parameters()}
            assert any("project" in key for key in left_out)
            assert all(key.endswith("bias") or key.startswith("head.norms") for key in left_out)
            assert sum(key.endswith("u.bias") for key in left_out) == len(model.attention_levels)
            blocks = [part.eps for key, part in model.named_modules() if key.endswith(".norm")]
            assert blocks and set(blocks) == {1e-4}
