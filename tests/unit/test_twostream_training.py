"""Two-stream inputs, recipes, training, readouts and stages on networks of a few hundred weights."""

import dataclasses
import json
import shutil
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import two_stream, two_stream_options
from scipy.stats import binom
from torch.nn import functional

from ltpa.core import layout
from ltpa.core.declared import load_declaration
from ltpa.core.errors import ConfigError, DataError, MemoryFullError, ModelError, TrainingError
from ltpa.core.per_image import load_hits
from ltpa.core.records import read_record
from ltpa.core.specs import ProtocolSpec, TrainSpec
from ltpa.data.arrays import PreparedDataset, Split, write_prepared
from ltpa.data.boxes import Boxes, write_boxes
from ltpa.evaluation.step_maps import step_maps
from ltpa.evaluation.twostream import Block, blocks, holds_part, readouts, score
from ltpa.models.store import load
from ltpa.models.twostream.inputs import Views, crop, draw_views, follow, look, patches_of, shown
from ltpa.runtime.stopping import Stopped, StopRequest
from ltpa.stages import measure, step_pictures, train
from ltpa.stages.training import Watcher
from ltpa.tables.mcnemar import mcnemar
from ltpa.training.fine_data import FineData, held_out
from ltpa.training.journal import LOG, PROGRESS, read_about, read_metrics
from ltpa.training.loop import Interrupted, Watch
from ltpa.training.schedule import epoch_rate
from ltpa.training.two_stream_recipe import TwoStreamRecipe
from ltpa.training.twostream import TwoStreamStepper, TwoStreamTrainer

SIZE, CLASSES, RANKS = 16, 3, 3
NETWORK = {
    "trunk": "vgg6_bn", "width": 0.0625, "image_size": 8, "patch_size": 8, "steps": 3, "hidden": 6, "layers": 1,
    "key_channels": 4, "basis_size": 2,
}  # fmt: skip
RECIPE = {"learning": "two-stream", "epochs": 2, "batch_size": 8, "lr": 0.02, "lr_local": 0.1, "evaluate_every": 1}


