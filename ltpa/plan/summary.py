"""A configuration in numbers: how many jobs it means, and which runs are done."""

import json
from collections import Counter
from pathlib import Path

from ltpa.core import layout
from ltpa.core.errors import RecordError
from ltpa.core.records import read_record
from ltpa.plan.plan import Plan
from ltpa.plan.views import all_runs, figure_files


def summarise(plan: Plan) -> str:
    """A Markdown table of job counts per stage."""
    runs = all_runs(plan)
    counts = Counter(run.stage for run in runs)
    seeds, datasets = len(plan.config.seeds), len(plan.config.datasets)
    lines = ["| stage | jobs |", "|---|---:|", f"| prepare | {datasets} |"]
    lines += [f"| {stage} | {number * seeds} |" for stage, number in counts.items()]
    total = datasets + len(runs) * seeds + views(plan) + 1  # the target all_tables is a job to Snakemake
    lines += [f"| views | {views(plan)} |", f"| total | {total} |"]
    return "\n".join(lines)


def views(plan: Plan) -> int:
    """Number of jobs that show results: tables, checks, up to two of figures, tracking, and the report."""
    return len(plan.config.tables) + 3 + len(figure_files(plan)) + plan.config.jobs.track


def status(plan: Plan) -> str:
    """A Markdown table of all runs: how many seeds are done, failed, damaged or missing."""
    lines = ["| stage | dataset | variant | seeds |", "|---|---|---|---|"]
    for run in all_runs(plan):
        states = Counter(_state(Path(path)) for path in plan.records(run))
        text = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        lines.append(f"| {run.stage} | {run.dataset} | {run.variant} | {text} |")
    return "\n".join(lines)


def _state(path: Path) -> str:
    if not path.exists():
        return "missing"
    try:
        return {"ok": "done", "failed": "failed"}[read_record(path).status]
    except RecordError:
        return "damaged"


def check_warnings(plan: Plan) -> list[str]:
    """What the checks of a finished run warn of; nothing where they were not made."""
    path = plan.results / layout.CHECKS_JSON
    try:
        warnings = json.loads(path.read_text(encoding="utf-8"))["warnings"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [f"{path.with_name(layout.CHECKS)}: {each}" for each in warnings]
