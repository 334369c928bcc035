"""The command `ltpa list`: variants, datasets, tables and protocols, and what of them is done."""

import argparse
import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.cli.options import LOOK, Command, add_config_option, load_plan
from ltpa.cli.output import markdown_table, print_text
from ltpa.core.errors import ConfigError

if TYPE_CHECKING:
    from ltpa.plan import Plan

KINDS = ("variants", "datasets", "tables", "protocols")


def add_commands(command: Command) -> None:
    """Add `list`."""
    listing = command("list", _list, "name variants, datasets, tables and protocols, and what of them is done", LOOK)
    listing.add_argument("kind", nargs="?", choices=KINDS, help="default: all four")
    listing.add_argument("pattern", nargs="?", default="*", help="only names that fit, such as '*att*'")
    add_config_option(listing)


def _list(options: argparse.Namespace) -> None:
    plan = load_plan(options)
    done = _done(plan)
    parts = []
    for kind in (options.kind,) if options.kind else KINDS:
        header, rows = _LISTS[kind](plan, done)
        fitting = [row for row in rows if fnmatch.fnmatchcase(row[0], options.pattern)]
        if fitting:
            parts.append(f"## {kind.capitalize()}\n\n{markdown_table(header, fitting)}")
    if not parts:
        raise ConfigError(f"nothing is called {options.pattern!r}; see `ltpa list`")
    print_text("\n\n".join(parts) + f"\n\nDone: of what {plan.source} asks for. Names without are not part of it.")


Done = dict[str, Counter[str]]  # by the name of a variant, dataset or protocol: results that are there, and all
Rows = Iterator[tuple[str, ...]]


def _done(plan: "Plan") -> Done:
    from ltpa.plan.views import all_runs

    found: Done = defaultdict(Counter)
    for run in all_runs(plan):
        paths = [Path(path) for path in plan.records(run)]
        key = run.variant if run.stage == "train" else run.stage
        found[key].update(asked=len(paths), there=sum(path.is_file() for path in paths))
    return found


def _share(done: Done, name: str) -> str:
    return f"{done[name]['there']} of {done[name]['asked']}" if name in done else ""


def _variants(plan: "Plan", done: Done) -> tuple[list[str], Rows]:
    rows = (
        (name, variant.family, "" if variant.extension else "yes", _share(done, name))
        for name, variant in plan.variants.items()
    )
    return ["name", "family", "in the paper", "trained:"], rows


def _datasets(plan: "Plan", done: Done) -> tuple[list[str], Rows]:
    def state(name: str) -> str:
        if name not in plan.config.datasets:
            return ""
        return "prepared" if Path(plan.manifest(name)).is_file() else "missing"

    rows = (
        (name, entry.get("plays") or "", str(entry["image_size"]), str(len(entry["classes"])), state(name))
        for name, entry in plan.datasets.items()
    )
    return ["name", "stands in for", "pixels:", "classes:", "arrays"], rows


def _tables(plan: "Plan", done: Done) -> tuple[list[str], Rows]:
    from ltpa.core import layout

    def state(name: str) -> str:
        if name not in plan.config.tables:
            return ""
        return "done" if layout.table_path(plan.results, name, "csv").is_file() else "missing"

    return ["name", "what it shows", "done"], (
        (name, entry["title"], state(name)) for name, entry in plan.tables.items()
    )


def _protocols(plan: "Plan", done: Done) -> tuple[list[str], Rows]:
    rows = ((name, protocol.about, _share(done, name)) for name, protocol in plan.protocols.items())
    return ["name", "what it measures", "done:"], rows


_LISTS = {"variants": _variants, "datasets": _datasets, "tables": _tables, "protocols": _protocols}
