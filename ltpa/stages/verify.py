"""Compare what lies in the folder of a scale with itself and with its configuration: what differs, and its remedy.

Nothing is changed. The blame falls on the file that is wrong: what was made from it is not compared.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ltpa.core import layout
from ltpa.core.errors import DataError
from ltpa.data.arrays import PreparedDataset
from ltpa.stages.verify_findings import Findings
from ltpa.stages.verify_runs import ExpectedRun, Runs
from ltpa.stages.verify_views import Store, Views
from ltpa.tables.spec import CheckSpec, TableSpec, TrackSpec

__all__ = ["Expected", "ExpectedRun", "run"]


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a configuration wants.

    Attributes:
        prepared: the datasets that its jobs read.
        runs: its runs; every run after those that it draws on.
        tables, check, track: the specs of its views; None where it has none.
        figures: whether it draws overlays and curves.
        remake: the command that makes what is missing.
        track_again: the command that brings the MLflow store in line.
    """

    prepared: Sequence[str]
    runs: Sequence[ExpectedRun]
    tables: Sequence[TableSpec]
    check: CheckSpec
    figures: bool
    track: TrackSpec | None
    remake: str
    track_again: str


def run(expected: Expected, results: Path, deep: bool, say: Callable[[str], None] = print) -> int:
    """Say what differs, one line each, and give how many lines that were; what only deserves a note is not counted.

    Compared are: arrays with their manifest; seals, types and values of records; records with their place, with the
    configuration, and with the files beside and behind them; tables and checks with what their records give; pictures
    with their index, and it with what they were drawn from; the MLflow store with the records.

    Args:
        deep: hash arrays of any size, and look into every network and every table of boxes.
    """
    results = Path(results)
    findings = Findings(results, expected.remake, say)
    datasets = _datasets(expected, findings, deep)
    runs = Runs(findings, datasets, deep)
    for each in expected.runs:
        runs.look(each)
    runs.conclude()
    track = expected.track
    store = None if track is None else Store(findings, track.scale, runs.whole, expected.track_again)
    views = Views(findings, store.doubted if store else set())
    for spec in expected.tables:
        views.table(spec)
    views.check(expected.check)
    if expected.figures:
        views.pictures(results / "figures")
    views.pictures(layout.gallery_path(results, "x", "x").parent)
    if store is not None:
        store.conclude()
    findings.conclude()
    return findings.count


def _datasets(expected: Expected, findings: Findings, deep: bool) -> dict[str, PreparedDataset]:
    """The datasets that are whole, by name."""
    found = {}
    for name in expected.prepared:
        folder = layout.data_dir(findings.results, name)
        if not (folder / layout.MANIFEST).is_file():
            findings.missing(folder / layout.MANIFEST)
            continue
        try:
            dataset = PreparedDataset.open(folder, verify=deep)
            if dataset.name != name:
                raise DataError(f"{folder}: holds dataset {dataset.name}")
        except DataError as error:
            findings.blame_for(folder / layout.MANIFEST, error)
            continue
        found[name] = dataset
    return found
