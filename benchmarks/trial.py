"""Train narrow networks on a part of a prepared dataset and print their test error after every epoch.

A reduced run that shows, in minutes and on one CPU thread, that networks and recipes learn real photographs:

    ltpa prepare cifar10 --results results/trial
    python benchmarks/trial.py results/trial/data/cifar10

docs/measurements.md has figures, with hardware and time.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from ltpa.core.declared import load_declaration
from ltpa.core.seeds import derive
from ltpa.data.arrays import PreparedDataset
from ltpa.data.normalise import fit_normaliser
from ltpa.models import create_model
from ltpa.stages.device import compute_device
from ltpa.training.arrays import Arrays
from ltpa.training.engine import Trainer
from ltpa.training.loop import Watch
from ltpa.training.recipe import Recipe


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a prepared dataset")
    parser.add_argument("--variants", nargs="+", default=["vgg", "vgg-att2-concat-pc"])
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--images", type=int, default=10_000, help="training images, the first ones")
    parser.add_argument("--test-images", type=int, default=2_000)
    parser.add_argument("--recipe", default="vgg-trial", help="a name from config/recipes.yaml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    dataset = PreparedDataset.open(options.data)
    train, test = dataset.split("train"), dataset.split("test")
    recipe = Recipe.from_dict(load_declaration("recipes")[options.recipe], options.recipe)
    preprocessing = fit_normaliser(recipe.normalise, train.images[: options.images])
    with compute_device("cpu", options.threads) as device:
        arrays = [
            Arrays.prepare(split.images[:count], split.labels[:count], preprocessing, device)
            for split, count in ((train, options.images), (test, options.test_images))
        ]
        for variant in options.variants:
            run(variant, *arrays, recipe, dataset, options)


def run(variant, train, test, recipe, dataset, options):
    torch.manual_seed(derive(options.seed, "init"))
    narrow = {"dropout": 0.0, "bn_weight": "one", "u_std": 0.2}
    size = train.images.shape[-1]
    model = create_model(variant, len(dataset.classes), size, options.width, **narrow)
    started = time.perf_counter()

    def report(row):
        seconds = time.perf_counter() - started
        print(
            f"{variant:24} epoch {row.epoch}: training loss {row.train_loss:.3f}, training error "
            f"{row.train_error_pct:.1f} %, test error {row.test_error_pct:.1f} %, {seconds:.0f} s",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        Trainer(model, train, test, recipe, options.seed, Path(folder), Watch(on_epoch=report), variant).run()


if __name__ == "__main__":
    main()
