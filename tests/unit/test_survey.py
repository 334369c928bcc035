"""The survey's test bed, blocks, Spatial Transformer and small networks: equations, identities, counts, limits."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ltpa.core.errors import ConfigError, ModelError
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.corpus import pool
from ltpa.data.registry import dataset_declaration
from ltpa.data.scenes import generate
from ltpa.evaluation.gaze import activation_maps, block_change
from ltpa.models.describe import count_macs, count_parameters
from ltpa.models.registry import build_model
from ltpa.models.relational import LocalAttention, NonLocal, ResidualConv, SaganBlock
from ltpa.models.stn import sample, tent
from ltpa.protocols.base import ChosenVariants, Context
from ltpa.protocols.gaze import Gaze

FUNCTIONS = ("gaussian", "embedded", "dot", "concatenation")
BLOCKS = [{"block": "nonlocal", "block_function": name} for name in FUNCTIONS]
BLOCKS += [{"block": "sagan"}, {"block": "local"}, {"block": "conv"}]


def network(family="vgg-block", size=20, **options):
    torch.manual_seed(0)
    return build_model({"family": family, "width": 1 / 16, **options}, 4, size)


def images(count=3, size=20, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ---- data ----


@pytest.fixture(scope="module")
def made():
    declaration = dataset_declaration("gaze-cluttered")
    short = {"train": {"count": 60, "pool": "train"}, "test": {"count": 600, "pool": "test"}}
    return generate("gaze-cluttered", {**declaration, "splits": short})


def test_digits_stand_anywhere_and_masks_are_their_own_ink(made):
    classes, splits, _ = made
    test = splits["test"]
    assert test.images.shape == (600, 40, 40, 3) and np.bincount(test.labels).tolist() == [60] * len(classes)
    assert (test.images == test.images[..., :1]).all(), "grey"
    assert (test.images[..., 0][test.masks == 1] >= 127).all()
    inside = np.zeros((40, 40))
    for (x0, y0, x1, y1), mask in zip(test.boxes.astype(int), test.masks, strict=True):
        assert mask[y0:y1, x0:x1].sum() == mask.sum() and mask[y0:y1, x0:x1].any(axis=0).all()
        inside[y0:y1, x0:x1] += 1
    corners = np.array([text.partition("+")[0].split("-")[1:] for text in test.ids.tolist()])
    x, y = (np.array([int(text[1:]) for text in column]) for column in corners.T)
    for place in (x, y):  # uniform over 0 ... 24
        assert place.min() == 0 and place.max() == 24 and abs(place.mean() - 12) < 4 * 7.2 / math.sqrt(600)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.15 and inside.max() < 0.6 * 600


def test_pools_share_no_glyph_and_pieces_are_added(made):
    _, splits, _ = made
    used = {name: {int(g) for text in split.ids for g in _glyphs(text)} for name, split in splits.items()}
    assert not used["train"] & used["test"] and used["test"] <= set(pool("test").digits.tolist())
    assert all(text.count("+") == 4 for text in splits["test"].ids.tolist())
    outside = splits["test"].images[..., 0] * (1 - splits["test"].masks)
    assert (outside.reshape(600, -1) > 127).any(axis=1).mean() > 0.9


def _glyphs(text):
    return [part.partition("-")[0][1:] for part in text.split("+")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 12}, "image_size 12; it must be from 16"),
        ({"style": {"glyph": 16, "pieces": [4, 17]}}, "pieces of 17 pixels; they are cut from glyphs"),
        ({"style": {"glyph": 16, "place": "left"}}, "'place' is 'left'"),
        ({"splits": {"train": {"count": 5, "pool": "train"}}}, "a count of at least 10"),
    ],
)
def test_scenes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        generate("mine", {**dataset_declaration("gaze-cluttered"), **change})


# ---- blocks ----


@pytest.mark.parametrize("options", BLOCKS, ids=lambda options: options.get("block_function", options["block"]))
def test_a_fresh_block_changes_no_bit_and_only_its_last_factor_learns(options):
    plain, model, x = network("vgg"), network(**options), images()
    assert torch.equal(plain.eval()(x), model.eval()(x))
    logits = []
    for each in (plain.train(), model.train()):
        torch.manual_seed(3)
        loss, found = each.loss_and_logits(x, torch.arange(3))
        logits.append(found)
    assert torch.equal(*logits)
    loss.backward()
    moved = {name for name, value in model.block.named_parameters() if value.grad is not None and value.grad.any()}
    last = {"sagan": {"gamma"}, "local": {"out.weight", "out.bias"}}
    assert moved == last.get(options["block"], {"norm.weight", "norm.bias"})
    assert model.eval().attention_levels == (() if options["block"] == "conv" else ("conv7",))


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_non_local_block_is_its_equation(function, pool):
    """Pair by pair, in float64; `concatenation` with the pairs' tensor."""
    torch.manual_seed(0)
    block = NonLocal(6, function, pool, "none").double().eval()
    torch.nn.init.ones_(block.norm.weight)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    keys = torch.nn.functional.max_pool2d(x, pool).flatten(2) if pool > 1 else x.flatten(2)
    flat, found = x.flatten(2), torch.zeros(2, 3, 16, dtype=torch.float64)

    def through(layer, vector):
        return layer.weight.flatten(1) @ vector + layer.bias

    for n in range(2):
        for i in range(16):
            scores = []
            for j in range(keys.shape[2]):
                query, key = flat[n, :, i], keys[n, :, j]
                if function != "gaussian":
                    query, key = through(block.theta, query), through(block.phi, key)
                if function == "concatenation":
                    scores.append((block.compare.weight.flatten() @ torch.cat([query, key])).clamp(min=0))
                else:
                    scores.append(query @ key)
            weights = torch.stack(scores)
            weights = weights.softmax(0) if function in ("gaussian", "embedded") else weights / len(scores)
            found[n, :, i] = sum(w * through(block.g, keys[n, :, j]) for j, w in enumerate(weights))
    expected = x + block.norm(block.out(found.view(2, 3, 4, 4)))
    assert float((block(x) - expected).abs().max().detach()) < 1e-12
    rows = block.weights(x).sum(dim=2)
    assert torch.allclose(rows, torch.ones_like(rows)) == (function in ("gaussian", "embedded"))


