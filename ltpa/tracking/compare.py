"""Compare the MLflow store with the records that it was written from. Nothing is written."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ltpa.core.records import Record
from ltpa.tracking.content import read_source
from ltpa.tracking.naming import TAG_KEY, TAG_SEAL, experiment_name, metric_key, run_key
from ltpa.tracking.rows import Kept, read_runs
from ltpa.tracking.store import existing_store

_ROUNDING = 1e-12  # relative


class Comparison(NamedTuple):
    """Records whose run is of another version of them, those without a run, and those whose run has other numbers."""

    other: list[Path]
    lacking: list[Path]
    spoilt: list[Path]


def kept_runs(results: Path, scale: str, stages: Sequence[str]) -> dict[str, Kept]:
    """The runs of some stages, by key (`ltpa.tracking.naming.run_key`).

    Raises:
        LtpaError: there is no store, or it is damaged or of another version of MLflow.
    """
    with existing_store(results) as connection:
        names = [experiment_name(scale, stage) for stage in stages]
        return {run.tags[TAG_KEY]: run for run in read_runs(connection, names)}


def compare(records: Mapping[Path, Record], runs: Mapping[str, Kept]) -> Comparison:
    """Compare `records`, by the paths of their files, with `runs`."""
    found = Comparison([], [], [])
    for path, record in records.items():
        kept = runs.get(run_key(record.stage, record.dataset, record.variant, record.seed))
        if kept is None:
            found.lacking.append(path)
        elif kept.tags.get(TAG_SEAL) != read_source(path).seal:
            found.other.append(path)
        elif not _same(record, kept):
            found.spoilt.append(path)
    return found


def _same(record: Record, kept: Kept) -> bool:
    for metric in record.metrics:
        held = kept.metrics.get(metric_key(metric.name, metric.target or record.dataset, metric.condition), math.nan)
        if not math.isclose(held, metric.value, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            return False
    return True