def made(count, seed=0):
    """Images whose class is the colour of a 4 px square, with boxes, the best of which holds it."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 150, (count, SIZE, SIZE, 3)).astype(np.uint8)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    corner = rng.integers(0, SIZE - 4, (count, 2))
    for image, label, (y, x) in zip(images, labels, corner, strict=True):
        image[y : y + 4, x : x + 4] = 0
        image[y : y + 4, x : x + 4, label] = 250
    boxes = np.empty((count, RANKS, 4), dtype=np.int64)
    low = rng.integers(0, SIZE - 6, (count, RANKS, 2))
    low[:, 0] = np.clip(corner - 1, 0, SIZE - 6)
    boxes[..., :2], boxes[..., 2:] = low, low + 6
    parts = np.concatenate([corner[:, ::-1], corner[:, ::-1] + 4], axis=1).astype(np.float32)
    return images, labels, boxes, parts


def network(**options):
    torch.manual_seed(0)
    return two_stream(CLASSES, **{**NETWORK, **options})


def trainer(folder, seed=0, model=None, **arguments):
    images, labels, boxes, _ = made(24)
    recipe = TwoStreamRecipe.from_dict({**RECIPE, **arguments.pop("recipe", {})})
    return TwoStreamTrainer(
        model or network(),
        FineData(images, labels, boxes),
        np.arange(30) % 2,
        lambda net, part: np.tile([1.0, 0.0, 0.0], (part.stop - part.start, 1)),
        recipe,
        seed,
        folder,
        torch.device("cpu"),
        **arguments,
    )


# --- inputs ---


@given(st.integers(0, 2**31), st.integers(9, 40), st.integers(2, 33))
@settings(max_examples=25, deadline=None)
def test_crops_are_those_of_bilinear_resizing_with_corners_aligned(seed, size, target):
    rng = np.random.default_rng(seed)
    batch = torch.from_numpy(rng.uniform(0, 255, (2, 3, size, size))).float()
    low = rng.integers(0, size - 1, (2, 2))
    boxes = np.concatenate([low, low + 1 + rng.integers(0, size - low)], axis=1)
    boxes[:, 2:] = np.minimum(boxes[:, 2:], size)
    found = crop(batch, boxes, target)
    for image, (y0, x0, y1, x1), mine in zip(batch, boxes, found, strict=True):
        part = image[None, :, y0:y1, x0:x1]
        theirs = functional.interpolate(part, (target, target), mode="bilinear", align_corners=True)[0]
        torch.testing.assert_close(mine, theirs, atol=2e-2, rtol=0)


@given(st.integers(0, 2**31), st.sampled_from(["flip_crop", "resized_crop"]))
@settings(max_examples=40, deadline=None)
def test_boxes_follow_the_image(seed, kind):
    """A bright rectangle, seen through a view, lies where its box says, within a pixel."""
    size = 64
    rng = np.random.default_rng(seed)
    low = rng.integers(8, 30, 2)
    box = np.concatenate([low, low + rng.integers(12, 26, 2)])
    image = torch.zeros(1, 3, size, size)
    image[..., box[0] : box[2], box[1] : box[3]] = 255
    views = draw_views(kind, 1, size, rng)
    (found,) = follow(box[None], views, size)
    bright = (look(image, views)[0, 0] > 127).numpy()
    if (found == [0, 0, size, size]).all():
        return  # too little of the box was left
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    seen = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    assert np.abs(seen - found).max() <= 1
    assert (found[:2] < found[2:]).all() and found.min() >= 0 and found.max() <= size


def test_a_patch_of_the_whole_image_is_the_image_where_both_are_averaged():
    batch = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (3, 3, 24, 24)).astype(np.float32))
    whole = np.tile(np.array([[0, 0, 24, 24]]), (3, 1))
    options = two_stream_options(**{"trunk": "vgg6_bn", "patch_size": 8, "antialias": True})
    torch.testing.assert_close(patches_of(batch, whole, options), shown(batch, 8), rtol=0, atol=2e-4)
    sampled = patches_of(batch, whole, options.model_copy(update={"antialias": False}))
    torch.testing.assert_close(sampled, shown(crop(batch, whole, 8), 8))
    assert float((sampled - shown(batch, 8)).abs().max()) > 0.5


def test_a_box_out_of_view_becomes_the_whole_view():
    views = Views(np.array([[8.0, 8.0, 64.0, 64.0]]), np.array([False]))
    assert follow(np.array([[0, 0, 9, 20]]), views, 64).tolist() == [[0, 0, 64, 64]]


def test_mirroring_a_view_mirrors_image_and_box():
    batch = torch.arange(3 * 8 * 8.0).reshape(1, 3, 8, 8)
    views = Views(np.array([[0.0, 0.0, 8.0, 8.0]]), np.array([True]))
    torch.testing.assert_close(look(batch, views), batch.flip(-1), atol=1e-3, rtol=0)
    assert follow(np.array([[1, 2, 5, 4]]), views, 8).tolist() == [[1, 4, 5, 6]]


def test_what_a_stream_is_shown_is_normalised_by_imagenet():
    found = shown(torch.full((1, 3, 8, 8), 255.0), 8)[0, :, 0, 0]
    expected = [(1 - m) / d for m, d in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected))


# --- recipes and splits ---


def test_published_schedules():
    recipes = load_declaration("recipes")
    paper, code = (TwoStreamRecipe.from_dict(recipes[f"two-stream-{name}"], name) for name in ("paper", "code"))
    rates = [epoch_rate(paper, epoch) for epoch in (1, 40, 41, 80, 81, 120)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]) and paper.lr_local == 0.01
    assert [epoch_rate(code, e) for e in (30, 31, 61)] == pytest.approx([1e-3, 1e-4, 1e-5])
    assert code.lr_local == 0.001 and paper.augment == code.augment == "none"
    assert (paper.momentum, paper.weight_decay, paper.batch_size) == (0.9, 5e-4, 32)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"lr_locale": 1}, "unknown key 'lr_locale'"),
        ({"lr_local": -1}, "'lr_local' is -1"),
        ({"augment": "mixup"}, "'augment' is 'mixup'"),
        ({"label_smoothing": 1.0}, "'label_smoothing' is 1.0: must be less than 1"),
        ({"precision": "tf32"}, "must be 'fp32' or 'bf16'"),
        ({"flip": "half"}, "unknown key 'flip'"),
        ({"split": "dev"}, "'split' is 'dev': must be 'test' or 'validation'"),
        ({"boxes": 0}, "'boxes' is 0"),
        ({"drop_last": "no"}, "'drop_last' is 'no': must be true or false"),
    ],
)
def test_recipes_that_are_not_possible(change, part):
    with pytest.raises(ConfigError, match=part):
        TwoStreamRecipe.from_dict({**RECIPE, **change})


def test_pairs_of_images_are_not_asked_for():
    """No vector is batch-normalised here, and one large image may be all that fits."""
    assert TwoStreamRecipe.from_dict({**RECIPE, "batch_size": 1}).batch_size == 1


@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.01, 0.5))
@settings(max_examples=40, deadline=None)
def test_held_out_images_are_a_share_of_every_class(counts, share):
    labels = np.repeat(np.arange(len(counts)), counts)
    mask = held_out(labels, share, 0)
    assert np.array_equal(mask, held_out(labels, share, 0))
    for label, count in enumerate(counts):
        assert mask[labels == label].sum() == max(1, round(share * count)) < count + 1


def test_a_class_of_one_image_cannot_be_held_out():
    with pytest.raises(ConfigError, match="class 1 has one training image"):
        held_out(np.array([0, 0, 1]), 0.1, 0)


# --- training ---


def test_streams_learn_at_their_own_rates(tmp_path):
    model = network()
    run = trainer(tmp_path, model=model, recipe={"lr": 1e-9, "epochs": 1})
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    run.run()
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in model.named_parameters()}
    assert max(v for k, v in moved.items() if k.startswith("global")) < 1e-6
    assert min(v for k, v in moved.items() if k.startswith("local_trunk.features.0.weight")) > 1e-6
    assert run.history[0].lr_local == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["paper", "paper-flip_crop", "code"])
def test_an_epoch_of_the_published_recipes_holds_every_image_of_cub(name):
    """188 steps, the last of 10 images; the embedded recipes leave such a rest out."""
    recipes = load_declaration("recipes")
    data = FineData(np.zeros((5_994, 2, 2, 3), np.uint8), np.zeros(5_994, np.int64))
    model = network(local="none")

    def batches(recipe):
        stepper = TwoStreamStepper(model, data, TwoStreamRecipe.from_dict(recipe), 0, torch.device("cpu"))
        stepper.enter_epoch(1, 0)
        assert len(stepper.batches) == stepper.steps_per_epoch
        return stepper.batches

    kept, dropped = batches(recipes[f"two-stream-{name}"]), batches(recipes["two-stream-demo"])
    assert [len(batch) for batch in kept] == [32] * 187 + [10]
    assert np.array_equal(np.sort(np.concatenate(kept)), np.arange(5_994))
    assert [batch.tolist() for batch in dropped] == [batch.tolist() for batch in kept[:187]]


def test_losses_and_errors_are_those_of_all_images_of_an_epoch(tmp_path):
    """At rate 0 the network stays as it is, so that batches of any size have the same mean loss over the images."""
    rates = {"lr": 0.0, "lr_local": 0.0, "epochs": 1}

    def row(size, drop_last):
        recipe = {**rates, "batch_size": size, "drop_last": drop_last}
        model = network(trunk="vgg6", local="none")
        return trainer(tmp_path / f"{size}-{drop_last}", model=model, recipe=recipe).run()[0]

    whole, kept, left_out = row(24, True), row(7, False), row(7, True)
    assert kept.train_loss == pytest.approx(whole.train_loss, rel=1e-5)
    assert kept.train_error_pct == pytest.approx(whole.train_error_pct)
    assert left_out.train_loss != pytest.approx(whole.train_loss, rel=1e-5)


@pytest.mark.parametrize(
    "recipe", [{}, {"augment": "flip_crop"}, {"batch_size": 10, "drop_last": False}], ids=["none", "flip_crop", "short"]
)
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, recipe):
    whole = trainer(tmp_path / "whole", recipe=recipe)
    whole.run()
    model, stops = None, 0
    for _ in range(20):
        model = network()
        run = trainer(tmp_path / "cut", model=model, watch=Watch(lambda: True), recipe=recipe)
        try:
            run.run()
            break
        except Interrupted:
            stops += 1
    assert stops == 2 * (3 + 2), "three steps and two pieces of an evaluation an epoch, one with each start"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert [dataclasses.replace(row, seconds=0) for row in run.history] == [
        dataclasses.replace(row, seconds=0) for row in whole.history
    ]


def test_a_killed_training_goes_on_from_within_its_epoch(tmp_path):
    def run_on(folder, should_stop=lambda: False):
        return trainer(folder, model=network(), watch=Watch(should_stop), recipe={"checkpoint_seconds": 0.0})

    class Killed(Exception):
        pass

    asked = iter(range(7))

    def kill():
        if next(asked) == 6:
            raise Killed
        return False

    whole = run_on(tmp_path / "whole")
    whole.run()
    with pytest.raises(Killed):
        run_on(tmp_path / "cut", kill).run()
    resumed = run_on(tmp_path / "cut")
    seen = []
    resumed.watch = Watch(lambda: bool(seen.append((resumed.step, resumed.tested))))
    resumed.run()
    # Of three steps and two pieces of evaluation an epoch six were saved, the first step of the second epoch the last.
    assert seen == [(2, 0), (3, 0), (3, 16), (3, 30)]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_update_has_the_bits_of_the_usual_class(tmp_path):
    """`torch.optim.SGD` with a group of parameters for each stream, told the rates of each epoch."""
    recipe = {
        "epochs": 3,
        "schedule": {"kind": "milestones", "milestones": [2], "factors": [0.1]},
        "weight_decay": 0.01,
    }
    ours, told = (trainer(tmp_path / name, model=network(), recipe=recipe) for name in ("ours", "told"))
    start = {name: value.clone() for name, value in ours.model.state_dict().items()}
    groups = [{"params": group} for group in told.model.streams().values()]
    usual = torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=0.01)
    first, second = told.stepper.optimizers
    first.step = lambda rate: usual.param_groups[0].update(lr=rate)
    second.step = lambda rate: (usual.param_groups[1].update(lr=rate), usual.step())
    ours.run(), told.run()
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, told.model.state_dict()[name]), name
        assert "tracked" in name or "running" in name or not torch.equal(value, start[name]), name


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(TrainingError, match="lower the recipe's lr or lr_local"):
        trainer(tmp_path, recipe={"lr": 1e6, "epochs": 3}).run()


def test_too_few_images_for_a_batch(tmp_path):
    with pytest.raises(TrainingError, match="do not fill one batch"):
        trainer(tmp_path, recipe={"batch_size": 64})


# --- evaluation ---


def test_readouts_are_the_classifier_on_sums_means_and_steps_of_the_states():
    model = network().eval()
    images, _, boxes, _ = made(5)
    (block,) = blocks(model, images, boxes, 8)
    head = model.local_head
    found = readouts(block, head.classifier.bias.detach().double().numpy())
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        states = model.see_patch(shown(crop(batch, boxes[:, 1], 8), 8)).states
        for step in range(3):
            for name, state in (
                (f"sum_1_{step + 1}", states[:, : step + 1].sum(1)),
                (f"mean_1_{step + 1}", states[:, : step + 1].mean(1)),
                (f"step_{step + 1}", states[:, step]),
            ):
                np.testing.assert_allclose(found[name][:, 1], head.classifier(state).numpy(), atol=1e-5)
    assert len(found) == 1 + 3 * 3


def test_policies_against_a_plain_loop():
    model = network(local_weight=0.5).eval()
    images, labels, boxes, _ = made(7, seed=3)
    scores = score(model, images, labels, boxes, seed=4, batch_size=3)
    (block,) = blocks(model, images, boxes, 16)
    z, w = block.global_logits, block.local_logits
    for image in range(7):
        joint = z[image] + 0.5 * w[image]
        assert scores.correct["mean_n", "joint"][image] == (joint.mean(0).argmax() == labels[image])
        assert scores.correct["top1", "joint"][image] == (joint[0].argmax() == labels[image])
        assert scores.correct["mean_n", "global"][image] == (z[image].argmax() == labels[image])
        assert scores.correct["top1", "local"][image] == (w[image, 0].argmax() == labels[image])
        drawn = {bool(hit) for hit in scores.correct["random1", "joint"][:, image]}
        assert drawn <= {bool(joint[rank].argmax() == labels[image]) for rank in range(RANKS)}
    again = score(model, images, labels, boxes, seed=4, batch_size=7)
    assert all(np.array_equal(again.correct[key], value) for key, value in scores.correct.items())


def test_without_a_local_stream_the_joint_prediction_is_the_global_one():
    images, labels, _, _ = made(6)
    scores = score(network(local="none"), images, labels, None, 0)
    found = {hits.tobytes() for hits in scores.correct.values()}
    assert len(found) == 1 and len(scores.correct) == 5


def test_sums_scale_the_local_logits_and_means_do_not():
    """All steps equal: a sum of t counts the local stream t-fold, a mean once."""
    step = np.tile(np.array([[[1.0, 0.0]]]), (1, 1, 1))
    block = Block(np.zeros((1, 2)), step, np.repeat(step[:, :, None], 4, axis=2))
    found = readouts(block, np.zeros(2))
    assert found["sum_1_4"][0, 0, 0] == 4 and found["mean_1_4"][0, 0, 0] == 1


def test_which_boxes_hold_the_part():
    parts = np.array([[4.0, 2.0, 8.0, 6.0]])  # x0, y0, x1, y1
    boxes = np.array([[[2, 4, 6, 8], [0, 0, 16, 16], [4, 2, 8, 6], [2, 5, 6, 9]]])
    assert holds_part(boxes, parts).tolist() == [[True, True, False, False]]


@given(st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_mcnemar_against_the_binomial_sum(only, lost):
    one = np.array([True] * only + [False] * lost + [True, False])
    other = np.array([False] * only + [True] * lost + [True, False])
    found = mcnemar(one, other)
    n = only + lost
    exact = 1.0 if n == 0 else min(1.0, 2 * binom.cdf(min(only, lost), n, 0.5))
    assert found[:2] == (only, lost) and found[2] == pytest.approx(exact)


@pytest.mark.parametrize("local", ["attention", "lstm"])
def test_in_the_main_form_no_step_can_look_anywhere(local):
    """The gradient of every step's logit is constant over positions, so only channel weights change."""
    model = network(local=local, patch_size=32).eval()
    patches = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    found = step_maps(model, patches)
    assert found.cams.shape == (3, 3, 8, 8) and found.looks is None
    assert (found.spread < 1e-6).all()
    if local == "attention":
        np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-6)


