"""A network, a protocol, a dataset and tables of a user's own, from files of her own and one configuration."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Checkout, copy_checkout
from PIL import Image

sys.path.insert(0, str(ROOT / "tests" / "docs"))
from pages import blocks

pytestmark = pytest.mark.workflow

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

DATASET = {
    "title": "Letters",
    "reader": "my_reader.py",
    "type": "colours",
    "licence": "mine",
    "citation": "none",
    "image_size": 20,
    "classes": ["a", "b"],
    "splits": {"train": {"count": 40}, "test": {"count": 20}},
}
TABLE = {
    "title": "Error on $letters",
    "stage": "train",
    "metric": "test_error_pct",
    "unit": "%",
    "direction": "lower",
    "caption": "Test error.",
    "columns": [{"title": "letters", "source": "letters"}],
}
CHECKS = """
    about_checks = ("even: maps are not entirely even.",)

    def checks(self, facts, subject, records, others):
        from ltpa.core.checks import Check

        value = max(metric.value for record in records for metric in record.metrics)
        yield Check("even", subject, value, "<= 100", value <= 100.01, f"{value:.1f} %")

    def measure("""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Path]:
    """A checkout, and in it the user's: the files of docs/own-parts.md, and further a reader, pictures and a check."""
    checkout = copy_checkout(tmp_path_factory.mktemp("mine") / "clone")
    root = checkout.root
    for block in blocks(ROOT / "docs" / "own-parts.md"):
        if block.file:
            (root / block.file).write_text(block.text)
    (root / "my_reader.py").write_text(READER)
    protocol = root / "my_protocol.py"
    protocol.write_text(protocol.read_text().replace("\n    def measure(", CHECKS))
    for split, count in (("train", 20), ("test", 10)):
        (root / "letters" / split).mkdir(parents=True)
        for number in range(count):
            for letter, colour in (("a", (200, 40 + number, 40)), ("b", (40, 40 + number, 200))):
                picture = Image.new("RGB", (20, 20), colour)
                picture.save(root / "letters" / split / f"{letter}{number}.png")
    path = root / "mine.yaml"
    config = yaml.safe_load(path.read_text())
    config["datasets"].append("letters")
    config["tables"].append("letters_error")
    config["own"] |= {"datasets": {"letters": DATASET}}
    config["own"]["tables"]["letters_error"] = TABLE
    config["protocols"] |= {"checks": {"max_error_of_chance": 1.0}}
    path.write_text(yaml.safe_dump(config))
    return checkout, path


def test_a_users_own_network_protocol_dataset_and_tables(mine: tuple[Checkout, Path]):
    checkout, path = mine
    prepared = checkout.ltpa("prepare", "letters", "--extracted", "letters", "--config", str(path))
    assert prepared.returncode == 0, prepared.stdout
    done = checkout.snakemake("all_tables", config=path)
    assert done.returncode == 0, done.stdout[-4000:]
    results = checkout.root / "results" / "mine"
    table = (results / "tables" / "even.md").read_text()
    assert "My network" in table and "n=1/1" in table and "published" not in table
    (row,) = [
        line for line in (results / "tables" / "table1.md").read_text().splitlines() if line.startswith("| My network")
    ]
    assert "not in this scale" not in row and "(–)" in row
    assert "*Yours*" in (results / "tables" / "table1.md").read_text()
    assert "My network" in (results / "tables" / "letters_error.md").read_text()
    checks = json.loads((results / "checks.json").read_text())["checks"]
    assert {check["subject"] for check in checks if check["check"] == "even"} >= {"mine on digits10"}
    with sqlite3.connect(results / "mlflow.db") as store:
        names = {name for (name,) in store.execute("select name from experiments")}
    assert "ltpa/mine/evenness" in names
    assert checkout.planned("all_tables", config=path) == {}


def test_a_change_of_a_users_file_reruns_what_uses_it_alone(mine: tuple[Checkout, Path]):
    checkout, path = mine
    file = checkout.root / "my_protocol.py"
    file.write_text(file.read_text().replace("1e-300", "1e-200"))
    planned = checkout.planned("all_tables", config=path)
    assert planned["evenness"] == 2 and not planned.keys() & {"prepare", "train", "segmentation"}
    network = checkout.root / "my_network.py"
    network.write_text(network.read_text().replace("nn.ReLU()", "nn.GELU()"))
    assert checkout.planned("all_tables", config=path)["train"] == 2, "on two datasets"


def test_a_network_file_is_no_reason_to_run_code(mine: tuple[Checkout, Path]):
    checkout, _ = mine
    network = next((checkout.root / "results" / "mine" / "train").glob("*/mine/seed-0/model.safetensors"))
    done = checkout.ltpa("attend", "letters/test/a0.png", "--model", str(network))
    assert done.returncode == 5 and "my_network.py" in done.stdout and "Traceback" not in done.stdout
