"""A network, a protocol, a dataset and tables of a user's own, from files of her own and one configuration."""

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from conftest import Checkout, copy_checkout
from PIL import Image

pytestmark = pytest.mark.workflow

NETWORK = '''
"""One attention map over the features of two convolutions."""

from typing import ClassVar

import torch
from torch import nn

from ltpa.models.base import AttentionClassifier
from ltpa.models.options import ClassifierOptions


class Options(ClassifierOptions):
    builder: ClassVar[str] = "build"
    recipes: ClassVar[str] = "own"
    layers: ClassVar[tuple[str, ...]] = ("only",)

    hidden: int = 8

    @property
    def map_levels(self):
        return ("only",)

    @property
    def smallest_image(self):
        return 8


class Network(AttentionClassifier):
    attention_levels = ("only",)

    def __init__(self, options, num_classes, image_size):
        super().__init__(options.plain(), num_classes, image_size)
        self.feature_dim = options.hidden
        self.trunk = nn.Sequential(
            nn.Conv2d(3, options.hidden, 3, 2, 1), nn.ReLU(), nn.Conv2d(options.hidden, options.hidden, 3, 2, 1)
        )
        self.score = nn.Conv2d(options.hidden, 1, 1)
        self.head = nn.Linear(options.hidden, num_classes)

    def local_features(self, x):
        self.check_input(x)
        return {"only": self.trunk(x)}

    def attention(self, x, query=None):
        local = self.trunk(x)
        return {"only": self.score(local).flatten(1).softmax(1).view(len(x), *local.shape[2:])}

    def features(self, x):
        local = self.trunk(x)
        weights = self.score(local).flatten(1).softmax(1).view(len(x), 1, *local.shape[2:])
        return (local * weights).sum((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


def build(options, num_classes, image_size):
    return Network(options, num_classes, image_size)
'''

PROTOCOL = '''
"""How even a network's maps are."""

from ltpa.core.checks import Check
from ltpa.core.records import Metric
from ltpa.protocols.base import BatchSize, Measurement, MetricKind, Protocol, Settings


class EntropySettings(Settings):
    batch_size: BatchSize = 250


class MeanEntropy(Protocol):
    """Entropy of each level's maps, a share of that of an even map."""

    name = "mean_entropy"
    title = "Mean entropy of the maps"
    about = "entropy of the attention maps"
    Settings = EntropySettings
    metrics = (MetricKind("entropy_pct", "entropy, of that of an even map", "%", condition="level"),)
    about_checks = ("entropy: maps are neither one cell nor even.",)

    def inapplicable(self, scene, dataset, variant):
        return "" if scene.network(variant).map_levels else "no attention"

    def checks(self, facts, subject, records, others):
        values = [metric.value for record in records for metric in record.metrics]
        yield Check("entropy", subject, max(values), "<= 100", max(values) <= 100.01, f"{max(values):.1f} %")

    def measure(self, model, datasets, settings, context):
        import numpy as np

        from ltpa.evaluation.inference import attention_maps

        metrics = []
        for dataset in datasets:
            test = dataset.split("test")
            for level, maps in attention_maps(model, test.images, settings.batch_size).items():
                flat = maps.reshape(len(maps), -1).astype("float64")
                entropy = -(flat * np.log(np.maximum(flat, 1e-300))).sum(1)
                share = 100 * float(entropy.mean() / np.log(flat.shape[1]))
                metrics.append(Metric("entropy_pct", share, len(test), dataset.name, level))
        return Measurement(metrics)
'''

READER = '''
"""Pictures whose class is the first letter of their name."""

from ltpa.data.listing import Listing


def read(root, source):
    found = {}
    for split in source.splits:
        paths = sorted((root / split).glob("*.png"))
        labels = [source.classes.index(path.name[0]) for path in paths]
        found[split] = Listing(paths, labels, [f"{split}/{path.name}" for path in paths])
    return found
'''

