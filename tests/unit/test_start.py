"""Training that starts from another dataset's network, and networks that a dataset asks for."""

import dataclasses

import numpy as np
import pytest
import torch

from ltpa.core import layout
from ltpa.core.errors import ConfigError, ModelError, TrainingError
from ltpa.core.per_image import load_hits
from ltpa.core.records import read_record, write_record
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import Split, write_prepared
from ltpa.models import load, resolve_architecture
from ltpa.plan import Plan
from ltpa.plan.config import parse_config
from ltpa.plan.jobs import inputs
from ltpa.plan.plan import Run
from ltpa.plan.views import all_runs
from ltpa.stages import train
from ltpa.training.recipe import Recipe

VARIANT = "vgg-att2-concat-pc"
CONFIG = {
    "scale": {"name": "starts", "networks": {"vgg": {"width": 0.0625}}},
    "seeds": [3],
    "variants": ["vgg", VARIANT],
    "datasets": ["cifar100", "cub200"],
    "tables": ["table2"],
    "recipes": {"vgg": {"default": "vgg-cifar", "cub200": "vgg-cub"}},
}


def plan(**changes):
    return Plan(parse_config({**CONFIG, **changes}, "starts.yaml"), "starts.yaml")


def test_birds_start_from_the_network_of_cifar_100():
    made = plan()
    start, other = made.train_spec("cub200", VARIANT), made.train_spec("cifar100", VARIANT)
    assert start.start == {"dataset": "cifar100", "variant": VARIANT, "training": other.hash()} and other.start is None
    assert inputs(made, "train", "cub200", "vgg", 3)[1:] == [
        f"results/starts/train/cifar100/vgg/seed-3/{name}" for name in ("model.safetensors", "result.json")
    ]
    assert inputs(made, "train", "cifar100", "vgg", 3) == ["results/starts/data/cifar100/manifest.json"]
    runs = all_runs(made)
    for variant in CONFIG["variants"]:
        assert runs.index(Run("train", "cifar100", variant)) < runs.index(Run("train", "cub200", variant))


def test_birds_pool_as_the_80_pixel_networks_do():
    made = plan()
    assert made.train_spec("cub200", "vgg").architecture["pools"] == "cub"
    assert made.train_spec("cifar100", "vgg").architecture["pools"] == "cifar"
    assert "networks" not in made.prepare_spec("cub200").source
    overruled = plan(scale={"name": "starts", "networks": {"vgg": {"pools": "cifar"}}})
    assert overruled.train_spec("cub200", "vgg").architecture["pools"] == "cifar"


def test_every_vgg_variant_takes_the_averaged_gradients_of_the_published_code():
    made = plan(scale={"name": "starts", "networks": {"vgg": {"legacy_grad_avg": True}}})
    assert all(made.train_spec("cifar100", name).architecture["legacy_grad_avg"] for name in CONFIG["variants"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"datasets": ["cub200"]}, r"starts\.yaml: key 'recipes': vgg-cub .* cifar100, and no dataset stands for it"),
        ({"recipes": {"vgg": {"default": "vgg-cub"}}}, "on cifar100: no network of these could be the first"),
        ({"protocols": {"query": {"variants": ["vgg-att2-concat-local"]}}}, "concat-local has no global vector"),
        ({"protocols": {"query": {"variants": ["rn164"]}}}, "rn164 has no global vector"),
        ({"scale": {"name": "starts", "networks": {"vgg": {"pool": "cub"}}}}, "unknown key 'pool'; did you mean pools"),
    ],
)
def test_a_start_that_is_not_possible_is_refused_before_anything_runs(changes, says):
    with pytest.raises(ConfigError, match=says) as caught:
        plan(**changes)
    assert "\n" not in str(caught.value)


# --- the stage itself, on tiny networks ---------------------------------------------------------------------------

RECIPE = {"epochs": 1, "batch_size": 8, "lr": 0.0, "weight_decay": 0.0, "flip": "none"}  # weights stay as they began


def write_noise(results, name, classes, size):
    random = np.random.default_rng(classes)
    split = Split(
        images=random.integers(0, 256, (16, size, size, 3), dtype=np.uint8),
        labels=np.arange(16, dtype=np.int64) % classes,
        ids=np.array([f"{name}/{i}" for i in range(16)]),
    )
    write_prepared(
        layout.data_dir(results, name), name, [str(i) for i in range(classes)], {"train": split, "test": split}, {}
    )


