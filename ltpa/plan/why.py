"""Why results would be made anew: which statements and which settings differ from those they were made with."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.code import code_hash, definitions
from ltpa.core.errors import RecordError
from ltpa.core.records import read_record
from ltpa.core.specs import Spec
from ltpa.plan import jobs
from ltpa.plan.plan import Plan
from ltpa.plan.views import all_runs

Definitions = Mapping[str, Mapping[str, str]]
_UNKNOWN = "what it consisted of was not kept"


@dataclasses.dataclass(frozen=True)
class _Made:
    """A result that is there: its stage, the names of dataset and network, its seed, and what it was made with."""

    stage: str
    names: tuple[str, ...]
    seed: int | None
    config_hash: str
    code_hash: str


def explain(plan: Plan) -> str:
    """A line for every change, and below it the jobs that run anew for it.

    Prepared datasets and the records of networks are looked at; what reads their results runs anew with them.
    """
    found: dict[str, dict[tuple[str, ...], list[int | None]]] = defaultdict(lambda: defaultdict(list))
    count = 0
    for made, spec in _results(plan):
        count += 1
        code = [jobs.stage_module(plan, made.stage), *spec.code]
        for change in (*_of_spec(plan, made, spec), *_of_code(plan, made, code)):
            found[change][made.stage, *made.names].append(made.seed)
    if not found:
        return f"{count} results, all of this configuration and this code."
    lines: list[str] = []
    for change, results in found.items():
        lines.append(change)
        for (stage, dataset, *variant), seeds in results.items():
            text = f"{variant[0]} on {dataset}, seeds {', '.join(map(str, seeds))}" if variant else dataset
            lines.append(f"    {stage}: {text}")
    return "\n".join([*lines, "These jobs run anew, and with them everything that reads their results."])


def _results(plan: Plan) -> Iterator[tuple[_Made, Spec]]:
    """Every readable result of the configuration, with the spec that it should have."""
    for dataset in plan.config.datasets:
        try:
            facts = json.loads(Path(plan.manifest(dataset)).read_text(encoding="utf-8"))["facts"]
            made = _Made("prepare", (dataset,), None, facts["config_hash"], facts["code_hash"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
        yield made, plan.prepare_spec(dataset)
    for run in all_runs(plan):
        spec = jobs.spec(plan, run.stage, run.dataset, run.variant)
        for path in plan.records(run):
            try:
                record = read_record(Path(path))
            except RecordError:
                continue
            names = (record.dataset, record.variant)
            yield _Made(record.stage, names, record.seed, record.config_hash, record.code_hash), spec


def _of_code(plan: Plan, made: _Made, code: list[str]) -> Iterator[str]:
    """The definitions that differ from those a result was made with."""
    if made.code_hash == code_hash(code):
        return
    path = layout.code_path(plan.results, made.code_hash)
    if not path.is_file():
        yield f"code {made.code_hash[:12]} is not the code of now; {_UNKNOWN}"
        return
    yield from differing(json.loads(path.read_text(encoding="utf-8")), definitions(code))


def differing(before: Definitions, after: Definitions) -> Iterator[str]:
    """What was changed, added and removed from one set of definitions to another, by module and name."""
    for module in sorted(before.keys() | after.keys()):
        old, new = before.get(module), after.get(module)
        if old is None or new is None:
            yield f"{module}: {'no longer used' if new is None else 'newly used'}"
            continue
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                what = "removed" if name not in new else "added" if name not in old else "changed"
                yield f"{module}: {name} {what}"
        if old == new and list(old) != list(new):
            yield f"{module}: order of definitions changed"


def _of_spec(plan: Plan, made: _Made, spec: Spec) -> Iterator[str]:
    """The settings that differ from those a result was made with."""
    if made.config_hash == spec.hash():
        return
    path = layout.spec_path(plan.results, made.stage, made.names, made.config_hash)
    if not path.is_file():
        yield f"configuration {made.config_hash[:12]} is not that of now; {_UNKNOWN}"
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    old, new = (dict(_flat(values)) for values in (before, json.loads(spec.to_json())))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"setting {key}: {old.get(key, 'not there')} before, {new.get(key, 'not there')} now"


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings by dotted key, as JSON; lists are leaves."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(values)
