"""The networks against the paper's equations in float64 NumPy, and the identities that follow from them."""

import numpy as np
import pytest
import reference_networks as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import DISTINCT, images, narrow, unsettled
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from ltpa.models import prune_dead_branch
from ltpa.models.attention import COMPATIBILITIES, AttentionUnit, spatial_sigmoid, spatial_softmax
from ltpa.models.heads import mean_log_probability, summed_cross_entropy, summed_log_probability

LAST_TWO = ("conv10", "conv13")
REFERENCES = {
    "vgg": reference.vgg,
    "vgg-gap": reference.vgg_gap,
    "vgg-pan": reference.vgg_pan,
    "rn164": lambda x, w: reference.resnet(x, w, 2, ()),
    "vgg-att-dp": lambda x, w: reference.vgg_attention(x, w, ("conv13",), "dp", "concat"),
    "vgg-att2-indep-dp": lambda x, w: reference.vgg_attention(x, w, LAST_TWO, "dp", "indep"),
    "vgg-att2-concat-dp": lambda x, w: reference.vgg_attention(x, w, LAST_TWO, "dp", "concat"),
    "vgg-att-pc": lambda x, w: reference.vgg_attention(x, w, ("conv13",), "pc", "concat"),
    "vgg-att2-indep-pc": lambda x, w: reference.vgg_attention(x, w, LAST_TWO, "pc", "indep"),
    "vgg-att2-concat-pc": lambda x, w: reference.vgg_attention(x, w, LAST_TWO, "pc", "concat"),
    "vgg-att3-concat-pc": lambda x, w: reference.vgg_attention(x, w, ("conv7", *LAST_TWO), "pc", "concat"),
    "rn164-att": lambda x, w: reference.resnet(x, w, 2, ("stage3",)),
    "rn164-att2": lambda x, w: reference.resnet(x, w, 2, ("stage2", "stage3")),
    "vgg-att2-concat-pctanh": lambda x, w: reference.vgg_attention(x, w, LAST_TWO, "tanh", "concat"),
    "vgg-att2-concat-pcsigmoid": lambda x, w: reference.vgg_attention(x, w, LAST_TWO, "pc", "concat", "sigmoid"),
    "vgg-att2-concat-local": lambda x, w: reference.vgg_attention(x, w, LAST_TWO, "local", "concat"),
    "vgg-att2-concat-pc-globals2": lambda x, w: reference.vgg_attention(
        x, w, LAST_TWO, "pc", "concat", own_globals=True
    ),
    "vgg-att3-concat-pc-up": lambda x, w: reference.vgg_attention(x, w, ("conv7", *LAST_TWO), "pc", "concat"),
    "vgg-att3-concat-pc-plain": lambda x, w: reference.vgg_attention(
        x, w, ("conv7", *LAST_TWO), "pc", "straight", eps=1e-5
    ),
}
DEAD = [
    "vgg-pan",
    "vgg-att-pc",
    "vgg-att2-indep-pc",
    "vgg-att2-concat-pc",
    "vgg-att3-concat-pc",
    "rn164-att",
    "rn164-att2",
    "vgg-att2-concat-pc-globals2",
    "vgg-att3-concat-pc-up",
    "vgg-att3-concat-pc-plain",
]
LIVE = ["vgg-att-dp", "vgg-att2-indep-dp", "vgg-att2-concat-dp", "vgg-att2-concat-pctanh", "vgg-att2-concat-pcsigmoid"]


def test_every_network_has_a_reference():
    assert set(DISTINCT) == set(REFERENCES)


@pytest.mark.parametrize("size", [20, 24])
@pytest.mark.parametrize("variant", REFERENCES)
def test_outputs_equal_the_formulas(variant, size):
    model = unsettled(variant, image_size=size)
    x = images(2, size)
    with torch.no_grad():
        distribution, maps = model(x).softmax(dim=1).numpy(), model.attention(x)
    expected, expected_maps = REFERENCES[variant](x.numpy(), reference.state_of(model))
    np.testing.assert_allclose(distribution, expected, rtol=0, atol=1e-10)
    assert maps.keys() == expected_maps.keys()
    for level, weights in maps.items():
        np.testing.assert_allclose(weights.numpy(), expected_maps[level], rtol=0, atol=1e-10)
        assert weights.std() > 1e-6, "a uniform map would prove nothing"