def test_the_form_of_chapter_7_does_look_somewhere():
    found = step_maps(network(local="spatial", patch_size=32).eval(), torch.randn(2, 3, 32, 32))
    assert found.looks.shape == (2, 3, 8, 8)
    np.testing.assert_allclose(found.looks.sum((2, 3)), 1, atol=1e-5)
    assert found.spread.max() > 1e-3


def test_a_network_without_steps_has_none_to_show():
    with pytest.raises(ModelError, match="no steps to show"):
        step_maps(network(local="cnn").eval(), torch.randn(1, 3, 8, 8))


# --- stages ---


@pytest.fixture
def results(tmp_path):
    splits = {}
    for name, count, seed in (("train", 24, 0), ("test", 12, 1)):
        images, labels, boxes, parts = made(count, seed)
        ids = np.array([f"{name}/{number}.jpg" for number in range(count)])
        splits[name] = (Split(images, labels, ids, parts=parts), boxes)
    folder = layout.data_dir(tmp_path, "squares")
    write_prepared(folder, "squares", list("rgb"), {name: split for name, (split, _) in splits.items()}, {})
    dataset = PreparedDataset.open(folder)
    found = {
        name: Boxes(boxes, *(np.zeros(boxes.shape[:2], kind) for kind in (np.float32, np.int32, np.int16)))
        for name, (_, boxes) in splits.items()
    }
    write_boxes(tmp_path / "patches/squares/made/seed-0/boxes.parquet", dataset, found, {})
    return tmp_path


