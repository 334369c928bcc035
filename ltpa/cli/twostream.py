"""`ltpa twostream`: train, evaluate and picture the rows of the two-stream network."""

import argparse
import importlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.cli.options import Command, add_spec_options, add_training_options, as_seed, group, resolve

if TYPE_CHECKING:
    from ltpa.core.specs import TwoStreamSpec
    from ltpa.plan import Plan


def add_commands(command: Command) -> None:
    """Add `twostream` with `train`, `evaluate` and `show`."""
    subcommand = group(command("twostream", _train, "the two-stream network and its rows"))
    for name, run, text in (
        ("train", _train, "train a row, one network per seed"),
        ("evaluate", _evaluate, "score trained networks: every readout, every patch policy"),
        ("show", _show, "draw what a trained network looks at, step by step"),
    ):
        added = subcommand(name, run, text)
        added.add_argument(
            "row", nargs="?", help="a variant of config/variants/two-stream.yaml that the configuration names"
        )
        added.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml or config/datasets/")
        added.add_argument("--seed", "--seeds", dest="seeds", type=as_seed, nargs="+", default=[0])
        add_spec_options(added)
        if name == "train":
            add_training_options(added)
        if name == "show":
            added.add_argument("--images", type=int, default=4, help="test images to draw")


def _rows(plan: "Plan") -> dict[str, Collection[str]]:
    return {"row": plan.config.twostream.rows, "dataset": plan.config.datasets}


def _training_spec(options: argparse.Namespace) -> "tuple[TwoStreamSpec, Path]":
    from ltpa.core.specs import TwoStreamSpec

    return resolve(
        options, TwoStreamSpec, lambda plan: plan.twostream.training_spec(options.dataset, options.row), _rows
    )


def _train(options: argparse.Namespace) -> None:
    from ltpa.report.progress import TrainingProgress
    from ltpa.runtime.stopping import stop_requests

    with stop_requests(options.max_seconds) as stop:
        spec, results = _training_spec(options)
        stage = importlib.import_module("ltpa.stages.twostream")
        with TrainingProgress(f"{spec.variant} on {spec.dataset}", spec.recipe["epochs"]) as progress:
            watcher = stage.Watcher(progress.epoch, progress.progress, progress.say)
            stage.run(spec, results, options.seeds, stop, options.tolerate_failure, watcher)


def _evaluate(options: argparse.Namespace) -> None:
    from ltpa.core.specs import EvaluationSpec

    spec, results = resolve(
        options, EvaluationSpec, lambda plan: plan.twostream.evaluation_spec(options.dataset, options.row), _rows
    )
    stage = importlib.import_module("ltpa.stages.finegrained")
    stage.run(spec, results, options.seeds)


def _show(options: argparse.Namespace) -> None:
    spec, results = _training_spec(options)
    stage = importlib.import_module("ltpa.stages.step_pictures")
    for seed in options.seeds:
        print(stage.draw(spec, results, seed, options.images))