def dead_parameters(model):
    """Names of what only shifts the scores of a softmax: its global branch, projections of g, bias of u."""
    prefixes = ("branches.", "last_branch.")
    return {
        name
        for name, _ in model.named_parameters()
        if name.startswith(prefixes)
        or "project_global" in name
        or (name.endswith("compatibility.u.bias") and not name.startswith("gate."))
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", DEAD)
def test_the_global_branch_of_pc_gets_no_gradient(variant, dtype):
    """Exactly none: under autocast, what rounding leaves of it would be as large as other gradients."""
    model = unsettled(variant).to(torch.promote_types(dtype, torch.float32)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    x = images(6, 20).to(next(model.parameters()).dtype)
    with torch.autocast("cpu", dtype, enabled=dtype.itemsize < 4):
        loss = model.loss(x, torch.arange(6) % 5)
    loss.backward()
    dead = dead_parameters(model)
    assert dead
    largest = {name: value.grad.abs().max().item() for name, value in model.named_parameters()}
    assert max(largest[name] for name in dead) == 0
    assert min(largest[name] for name in largest if name.endswith("u.weight")) > 1e-9


@pytest.mark.parametrize("variant", [*LIVE, "vgg-pan"])
def test_every_other_global_branch_gets_a_gradient(variant):
    model = unsettled(variant)
    model.loss(images(6, 20), torch.arange(6) % 5).backward()
    dead = dead_parameters(model) if variant == "vgg-pan" else set()
    gradients = {name: value.grad for name, value in model.named_parameters() if name not in dead}
    assert any(name.startswith(("branches.shared.fc16.", "gate_branch.fc16.")) for name in gradients)
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []


@pytest.mark.parametrize("variant", DEAD)
def test_pruning_removes_exactly_what_is_dead(variant):
    model = unsettled(variant)
    pruned = prune_dead_branch(model)
    names = dict(model.named_parameters()).keys() - dict(pruned.named_parameters()).keys()
    assert names == dead_parameters(model)
    x = images(3, 20)
    with torch.no_grad():
        torch.testing.assert_close(pruned(x), model(x), rtol=0, atol=1e-12)
        torch.testing.assert_close(pruned.attention(x), model.attention(x), rtol=0, atol=1e-12)
    assert not pruned.training
    assert not {v.data_ptr() for v in pruned.parameters()} & {v.data_ptr() for v in model.parameters()}


@pytest.mark.parametrize("variant", [*LIVE, "vgg", "rn164"])
def test_pruning_leaves_the_others_alone(variant):
    model = unsettled(variant)
    pruned = prune_dead_branch(model.train())
    assert pruned.training and pruned.architecture == model.architecture
    assert pruned.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("variant", [*(name for name in DEAD if "plain" not in name), "vgg-att2-concat-pcsigmoid"])
def test_the_bias_of_u_matters_only_where_a_sigmoid_reads_the_scores(variant):
    model = unsettled(variant)
    x = images(2, 20)
    for level, before in model.attention(x).items():
        gated = (variant, level) == ("vgg-pan", "conv10")
        unit = model.unit if hasattr(model, "unit") else model.units[level]
        bias = (model.gate if gated else unit.compatibility).u.bias
        with torch.no_grad():
            bias += 3
            change = (model.attention(x)[level] - before).abs().max().item()
            bias -= 3
        assert (change > 1e-6) == (gated or variant.endswith("sigmoid")), change
        assert change < 1e-13 or change > 1e-6


@pytest.mark.parametrize("variant", [*DEAD, *LIVE])
def test_attention_of_a_batch_is_that_of_its_images(variant):
    model = unsettled(variant)
    x = images(3, 20)
    with torch.no_grad():
        together, alone = model.attention(x), [model.attention(image[None]) for image in x]
    for level, weights in together.items():
        torch.testing.assert_close(torch.cat([maps[level] for maps in alone]), weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", [*DEAD, *LIVE])
def test_a_query_changes_maps_only_where_the_global_vector_matters(variant):
    model = unsettled(variant)
    x, query = images(2, 20), images(2, 20, seed=3)
    with torch.no_grad():
        own, other = model.attention(x), model.attention(x, query)
        single = model.attention(x, query[:1])
        again = model.attention(x, x)
    for level, weights in own.items():
        torch.testing.assert_close(again[level], weights, rtol=0, atol=1e-13)
        torch.testing.assert_close(single[level][0], other[level][0], rtol=0, atol=1e-13)
        change = (other[level] - weights).abs().max().item()
        if variant in LIVE or (variant, level) == ("vgg-pan", "conv10"):
            assert change > 1e-7
        elif variant != "vgg-pan":  # its last level reads a map that the gate, hence the query, has changed
            assert change < 1e-13


@pytest.mark.parametrize("kind", ["dp", "pc"])
def test_indep_averages_probabilities_and_sums_losses(kind):
    model = unsettled(f"vgg-att2-indep-{kind}")
    x, y = images(4, 20), torch.tensor([0, 4, 2, 1])
    levels = model.level_logits(x)
    assert len(levels) == 2
    mean = torch.stack([logits.softmax(dim=1) for logits in levels]).mean(dim=0)
    torch.testing.assert_close(model(x).exp(), mean, rtol=0, atol=1e-12)
    summed_log_probabilities = sum(F.log_softmax(logits, dim=1) for logits in levels)
    torch.testing.assert_close(model.loss(x, y), F.nll_loss(summed_log_probabilities, y), rtol=0, atol=1e-12)
    released = unsettled(f"vgg-att2-indep-{kind}", prediction="sum-log-probability")
    torch.testing.assert_close(released(x), summed_log_probabilities, rtol=0, atol=1e-12)
    torch.testing.assert_close(released.loss(x, y), model.loss(x, y), rtol=0, atol=0)
    features = model.features(x)
    torch.testing.assert_close(model.head.linears[0](features[:, :32]), levels[0])


def test_the_two_rules_of_indep_may_predict_different_classes():
    """Two levels that are each sure of a class of their own, and both mildly for a third one."""
    levels = [torch.tensor([[0.7, 0.002, 0.298]]).log(), torch.tensor([[0.002, 0.7, 0.298]]).log()]
    assert mean_log_probability(levels).argmax() != 2
    assert summed_log_probability(levels).argmax() == 2


def test_gradients_image_by_image_add_up_to_those_of_the_batch():
    """Through torch.func, which refuses hand-written derivatives that are not made for it."""
    model = unsettled("vgg-att2-concat-pc")
    x, y = images(3, 20), torch.tensor([0, 4, 2])
    buffers = dict(model.named_buffers())

    def loss(parameters, image, label):
        logits = functional_call(model, (parameters, buffers), (image[None],))
        return F.cross_entropy(logits, label[None])

    single = vmap(grad(loss), (None, 0, 0))({k: v.detach() for k, v in model.named_parameters()}, x, y)
    model.loss(x, y).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(single[name].mean(dim=0), value.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_concat_classifies_its_features():
    model = unsettled("vgg-att3-concat-pc")
    x, y = images(4, 20), torch.tensor([0, 4, 2, 1])
    torch.testing.assert_close(model.head.linear(model.features(x)), model(x))
    torch.testing.assert_close(model.loss(x, y), F.cross_entropy(model(x), y))


def test_one_level_alone_is_its_own_mean():
    logits = torch.randn(3, 4)
    assert mean_log_probability([logits]) is logits and summed_log_probability([logits]) is logits
    targets = torch.tensor([0, 1, 2])
    assert summed_cross_entropy([logits, logits], targets) == 2 * F.cross_entropy(logits, targets)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes,
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(sorted(COMPATIBILITIES)),
    normalise=st.sampled_from(["softmax", "sigmoid"]),
)
def test_attention_averages_whatever_the_order_of_positions(shape, seed, kind, normalise):
    torch.manual_seed(seed)
    batch, channels, height, width = shape
    unit = AttentionUnit(channels, channels, kind, normalise, "global").double()
    local, g = torch.randn(shape, dtype=torch.float64), torch.randn(batch, channels, dtype=torch.float64)
    vector, weights = unit(local, g)
    assert torch.allclose(weights.sum(dim=(1, 2)), torch.ones(batch, dtype=torch.float64))
    flat = local.flatten(2)
    assert (vector <= flat.amax(2) + 1e-12).all() and (vector >= flat.amin(2) - 1e-12).all()
    order = torch.randperm(height * width)
    shuffled, shuffled_weights = unit(flat[:, :, order].view(shape), g)
    assert torch.allclose(shuffled, vector, atol=1e-12)
    assert torch.allclose(shuffled_weights.flatten(1), weights.flatten(1)[:, order], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-1e3, 1e3))
def test_only_the_softmax_ignores_a_shift(seed, shift):
    torch.manual_seed(seed)
    scores = torch.randn(2, 3, 4, dtype=torch.float64)
    assert torch.allclose(spatial_softmax(scores + shift), spatial_softmax(scores), atol=1e-11)
    if shift > 1:
        assert not torch.allclose(spatial_sigmoid(scores + shift), spatial_sigmoid(scores), atol=1e-6)


def test_sigmoid_weights_survive_very_negative_scores():
    weights = spatial_sigmoid(torch.tensor([[[-300.0, -301.0]]]))
    torch.testing.assert_close(weights, torch.tensor([[[0.731059, 0.268941]]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["vgg-att-pc", "vgg-att2-concat-dp", "vgg-att3-concat-pc", "rn164-att2", "vgg-pan"])
def test_averaged_gradients_are_those_of_scaled_tensors(variant):
    """The option against hooks that halve what leaves each map and divide what leaves g by its number of users."""
    plain, averaged = unsettled(variant), unsettled(variant, legacy_grad_avg=True)
    x, y = images(3, 20), torch.tensor([0, 1, 2])

    def scale(factor):
        def forward_hook(module, args, out):
            out.register_hook(lambda gradient: gradient * factor)

        return forward_hook

    levels = plain.attention_levels
    for level in levels:
        part = {"conv7": "section1", "conv10": "section2", "conv13": "section3"}.get(level)
        source = getattr(plain.trunk, part) if part else plain.trunk.stages[level]
        source.register_forward_hook(scale(0.5))
    if variant != "vgg-pan":
        plain.branches["shared"].register_forward_hook(scale(1 / len(levels)))
    torch.testing.assert_close(averaged(x), plain(x), rtol=0, atol=0)
    plain.loss(x, y).backward()
    averaged.loss(x, y).backward()
    expected = dict(plain.named_parameters())
    for name, value in averaged.named_parameters():
        torch.testing.assert_close(value.grad, expected[name].grad, rtol=1e-12, atol=1e-16, msg=name)
    unscaled = unsettled(variant)
    unscaled.loss(x, y).backward()
    assert not torch.allclose(next(unscaled.parameters()).grad, next(averaged.parameters()).grad)


def test_a_gradient_by_finite_differences():
    model = unsettled("vgg-att2-concat-dp")
    x, y = images(2, 20), torch.tensor([0, 1])
    weight = model.trunk.section3.conv13.conv.weight
    model.loss(x, y).backward()
    step = 1e-6
    with torch.no_grad():
        weight[0, 0, 1, 1] += step
        above = model.loss(x, y)
        weight[0, 0, 1, 1] -= 2 * step
        below = model.loss(x, y)
    assert ((above - below) / (2 * step)).item() == pytest.approx(weight.grad[0, 0, 1, 1].item(), rel=1e-4, abs=1e-9)


def test_narrow_float32_agrees_with_float64():
    for variant in ("vgg-att3-concat-pc", "vgg-pan", "rn164-att2"):
        single = narrow(variant, image_size=20).eval()
        x = images(2, 20, dtype=torch.float32)
        with torch.no_grad():
            expected = narrow(variant, image_size=20).eval().double()(x.double())
            torch.testing.assert_close(single(x).double(), expected, atol=1e-5, rtol=1e-4)