CONFIG = {
    "scale": {"name": "mine", "networks": {"vgg": {"width": 0.0625, "dropout": 0.0, "bn_weight": "one"}}},
    "seeds": [0],
    "variants": ["vgg-att-pc", "mine"],
    "datasets": ["digits10", "letters"],
    "tables": ["table1", "evenness", "letters_error"],
    "recipes": {"vgg": {"default": "vgg-smoke"}, "own": {"default": "short"}},
    "protocols": {
        "mean_entropy": {"module": "my_protocol.py"},
        "segmentation": {"attention_beats": []},
        "checks": {"max_error_of_chance": 1.0},
    },
    "own": {
        "variants": {
            "mine": {
                "label": "My net",
                "baseline": "vgg-att-pc",
                "architecture": {"family": "my_network.py", "hidden": 12},
                "saliency": {"source": "attention", "levels": ["only"]},
            }
        },
        "recipes": {"short": {"epochs": 1, "batch_size": 16, "lr": 0.05, "flip": "none"}},
        "datasets": {
            "letters": {
                "title": "Letters",
                "reader": "my_reader.py",
                "type": "colours",
                "licence": "mine",
                "citation": "none",
                "image_size": 20,
                "classes": ["a", "b"],
                "splits": {"train": {"count": 40}, "test": {"count": 20}},
            }
        },
        "tables": {
            "evenness": {
                "title": "How even maps are",
                "stage": "mean_entropy",
                "metric": "entropy_pct",
                "columns": [
                    {"title": "digits, $mine", "source": "cifar10", "condition": "only"},
                    {"title": "digits, theirs", "source": "cifar10", "condition": "conv13"},
                ],
            },
            "letters_error": {
                "title": "Error on letters",
                "stage": "train",
                "metric": "test_error_pct",
                "unit": "%",
                "direction": "lower",
                "caption": "Test error.",
                "columns": [{"title": "letters", "source": "letters"}],
            },
        },
    },
}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Path]:
    """A checkout, and in it the user's: three files of code, one configuration, a folder of pictures."""
    checkout = copy_checkout(tmp_path_factory.mktemp("mine") / "clone")
    root = checkout.root
    for name, text in (("my_network.py", NETWORK), ("my_protocol.py", PROTOCOL), ("my_reader.py", READER)):
        (root / name).write_text(text)
    for split, count in (("train", 20), ("test", 10)):
        (root / "letters" / split).mkdir(parents=True)
        for number in range(count):
            for letter, colour in (("a", (200, 40 + number, 40)), ("b", (40, 40 + number, 200))):
                picture = Image.new("RGB", (20, 20), colour)
                picture.save(root / "letters" / split / f"{letter}{number}.png")
    path = root / "mine.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return checkout, path


def test_a_users_own_network_protocol_dataset_and_tables(mine: tuple[Checkout, Path]):
    checkout, path = mine
    prepared = checkout.ltpa("prepare", "letters", "--extracted", "letters", "--config", str(path))
    assert prepared.returncode == 0, prepared.stdout
    done = checkout.snakemake("all_tables", config=path)
    assert done.returncode == 0, done.stdout[-4000:]
    results = checkout.root / "results" / "mine"
    table = (results / "tables" / "evenness.md").read_text()
    assert "My net" in table and "n=1/1" in table and "published" not in table
    (row,) = [
        line for line in (results / "tables" / "table1.md").read_text().splitlines() if line.startswith("| My net")
    ]
    assert "n=1/1" in row
    assert "*Yours*" in (results / "tables" / "table1.md").read_text()
    assert "My net" in (results / "tables" / "letters_error.md").read_text()
    checks = json.loads((results / "checks.json").read_text())["checks"]
    assert {check["subject"] for check in checks if check["check"] == "entropy"} >= {"mine on digits10"}
    with sqlite3.connect(results / "mlflow.db") as store:
        names = {name for (name,) in store.execute("select name from experiments")}
    assert "ltpa/mine/mean_entropy" in names
    assert checkout.planned("all_tables", config=path) == {}


def test_a_change_of_a_users_file_reruns_what_uses_it_alone(mine: tuple[Checkout, Path]):
    checkout, path = mine
    file = checkout.root / "my_protocol.py"
    file.write_text(file.read_text().replace("1e-300", "1e-200"))
    planned = checkout.planned("all_tables", config=path)
    assert planned["mean_entropy"] == 2 and not planned.keys() & {"prepare", "train", "segmentation"}
    network = checkout.root / "my_network.py"
    network.write_text(network.read_text().replace("nn.ReLU()", "nn.GELU()"))
    assert checkout.planned("all_tables", config=path)["train"] == 2, "on two datasets"


def test_a_network_file_is_no_reason_to_run_code(mine: tuple[Checkout, Path]):
    checkout, _ = mine
    network = next((checkout.root / "results" / "mine" / "train").glob("*/mine/seed-0/model.safetensors"))
    done = checkout.ltpa("attend", "letters/test/a0.png", "--model", str(network))
    assert done.returncode == 5 and "my_network.py" in done.stdout and "Traceback" not in done.stdout