def training_spec(**changes):
    options = {"local": "attention", **changes.pop("network", {})}
    recipe = {**RECIPE, "weights": "scratch", "patches": "made", "boxes": RANKS, **changes}
    return TrainSpec(
        scale="unit", dataset="squares", threads=1, variant="row", num_classes=CLASSES, recipe=recipe,
        architecture=two_stream_options(**{**NETWORK, **options}).plain(), image_size=NETWORK["image_size"],
    )  # fmt: skip


def evaluation_spec(training, overlap=None):
    recipe = TwoStreamRecipe.from_dict(training.recipe)
    return ProtocolSpec(
        scale="unit", dataset="squares", threads=1, variant="row", protocol="finegrained", training=training.hash(),
        targets=[{"name": "squares"}], settings={}, patches=recipe.patches,
        inputs={"boxes": recipe.boxes, "split": recipe.split, "overlap": overlap},
    )  # fmt: skip


def evaluated(results, training, overlap=None):
    train.run(training, results, [0])
    measure.run(evaluation_spec(training, overlap), results, 0)
    record = read_record(layout.run_dir(results, "finegrained", "squares", "row", 0) / layout.RECORD)
    return record, {(m.name, m.condition): m for m in record.metrics}


def test_the_whole_road_learns_a_part_and_repeats_itself(results):
    spec = training_spec(network={"local": "cnn", "rank_weight": 0.0}, epochs=25)
    record, metrics = evaluated(results, spec)
    assert metrics["part_held_accuracy_pct", "local"].value > 60 > metrics["chance_accuracy_pct", ""].value
    assert {name for name, _ in metrics} >= {"mean_n_accuracy_pct", "random1_accuracy_pct", "top1_accuracy_pct"}
    model = layout.run_dir(results, "train", "squares", "row", 0) / layout.MODEL
    first = model.read_bytes()
    shutil.rmtree(model.parent)  # else it would be found trained
    again, _ = evaluated(results, spec)
    assert model.read_bytes() == first and again.metrics == record.metrics
    folder = layout.run_dir(results, "finegrained", "squares", "row", 0)
    for metric in ("mean_n_accuracy_pct", "top1_accuracy_pct"):
        hits = load_hits(folder, record, metric, "joint")
        assert 100 * hits.mean() == pytest.approx(metrics[metric, "joint"].value)
    assert load_hits(folder, record, "random1_accuracy_pct", "joint") is None


