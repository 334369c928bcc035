"""Verification of what is made from records: tables, checks, pictures, the MLflow store."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from ltpa.core import layout
from ltpa.core.artefacts import sha256_of
from ltpa.core.errors import LtpaError
from ltpa.core.records import Record
from ltpa.report.index import NAME, read_index
from ltpa.stages import check, table
from ltpa.stages.verify_findings import Findings
from ltpa.tables.spec import CheckSpec, TableSpec
from ltpa.tracking.compare import Comparison, compare, kept_runs
from ltpa.tracking.store import DATABASE


class Views:
    """Compares views with what they are made from.

    Args:
        doubted: records that the MLflow store has otherwise: where a table has it so, too, the record is to blame.
    """

    def __init__(self, findings: Findings, doubted: set[Path]) -> None:
        self.findings, self.doubted = findings, doubted

    def table(self, spec: TableSpec) -> None:
        """Every file of a table with what its records give."""
        records = [self.findings.results / path for path in spec.records]
        if self.findings.blamed.intersection(records):
            self.findings.skip(spec.table)
            return
        try:
            contents = table.contents(spec, self.findings.results, records)
        except LtpaError as error:
            self.findings.blame(layout.table_path(self.findings.results, spec.table, "tidy.csv"), str(error))
            return
        for record in self._doubted(contents):
            self.findings.blame(record, f"its numbers are neither those of {spec.table} nor those of {DATABASE}")
        if not self.findings.blamed.intersection(records):
            self._same(contents)

    def check(self, spec: CheckSpec) -> None:
        """The checks with what their records give."""
        records = [self.findings.results / path for path in spec.records]
        if self.findings.blamed.intersection(records):
            self.findings.skip("checks")
            return
        try:
            self._same(check.contents(spec, self.findings.results, records)[1])
        except LtpaError as error:
            self.findings.blame(self.findings.results / layout.CHECKS_JSON, str(error))

    def pictures(self, folder: Path) -> None:
        """Pictures with their index, and it with the files that they were drawn from."""
        index = folder / NAME
        if not index.is_file():
            self.findings.missing(index)
            return
        try:
            content = read_index(folder)
        except LtpaError as error:
            self.findings.blame_for(index, error)
            return
        for name, expected in content.files.items():
            if not (folder / name).is_file():
                self.findings.blame(folder / name, "missing", self.findings.anew(index))
            elif sha256_of(folder / name) != expected:
                self.findings.blame(folder / name, f"not the picture that {NAME} tells of", self.findings.anew(index))
        sources = {self.findings.results / path: expected for path, expected in content.drawn_from.items()}
        if self.findings.blamed & sources.keys():
            self.findings.skip(str(folder))
            return
        for source, expected in sources.items():
            if sha256_of(source) != expected:
                self.findings.blame(
                    index, f"its pictures were drawn from another {source} than the one that lies there"
                )

    def _same(self, contents: Mapping[Path, str]) -> None:
        for path, text in contents.items():
            if not path.is_file():
                self.findings.missing(path)
            elif path.read_bytes() != text.encode():
                self.findings.blame(path, "not what its records give")

    def _doubted(self, contents: Mapping[Path, str]) -> set[Path]:
        """The doubted records whose numbers a table on disk has otherwise."""
        tidy = next(iter(contents))
        if not self.doubted or not tidy.is_file():
            return set()
        old, new = _rows(tidy.read_text(encoding="utf-8", errors="replace")), _rows(contents[tidy])
        changed = {row.get("record", "") for row in new if row not in old}
        return {path for path in self.doubted if path.relative_to(self.findings.results).as_posix() in changed}


class Store:
    """Compares the MLflow store with the records that are whole.

    Args:
        again: the command that brings the store in line.

    Attributes:
        doubted: the records that the store has otherwise.
    """

    def __init__(self, findings: Findings, scale: str, records: Mapping[Path, Record], again: str) -> None:
        self.findings, self.again = findings, again
        self.database = findings.results / DATABASE
        self._found = Comparison([], [], [])
        self.doubted: set[Path] = set()
        if not (findings.results / layout.TRACKING).is_file():
            findings.missing(findings.results / layout.TRACKING)
        if not self.database.is_file():
            findings.blame(self.database, "missing", f"`{again} --rebuild`")
            return
        try:
            runs = kept_runs(findings.results, scale, sorted({record.stage for record in records.values()}))
        except LtpaError as error:
            findings.blame(self.database, str(error), "")
            return
        self._found = compare(records, runs)
        self.doubted = set(self._found.other)

    def conclude(self) -> None:
        """Say what is wrong with the store itself: the doubted records that the tables do not speak for."""
        found = self._found
        stale = [path for path in found.other if path not in self.findings.blamed]
        for paths, what, how in (
            (found.lacking, "lacks", ""),
            (stale, "holds another version of", ""),
            (found.spoilt, "holds other numbers than", " --rebuild"),
        ):
            if paths:
                text = f"{what} {len(paths)} records, such as {paths[0]}"
                self.findings.blame(self.database, text, f"`{self.again}{how}`")


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
