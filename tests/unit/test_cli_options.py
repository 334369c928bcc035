"""How names on the command line become specs: the same checks for networks and datasets."""

import argparse
import os

import pytest
import yaml

from ltpa.cli.options import resolve
from ltpa.core.declared import config_dir
from ltpa.core.errors import ConfigError
from ltpa.core.specs import TrainSpec


@pytest.fixture
def options(tmp_path, monkeypatch) -> argparse.Namespace:
    """A network and a dataset of the default configuration, in which four jobs share a GPU."""
    config = yaml.safe_load((config_dir() / "config.yaml").read_text())
    config["jobs"]["gpu_share"] = 4
    path = tmp_path / "shared.yaml"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("LTPA_GPU_SHARE", "8")  # put back afterwards
    monkeypatch.delenv("LTPA_GPU_SHARE")
    return argparse.Namespace(config=path, spec=None, results=None, variant="twostream-cnn", dataset="digits-parts")


def asked(options):
    return resolve(options, TrainSpec, lambda plan: plan.train_spec(options.dataset, options.variant))


def test_networks_by_name_share_a_gpu_as_the_configuration_says(options):
    spec, results = asked(options)
    assert (spec.variant, spec.dataset, results.name) == ("twostream-cnn", "digits-parts", "demo")
    assert os.environ["LTPA_GPU_SHARE"] == "4"


@pytest.mark.parametrize(
    ("name", "says"),
    [(None, "name a variant, or pass --spec; known: vgg, "), ("twostream-cn", "did you mean twostream-cnn")],
)
def test_networks_that_are_missing_or_unknown_are_named(options, name, says):
    options.variant = name
    with pytest.raises(ConfigError, match=says):
        asked(options)