def test_every_readout_is_in_the_record(results):
    _, metrics = evaluated(results, training_spec())
    for step in (1, 2, 3):
        for name in (f"sum_1_{step}", f"mean_1_{step}", f"step_{step}"):
            assert ("mean_n_accuracy_pct", name) in metrics and ("random1_accuracy_pct", name) in metrics
    assert metrics["mean_n_accuracy_pct", "sum_1_1"].value == metrics["mean_n_accuracy_pct", "step_1"].value


@pytest.mark.parametrize("local", ["attention", "spatial"])
def test_steps_are_drawn_and_where_there_are_looks_these_too(results, local, monkeypatch):
    drawn = []
    write = step_pictures.draw_steps
    monkeypatch.setattr(step_pictures, "draw_steps", lambda *given: drawn.append(given) or write(*given))
    spec = training_spec(network={"local": local}, epochs=1)
    train.run(spec, results, [0])
    first = step_pictures.draw(spec, results, 0, 2).read_bytes()
    assert first[:4] == b"\x89PNG" and step_pictures.draw(spec, results, 0, 2).read_bytes() == first
    rows, caption = drawn[0][4:]
    names = ["Grad-CAM"] if local == "attention" else ["Grad-CAM", "attention"]
    assert [name for name, _, _ in rows] == 2 * names and all(len(maps) == 3 for _, maps, _ in rows)
    assert ("the attention maps themselves" in caption) == (local == "spatial")
    if local == "spatial":  # true maps: scaled by their own peak, not alike from look to look
        looks = rows[1][1]
        assert looks.max() == 1 and np.abs(looks[0] - looks[1]).max() > 0