def test_embedded_without_embedding_is_gaussian():
    torch.manual_seed(0)
    block = NonLocal(6, "embedded", 1, "none").double()
    for part in (block.theta, block.phi):
        part.weight.data = torch.eye(6, dtype=torch.float64)[:, :, None, None]
        part.bias.data = torch.zeros(6, dtype=torch.float64)
    x = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    gaussian = NonLocal(6, "gaussian", 1, "none").double()
    assert torch.allclose(block.weights(x), gaussian.weights(x), atol=1e-12)


def test_positions_are_a_set_to_a_non_local_block_but_not_to_the_others():
    """Permuting positions permutes the output; with pooling, and within windows, it does not."""
    torch.manual_seed(0)
    x, order = torch.randn(2, 8, 4, 4), torch.randperm(16)

    def permuted(y):
        return y.flatten(2)[:, :, order].view(y.shape)

    for block, equal in (
        (NonLocal(8, "embedded", 1, "sqrt"), True),
        (NonLocal(8, "embedded", 2, "none"), False),
        (LocalAttention(8, 3, 2), False),
    ):
        last = block.out if isinstance(block, LocalAttention) else block.norm
        torch.nn.init.normal_(last.weight)
        block.eval()
        difference = (permuted(block(x)) - block(permuted(x))).abs().max().detach()
        assert (float(difference) < 1e-5) == equal


