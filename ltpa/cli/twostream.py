"""`ltpa twostream`: train, evaluate, picture and describe the rows of the two-stream network."""

import argparse
import importlib
import json
import math
from pathlib import Path
from typing import Any

from ltpa.cli.options import Command, add_config_option, as_seconds, as_seed, group, load_plan
from ltpa.core.errors import ConfigError


def add_commands(command: Command) -> None:
    """Add `twostream` with `train`, `evaluate`, `show` and `count`."""
    subcommand = group(command("twostream", _count, "the two-stream network and its rows"))
    for name, run, text in (
        ("train", _train, "train a row, one network per seed"),
        ("evaluate", _evaluate, "score trained networks: every readout, every patch policy"),
        ("show", _show, "draw what a trained network looks at, step by step"),
    ):
        added = subcommand(name, run, text)
        added.add_argument("row", nargs="?", help="a row of config/twostream.yaml that the configuration names")
        added.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml or config/datasets/")
        added.add_argument("--seed", "--seeds", dest="seeds", type=as_seed, nargs="+", default=[0])
        add_config_option(added)
        added.add_argument("--spec", nargs="+", help="specs instead of names: JSON, or @FILE")
        added.add_argument("--results", type=Path, help="folder of the scale (default: results/<scale>)")
        if name == "train":
            added.add_argument(
                "--max-seconds",
                type=as_seconds,
                default=math.inf,
                metavar="N",
                help="stop with resumable state after this long",
            )
            added.add_argument("--tolerate-failure", action="store_true", help="record a diverged run")
        if name == "show":
            added.add_argument("--images", type=int, default=4, help="test images to draw")
    count = subcommand("count", _count, "parameters and multiply-accumulates of a row")
    count.add_argument("row", help="a row of config/twostream.yaml")
    count.add_argument("--profile", default="paper", help="a profile of config/twostream.yaml")
    count.add_argument("--classes", type=int, default=200)


def _resolve(options: argparse.Namespace, kind: type, method: str) -> tuple[list[Any], Path]:
    """Specs and results folder: given by `--spec` and `--results`, or made from names by a method of the plan."""
    if options.spec:
        if options.results is None:
            raise ConfigError("--spec goes with --results DIR")
        return [kind.from_json(text) for text in options.spec], options.results  # type: ignore[attr-defined]
    plan = load_plan(options)
    for key, known in (("row", plan.config.twostream.rows), ("dataset", plan.config.datasets)):
        name = getattr(options, key)
        if name not in known:
            from ltpa.core.config import unknown_name

            text = unknown_name(key, name, known) if name and known else f"name a {key}; known: {', '.join(known)}"
            raise ConfigError(f"{text} (of {plan.source})")
    return [getattr(plan.twostream, method)(options.dataset, options.row)], options.results or plan.results


def _train(options: argparse.Namespace) -> None:
    from ltpa.core.specs import TwoStreamSpec
    from ltpa.core.stopping import stop_requests
    from ltpa.report.progress import TrainingProgress

    with stop_requests(options.max_seconds) as stop:
        specs, results = _resolve(options, TwoStreamSpec, "training_spec")
        stage = importlib.import_module("ltpa.stages.twostream")
        for spec in specs:
            with TrainingProgress(f"{spec.variant} on {spec.dataset}", spec.recipe["epochs"]) as shown:
                stage.run(spec, results, options.seeds, stop, options.tolerate_failure, shown.epoch)


def _evaluate(options: argparse.Namespace) -> None:
    from ltpa.core.specs import EvaluationSpec

    specs, results = _resolve(options, EvaluationSpec, "evaluation_spec")
    stage = importlib.import_module("ltpa.stages.finegrained")
    for spec in specs:
        stage.run(spec, results, options.seeds)


def _show(options: argparse.Namespace) -> None:
    from ltpa.core.specs import TwoStreamSpec

    specs, results = _resolve(options, TwoStreamSpec, "training_spec")
    stage = importlib.import_module("ltpa.stages.step_pictures")
    for spec in specs:
        for seed in options.seeds:
            print(stage.draw(spec, results, seed, options.images))


def _count(options: argparse.Namespace) -> None:
    from ltpa.core.config import unknown_name
    from ltpa.core.declared import load_declaration
    from ltpa.models.twostream.count import count_twostream

    declared = load_declaration("twostream")
    for key, name in (("profile", options.profile), ("row", options.row)):
        if name not in declared[f"{key}s"]:
            raise ConfigError(unknown_name(key, name, list(declared[f"{key}s"])))
    architecture = {**declared["profiles"][options.profile], **declared["rows"][options.row]["architecture"]}
    print(json.dumps(count_twostream(architecture, options.classes)))
