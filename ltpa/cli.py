"""The command line: one subcommand per stage, and commands that look at what is there.

Each subcommand imports what it needs when it runs, so that starting any of them stays cheap.
"""

import argparse
import importlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltpa import cli_data, cli_twostream
from ltpa.core.errors import ConfigError, LtpaError

if TYPE_CHECKING:
    from ltpa.plan import Plan

EVALUATIONS = {
    "transfer": "features of every target set and a linear SVM in folds",
    "fgsm": "fooling rate under the fast gradient sign attack",
    "segmentation": "attention maps binarised and held against masks",
    "maps": "other maps of the network held against masks",
    "query": "attention under another image's global vector",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; expected errors print one line and nothing else."""
    options = _parser().parse_args(arguments)
    _print_warnings()
    try:
        options.run(options)
    except LtpaError as error:
        print(f"ltpa: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    return 0


def _print_warnings() -> None:
    """Send what the package warns of to the terminal; its notes go to the log of a training alone."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    logging.basicConfig(format="ltpa: %(message)s", handlers=[handler])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ltpa", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(run=run)
        return added

    prepare = command("prepare", _prepare, "make a dataset's verified arrays")
    prepare.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml or config/datasets/")
    prepare.add_argument(
        "--extracted", type=Path, metavar="DIR", help="folder of extracted files, in place of archives"
    )
    cli_data.add_archives_option(prepare)
    _add_spec_options(prepare)

    train = command("train", _train, "train a variant, one network per seed")
    _add_run_options(train)
    train.add_argument(
        "--max-seconds", type=_seconds, default=math.inf, metavar="N", help="stop with resumable state after this long"
    )
    train.add_argument("--tolerate-failure", action="store_true", help="record a diverged run instead of failing")

    for name, text in EVALUATIONS.items():
        _add_run_options(command(name, _evaluate, f"evaluate: {text}"))
        commands.choices[name].set_defaults(stage=name)

    extract = command("patches", _patches, "extract patch boxes, or draw those that are there")
    extract.add_argument("source", nargs="?", help="a name from config/patches.yaml that the configuration uses")
    extract.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml")
    extract.add_argument("--seed", "--seeds", dest="seeds", type=_seed, nargs="+", default=[0])
    extract.add_argument(
        "--quality", action="store_true", help="only report the statistics of all sources of the dataset"
    )
    extract.add_argument("--show", type=int, metavar="N", help="only draw the boxes of N test images, by rank")
    _add_spec_options(extract)
    extract.add_argument("--more-specs", nargs="+", default=[], metavar="SPEC", help="specs of further sources")

    cli_twostream.add_commands(command("twostream", _plan, "the two-stream network and its rows"), load_plan, _seed)

    for name, text in (
        ("table", "build one table from result records"),
        ("check", "assert that networks learned and attention attends"),
        ("figures", "draw overlays and curves"),
        ("gallery", "draw the figures of images and maps"),
    ):
        view = command(name, _view, text)
        view.set_defaults(stage=name)
        view.add_argument("--spec", required=True, help="the job's spec: JSON, or @FILE")
        view.add_argument("--results", type=Path, required=True, help="folder of the scale, results/<scale>")
        view.add_argument("--records", type=Path, nargs="*", default=[], help="result records to read")

    track = command("track", _track, "write result records into the MLflow store")
    _add_spec_options(track)
    track.add_argument("--records", type=Path, nargs="*", help="result records (default: all that are there)")
    track.add_argument("--tables", type=Path, nargs="*", help="tidy tables to hold against MLflow (default: all)")
    track.add_argument("--follow", action="store_true", help="write the epochs of running trainings as they end")
    track.add_argument(
        "--idle", type=_seconds, default=60.0, metavar="N", help="with --follow: end when nothing trained for N seconds"
    )
    track.add_argument("--rebuild", action="store_true", help="make the store anew from the records")

    attend = command("attend", _attend, "lay a network's attention over pictures of any size")
    attend.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    attend.add_argument("--model", type=Path, required=True, help="a trained network, model.safetensors")
    attend.add_argument("--query", type=Path, metavar="IMAGE", help="take the global vector from this picture")
    attend.add_argument("--format", nargs="+", choices=["png", "svg", "pdf"], default=["png"], help="default: png")
    attend.add_argument("--output", type=Path, default=Path("attended"), metavar="DIR", help="default: attended")

    evaluate = command("evaluate", _evaluate_folder, "run one protocol on one network and a folder of images")
    evaluate.add_argument("protocol", choices=["transfer", "fgsm", "segmentation", "maps", "query"])
    evaluate.add_argument("--model", type=Path, required=True, help="a trained network, model.safetensors")
    evaluate.add_argument("--images", type=Path, required=True, metavar="DIR", help="a folder of images per class")
    evaluate.add_argument("--masks", type=Path, metavar="DIR", help="masks, named like the images (segmentation, maps)")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    _add_config_option(evaluate)

    model = command("model", _model, "describe a network: parameters, MACs, feature dimension, map sizes")
    model.add_argument("variant", help="a name from config/variants.yaml")
    model.add_argument("--classes", type=int, default=10)
    model.add_argument("--image-size", type=int, default=32)
    model.add_argument("--width", type=float, default=1.0)
    model.add_argument("--json", action="store_true", help="print JSON")

    cli_data.add_commands(command("data", cli_data.list_declared, "list, fetch, verify and show datasets"), load_plan)

    for name, run, text in (
        ("plan", _plan, "what a configuration costs: jobs, downloads, disk, hours"),
        ("status", _status, "show which runs of a configuration are done"),
    ):
        _add_config_option(command(name, run, text))
    commands.choices["plan"].add_argument(
        "--throughput",
        type=Path,
        metavar="FILE",
        help="speeds from benchmarks/train.py --save (default: config/throughput.json)",
    )
    clean = command("clean-state", _clean_state, "remove saved states of trainings that no configuration refers to")
    clean.add_argument(
        "--config", "--configfile", type=Path, nargs="+", metavar="FILE", help="configurations whose states stay"
    )
    clean.add_argument("--dry-run", "-n", action="store_true", help="only say what would be removed")
    show = command("show", _show, "print a finished table and say where its files are")
    show.add_argument("table")
    _add_config_option(show)
    _add_config_option(command("doctor", _doctor, "check machine and folder and say what will and will not work"))
    return parser


def _add_config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", "--configfile", type=Path, help="configuration file (default: config/config.yaml)")


def _add_spec_options(parser: argparse.ArgumentParser) -> None:
    _add_config_option(parser)
    parser.add_argument("--spec", help="the job's spec instead of names: JSON, or @FILE")
    parser.add_argument("--results", type=Path, help="folder of the scale (default: results/<scale>)")


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**31:
        raise argparse.ArgumentTypeError(f"seed {seed} is not a whole number from 0 to 2^31 - 1")
    return seed


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", nargs="?", help="a name from config/variants.yaml")
    parser.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml")
    parser.add_argument("--seed", "--seeds", dest="seeds", type=_seed, nargs="+", default=[0])
    _add_spec_options(parser)


def load_plan(options: argparse.Namespace) -> "Plan":
    """The plan of the configuration that `--config` names, or of the default one."""
    from ltpa.core.config import load_config
    from ltpa.core.declared import config_dir
    from ltpa.plan import Plan

    path = options.config or config_dir() / "config.yaml"
    return Plan(load_config(path), str(path))


def _resolve(options: argparse.Namespace, kind: type, make: "Callable[[Plan], Any]") -> tuple[Any, Path]:
    """The spec and results folder of a command: given by `--spec` and `--results`, or made from names."""
    if options.spec:
        if options.results is None:
            raise ConfigError("--spec goes with --results DIR")
        return kind.from_json(options.spec), options.results  # type: ignore[attr-defined]
    plan = load_plan(options)
    for key, known in (
        ("variant", plan.variants),
        ("source", plan.patch_sources),
        ("dataset", plan.datasets),
    ):
        name = getattr(options, key, "")
        if name is None:
            raise ConfigError(f"name a {key}, or pass --spec; known: {', '.join(known)}")
        if name and name not in known:
            from ltpa.core.config import unknown_name

            raise ConfigError(unknown_name(key, name, list(known)))
    os.environ.setdefault("LTPA_GPU_SHARE", str(plan.config.jobs.gpu_share))
    return make(plan), options.results or plan.results


def _prepare(options: argparse.Namespace) -> None:
    from ltpa.core.specs import PrepareSpec
    from ltpa.stages import prepare

    spec, results = _resolve(options, PrepareSpec, lambda plan: plan.prepare_spec(options.dataset))
    archives = cli_data.archive_folders(options)
    prepare.run(spec, results, archives, options.extracted, lambda text: print(text, file=sys.stderr, flush=True))


def _train(options: argparse.Namespace) -> None:
    from ltpa.core.specs import TrainSpec
    from ltpa.core.stopping import stop_requests
    from ltpa.report.progress import TrainingProgress

    # Before torch is imported, which takes seconds in which a signal may come.
    with stop_requests(options.max_seconds) as stop:
        spec, results = _resolve(options, TrainSpec, lambda plan: plan.train_spec(options.dataset, options.variant))
        train = importlib.import_module("ltpa.stages.train")
        with TrainingProgress(f"{spec.variant} on {spec.dataset}", spec.recipe["epochs"]) as shown:
            watcher = train.Watcher(shown.epoch, shown.progress, shown.say)
            train.run(spec, results, options.seeds, stop, options.tolerate_failure, watcher)


def _evaluate(options: argparse.Namespace) -> None:
    from ltpa.core.specs import EvaluationSpec

    spec, results = _resolve(
        options, EvaluationSpec, lambda plan: plan.evaluation_spec(options.stage, options.dataset, options.variant)
    )
    importlib.import_module(f"ltpa.stages.{options.stage}").run(spec, results, options.seeds)


def _patches(options: argparse.Namespace) -> None:
    from ltpa.core.specs import EvaluationSpec

    spec, results = _resolve(options, EvaluationSpec, lambda plan: plan.patch_spec(options.dataset, options.source))
    if options.show is None and not options.quality:
        stage = importlib.import_module("ltpa.stages.patches")
        for each in (spec, *map(EvaluationSpec.from_json, options.more_specs)):
            stage.run(each, results, options.seeds)
        return
    from ltpa.stages import patch_pictures

    if options.quality:
        print(patch_pictures.report(results, spec.dataset))
    for seed in options.seeds if options.show is not None else []:
        print(patch_pictures.draw(spec, results, seed, options.show))


def _attend(options: argparse.Namespace) -> None:
    from ltpa.stages.attend import attend

    for line in attend(options.images, options.model, options.output, options.query, options.format):
        print(line)


def _evaluate_folder(options: argparse.Namespace) -> None:
    from ltpa.stages.evaluate import as_markdown, evaluate_folder

    settings = getattr(load_plan(options).config.protocols, options.protocol).model_dump()
    record = evaluate_folder(options.protocol, options.model, options.images, options.masks, settings)
    print(json.dumps(record, indent=1) if options.json else as_markdown(record))


def _view(options: argparse.Namespace) -> None:
    stage = importlib.import_module(f"ltpa.stages.{options.stage}")
    stage.run(stage.SPEC.from_json(options.spec), options.results, options.records)


def _track(options: argparse.Namespace) -> None:
    from ltpa.plan import views
    from ltpa.stages import track

    if options.spec:
        spec, results = _resolve(options, track.SPEC, views.track_spec)
        track.run(spec, results, options.records or [], options.tables or [], options.rebuild)
        return
    plan = load_plan(options)
    results = options.results or plan.results
    if options.follow:
        from ltpa.core.stopping import stop_requests

        with stop_requests() as stop:
            print(f"following the trainings below {results}; Ctrl-C ends it, and harms none", flush=True)
            track.follow(views.track_spec(plan), results, stop, options.idle, lambda text: print(text, flush=True))
        return
    records = options.records or [p for p in map(Path, views.records(plan, views.all_runs(plan))) if p.is_file()]
    tables = options.tables or sorted((results / "tables").glob("*.tidy.csv"))
    track.run(views.track_spec(plan), results, records, tables, options.rebuild)


def _model(options: argparse.Namespace) -> None:
    from ltpa.models.describe import describe

    facts = describe(options.variant, options.classes, options.image_size, options.width)
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    facts["extension"] = "yes, not in the paper" if facts["extension"] else "no, of the paper"
    facts["map_sizes"] = ", ".join(f"{level} {'x'.join(map(str, size))}" for level, size in facts["map_sizes"].items())
    facts["architecture"] = ", ".join(f"{key} {value}" for key, value in facts["architecture"].items())
    for key, value in facts.items():
        print(
            f"{key.replace('_', ' '):16} {value:,}" if isinstance(value, int) else f"{key.replace('_', ' '):16} {value}"
        )


def _plan(options: argparse.Namespace) -> None:
    from ltpa.core.declared import config_dir
    from ltpa.models.describe import network_size
    from ltpa.plan.budget import Budget, Facts, Throughput
    from ltpa.plan.summary import summarise

    plan = load_plan(options)
    throughput = Throughput.read(options.throughput or config_dir() / "throughput.json")
    print(summarise(plan))

    def facts(spec: Any) -> Facts:
        return Facts(*network_size(json.dumps(spec.architecture), spec.num_classes, spec.image_size))

    print(f"\n{Budget(plan, facts, throughput).markdown()}")


def _clean_state(options: argparse.Namespace) -> None:
    from ltpa.plan import views
    from ltpa.stages import clean_state

    wanted: dict[Path, list[tuple[Any, int]]] = {}
    for path in options.config or [None]:
        plan = load_plan(argparse.Namespace(config=path))
        training = [run for run in views.all_runs(plan) if run.stage == "train"]
        wanted.setdefault(plan.results, []).extend(
            (plan.train_spec(run.dataset, run.variant), seed) for run in training for seed in plan.config.seeds
        )
    for results, specs in wanted.items():
        freed = clean_state.run(results, specs, options.dry_run)
        print(f"{results / 'state'}: {freed / 1e6:.1f} MB {'could be freed' if options.dry_run else 'freed'}")


def _status(options: argparse.Namespace) -> None:
    from ltpa.plan.summary import status

    print(status(load_plan(options)))


def _show(options: argparse.Namespace) -> None:
    from ltpa.core import layout
    from ltpa.core.config import unknown_name

    plan = load_plan(options)
    if options.table not in plan.tables:
        raise ConfigError(unknown_name("table", options.table, list(plan.tables)))
    path = layout.table_path(plan.results, options.table, "csv")
    if not path.is_file():
        raise ConfigError(f"{path} is not there yet; make it with: snakemake {options.table}")
    from ltpa.tables.terminal import to_terminal

    scale = plan.config.scale
    print(f"{plan.tables[options.table]['title']} ({plan.tables[options.table]['unit']}), scale {scale.name}")
    if not scale.comparable:
        print("From stand-in data or short training: not comparable with the paper.")
    print(f"\n{to_terminal(path)}\n\nAll tables (csv, md, tex, html): {path.parent}/")


def _doctor(options: argparse.Namespace) -> None:
    from ltpa.report.doctor import examine
    from ltpa.tracking.store import DATABASE, check_database

    plan = load_plan(options)
    database = plan.results / DATABASE

    def store() -> None:
        if database.exists():
            check_database(database)

    if not examine(print, Path.cwd(), plan.results, store, plan.config.jobs.gpus):
        raise LtpaError("something above needs attention before the pipeline can run")