def test_local_attention_is_a_softmax_over_the_neighbours_that_there_are():
    torch.manual_seed(0)
    block = LocalAttention(8, 3, 2).double()
    torch.nn.init.normal_(block.offsets)
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    found = block._by_head(x)[0]
    query, key = block.query(x)[0], block.key(x)[0]
    for head in range(2):
        for row, column in ((0, 0), (1, 3), (3, 4)):
            scores, places = [], []
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    y, z = row + down, column + right
                    if 0 <= y < 4 and 0 <= z < 5:
                        part = slice(4 * head, 4 * head + 4)
                        offset = block.offsets[head, 3 * (down + 1) + right + 1]
                        scores.append(query[part, row, column] @ key[part, y, z] / 2 + offset)
                        places.append(5 * y + z)
            expected = torch.zeros(20, dtype=torch.float64)
            expected[places] = torch.stack(scores).softmax(0)
            assert torch.allclose(found[head, 5 * row + column], expected, atol=1e-12)


def test_received_attention_is_the_mean_over_queries():
    torch.manual_seed(0)
    block, x = NonLocal(8, "embedded", 2, "none"), torch.randn(2, 8, 5, 4)
    received = block.received(x)
    keys = block.weights(x).mean(dim=1).view(2, 2, 2)
    assert torch.allclose(received[:, :4:2, ::2], keys / 4, atol=1e-6) and not received[:, 4].any()
    assert torch.allclose(received.sum(dim=(1, 2)), torch.ones(2))
    nothing = NonLocal(8, "concatenation", 1, "none")
    torch.nn.init.zeros_(nothing.compare.weight)
    assert torch.allclose(nothing.received(x), torch.full((2, 5, 4), 1 / 20))


def test_counts_are_the_published_ones():
    counts = {name: count_parameters(NonLocal(512, name, 2, "none")) for name in FUNCTIONS}
    assert counts == {"gaussian": 263_936, "embedded": 526_592, "dot": 526_592, "concatenation": 527_104}
    assert count_parameters(SaganBlock(512, 2)) == 327_681
    assert count_parameters(LocalAttention(512, 5, 4)) == 4 * (512**2 + 512) + 4 * 25
    assert abs(count_parameters(ResidualConv(512)) / 526_592 - 1) < 0.01
    with torch.device("meta"):
        for options, size, parameters, macs in (
            ({"family": "mlp"}, 28, 269_322, 268_800),
            ({"family": "mlp"}, 60, 990_218, 989_696),
            ({"family": "conv2"}, 28, 36_402, 48_128),
            ({"family": "conv2"}, 60, 251_442, 347_168),
            ({"family": "conv2"}, 100, 742_962, 1_030_688),
        ):
            model = build_model(options, 10, size)
            assert (count_parameters(model), count_macs(model)) == (parameters, macs)
        with_block, without = (network(**options, size=32) for options in ({"block": "nonlocal"}, {"family": "vgg"}))
    n, m, c, inner = 64, 16, 16, 8
    block = n * c * inner + 2 * m * c * inner + 2 * n * m * inner + n * inner * c
    assert count_macs(with_block) - count_macs(without) == block


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"block": "sagan", "block_function": "dot"}, 20, "block_function is no option of block sagan"),
        ({"block": "nonlocal", "block_function": "dot", "block_scale": "sqrt"}, 20, "block_scale sqrt goes with"),
        ({"block": "local", "block_window": 4}, 20, "block_window is 4; it must be odd"),
        ({"block": "local", "block_heads": 3}, 20, "block_heads 3 does not divide the 16 channels"),
        ({"block": "local", "block_window": 11}, 20, "a window of 9 reaches"),
        ({"block": "nonlocal", "block_after": "conv11"}, 20, "block_after"),
        ({"block": "sagan", "block_after": "conv13"}, 17, None),
        ({"family": "stn", "output": 40}, 28, "output is 40 pixels, and images have 28"),
        ({"family": "stn", "transform": "affine", "zoom": 0.5}, 28, "zoom is fixed for transform translation alone"),
        ({"family": "mlp", "hidden": 0}, 28, "'hidden' is 0"),
        ({"family": "conv2"}, 9, "use a whole number from 10"),
    ],
)
def test_networks_that_cannot_be_are_refused(options, size, message):
    if message is None:
        network(size=size, **options)
        return
    with pytest.raises(ModelError, match=message):
        network(size=size, **options)


