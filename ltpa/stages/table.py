"""Make one table: records (or manifests) in, a tidy CSV and four renderings out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ltpa.core import layout
from ltpa.core.files import write_text
from ltpa.tables import frame, render
from ltpa.tables.build import build_table
from ltpa.tables.datasets import build_datasets_table, read_counts
from ltpa.tables.declaration import parse_declaration
from ltpa.tables.model import Table
from ltpa.tables.published import from_dicts
from ltpa.tables.spec import TableSpec

SPEC = TableSpec
_RENDERERS: dict[str, Callable[[Table], str]] = {
    "csv": render.to_csv,
    "md": render.to_markdown,
    "tex": render.to_latex,
    "html": render.to_html,
}


def run(spec: TableSpec, results: Path, records: Sequence[Path]) -> None:
    """Write `tables/<table>.{tidy.csv,csv,md,tex,html}` below `results`.

    Args, Raises: as `contents`.
    """
    for path, text in contents(spec, results, records).items():
        write_text(path, text)


def build(spec: TableSpec, results: Path, records: Sequence[Path]) -> Table:
    """The table's model.

    Args, Raises: as `contents`.
    """
    declaration = parse_declaration(spec.declaration, spec.table)
    published = from_dicts(spec.published)
    if declaration.kind == "datasets":
        return build_datasets_table(spec, declaration, published, [read_counts(path, results) for path in records])
    return build_table(spec, declaration, published, frame.index_records(records, results, spec))


def contents(spec: TableSpec, results: Path, records: Sequence[Path]) -> dict[Path, str]:
    """The text of every file of the table, by path.

    Args:
        records: the record files that the table draws on, each checked against its seal; for a table of datasets the
            datasets' manifests. Runs without a record show as missing.

    Raises:
        ConfigError: the declaration or the published values are wrong.
        RecordError: a record is unreadable, edited, of another scale or seed, or given twice.
        DataError: a manifest is unreadable or edited.
    """
    table = build(spec, results, records)
    tidy = {layout.table_path(results, spec.table, "tidy.csv"): frame.to_csv(table.tidy())}
    return tidy | {
        layout.table_path(results, spec.table, suffix): _RENDERERS[suffix](table) for suffix in layout.TABLE_SUFFIXES
    }
