"""A small table with every kind of cell, and records for it."""

import dataclasses
from pathlib import Path

from ltpa.core import layout
from ltpa.core.records import Metric, Record, write_record
from ltpa.tables.declaration import Declaration, parse_declaration
from ltpa.tables.published import Published
from ltpa.tables.spec import TableSpec

ROOT = Path(__file__).parents[2]
PUBLISHED_DIR = ROOT / "config" / "published"
DECLARATIONS = ROOT / "config" / "tables.yaml"
VARIANTS = ["vgg", "vgg-gap", "vgg-att"]
ROLES = {"cifar10": "digits10", "svhn": "svhn"}

DECLARATION = {
    "title": "Small & complete",
    "caption": "Error_rate of 100 % of the kinds of cells.",
    "paper": "Table 0",
    "layout": "wide",
    "stage": "train",
    "metric": "test_error_pct",
    "unit": "%",
    "direction": "lower",
    "decimals": 2,
    "tolerance": 0.5,
    "groups": {"existing": "Existing", "attention": "With attention"},
    "columns": [{"title": "CIFAR-10", "source": "cifar10"}, {"title": "SVHN", "source": "svhn"}],
    "notes": ["A note: 5 < 6 | #1."],
}


def entry(label: str, source: str, value: float | None, **others: object) -> Published:
    """A published entry of the small table."""
    group = "attention" if "att" in label else "existing"
    fields = {"group": group, "variant": label.lower(), "target": "", "condition": "", "sd": None, "quoted": False}
    return Published(
        **{"table": "small", "label": label, "source": source, "value": value, "where": "here"} | fields | others
    )


PUBLISHED = [
    entry("VGG", "cifar10", 7.77, sd=0.08),
    entry("VGG", "svhn", 4.27, sd=0.04),
    entry("VGG-GAP", "cifar10", 9.87),
    entry("VGG-GAP", "svhn", 29.5, quoted=True),
    entry("RN-34", "cifar10", 26.5, quoted=True, variant=""),
    entry("RN-34", "svhn", None, variant=""),
    entry("RN-164", "cifar10", 6.03),
    entry("VGG-att", "cifar10", 5.67, sd=0.04),
    entry("VGG-att", "svhn", 3.52, sd=0.05),
]


def declaration(**changes: object) -> Declaration:
    """The small table's declaration, with changes."""
    return parse_declaration(DECLARATION | changes, "small")


def spec(**changes: object) -> TableSpec:
    """The small table's spec at the demo scale, with changes."""
    values = {
        "scale": "demo",
        "table": "small",
        "comparable": False,
        "scale_note": "networks at 0.1 of the paper's width",
        "seeds": [0, 1],
        "variants": VARIANTS,
        "roles": ROLES,
        "standins": {"digits10": "Digits on textures"},
        "declaration": DECLARATION,
        "published": [dataclasses.asdict(item) for item in PUBLISHED],
        "max_error_of_chance": {"cross-entropy": 0.5, "two-stream": 0.9},
    }
    return TableSpec(**values | changes)


def record(stage: str, dataset: str, variant: str, seed: int, metrics: list[Metric], **changes: object) -> Record:
    """A record with plain provenance."""
    plain = Record(stage, "demo", dataset, variant, seed, metrics, "c", "d", "k", "0.1.0", {}, "cpu", 1, 1.5, 90.0)
    return dataclasses.replace(plain, **changes)


def put(results: Path, item: Record) -> Path:
    """Write a record to its place below `results`."""
    path = layout.run_dir(results, item.stage, item.dataset, item.variant, item.seed) / layout.RECORD
    write_record(path, item)
    return path


def trained(dataset: str, variant: str, seed: int, error: float, **changes: object) -> Record:
    """A training record with a test error."""
    return record("train", dataset, variant, seed, [Metric("test_error_pct", error, 500, dataset)], **changes)


def small_records(results: Path) -> list[Path]:
    """VGG: two seeds, one seed; VGG-GAP: failed twice; VGG-att: a record without the metric, and no record at all."""
    failed = {
        "status": "failed",
        "reason": "training failed: the loss of epoch 3 is not finite; lower the rate",
    }
    return [
        put(results, trained("digits10", "vgg", 0, 7.25)),
        put(results, trained("digits10", "vgg", 1, 7.75)),
        put(results, trained("svhn", "vgg", 0, 4.0)),
        put(results, record("train", "digits10", "vgg-gap", 0, [], **failed)),
        put(results, record("train", "digits10", "vgg-gap", 1, [], **failed)),
        put(results, record("train", "digits10", "vgg-att", 0, [Metric("train_loss", 0.1, 500, "digits10")])),
    ]