def spec(dataset, classes, size, start=None, **options):
    architecture = resolve_architecture(VARIANT, width=1 / 16, **options)
    return TrainSpec("starts", dataset, 1, VARIANT, architecture, classes, size, RECIPE, start)


@pytest.fixture(autouse=True)
def denormals_as_usual():
    """Training treats denormal numbers as zero; other tests of this process must not."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Results with a trained network of 4 classes and 20 pixels."""
    results = tmp_path_factory.mktemp("starts")
    write_noise(results, "many", 4, 20)
    write_noise(results, "birds", 3, 44)
    first = spec("many", 4, 20)
    train.run(first, results, [0])
    return results, first


def test_training_starts_from_the_named_network(source):
    results, first = source
    birds = spec("birds", 3, 44, {"dataset": "many", "variant": VARIANT, "training": first.hash()}, pools="cub")
    train.run(birds, results, [0])
    folders = [layout.run_dir(results, "train", name, VARIANT, 0) for name in ("many", "birds")]
    donor, trained = (load(folder / layout.MODEL).state_dict() for folder in folders)
    for name, value in trained.items():
        moved_on = name.endswith(("running_mean", "running_var", "num_batches_tracked"))  # in the one epoch
        if not moved_on and not name.startswith(("head.", "preprocessing.")):
            assert torch.equal(value, donor[name]), name
    counted = "trunk.section1.conv1.norm.num_batches_tracked"
    assert (donor[counted], trained[counted]) == (2, 4), "running statistics were not taken over"
    record, of_donor = read_record(folders[1] / layout.RECORD), read_record(folders[0] / layout.RECORD)
    assert record.extra["start"]["model_sha256"] == of_donor.extra["model_sha256"]
    assert record.extra["recipe"] == Recipe.from_dict(RECIPE).plain()
    right = load_hits(folders[1], record, "test_error_pct", "")
    error = next(metric for metric in record.metrics if metric.name == "test_error_pct")
    assert (len(right), 100 * (1 - right.mean())) == (error.n, pytest.approx(error.value))
    logits = np.load(folders[1] / layout.LOGITS)
    assert (logits.shape, logits.dtype) == ((16, 3), np.float32)
    assert np.array_equal(logits.argmax(1) == np.arange(16) % 3, right)
    assert record.extra["recipe"]["momentum"] == 0.9, "a default is part of the resolved recipe"


def test_another_training_than_the_named_one_is_refused(source):
    results, _ = source
    with pytest.raises(ModelError, match=r"many.*trained under another configuration"):
        train.run(spec("birds", 3, 44, {"dataset": "many", "variant": VARIANT, "training": "0" * 64}), results, [0])


def test_a_failed_start_fails_what_would_start_from_it(source):
    results, first = source
    path = layout.run_dir(results, "train", "many", VARIANT, 0) / layout.RECORD
    whole = path.read_bytes()
    failed = dataclasses.replace(read_record(path), status="failed", reason="the loss is not finite", metrics=[])
    write_record(path, failed)
    birds = spec("birds", 3, 44, {"dataset": "many", "variant": VARIANT, "training": first.hash()})
    try:
        with pytest.raises(TrainingError, match="its training failed: the loss is not finite"):
            train.run(birds, results, [0])
        train.run(birds, results, [0], tolerate_failure=True)
    finally:
        path.write_bytes(whole)
    record = read_record(layout.run_dir(results, "train", "birds", VARIANT, 0) / layout.RECORD)
    assert record.status == "failed" and "the loss is not finite" in record.reason
    for name in (layout.HITS, layout.LOGITS):
        assert np.load(layout.run_dir(results, "train", "birds", VARIANT, 0) / name).shape == (0, 0)


@pytest.mark.parametrize("name", [layout.HITS, layout.LOGITS])
def test_a_damaged_file_of_hits_or_logits_is_remade(source, name):
    results, first = source
    folder = layout.run_dir(results, "train", "many", VARIANT, 0)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / name).write_bytes(whole[name][:-1])
    train.run(first, results, [0])
    assert {path.name for path in folder.iterdir()} == whole.keys()
    assert (folder / name).read_bytes() == whole[name], "the same training ends with the same bits"
