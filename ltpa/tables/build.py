"""Build the model of a table of metrics: a pure function of spec, declaration, published values and records."""

import textwrap
from collections.abc import Mapping, Sequence

from ltpa.tables.declaration import Declaration
from ltpa.tables.frame import FAILED, MISSING, NO_TARGET, OK, RecordIndex, SlotRows, TidyRow, tidy_rows
from ltpa.tables.head import head, stand_in
from ltpa.tables.mcnemar import mcnemar_notes
from ltpa.tables.model import Cell, Panel, Row, Table
from ltpa.tables.paired import Comparison, compare, notes
from ltpa.tables.published import Published
from ltpa.tables.slots import Address
from ltpa.tables.spec import TableSpec
from ltpa.tables.statistics import Estimate, estimate
from ltpa.tables.verdict import rule, verdict, withheld

OTHER_READING = "other reading"
_REASON_WIDTH = 48  # characters of a failure's reason inside a cell; the whole reason stands below the table


def build_table(spec: TableSpec, declaration: Declaration, published: Sequence[Published], index: RecordIndex) -> Table:
    """The table model. Nothing is averaged silently: every cell says how many of the asked seeds it holds."""
    collected = tidy_rows(spec, declaration, published, index)
    baselines = dict.fromkeys(spec.baselines, declaration.baseline) if declaration.baseline else spec.baselines
    comparisons = compare(collected, baselines)
    blocks = range(len(declaration.blocks()))
    panels = tuple(_panel(spec, declaration, number, collected, comparisons) for number in blocks)
    compared = [(collected[position], comparison) for position, comparison in comparisons.items()]
    titles = [block.title for block in declaration.blocks()]
    named = [(item, comparison, baselines[item.slot.entry.variant]) for item, comparison in compared]
    judged = any(entry.value is not None for entry in published)
    statistics = (
        "Ours: mean over seeds (standard deviation, ddof 1), n = seeds with a result / seeds asked for. The CSV adds "
        "the 95 % interval of the mean, Student's t; it is not cut where a percentage ends."
    )
    return Table(
        name=spec.table,
        title=declaration.title,
        caption=declaration.caption,
        paper=declaration.paper,
        unit=declaration.unit,
        decimals=declaration.decimals,
        head=head(spec, published),
        fields=("published", "ours", "delta", "verdict") if judged else ("ours",),
        lead=(),
        panels=panels,
        notes=(
            statistics,
            *([rule(declaration.direction, declaration.tolerance, declaration.unit)] if judged else []),
            *notes(compared, titles),
            *mcnemar_notes(named, titles, index),
            *declaration.notes,
            *_incomplete(collected),
        ),
    )


def _panel(
    spec: TableSpec,
    declaration: Declaration,
    number: int,
    collected: Sequence[SlotRows],
    comparisons: Mapping[int, Comparison],
) -> Panel:
    """One panel; a column without any entry in it (the paper prints dashes only) is dropped."""
    block = declaration.blocks()[number]
    places = [place for place, item in enumerate(collected) if item.slot.panel == number]
    mine = [collected[place] for place in places]
    used = sorted({item.slot.column for item in mine})
    order = list(dict.fromkeys((item.slot.entry.group, getattr(item.slot.entry, declaration.rows)) for item in mine))
    cells = {
        (item.slot.entry.group, getattr(item.slot.entry, declaration.rows), item.slot.column): _cell(
            spec, declaration, item, comparisons.get(place)
        )
        for place, item in zip(places, mine, strict=True)
    }
    columns = [declaration.columns[position] for position in used]
    return Panel(
        title=block.title + stand_in(block.target or block.source or "", spec),
        columns=tuple(column.title + stand_in(column.source or column.target or "", spec) for column in columns),
        rows=tuple(
            Row(
                group=declaration.groups.get(group, group),
                label=declaration.row_labels.get(name, name),
                cells=tuple(cells.get((group, name, position)) for position in used),
            )
            for group, name in order
        ),
    )


def _cell(spec: TableSpec, declaration: Declaration, item: SlotRows, comparison: Comparison | None) -> Cell:
    entry = item.slot.entry
    if isinstance(item.address, str):
        return Cell(entry, item.rows, missing=item.address)
    values = [row.value for row in item.rows if row.value is not None]
    if not values:
        return Cell(entry, item.rows, expected=len(spec.seeds), missing=_why(item.rows))
    found = estimate(values)
    delta = None if entry.value is None else found.mean - entry.value
    judged = _judge(spec, declaration, item, found, delta)
    return Cell(entry, item.rows, found, len(spec.seeds), delta, judged, comparison=comparison)


def _judge(spec: TableSpec, declaration: Declaration, item: SlotRows, found: Estimate, delta: float | None) -> str:
    if delta is None:
        return ""
    if not spec.comparable:
        return withheld(spec.scale)
    if item.slot.secondary:
        return OTHER_READING
    return verdict(delta, declaration.direction, declaration.tolerance, item.slot.entry.sd, found.sd)


def _why(rows: Sequence[TidyRow]) -> str:
    """Why no seed has a number: a failure speaks first, then a missing metric, then a missing record."""
    row = min(rows, key=lambda row: (FAILED, NO_TARGET, MISSING).index(row.status))
    if row.status == NO_TARGET:
        return NO_TARGET
    return f"not run: {textwrap.shorten(row.reason, _REASON_WIDTH, placeholder=' …')}"


def _incomplete(collected: Sequence[SlotRows]) -> list[str]:
    """A line for each run that failed, did not learn or is missing, and for each metric that only some seeds have."""
    lines: dict[str, None] = {}
    for item in collected:
        if not isinstance(item.address, Address):
            continue
        statuses = {row.status for row in item.rows}
        for row in item.rows:
            where = f"{row.stage} {row.dataset} {row.variant} seed {row.seed}"
            if row.status == OK and row.reason:
                lines[f"Did not learn, and is in the means above: {row.reason}"] = None
            elif row.status == FAILED:
                lines[f"Failed: {where}: {row.reason}"] = None
            elif row.status == MISSING:
                lines[f"Missing: {where}: {row.reason}"] = None
            elif row.status == NO_TARGET and OK in statuses:
                lines[f"Incomplete: {where}: {row.reason}"] = None
    return list(lines)
