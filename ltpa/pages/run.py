"""What a run wrote, read once for all pages: records, tables, checks, learning curves, pictures."""

import csv
import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ltpa.core import layout
from ltpa.core.checks import Check
from ltpa.core.errors import RecordError
from ltpa.core.learned import failures
from ltpa.core.records import Record, read_record
from ltpa.pages.spec import ReportSpec
from ltpa.report.index import NAME, Index, read_index
from ltpa.tables.declaration import Declaration, parse_declaration
from ltpa.tables.frame import MISSING
from ltpa.tables.model import Table
from ltpa.tables.spec import TableSpec

BuildTable = Callable[[TableSpec, Path, Sequence[Path]], Table]
Network = tuple[str, str]  # dataset that it was trained on, variant
Points = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class MadeTable:
    """A table with what it was made from; `unfinished` names the runs whose records are not there."""

    spec: TableSpec
    declaration: Declaration
    table: Table
    unfinished: tuple[str, ...]

    @property
    def name(self) -> str:
        """The table's name in the configuration, and that of its page."""
        return self.table.name

    @property
    def title(self) -> str:
        """The title, after its number in the paper where it is one of a paper's."""
        return f"{self.table.paper}: {self.table.title}" if self.table.paper else self.table.title


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of one folder: their index, and the folder's path below that of the scale."""

    folder: str
    index: Index


class Run:
    """Everything that the pages of a report show.

    Args:
        build_table: makes a table's model from its spec, the folder of the scale and its records.

    Raises:
        RecordError: a record or an index of pictures is damaged.
        ConfigError: a table's declaration is wrong.
    """

    def __init__(self, spec: ReportSpec, results: Path, build_table: BuildTable) -> None:
        self.spec, self.results = spec, results
        found = [path for path in spec.records if (results / path).is_file()]
        self.absent = [path for path in spec.records if path not in set(found)]
        self.records: dict[str, Record] = {path: read_record(results / path) for path in found}
        self.tables = [self._table(TableSpec(**values), build_table) for values in spec.tables]
        self.pictures = [
            Pictures(folder, read_index(results / folder))
            for folder in spec.figures
            if (results / folder / NAME).is_file()
        ]

    def _table(self, spec: TableSpec, build: BuildTable) -> MadeTable:
        paths = [self.results / path for path in spec.records]
        table = build(spec, self.results, [path for path in paths if path.is_file()])
        lacking = [row for row in table.tidy() if row.status == MISSING]
        names = dict.fromkeys(
            " ".join([*filter(None, (row.stage, row.dataset, row.variant)), *_seed(row.seed)]) for row in lacking
        )
        return MadeTable(spec, parse_declaration(spec.declaration, spec.table), table, tuple(names))

    @functools.cached_property
    def checks(self) -> list[Check]:
        """What the checks found; empty where they were not made.

        Raises:
            RecordError: their file is damaged.
        """
        path = self.results / layout.CHECKS_JSON
        if not path.is_file():
            return []
        try:
            return [Check(**each) for each in json.loads(path.read_text(encoding="utf-8"))["checks"]]
        except (ValueError, LookupError, TypeError) as error:
            raise RecordError(f"{path}: not readable ({error}); delete it and run check again") from error

    @property
    def failed(self) -> list[tuple[str, Record]]:
        """The records of runs that failed, by path."""
        return [(path, record) for path, record in self.records.items() if record.status != "ok"]

    @functools.cached_property
    def unlearned(self) -> list[str]:
        """The networks that did not learn, each with its error."""
        trained = [record for record in self.records.values() if record.stage == "train" and record.status == "ok"]
        return [text for record in trained for text in failures(record, self.spec.max_error_of_chance)]

    @functools.cached_property
    def networks(self) -> list[Network]:
        """Dataset and variant of every trained network, in the order of the records."""
        return list(dict.fromkeys((r.dataset, r.variant) for r in self.records.values() if r.stage == "train"))

    @functools.cached_property
    def curves(self) -> dict[Network, dict[int, Points]]:
        """Test error (%) by epoch of each network that has a history, by seed; only epochs with an evaluation."""
        found: dict[Network, dict[int, Points]] = defaultdict(dict)
        for path, record in self.records.items():
            history = (self.results / path).with_name(layout.HISTORY)
            if record.stage == "train" and record.status == "ok" and history.is_file():
                with open(history, encoding="utf-8", newline="") as stream:
                    rows = [row for row in csv.DictReader(stream) if row.get("test_error_pct")]
                points = [(float(row["epoch"]), float(row["test_error_pct"])) for row in rows]
                found[record.dataset, record.variant][record.seed] = points
        return dict(found)

    def label(self, variant: str) -> str:
        """The title of a variant's networks."""
        return self.spec.labels.get(variant, variant)

    def command(self, *paths: str) -> str:
        """The command that makes files below the folder of the scale anew."""
        config = f" --configfile {self.spec.configfile}" if self.spec.configfile else ""
        files = " ".join(f"results/{self.spec.scale}/{path}" for path in paths)
        return f"snakemake --cores all{config} --force -- {files}"


def _seed(seed: int | None) -> list[str]:
    return [] if seed is None else [f"seed {seed}"]


def anchor(*words: object) -> str:
    """An id for a place in a page, of whatever names: letters, digits and hyphens."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else "-" for c in str(word)) for word in words)


def plain(record: Record) -> dict[str, Any]:
    """A record as plain data."""
    return dataclasses.asdict(record)
