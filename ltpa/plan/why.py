"""Why results would be made anew: which statements and which settings differ from those they were made with."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.code import code_hash, definitions
from ltpa.core.errors import RecordError
from ltpa.core.records import Record, read_record
from ltpa.core.specs import Spec
from ltpa.plan import jobs
from ltpa.plan.plan import Plan, Run
from ltpa.plan.views import all_runs

Definitions = Mapping[str, Mapping[str, str]]
_UNKNOWN = "what it consisted of was not kept"


def explain(plan: Plan) -> str:
    """A line for every change, and below it the jobs that it makes run anew; what follows from these runs, too."""
    found: dict[str, dict[Run, list[int]]] = defaultdict(lambda: defaultdict(list))
    count = 0
    for run in all_runs(plan):
        spec = jobs.spec(plan, run.stage, run.dataset, run.variant)
        code = [f"ltpa.stages.{run.stage}", *spec.code]
        for path in map(Path, plan.records(run)):
            try:
                record = read_record(path)
            except RecordError:
                continue
            count += 1
            changes = [*_of_spec(plan, record, spec), *_of_code(plan, record, code)]
            for change in changes:
                found[change][run].append(record.seed)
    if not found:
        return f"{count} results, all of this configuration and this code."
    lines: list[str] = []
    for change, runs in found.items():
        jobs_of = [f"{run.stage}: {run.variant} on {run.dataset}, {_seeds(seeds)}" for run, seeds in runs.items()]
        lines += [change, *(f"    {text}" for text in jobs_of)]
    return "\n".join([*lines, "These jobs run anew, and with them everything that reads their results."])


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _of_code(plan: Plan, record: Record, code: list[str]) -> Iterator[str]:
    """The definitions that differ from those a record was made with."""
    if record.code_hash == code_hash(code):
        return
    path = layout.code_path(plan.results, record.code_hash)
    if not path.is_file():
        yield f"code {record.code_hash[:12]} is not the code of now; {_UNKNOWN}"
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
        if list(old.items()) != list(new.items()) and old == new:
            yield f"{module}: order of definitions changed"


def _of_spec(plan: Plan, record: Record, spec: Spec) -> Iterator[str]:
    """The settings that differ from those a record was made with."""
    if record.config_hash == spec.hash():
        return
    path = layout.spec_path(plan.results, record.stage, (record.dataset, record.variant), record.config_hash)
    if not path.is_file():
        yield f"configuration {record.config_hash[:12]} is not that of now; {_UNKNOWN}"
        return
    old, new = (dict(_flat(values)) for values in (json.loads(path.read_text()), json.loads(spec.to_json())))
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
