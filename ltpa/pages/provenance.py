"""Checks, rulings and findings; where every number comes from, and what it cost; the records themselves."""

import dataclasses
import json
from collections import defaultdict

from ltpa.core.records import Record
from ltpa.pages.run import Run, plain
from ltpa.pages.site import Site


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the jobs of one stage took: their number, seconds added up, longest, most memory (MB)."""

    stage: str
    jobs: int
    seconds: float
    longest: float
    memory: float


def costs(records: list[Record]) -> list[Cost]:
    """What each stage took, the dearest first."""
    stages: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        stages[record.stage].append(record)
    found = [
        Cost(
            stage,
            len(group),
            sum(record.seconds for record in group),
            max(record.seconds for record in group),
            max(record.peak_memory_mb for record in group),
        )
        for stage, group in stages.items()
    ]
    return sorted(found, key=lambda cost: -cost.seconds)


def add(site: Site, run: Run) -> None:
    """Add the pages of checks, provenance and records."""
    rulings = {made.title: list(made.declaration.notes) for made in run.tables if made.declaration.notes}
    findings = {made.title: made.table.orders for made in run.tables if made.table.orders}
    site.page("checks.html", "checks.html", rulings=rulings, findings=findings)
    records = list(run.records.values())
    versions: dict[str, set[str]] = defaultdict(set)
    for record in records:
        versions["ltpa"].add(record.code_version)
        versions["device"].add(record.device)
        versions["processor"].add(record.processor)
        versions["threads"].add(str(record.threads))
        for name, version in record.libraries.items():
            versions[name].add(version)
    site.page(
        "provenance.html",
        "provenance.html",
        versions={name: sorted(filter(None, values)) for name, values in versions.items()},
        costs=costs(records),
    )
    stages: dict[str, list[tuple[str, Record, str]]] = defaultdict(list)
    for path, record in run.records.items():
        stages[record.stage].append((path, record, json.dumps(plain(record), indent=1, ensure_ascii=False)))
    for stage, group in stages.items():
        site.page(f"records/{stage}.html", "records.html", stage=stage, group=group)
