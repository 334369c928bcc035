"""Training needs torch, NumPy, safetensors, PyYAML and pydantic, and nothing else: what a rented GPU machine has."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltpa.core import layout
from ltpa.core.records import read_record
from ltpa.core.specs import TrainSpec
from ltpa.data.arrays import Split, write_prepared
from ltpa.models import load, resolve_architecture

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("mlflow", "snakemake", "pandas", "torchvision", "sklearn", "skimage", "matplotlib", "tabulate")
SCRIPT = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""
BY_STAGE = """
from pathlib import Path
from ltpa.core.specs import TrainSpec
from ltpa.models import load
from ltpa.stages import train

train.run(TrainSpec.from_json(sys.argv[1]), Path(sys.argv[2]), [0])
"""
BY_COMMAND = """
from ltpa.cli import main
sys.exit(main(["train", "--spec", sys.argv[1], "--results", sys.argv[2], "--seed", "0"]))
"""


FEATURES_TO_ACCURACY = """
import numpy as np
import ltpa.stages.measure
import ltpa.protocols.transfer
from ltpa.evaluation.svm import Classifier, cross_validate

labels = np.arange(40) % 2
classifier = Classifier(5, 1.0, "ovr", "exact", "squared_hinge", 0)
print(cross_validate(np.eye(2)[labels], labels, classifier, "raw", "toy").accuracy_pct)
"""


def test_the_default_classifier_needs_nothing_more():
    command = [sys.executable, "-c", SCRIPT + FEATURES_TO_ACCURACY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "100.0\n", done.stderr


def test_the_bare_machine_is_bare():
    for name in ABSENT:
        done = subprocess.run([sys.executable, "-c", f"{SCRIPT}import {name}"], capture_output=True, text=True)
        assert "ModuleNotFoundError" in done.stderr, f"{name} is not hidden"


@pytest.mark.parametrize("way", [BY_STAGE, BY_COMMAND], ids=["stage", "command"])
def test_a_network_trains_where_little_is_installed(tmp_path, way):
    random = np.random.default_rng(0)
    splits = {
        name: Split(
            images=random.integers(0, 256, (count, 20, 20, 3), dtype=np.uint8),
            labels=np.arange(count, dtype=np.int64) % 2,
            ids=np.array([f"{name}/{i}" for i in range(count)]),
        )
        for name, count in (("train", 16), ("test", 8))
    }
    write_prepared(layout.data_dir(tmp_path, "noise"), "noise", ["odd", "even"], splits, {})
    spec = TrainSpec(
        scale="bare",
        dataset="noise",
        threads=1,
        variant="vgg-att2-concat-pc",
        architecture=resolve_architecture("vgg-att2-concat-pc", width=1 / 16),
        num_classes=2,
        image_size=20,
        recipe={"epochs": 1, "batch_size": 8, "lr": 0.01},
    )
    command = [sys.executable, "-c", SCRIPT + way, spec.to_json(), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = layout.run_dir(tmp_path, "train", "noise", spec.variant, 0)
    assert read_record(folder / layout.RECORD).config_hash == spec.hash()
    assert load(folder / layout.MODEL).metadata["architecture"] == json.loads(spec.to_json())["architecture"]
