"""Pixels: levels, networks that see the past alone, codes, the arithmetic coder, training, and what is measured."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from ltpa.core import layout
from ltpa.core.errors import ConfigError, DataError, ModelError
from ltpa.core.per_image import load_hits
from ltpa.core.records import metric_value, read_record
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import PreparedDataset, Split, write_prepared
from ltpa.data.levels import generate
from ltpa.evaluation import codes, likelihood
from ltpa.evaluation.coder import TOTAL, Decoder, Encoder, counts_of
from ltpa.models import load, resolve_architecture
from ltpa.models.pixels import window
from ltpa.models.registry import build_model, parse_options
from ltpa.protocols.base import Context
from ltpa.protocols.registry import find
from ltpa.stages import train
from ltpa.training.loop import Interrupted, Watch
from ltpa.training.pixel_recipe import PixelRecipe
from ltpa.training.pixels import PixelTrainer

FAMILIES = {
    "pixelcnn": {"kind": "pixelcnn", "hidden": 6, "depth": 2, "first_kernel": 3, "kernel": 3},
    "wide": {"kind": "pixelcnn", "hidden": 6, "depth": 1, "first_kernel": 7, "kernel": 5},
    "gated": {"kind": "gated", "hidden": 6, "depth": 3, "first_kernel": 3, "kernel": 3},
    "gated wide": {"kind": "gated", "hidden": 6, "depth": 2, "first_kernel": 5, "kernel": 5},
    "local": {"kind": "attention", "hidden": 8, "depth": 2, "heads": 2, "block": 4, "memory": 4, "inner": 8},
    "odd": {"kind": "attention", "hidden": 8, "depth": 1, "heads": 2, "block": 5, "memory": 0, "inner": 8},
    "full": {"kind": "attention", "hidden": 8, "depth": 1, "heads": 2, "memory": "all", "inner": 8},
}


def network(kind="pixelcnn", levels=3, image_size=8, **options):
    torch.manual_seed(1)
    chosen = {"family": "pixels", **FAMILIES[kind], **options}
    return build_model(chosen, levels, image_size).double().eval()


def pixels(count, height, width, levels=3, seed=2):
    return torch.randint(levels, (count, height, width), generator=torch.Generator().manual_seed(seed))


def made(form="digits", size=8, levels=17, **other):
    declaration = {"style": {"form": form}, "image_size": size, "classes": [str(level) for level in range(levels)],
                   "splits": {"train": {"pool": "train", "tenth": "without"}, "test": {"pool": "test"},
                              "validation": {"pool": "train", "tenth": "only"}}, **other}  # fmt: skip
    return generate("small", declaration)[1]


# --- the images ------------------------------------------------------------------------------------------------------


def test_digits_are_those_that_are_stored_and_no_two_splits_share_one():
    from sklearn.datasets import load_digits

    splits = made()
    for split in splits.values():
        numbers = [int(text[1:]) for text in split.ids]
        assert (split.more["pixels"] == load_digits().images[numbers]).all() and not split.more["repeats"].any()
    assert sum(len(split) for split in splits.values()) == 1797 == len(set().union(*(s.ids for s in splits.values())))


def test_rows_of_echo_images_come_back_four_rows_below():
    split = made("echo", 12, 8)["test"]
    found = split.more["pixels"]
    assert found.shape[1:] == (12, 8) and found.max() == 7 and (found[:, 4:] == found[:, :-4]).all()
    assert (split.more["repeats"] == [0] * 4 + [1] * 8).all() and split.images.shape[1:] == (12, 12, 3)


@pytest.mark.parametrize(("form", "size", "levels"), [("digits", 8, 17), ("echo", 12, 8)])
def test_networks_read_the_levels_back_from_the_images(form, size, levels):
    split = made(form, size, levels)["test"]
    model = network("pixelcnn", levels, size)
    read = model.pixels_of(torch.from_numpy(split.images).permute(0, 3, 1, 2).double())
    assert (read[:, :, :8].numpy() == split.more["pixels"]).all()


@pytest.mark.parametrize(("change", "says"), [
    ({"style": {"form": "letters"}}, "form"),
    ({"classes": ["a", "b"]}, "its classes must be 0 to 16"),
    ({"image_size": 12}, "image_size 12; it must be 8"),
    ({"splits": {"train": {"pool": "train", "tenth": "half"}}}, "tenth"),
])  # fmt: skip
def test_images_that_cannot_be_made_are_refused(change, says):
    with pytest.raises(ConfigError, match=says) as caught:
        made(**change)
    assert "\n" not in str(caught.value)


# --- the networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", FAMILIES)
def test_no_pixel_matters_to_itself_or_to_one_before(kind, dtype):
    for height, width in ((8, 8), (6, 5), (1, 1)):
        found = likelihood.influence(network(kind).to(dtype), pixels(3, height, width))
        assert likelihood.reach(found, width).leaks == 0


def test_a_leak_is_found():
    model = network("pixelcnn")
    model.first.centre = True  # type B in the first layer
    assert likelihood.reach(likelihood.influence(model, pixels(3, 4, 4)), 4).leaks == 16
    model = network("gated", levels=6)
    model.layers[0].is_first = False  # a residual around the first layer, whose input is the pixel itself
    assert likelihood.reach(likelihood.influence(model, pixels(3, 4, 4)), 4).leaks == 16


def test_a_stack_of_the_rows_above_that_is_not_shifted_leaks(monkeypatch):
    usual = torch.nn.functional.pad
    monkeypatch.setattr(
        "ltpa.models.pixels.F.pad", lambda x, sides: usual(x, (0, 0, 0, 1) if sides == (0, 0, 1, 0) else sides)
    )
    assert likelihood.reach(likelihood.influence(network("gated"), pixels(3, 4, 4)), 4).leaks > 16


def predicted(height, width, first, kernel, depth):
    """Which pixel matters to which in a stack of masked convolutions: paths through the masks, by hand."""

    def step(middle, half):
        offsets = [(-up, aside) for up in range(1, half + 1) for aside in range(-half, half + 1)]
        return offsets + [(0, -left) for left in range(0 if middle else 1, half + 1)]

    found = np.zeros((height * width,) * 2, bool)
    for row, column in itertools.product(range(height), range(width)):
        at = {(row, column)}
        for middle, half in [(True, kernel // 2)] * depth + [(False, first // 2)]:
            moved = {(r + dr, c + dc) for r, c in at for dr, dc in step(middle, half)}
            at = {(r, c) for r, c in moved if 0 <= r < height and 0 <= c < width} | (at if middle else set())
        for r, c in at:
            found[r * width + c, row * width + column] = True
    return found


@pytest.mark.parametrize("kind", ["pixelcnn", "wide"])
def test_a_pixelcnn_sees_what_its_masks_let_through_and_no_more(kind):
    options = FAMILIES[kind]
    found = likelihood.influence(network(kind), pixels(12, 8, 8))
    wanted = predicted(8, 8, options["first_kernel"], options["kernel"], options["depth"])
    assert (found == wanted).all()


def test_the_blind_spot_stays_at_every_depth_and_gates_have_none():
    deep = likelihood.influence(network("pixelcnn", depth=8), pixels(12, 8, 8))
    unseen = {divmod(int(j), 8) for j in np.flatnonzero(~deep[: 4 * 8 + 4, 4 * 8 + 4])}
    assert unseen == {(3, 6), (3, 7), (2, 7)}
    gated = likelihood.reach(likelihood.influence(network("gated", depth=8), pixels(12, 8, 8)), 8)
    assert gated.seen_pct == 100 and gated.rows == 7


def test_full_attention_sees_all_and_local_attention_its_windows():
    assert likelihood.reach(likelihood.influence(network("full"), pixels(3, 6, 5)), 5).seen_pct == 100
    found = likelihood.influence(network("local"), pixels(3, 8, 8))
    hops = window(64, 4, 4).numpy().astype(int)
    wanted = np.zeros((64, 64), bool)
    wanted[:-1] = ((hops @ hops) > 0).T[1:]  # inputs are shifted by one
    assert (found == wanted).all()


def test_windows_in_numbers():
    assert window(5, 2, 1).int().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1],
    ]  # fmt: skip
    assert torch.equal(window(7, 8, 3), window(7, 2, "all")) and window(3, 1, 0).int().tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize(("height", "width", "levels"), [(2, 2, 2), (2, 3, 3)])
def test_probabilities_of_all_images_sum_to_1(kind, height, width, levels):
    model = network(kind, levels)
    every = torch.tensor(list(itertools.product(range(levels), repeat=height * width))).view(-1, height, width)
    with torch.no_grad():
        total = (-model.nats(every).sum((1, 2))).exp().sum()
    assert abs(total.item() - 1) < 1e-10


@pytest.mark.parametrize("kind", ["pixelcnn", "gated", "full"])
def test_drawn_images_are_as_frequent_as_they_are_likely(kind):
    model = network(kind, 2)
    every = torch.tensor(list(itertools.product(range(2), repeat=4))).view(-1, 2, 2)
    with torch.no_grad():
        p = (-model.nats(every).sum((1, 2))).exp().numpy()
    draws = np.random.default_rng(0).random((20_000, 4))
    found = likelihood.complete(model, torch.zeros(20_000, 2, 2, dtype=torch.int64), 0, draws).flatten(1)
    count = np.bincount((found @ torch.tensor([8, 4, 2, 1])).numpy(), minlength=16)
    assert ((count - 20_000 * p) ** 2 / (20_000 * p)).sum() < 37.7  # chi-square of 15 degrees, p = 0.001


@pytest.mark.parametrize("kind", ["pixelcnn", "gated", "full"])
def test_a_zero_last_layer_costs_the_uniform_code(kind):
    model = network(kind, 17)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    assert np.abs(likelihood.bits(model, pixels(5, 8, 8, 17), 2) - math.log2(17)).max() < 1e-12


def test_networks_with_memories_of_different_size_have_equal_parameters():
    sizes = {
        build_model(resolve_architecture(f"attention-{memory}"), 8, 12).weights_used() for memory in (8, 32, "all")
    }
    assert sizes == {9 * 32 + 24 * 32 + 2 * (4 * 32**2 + 2 * 32 * 64 + 64 + 32 + 4 * 32) + 33 * 8}


def test_hidden_weights_are_not_counted():
    model = network("pixelcnn")
    shown = sum(p.numel() for p in model.parameters()) - 3 * 12 * 5 - 2 * 6 * 6 * 4
    assert model.weights_used() == shown


@pytest.mark.parametrize(("options", "says"), [
    ({"kind": "pixelcnn", "kernel": 4}, "kernel is 4; it must be odd"),
    ({"kind": "gated", "first_kernel": 6}, "first_kernel is 6; it must be odd"),
    ({"kind": "attention", "hidden": 10}, "4 heads do not divide 10 channels"),
    ({"kind": "attention", "block": 0}, "block"),
    ({"kind": "attention", "memory": -1}, "memory"),
    ({"kind": "attention", "position_sd": 0}, "position_sd"),
    ({"kind": "pixelrnn"}, "kind"),
    ({}, "kind"),
])  # fmt: skip
def test_impossible_options_are_refused(options, says):
    with pytest.raises(ModelError, match=says) as caught:
        parse_options({"family": "pixels", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("level", "size", "says"), [
    (3, 4, r"image 1, row 2, column 3: level 3, and the network knows 0 to 2"),
    (-1, 4, "level -1"),
    (0, 9, "sides up to 8"),
])  # fmt: skip
def test_pixels_that_the_network_does_not_know_are_refused(level, size, says):
    bad = torch.zeros(2, size, size, dtype=torch.int64)
    bad[1, 2, 3] = level
    with pytest.raises(ModelError, match=says):
        network("pixelcnn").logits(bad)


# --- codes and the coder ---------------------------------------------------------------------------------------------


def test_contexts_are_counted_as_by_hand():
    train = np.array([[[0, 1], [1, 1]], [[0, 0], [1, 1]]])
    test = np.array([[[0, 1], [0, 1]]])
    p = {
        "uniform": [1 / 2] * 4,
        "histogram": [3.1 / 8.2, 5.1 / 8.2, 3.1 / 8.2, 5.1 / 8.2],
        "position": [2.1 / 2.2, 1.1 / 2.2, 0.1 / 2.2, 2.1 / 2.2],
        "left": [2.1 / 4.2, 1.1 / 2.2, 2.1 / 4.2, 1.1 / 2.2],  # border, 0, border, 0
        "left-upper": [2.1 / 2.2, 1.1 / 2.2, 0.1 / 2.2, 1 / 2],  # the last context, 0 and 1, was never seen
    }
    for context in codes.CONTEXTS:
        found = codes.context_bits(train, test, 2, context)
        assert np.allclose(found.ravel(), -np.log2(p[context])), context


def test_lzma_finds_what_repeats():
    random = np.random.default_rng(0).integers(8, size=(400, 4, 8)).astype(np.uint8)
    once, thrice = (codes.lzma_bits_per_dim(np.tile(random, (1, times, 1))) for times in (1, 3))
    assert once > 3 and thrice < 0.6 * once


@pytest.mark.parametrize("count", [0, 1, 2, 7, 300])
def test_symbols_come_back_from_as_many_bits_as_they_are_unlikely(count):
    rng = np.random.default_rng(count)
    for _ in range(20):
        counts = counts_of(rng.dirichlet(np.full(5, 0.1), size=count))
        assert (counts.sum(1) == TOTAL).all() and (counts >= 1).all()
        symbols = rng.integers(5, size=count).tolist()  # also unlikely ones
        coder = Encoder()
        for row, symbol in zip(counts, symbols, strict=True):
            coder.put(row, symbol)
        message, length = coder.message()
        stated = -np.log2(counts[np.arange(count), symbols] / TOTAL).sum() if count else 0
        assert 0 <= message < 2**length and stated <= length <= stated + 2
        decoder = Decoder(message, length)
        assert [decoder.get(row) for row in counts] == symbols


@pytest.mark.parametrize("kind", ["pixelcnn", "gated", "local", "full"])
def test_a_network_restores_images_from_their_stated_bits(kind):
    model, images = network(kind, 17), pixels(5, 8, 8, 17)
    messages = likelihood.encode(model, images)
    stated = likelihood.bits(model, images, 5).sum((1, 2))
    assert all(8 * -(-n // 8) <= bits + 16 for (_, n), bits in zip(messages, stated, strict=True))
    assert torch.equal(likelihood.decode(model, messages, 8, 8), images)
    other = network("full", 17, heads=1)
    assert not torch.equal(likelihood.decode(other, messages, 8, 8), images)


@pytest.mark.parametrize("draws", [np.random.default_rng(1).random((4, 64)), None], ids=["drawn", "most likely"])
def test_completions_keep_the_given_half_and_do_not_depend_on_their_batch(draws):
    model, images = network("local"), pixels(4, 8, 8)
    found = likelihood.complete(model, images, 4, draws)
    assert torch.equal(found[:, :4], images[:, :4]) and not torch.equal(found, images)
    other = images.clone()
    other[:, 4:] = 0
    assert torch.equal(likelihood.complete(model, other, 4, draws), found)  # nothing of the lower half is seen
    alone = likelihood.complete(model, images[2:3], 4, None if draws is None else draws[2:3])
    assert torch.equal(alone, found[2:3])


# --- training and measuring ------------------------------------------------------------------------------------------

ROUTINE = {"learning": "likelihood", "epochs": 2, "batch_size": 4, "lr": 0.01, "optimizer": "adam", "clip": 1.0}


def run(folder, stop_at=None):
    """A training of two epochs, or what is left of one, up to the `stop_at`th question whether to stop."""
    model = network("gated", image_size=4).float()
    recipe = PixelRecipe.from_dict({**ROUTINE, "evaluation_batch": 5, "checkpoint_seconds": 0}, "test")
    asked = itertools.count(1)
    watch = Watch(should_stop=lambda: next(asked) == stop_at)
    images = pixels(12, 4, 4)
    images[:, 2:] = images[:, :2]
    trainer = PixelTrainer(model, images, images, recipe, 7, folder, watch)
    return trainer, trainer.run


def test_a_training_that_is_cut_off_ends_with_the_same_bits(tmp_path):
    whole, go = run(tmp_path / "whole")
    history = go()
    assert history[1].test_bits_per_dim < history[0].test_bits_per_dim < 2 and math.isnan(history[1].train_error_pct)
    assert whole.test_logits().shape == (12, 16)
    assert float(whole.test_logits().double().mean()) / math.log(2) == pytest.approx(history[1].test_bits_per_dim)
    for stop in (2, 5, 8):  # within an epoch, in an evaluation, in the second epoch
        _, go = run(tmp_path / str(stop), stop)
        with pytest.raises(Interrupted):
            go()
        again, go = run(tmp_path / str(stop))
        go()
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, again.model.state_dict()[name]), name
        for one, other in zip(whole.history, again.history, strict=True):
            assert (one.train_loss, one.test_bits_per_dim) == (other.train_loss, other.test_bits_per_dim)
        assert torch.equal(whole.test_logits(), again.test_logits())


def prepared(results):
    split = made("echo", 12, 8)["test"]
    few = Split.from_arrays({name: array[:40] for name, array in split.arrays().items()})
    folder = layout.data_dir(results, "digits-echo")
    write_prepared(folder, "digits-echo", [str(level) for level in range(8)], {"train": few, "test": few}, {})
    return PreparedDataset.open(folder)


def test_from_images_to_what_is_said_of_a_network(tmp_path):
    dataset = prepared(tmp_path)
    architecture = resolve_architecture("pixelcnn", hidden=8)
    routine = {**ROUTINE, "epochs": 1}
    train.run(TrainSpec("small", "digits-echo", 1, "pixelcnn", architecture, 8, 12, routine), tmp_path, [0])
    folder = layout.run_dir(tmp_path, "train", "digits-echo", "pixelcnn", 0)
    record, model = read_record(folder / layout.RECORD), load(folder / layout.MODEL)
    hits = load_hits(folder, record, "test_error_pct", "")
    assert 100 * (1 - hits.mean()) == pytest.approx(metric_value(record, "test_error_pct"))

    protocol = find("likelihood")
    context = Context([], {}, 0, tmp_path, record)
    settings = protocol.Settings(batch_size=7, coded=2, completed=3, changed=2)
    found = protocol.measure(model, [dataset], settings, context).metrics
    values = {(m.name, m.condition): m.value for m in found}
    assert {kind.name for kind in protocol.metrics} == {name for name, _ in values}
    assert values["bits_per_dim", "test"] == pytest.approx(metric_value(record, "test_bits_per_dim"), rel=1e-5)
    rows = [values["row_bits_per_dim", str(row + 1)] for row in range(12)]
    assert np.mean(rows) == pytest.approx(values["bits_per_dim", "test"])
    assert np.mean(rows[4:]) == pytest.approx(values["repeated_bits_per_dim", ""])
    assert np.mean(rows[6:]) == pytest.approx(values["lower_half_bits_per_dim", ""])
    assert values["restored_pct", ""] == values["kept_pct", "drawn"] == 100 and values["leaks", ""] == 0
    assert values["most_spare_bits", ""] <= 16 and values["seen_past_pct", ""] > 50
    checks = {check.check: check.passed for check in protocol.checks({}, "it", [dataclasses.replace(
        record, metrics=found)], {})}  # fmt: skip
    assert checks == {"network beats context": False, "coder restores": True}


def test_images_without_levels_are_refused(tmp_path):
    split = dataclasses.replace(made("echo", 12, 8)["test"], more={})
    folder = layout.data_dir(tmp_path, "digits-echo")
    write_prepared(folder, "digits-echo", [str(level) for level in range(8)], {"train": split, "test": split}, {})
    architecture = resolve_architecture("attention-8")
    with pytest.raises(DataError, match="digits-echo: its images have no levels"):
        train.run(TrainSpec("small", "digits-echo", 1, "attention-8", architecture, 8, 12, ROUTINE), tmp_path, [0])
