"""The commands of single jobs: prepare data, train, evaluate, extract patches."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.cli.data import add_archives_option, archive_folders, archive_search
from ltpa.cli.options import (
    Command,
    add_run_options,
    add_spec_options,
    add_time_limit,
    add_training_options,
    as_seed,
    load_plan,
    resolve,
)

if TYPE_CHECKING:
    from ltpa.core.specs import EvaluationSpec

EVALUATIONS = {
    "transfer": "features of every target set and a linear SVM in folds",
    "fgsm": "fooling rate under the fast gradient sign attack",
    "segmentation": "attention maps binarised and compared with masks",
    "maps": "other maps of the network compared with masks",
    "query": "attention under another image's global vector",
}


def add_commands(command: Command) -> None:
    """Add `prepare`, `train`, one command per evaluation, and `patches`."""
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

    for name, text in EVALUATIONS.items():
        evaluation = command(name, _evaluate, f"evaluate: {text}")
        evaluation.set_defaults(stage=name)
        add_run_options(evaluation)

    extract = command("patches", _patches, "extract patch boxes, or draw those that are there")
    extract.add_argument("source", nargs="?", help="a name from config/patches.yaml that the configuration uses")
    extract.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml")
    extract.add_argument("--seed", "--seeds", dest="seeds", type=as_seed, nargs="+", default=[0])
    extract.add_argument(
        "--quality", action="store_true", help="only report the statistics of all sources of the dataset"
    )
    extract.add_argument("--show", type=int, metavar="N", help="only draw the boxes of N test images, by rank")
    add_time_limit(extract)
    add_spec_options(extract)


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


def _evaluate(options: argparse.Namespace) -> None:
    from ltpa.core.specs import EvaluationSpec

    spec, results = resolve(
        options, EvaluationSpec, lambda plan: plan.evaluation_spec(options.stage, options.dataset, options.variant)
    )
    importlib.import_module(f"ltpa.stages.{options.stage}").run(spec, results, options.seeds)


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


def _patch_spec(options: argparse.Namespace) -> "tuple[EvaluationSpec, Path]":
    from ltpa.core.specs import EvaluationSpec

    return resolve(options, EvaluationSpec, lambda plan: plan.patch_spec(options.dataset, options.source))


def _extract(options: argparse.Namespace) -> None:
    from ltpa.report.progress import TrainingProgress
    from ltpa.runtime.stopping import stop_requests

    with stop_requests(options.max_seconds) as stop:
        spec, results = _patch_spec(options)
        stage = importlib.import_module("ltpa.stages.patches")
        with TrainingProgress(f"prototypes of {spec.variant} on {spec.dataset}", stage.epochs(spec)) as progress:
            stage.run(spec, results, options.seeds, stop, progress.epoch)
