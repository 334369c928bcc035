"""A configuration in numbers: how many jobs it means, and which runs are done."""

from collections import Counter
from pathlib import Path

from ltpa.core.errors import RecordError
from ltpa.core.records import read_record
from ltpa.plan.plan import Plan
from ltpa.plan.views import all_runs


def summarise(plan: Plan) -> str:
    """A Markdown table of job counts per stage."""
    counts = Counter(run.stage for run in all_runs(plan))
    lines = ["| stage | networks | jobs |", "|---|---:|---:|"]
    for stage, runs in counts.items():
        lines.append(f"| {stage} | {runs * len(plan.config.seeds)} | {runs * len(plan.blocks(stage))} |")
    views = len(plan.config.tables) + 2 + plan.config.jobs.track
    total = len(plan.config.datasets) + sum(runs * len(plan.blocks(stage)) for stage, runs in counts.items()) + views
    lines += [f"| prepare | | {len(plan.config.datasets)} |", f"| views | | {views} |", f"| total | | {total} |"]
    return "\n".join(lines)


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
