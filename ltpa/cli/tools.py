"""The commands that describe: a network, what a configuration costs, the machine; and one that tidies up."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltpa.cli.options import LOOK, Command, add_config_option, as_option, as_whole, load_plan
from ltpa.cli.output import print_text
from ltpa.core.errors import LtpaError, ModelError

if TYPE_CHECKING:
    from ltpa.core.specs import TrainSpec
    from ltpa.plan.budget import Facts

# What `ltpa model` takes apart from the further options of a network.
_APART = {"variant": "VARIANT", "num_classes": "--classes", "image_size": "--image-size", "width": "--width"}


def add_commands(command: Command) -> None:
    """Add `model`, `plan`, `clean-state` and `doctor`."""
    model = command("model", _model, "describe a network: parameters, MACs, feature dimension, map sizes", LOOK)
    model.add_argument("variant", help="a name from config/variants.yaml")
    model.add_argument("--classes", type=as_whole, default=10)
    model.add_argument("--image-size", type=as_whole, help="default: the size the network is published for")
    model.add_argument("--width", type=float, default=1.0)
    model.add_argument(
        "--option",
        type=as_option,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another option of the network, such as pools=cub; may be given several times",
    )
    model.add_argument("--json", action="store_true", help="print JSON")
    plan = command("plan", _plan, "what a configuration costs and can show: jobs, downloads, disk, time, power", LOOK)
    add_config_option(plan)
    plan.add_argument(
        "--throughput",
        type=Path,
        metavar="FILE",
        help="speeds from benchmarks/train.py --save (default: config/throughput.json)",
    )
    plan.add_argument(
        "--why",
        action="store_true",
        help="say instead which results run again, and because of which changed statements and settings",
    )
    clean = command("clean-state", _clean_state, "remove saved states that no configuration refers to")
    clean.add_argument(
        "--config", "--configfile", type=Path, nargs="+", metavar="FILE", help="configurations whose states stay"
    )
    clean.add_argument("--dry-run", "-n", action="store_true", help="only say what would be removed")
    add_config_option(command("doctor", _doctor, "check machine and folder and say what will and will not work", LOOK))


def _model(options: argparse.Namespace) -> None:
    from ltpa.models.describe import describe
    from ltpa.models.variants import published_size

    given = dict(options.option)
    if apart := given.keys() & _APART.keys():
        key = min(apart)
        raise ModelError(f"--option {key}=...: give it as {_APART[key]}")
    facts = describe(
        options.variant, options.classes, options.image_size or published_size(options.variant), options.width, **given
    )
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
    from ltpa.plan.budget import Budget, Throughput
    from ltpa.plan.power import markdown
    from ltpa.plan.summary import summarise

    plan = load_plan(options)
    if options.why:
        from ltpa.plan.why import explain

        print(explain(plan))
        return
    throughput = Throughput.read(options.throughput or config_dir() / "throughput.json")
    print_text("\n\n".join([summarise(plan), Budget(plan, _facts, throughput).markdown(), markdown(plan)]))


def _facts(spec: "TrainSpec") -> "Facts":
    from ltpa.models.describe import network_size
    from ltpa.plan.budget import Facts

    return Facts(*network_size(json.dumps(spec.architecture), spec.num_classes, spec.image_size))


def _clean_state(options: argparse.Namespace) -> None:
    from ltpa.plan import views
    from ltpa.stages import clean_state

    wanted: dict[Path, dict[str, list[tuple[Any, int]]]] = {}
    for path in options.config or [None]:
        plan = load_plan(argparse.Namespace(config=path))
        stages = wanted.setdefault(plan.results, {})
        for stage, spec in views.resumable(plan):
            stages.setdefault(stage, []).extend((spec, seed) for seed in plan.config.seeds)
    for results, jobs in wanted.items():
        freed = clean_state.run(results, jobs, options.dry_run)
        print(f"{results / 'state'}: {freed / 1e6:.1f} MB {'could be freed' if options.dry_run else 'freed'}")


def _doctor(options: argparse.Namespace) -> None:
    from ltpa.plan import views
    from ltpa.plan.budget import Budget
    from ltpa.report.doctor import examine
    from ltpa.tracking.store import check_store

    plan = load_plan(options)
    needed = Budget(plan, _facts, None).total().disk_bytes
    wanted = [Path(path) for path in views.records(plan, views.all_runs(plan))]
    gpus = plan.config.jobs.gpus
    if not examine(print, Path.cwd(), plan.results, lambda: check_store(plan.results), gpus, needed, wanted):
        raise LtpaError("something above needs attention before the pipeline can run")
