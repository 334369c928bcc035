"""Training that starts from another dataset's network: the DAG trains that one first."""

from pathlib import Path

import pytest
import yaml
from conftest import MINI, Checkout

pytestmark = pytest.mark.workflow


def test_a_recipe_that_starts_from_another_network_asks_for_it(fresh: Checkout, tmp_path: Path):
    recipes = fresh.root / "config" / "recipes.yaml"
    declared = yaml.safe_load(recipes.read_text())
    started = {"vgg-started": {**declared["vgg-smoke"], "initialise": "cifar100"}}
    recipes.write_text(recipes.read_text() + yaml.safe_dump(started))
    values = yaml.safe_load(MINI.read_text())
    values["recipes"] = {"vgg": {"default": "vgg-smoke", "cub200": "vgg-started"}}
    config = tmp_path / "started.yaml"
    config.write_text(yaml.safe_dump(values))
    plain, started_too = fresh.planned("table2"), fresh.planned("table2", config=config)
    birds = ("vgg", "vgg-att2-concat-pc")  # the networks of table 2 that this configuration trains on cub200
    assert started_too["train"] == plain["train"] + 2 * len(birds)
    assert started_too["prepare"] == plain["prepare"] + 1


def test_the_table_of_extensions_is_a_target_of_every_configuration(fresh: Checkout):
    planned = fresh.planned("extensions")
    assert planned["train"] == 4  # (VGG-att2)-concat-pc on both stand-ins, two seeds, beside rows of others' variants
    assert set(planned) == {"prepare", "train", "table", "extensions"}