def test_block_change_is_zero_at_first_and_a_ratio_then():
    model = network(block="nonlocal", block_function="dot").eval()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    assert block_change(model, pixels, 2) == 0 and block_change(network("vgg").eval(), pixels, 2) is None
    torch.nn.init.constant_(model.block.norm.bias, 0.5)
    given = model.trunk.local("conv7", torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).detach()
    expected = 0.5 / float(given.double().square().mean().sqrt())
    assert block_change(model, pixels, 2) == pytest.approx(expected, rel=1e-5)
    assert activation_maps(model, pixels, 2).shape == (5, 5, 5)
    assert activation_maps(network("stn", output=8).eval(), pixels, 2) is None


# ---- Spatial Transformer ----


def theta(scale_x, scale_y, x, y):
    return torch.tensor([[[scale_x, 0.0, x], [0.0, scale_y, y]]], dtype=torch.float64)


def test_the_identity_shows_the_image_and_known_windows_their_crops():
    """A crop of whole pixels is exact; exchanged axes would show another one, as the two shifts differ."""
    image = torch.rand(1, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sample(image, theta(1, 1, 0, 0), 12), image, atol=1e-12)
    crop = sample(image, theta(0.5, 0.5, 2 / 12, -4 / 12), 6)  # 6 pixels around (7, 4)
    assert torch.allclose(crop, image[:, :, 1:7, 4:10], atol=1e-12)


@pytest.mark.parametrize(("transform", "zoom"), [("affine", 1), ("attention", 1), ("translation", 0.5)])
def test_the_window_begins_in_the_middle_and_its_map_peaks_there(transform, zoom):
    options = {"transform": transform, "output": 8} | ({"zoom": zoom} if zoom != 1 else {})
    model = network("stn", size=21, **options).eval()
    start = model.theta(images(size=21))
    assert torch.equal(start, theta(zoom, zoom, 0, 0).float().expand(3, 2, 3))
    (window,) = model.attention(images(size=21)).values()
    assert window.flatten(1).argmax(dim=1).tolist() == [21 * 10 + 10] * 3
    assert torch.allclose(window.sum(dim=(1, 2)), torch.ones(3))
    model.train()
    model.loss(images(size=21), torch.arange(3)).backward()
    assert model.localisation.last.weight.grad.any(), "where to look is learned from the first step on"


def test_a_tent_has_one_peak_and_an_even_map_stands_for_a_window_outside():
    maps = tent(torch.tensor([[0.5, -0.25], [3.0, 0.0]]), torch.tensor([[0.25, 0.5], [0.5, 0.5]]), 16)
    assert torch.equal(maps[1], torch.full((16, 16), 1 / 256))
    row, column = np.unravel_index(int(maps[0].argmax()), (16, 16))
    assert column in (11, 12) and row in (5, 6) and float(maps[0, 0].sum()) == 0


# ---- protocol ----


@pytest.mark.parametrize("options", [{"block": "nonlocal"}, {"family": "stn", "output": 8}, {"family": "mlp"}])
def test_gaze_measures_every_kind_of_network_beside_its_nulls(made, options):
    classes, splits, facts = made
    few = {"test": Split(**{name: array[:30] for name, array in splits["test"].arrays().items()})}
    model = network(size=40, **options).eval()
    model = build_model(model.architecture, len(classes), 40).eval()
    dataset = PreparedDataset("gaze-cluttered", classes, few, "0" * 64, facts)
    context = Context([], {}, 0, Path())
    found = Gaze().measure(model, [dataset], ChosenVariants(), context).metrics
    values = {(metric.name, metric.condition): metric.value for metric in found}
    maps = {condition for name, condition in values if name == "pointing_in_box_pct"}
    assert maps == {"centre"} | ({"last", "untrained"} if model.attention_levels else set()) | (
        {"activations"} if options.get("block") else set()
    )
    assert (values.get(("block_change", "")) == 0) == ("block" in options)
    assert values["parameters", ""] == count_parameters(model) and values["macs", ""] == count_macs(model)
    area = np.diff(few["test"].boxes.reshape(-1, 2, 2), axis=1).prod(axis=2).mean() / 1600
    assert values["box_chance_pct", "centre"] == pytest.approx(100 * float(area))
