"""The commands of single jobs: prepare data, train, evaluate, extract patches."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.cli.data import add_archives_option, archive_folders, archive_search
from ltpa.cli.options import (
    LOOK,
    MEASURE,
    Command,
    add_run_options,
    add_spec_options,
    add_time_limit,
    add_training_options,
    as_seed,
    as_whole,
    load_plan,
    resolve,
)
from ltpa.protocols.registry import built_in, find

if TYPE_CHECKING:
    from ltpa.core.specs import PatchSpec


def add_commands(command: Command) -> None:
    """Add `prepare`, `train`, `measure` and one command per protocol, and `patches`."""
    prepare = command("prepare", _prepare, "make a dataset's verified arrays")
    prepare.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml or config/datasets/")
    prepare.add_argument(
        "--extracted", type=Path, metavar="DIR", help="folder of extracted files, in place of archives"
    )
    add_archives_option(prepare)
    add_spec_options(prepare)

    train = command("train", _train, "train a variant, one network per seed")
    add_run_options(train)
    add_training_options(train)

    measure = command("measure", _measure, "measure by any protocol of the configuration", MEASURE)
    measure.add_argument("protocol", nargs="?", help="a protocol of the package, or of the configuration")
    add_run_options(measure)
    for name in built_in():
        evaluation = command(name, _measure, find(name).about, MEASURE)
        evaluation.set_defaults(protocol=name)
        add_run_options(evaluation)

    extract = command("patches", _patches, "extract patch boxes, or draw those that are there")
    extract.add_argument("source", nargs="?", help="a name from config/patches.yaml that the configuration uses")
    extract.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml")
    extract.add_argument("--seed", "--seeds", dest="seeds", type=as_seed, nargs="+", default=[0])
    extract.add_argument(
        "--quality", action="store_true", help="only report the statistics of all sources of the dataset"
    )
    extract.add_argument("--show", type=as_whole, metavar="N", help="only draw the boxes of N test images, by rank")
    add_time_limit(extract)
    add_spec_options(extract)

    steps = command("steps", _steps, "draw what a trained network looks at, step by step", LOOK)
    add_run_options(steps)
    steps.add_argument("--images", type=as_whole, default=4, help="test images to draw")


def _prepare(options: argparse.Namespace) -> None:
    from ltpa.core.specs import PrepareSpec
    from ltpa.stages import prepare

    spec, results = resolve(options, PrepareSpec, lambda plan: plan.prepare_spec(options.dataset))
    # With a spec, everything comes from the caller: a bare machine may have no configuration.
    archives = archive_folders(options) if options.spec else archive_search(load_plan(options), options)
    prepare.run(spec, results, archives, options.extracted, lambda text: print(text, file=sys.stderr, flush=True))


def _train(options: argparse.Namespace) -> None:
    from ltpa.core.specs import TrainSpec
    from ltpa.report.progress import TrainingProgress
    from ltpa.runtime.stopping import stop_requests

    # Before torch is imported, which takes seconds in which a signal may come.
    with stop_requests(options.max_seconds) as stop:
        spec, results = resolve(options, TrainSpec, lambda plan: plan.train_spec(options.dataset, options.variant))
        train = importlib.import_module("ltpa.stages.train")
        with TrainingProgress(f"{spec.variant} on {spec.dataset}", spec.recipe["epochs"]) as progress:
            watcher = train.Watcher(progress.epoch, progress.progress, progress.say)
            train.run(spec, results, options.seeds, stop, options.tolerate_failure, watcher)


def _steps(options: argparse.Namespace) -> None:
    from ltpa.core.specs import TrainSpec

    spec, results = resolve(options, TrainSpec, lambda plan: plan.train_spec(options.dataset, options.variant))
    stage = importlib.import_module("ltpa.stages.step_pictures")
    for seed in options.seeds:
        print(stage.draw(spec, results, seed, options.images))


def _measure(options: argparse.Namespace) -> None:
    from ltpa.core.specs import ProtocolSpec

    spec, results = resolve(
        options, ProtocolSpec, lambda plan: plan.evaluation_spec(options.protocol, options.dataset, options.variant)
    )
    measure = importlib.import_module("ltpa.stages.measure")
    for seed in options.seeds:
        measure.run(spec, results, seed)


def _patches(options: argparse.Namespace) -> None:
    if options.show is None and not options.quality:
        _extract(options)
        return
    from ltpa.stages import patch_pictures

    spec, results = _patch_spec(options)
    if options.quality:
        print(patch_pictures.report(results, spec.dataset))
    if options.show is not None:
        for seed in options.seeds:
            print(patch_pictures.draw(spec, results, seed, options.show))


def _patch_spec(options: argparse.Namespace) -> "tuple[PatchSpec, Path]":
    from ltpa.core.specs import PatchSpec

    return resolve(options, PatchSpec, lambda plan: plan.patch_spec(options.dataset, options.source))


def _extract(options: argparse.Namespace) -> None:
    from ltpa.report.progress import TrainingProgress
    from ltpa.runtime.stopping import stop_requests

    with stop_requests(options.max_seconds) as stop:
        spec, results = _patch_spec(options)
        stage = importlib.import_module("ltpa.stages.patches")
        with TrainingProgress(f"prototypes of {spec.variant} on {spec.dataset}", stage.epochs(spec)) as progress:
            stage.run(spec, results, options.seeds, stop, progress.epoch)