def test_validation_images_come_from_training_and_have_a_name_of_their_own(results):
    _, metrics = evaluated(results, training_spec(split="validation"))
    assert metrics["mean_n_accuracy_pct", "joint"].target == "squares/validation"
    assert metrics["mean_n_accuracy_pct", "joint"].n == 3


def test_images_that_the_pretraining_has_seen_are_left_out_of_a_second_number(results, tmp_path):
    listed = tmp_path / "seen.txt"
    listed.write_text("0.jpg\n3.jpg\n")
    spec = training_spec()
    _, metrics = evaluated(results, spec, {"path": str(listed), "sha256": ""})
    assert metrics["mean_n_accuracy_pct", "joint_minus_overlap"].n == 10
    listed.write_text("nothing.jpg\n")
    with pytest.raises(ConfigError, match="names no test image"):
        measure.run(evaluation_spec(spec, {"path": str(listed), "sha256": ""}), results, 0)


def test_stopping_asks_to_be_requeued_and_goes_on(results):
    stop, told = StopRequest(), []

    def tell(seed, row):
        told.append((seed, row.epoch))
        stop.received = signal.SIGUSR1

    watcher = Watcher(epoch=tell, say=told.append)
    with pytest.raises(Stopped, match="stopped in epoch 2; the same command resumes it") as stopped:
        train.run(training_spec(), results, [0], stop, watcher=watcher)
    assert stopped.value.exit_code == 75
    stop.received = None
    train.run(training_spec(), results, [0], stop, watcher=watcher)
    assert told == [(0, 1), (0, 2)], "the first epoch is not trained again"
    train.run(training_spec(), results, [0], watcher=watcher)
    assert "trained already" in told[-1]


