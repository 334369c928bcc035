"""The findings of a configuration's run: which records there should be, read and put into sentences."""

import shlex
from pathlib import Path

from ltpa.core.records import Record, read_record
from ltpa.plan import views
from ltpa.plan.plan import Plan
from ltpa.report.findings import STAGES, Records, findings_page


def findings(plan: Plan) -> str:
    """The page (`ltpa.report.findings`) of the records that are there, in Markdown.

    Raises:
        RecordError: a record is damaged.
    """
    runs = [run for run in views.all_runs(plan) if run.stage in STAGES]
    by_stage: dict[str, list[Record]] = {}
    missing: dict[str, int] = {}
    for run in runs:
        for path in map(Path, plan.records(run)):
            record = read_record(path) if path.is_file() else None
            if record is None or record.status != "ok":
                missing[run.stage] = missing.get(run.stage, 0) + 1
            else:
                by_stage.setdefault(run.stage, []).append(record)
    scale, source = plan.config.scale, Path(plan.source)
    chosen = "" if source.name == "config.yaml" else f" --configfile {shlex.quote(plan.source)}"
    compatibility = plan.protocols["query"].check_facts(plan)["compatibility"]
    return findings_page(Records(by_stage, compatibility), scale.name, scale.comparable, missing, f"snakemake{chosen}")
