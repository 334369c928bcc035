"""The table of datasets (the paper's Table 4): published counts beside those of the prepared datasets' manifests."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltpa.data.manifest import read_manifest
from ltpa.tables.declaration import Declaration
from ltpa.tables.frame import MISSING, OK, TidyRow, relative
from ltpa.tables.head import head, stand_in
from ltpa.tables.model import Row, Table, TableCell, TablePanel
from ltpa.tables.published import Published
from ltpa.tables.slots import NOT_IN_SCALE, place
from ltpa.tables.spec import TableSpec
from ltpa.tables.statistics import estimate

_NO_SPLIT = "no such split"


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of a manifest: images per split, their `total`, number of `classes`; `path` below the results folder."""

    dataset: str
    numbers: Mapping[str, int]
    path: str


def read_counts(path: Path, results: Path) -> Counts:
    """Read the counts from a dataset's manifest, its seal checked.

    Raises:
        DataError: the file is missing, unreadable, edited, or not a manifest.
    """
    manifest = read_manifest(path)
    numbers = {name: split.count for name, split in manifest.splits.items()}
    counts = {**numbers, "total": sum(numbers.values()), "classes": len(manifest.classes)}
    return Counts(manifest.name, counts, relative(path, results))


def build_datasets_table(
    spec: TableSpec, declaration: Declaration, published: Sequence[Published], counts: Sequence[Counts]
) -> Table:
    """The table model: a row per published dataset, published count and prepared count in each column."""
    by_dataset = {item.dataset: item for item in counts}
    cells: dict[tuple[str, int], TableCell] = {}
    labels: dict[str, str] = {}
    for slot in place(declaration, published):
        role = slot.entry.source
        labels[role] = slot.entry.label
        cells[role, slot.column] = _cell(spec, declaration, slot.entry, slot.column, by_dataset)
    positions = range(len(declaration.columns))
    rows = tuple(
        Row(
            group="",
            label=label,
            cells=tuple(cells.get((role, position)) for position in positions),
            lead=_lead(spec, declaration, role, [cells.get((role, position)) for position in positions]),
        )
        for role, label in labels.items()
    )
    return Table(
        name=spec.table,
        title=declaration.title,
        caption=declaration.caption,
        paper=declaration.paper,
        unit=declaration.unit,
        decimals=declaration.decimals,
        head=head(spec, published),
        fields=("published", "prepared"),
        lead=("Played by", "Counts", "Type", "Resolution", "Tasks"),
        panels=(TablePanel("", tuple(column.title for column in declaration.columns), rows),),
        notes=tuple(declaration.notes),
    )


def _lead(spec: TableSpec, declaration: Declaration, role: str, cells: Sequence[TableCell | None]) -> tuple[str, ...]:
    described = declaration.descriptions.get(role)
    texts = (described.type, described.resolution, described.tasks) if described else ("", "", "")
    dataset = spec.roles.get(role)
    if dataset is None:
        return (NOT_IN_SCALE, "–", *texts)
    if stand_in(role, spec):
        return (f"{dataset}: {spec.standins[dataset]}", "stand-in", *texts)
    deltas = [cell.delta for cell in cells if cell is not None and cell.delta is not None]
    judged = "–" if not deltas else "differ" if any(deltas) else "as published"
    return (dataset, judged, *texts)


def _cell(
    spec: TableSpec, declaration: Declaration, entry: Published, column: int, counts: Mapping[str, Counts]
) -> TableCell:
    dataset = spec.roles.get(entry.source, "")
    prepared = counts.get(dataset)
    number = prepared.numbers.get(entry.condition) if prepared else None
    if not dataset:
        status = NOT_IN_SCALE
    elif prepared is None:
        status = MISSING
    else:
        status = _NO_SPLIT if number is None else OK
    tidy = TidyRow(
        table=spec.table,
        panel="",
        group="",
        row=entry.label,
        column=declaration.columns[column].title,
        paper_source=entry.source,
        paper_target="",
        paper_condition=entry.condition,
        stage=declaration.stage,
        dataset=dataset,
        variant="",
        target=dataset,
        condition=entry.condition,
        metric=declaration.metric,
        seed=None,
        value=None if number is None else float(number),
        items=number,
        status=status,
        reason="no manifest" if status == MISSING else "",
        doubt="",
        record=prepared.path if prepared else "",
    )
    if number is None:
        missing = "not prepared" if status == MISSING else "–"
        return TableCell(entry, (tidy,), missing=missing)
    delta = None if entry.value is None else number - entry.value
    return TableCell(entry, (tidy,), estimate([number]), 1, delta)
