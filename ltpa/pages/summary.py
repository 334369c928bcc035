"""A run in numbers: verdicts, checks, networks, time, and what its maps are for."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltpa.core.errors import RecordError
from ltpa.core.records import Record
from ltpa.core.text import printable
from ltpa.pages.cells import MARKS, kind_of
from ltpa.pages.run import MadeTable, Run

SUMMARY = "summary.json"
# Accuracies of one network: name and condition of the metric, and how the network looked.
_MAP_USE = (
    ("own_accuracy_pct", "", "their own maps"),
    ("accuracy_pct", "uniform all", "uniform maps"),
    ("refit_accuracy_pct", "uniform all", "uniform maps and a readout fitted anew"),
)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the first page counts, and `ltpa summary` prints.

    Attributes:
        verdicts: number of cells of all tables by kind (`ltpa.pages.cells.MARKS`).
        checks, checks_failed, checks_missed: how many there are, failed, and are only not shown.
        networks: trained networks, without seeds; `seeds` how many each has.
        jobs, job_seconds: result records, and the seconds that their jobs took, added up.
        failed, unlearned: records of failed runs; networks that did not learn.
        unfinished: the tables that lack records.
        headline: a sentence about the result.
    """

    scale: str
    comparable: bool
    verdicts: dict[str, int]
    checks: int
    checks_failed: int
    checks_missed: int
    networks: int
    seeds: int
    jobs: int
    job_seconds: float
    failed: int
    unlearned: int
    unfinished: list[str]
    headline: str


def summarise(run: Run) -> Summary:
    """Count."""
    checks = run.checks
    return Summary(
        scale=run.spec.scale,
        comparable=run.spec.comparable,
        verdicts=verdicts(run.tables),
        checks=len(checks),
        checks_failed=sum(check.fails for check in checks),
        checks_missed=sum(not (check.passed or check.fails) for check in checks),
        networks=len(run.networks),
        seeds=len(run.spec.seeds),
        jobs=len(run.records),
        job_seconds=round(sum(record.seconds for record in run.records.values()), 1),
        failed=len(run.failed),
        unlearned=len(run.unlearned),
        unfinished=[table.name for table in run.tables if table.unfinished],
        headline=headline(list(run.records.values())),
    )


def verdicts(tables: Sequence[MadeTable]) -> dict[str, int]:
    """Number of cells by kind, of every kind."""
    cells = (cell for made in tables for panel in made.table.panels for row in panel.rows for cell in row.cells)
    found = Counter(kind_of(cell) for cell in cells if cell is not None)
    return {kind: found[kind] for kind in MARKS}


def headline(records: Sequence[Record]) -> str:
    """What attention is for, where maps were replaced; else how the best network does."""
    causal = [record for record in records if record.status == "ok" and record.stage == "causal"]
    texts = []
    for name, condition, how in _MAP_USE:
        values = [
            metric.value
            for record in causal
            for metric in record.metrics
            if (metric.name, metric.condition, metric.target or record.dataset) == (name, condition, record.dataset)
        ]
        if values:
            texts.append(f"{sum(values) / len(values):.1f} % with {how}")
    if len(texts) == len(_MAP_USE):
        networks = len({(record.dataset, record.variant) for record in causal})
        return f"Mean accuracy of {networks} networks with attention: {', '.join(texts)}."
    errors: dict[tuple[str, str], list[float]] = {}
    for record in records:
        if record.stage == "train":
            for metric in record.metrics:
                if metric.name == "test_error_pct":
                    errors.setdefault((record.dataset, record.variant), []).append(metric.value)
    if not errors:
        return "No network was trained."
    (dataset, variant), values = min(errors.items(), key=lambda item: sum(item[1]) / len(item[1]))
    return f"Lowest test error: {sum(values) / len(values):.2f} %, {variant} on {dataset}."


def read_summary(report: Path) -> Summary:
    """The summary beside a report's pages.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    path = report / SUMMARY
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Summary(**values)
    except FileNotFoundError:
        raise RecordError(f"{path}: no report yet; make it with: snakemake --cores all all_tables") from None
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(f"{path}: not readable ({error}); delete it and run snakemake all_tables again") from error


def in_words(seconds: float) -> str:
    """A duration as people say it: `48 s`, `12 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def five_lines(summary: Summary, report: Path, table: str, took: float | None) -> list[str]:
    """The end of a run: where the report is, checks, time, headline, what to do next.

    `took` are the seconds of this call, None where they are not known.
    """
    missed = f", {summary.checks_missed} not shown" if summary.checks_missed else ""
    jobs = f"{summary.jobs} jobs, {in_words(summary.job_seconds)} added up"
    return [
        f"Report:    {printable(report / 'index.html')}",
        f"Checks:    {summary.checks}, {summary.checks_failed or 'none'} failed{missed}",
        f"Time:      {jobs}" if took is None else f"Time:      {in_words(took)} ({jobs})",
        f"Headline:  {printable(summary.headline)}",
        f"Next:      ltpa show {printable(table)}",
    ]
