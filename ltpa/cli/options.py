"""What several subcommands share: options, and how names become the spec of a job."""

import argparse
import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ltpa.core.errors import ConfigError
from ltpa.core.specs import Spec

if TYPE_CHECKING:
    from ltpa.plan import Plan

S = TypeVar("S", bound=Spec)
# The names that a configuration knows, by the command's argument.
Known = Callable[["Plan"], dict[str, Collection[str]]]
# Sections of the help, in this order. What the pipeline alone calls, with a spec, is in none.
LOOK, DO, MEASURE, INTERNAL = "Look", "Do", "Measure trained networks", ""


class Command:
    """Adds subcommands to `parser`, and lists them in its help by section.

    Attributes:
        names: of all subcommands.
    """

    def __init__(self, parser: argparse.ArgumentParser, metavar: str = "COMMAND") -> None:
        self._parser = parser
        self._commands = parser.add_subparsers(required=True, metavar=metavar, help=argparse.SUPPRESS, prog=parser.prog)
        self._sections: dict[str, list[str]] = {LOOK: [], DO: [], MEASURE: []}
        self.names: list[str] = []
        parser.formatter_class = argparse.RawDescriptionHelpFormatter

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], None], text: str, section: str = DO
    ) -> argparse.ArgumentParser:
        """Add one: its name, the function that runs it, what it does in a few words, and where the help lists it."""
        added = self._commands.add_parser(name, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(run=run)
        self.names.append(name)
        if section != INTERNAL:
            self._sections[section].append(f"  {name:14} {text}")
        shown = [f"{title}:\n" + "\n".join(lines) for title, lines in self._sections.items() if lines]
        self._parser.epilog = "\n\n".join(shown)
        return added


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, which `load_plan` reads."""
    parser.add_argument("--config", "--configfile", type=Path, help="configuration file (default: config/config.yaml)")


def add_spec_options(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, `--spec` and `--results`, which `resolve` reads."""
    add_config_option(parser)
    parser.add_argument("--spec", help="the job's spec instead of names: JSON, or @FILE")
    parser.add_argument("--results", type=Path, help="folder of the scale (default: results/<scale>)")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add a variant, a dataset and seeds to the options of a spec."""
    parser.add_argument("variant", nargs="?", help="a name from config/variants.yaml")
    parser.add_argument("dataset", nargs="?", help="a name from config/datasets.yaml")
    parser.add_argument("--seed", "--seeds", dest="seeds", type=as_seed, nargs="+", default=[0])
    add_spec_options(parser)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what trainings share: a time limit, and whether a diverged run is a result."""
    add_time_limit(parser)
    parser.add_argument("--tolerate-failure", action="store_true", help="record a diverged run instead of failing")


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Add `--max-seconds`, for work that can be resumed."""
    parser.add_argument(
        "--max-seconds",
        type=as_seconds,
        default=math.inf,
        metavar="N",
        help="stop with resumable state after this long",
    )


def as_seed(text: str) -> int:
    """A seed from the text of an option."""
    number = as_whole(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"{number} is no seed; seeds are whole numbers from 0 to 2^31 - 1")
    return number


def as_whole(text: str) -> int:
    """A whole number from the text of an option."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def as_seconds(text: str) -> float:
    """A time from the text of an option."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def as_option(text: str) -> tuple[str, Any]:
    """An option of a network from the text KEY=VALUE, the value read as in a configuration file."""
    import yaml

    from ltpa.core.plain_yaml import parse_yaml

    key, equals, value = text.partition("=")
    if not key.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as pools=cub")
    try:
        return key, parse_yaml(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"the value of {text!r} is not YAML") from error


def _declared(plan: "Plan") -> dict[str, Collection[str]]:
    return {
        "protocol": plan.protocols,
        "variant": plan.variants,
        "source": plan.patch_sources,
        "dataset": plan.datasets,
    }


def load_plan(options: argparse.Namespace) -> "Plan":
    """The plan of the configuration that `--config` names, or of the default one."""
    from ltpa.core.declared import config_dir
    from ltpa.plan import Plan
    from ltpa.plan.config import load_config

    path = options.config or config_dir() / "config.yaml"
    return Plan(load_config(path), str(path))


def resolve(
    options: argparse.Namespace, kind: type[S], make: "Callable[[Plan], S]", known: Known = _declared
) -> tuple[S, Path]:
    """The spec and results folder of a command: given by `--spec` and `--results`, or made from names.

    Raises:
        ConfigError: a name that is missing or not `known`; `--spec` without `--results`.
    """
    if options.spec:
        if options.results is None:
            raise ConfigError("--spec goes with --results DIR")
        return kind.from_json(options.spec), options.results
    plan = load_plan(options)
    for key, names in known(plan).items():
        name = getattr(options, key, "")
        if name is None:
            raise ConfigError(f"name a {key}, or pass --spec; known: {', '.join(names)}")
        if name and name not in names:
            from ltpa.core.declared import unknown_name

            raise ConfigError(f"{unknown_name(key, name, list(names))} (of {plan.source})")
    os.environ.setdefault("LTPA_GPU_SHARE", str(plan.config.jobs.gpu_share))
    return make(plan), options.results or plan.results