def test_a_time_limit_that_allows_no_step_is_refused(results):
    with pytest.raises(ConfigError, match=r"time limit is over before the first step.*larger number"):
        train.run(training_spec(), results, [0], StopRequest(0))


def test_one_image_may_be_all_that_fits(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    compute = run.stepper._compute

    def short(chosen, rng, rates):
        if len(chosen) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        compute(chosen, rng, rates)

    monkeypatch.setattr(run.stepper, "_compute", short)
    with pytest.raises(MemoryFullError, match=r"batches of 8 do not fit.*a batch of 1 would fit"):
        run.run()


def test_a_test_error_is_that_of_the_first_draw_of_random_patches(results):
    spec = training_spec()
    train.run(spec, results, [0])
    folder = layout.run_dir(results, "train", "squares", "row", 0)
    record = read_record(folder / layout.RECORD)
    metrics = {metric.name: metric.value for metric in record.metrics}
    images, labels, boxes, _ = made(12, 1)
    hits = score(load(folder / layout.MODEL), images, labels, boxes, 0).correct["random1", "joint"][0]
    assert metrics["test_error_pct"] == pytest.approx(100 * (1 - hits.mean()))
    assert np.array_equal(load_hits(folder, record, "test_error_pct", ""), hits)
    assert np.array_equal(np.load(folder / layout.LOGITS).argmax(1) == labels, hits)


def test_what_a_training_leaves_to_follow(results):
    """In its state folder, as every training: one line an epoch, progress, a log; and which run it is."""
    train.run(training_spec(), results, [0])
    (state,) = (results / "state" / "train").iterdir()
    assert [row["epoch"] for row in read_metrics(state)] == [1, 2] and "lr_local" in read_metrics(state)[0]
    about = read_about(state)
    assert (about["variant"], about["seed"], about["libraries"]["torch"]) == ("row", 0, torch.__version__)
    assert json.loads((state / PROGRESS).read_text())["epoch"] == 2
    assert "epoch 2: lr 0.02" in (state / LOG).read_text()
    assert not list(state.rglob("step-*"))


def test_a_diverged_run_can_be_recorded(results):
    spec = training_spec(lr=1e6)
    with pytest.raises(TrainingError):
        train.run(spec, results, [0])
    train.run(spec, results, [0], tolerate_failure=True)
    measure.run(evaluation_spec(spec), results, 0)
    record = read_record(layout.run_dir(results, "finegrained", "squares", "row", 0) / layout.RECORD)
    assert record.status == "failed" and "the loss " in record.reason


def test_bad_input_is_named(results, tmp_path):
    with pytest.raises(DataError, match="3 boxes per image, 10 wanted"):
        train.run(training_spec(boxes=10), results, [0])
    with pytest.raises(DataError, match="no such file"):
        train.run(training_spec(patches="elsewhere"), results, [0])
    with pytest.raises(ModelError, match="cannot read the weights"):
        train.run(training_spec(weights=str(tmp_path / "none.pth")), results, [0])
    with pytest.raises(ConfigError, match="'split' is 'dev'"):
        train.run(training_spec(split="dev"), results, [0])
    train.run(training_spec(), results, [0])
    other = training_spec(lr=0.5)
    with pytest.raises(ModelError, match="trained under another configuration"):
        measure.run(evaluation_spec(other), results, 0)
    sidecar = results / "patches/squares/made/seed-0/boxes.json"
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "dataset": "birds"}))
    with pytest.raises(DataError, match="does not match its SHA-256"):
        train.run(training_spec(), results, [0])
