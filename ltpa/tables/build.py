"""Build the model of a table of metrics: a pure function of spec, declaration, published values and records."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

from ltpa.tables import claims
from ltpa.tables.declaration import Declaration
from ltpa.tables.frame import (
    FAILED,
    MISSING,
    NO_TARGET,
    OK,
    RecordIndex,
    SlotRows,
    TidyRow,
    doubts,
    several_processors,
    tidy_rows,
)
from ltpa.tables.head import head, stand_in
from ltpa.tables.mcnemar import image_notes
from ltpa.tables.model import Row, Table, TableCell, TablePanel
from ltpa.tables.paired import Comparison, compare, notes
from ltpa.tables.published import Published
from ltpa.tables.slots import Address
from ltpa.tables.spec import TableSpec
from ltpa.tables.statistics import estimate
from ltpa.tables.verdict import Pooled, assess, expected_errors, pool, rule, withheld

OTHER_READING = "other reading"
_REASON_WIDTH = 48  # characters of a failure's reason inside a cell; the whole reason stands below the table


def build_table(spec: TableSpec, declaration: Declaration, published: Sequence[Published], index: RecordIndex) -> Table:
    """The table model. Nothing is averaged silently: every cell says how many of the asked seeds it holds.

    Raises:
        RecordError: a file of per-image hits is not the one that its record tells of.
    """
    collected = tidy_rows(spec, declaration, published, index)
    baselines = declaration.baselines(spec.baselines)
    comparisons = compare(collected, baselines)
    pools = _pools(collected) if declaration.pooled_sd else {}
    cells = [
        _cell(spec, declaration, item, comparisons.get(place), pools.get(_column(item)))
        for place, item in enumerate(collected)
    ]
    panels = tuple(_panel(spec, declaration, number, collected, cells) for number in range(len(declaration.blocks())))
    compared = [(collected[position], comparison) for position, comparison in comparisons.items()]
    titles = [block.title for block in declaration.blocks()]
    columns = [column.title for column in declaration.columns]
    named = [(item, comparison, baselines[item.slot.entry.variant]) for item, comparison in compared]
    judged = any(entry.value is not None for entry in published)
    claimed = claims.claims(collected) if spec.comparable else []
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
        fields=("published", "ours", "delta", *["verdict"] * spec.comparable) if judged else ("ours",),
        lead=(),
        panels=panels,
        notes=(
            statistics,
            *(_verdict_notes(declaration, published, cells, pools) if judged else []),
            *notes(compared, titles),
            *image_notes(named, titles, columns, index),
            *declaration.notes,
            *_incomplete(collected),
            *doubts(vars(row) for item in collected for row in item.rows),
            *several_processors(collected, index),
        ),
        claims=tuple(claimed),
        orders=tuple(claims.lines(claimed, titles, columns, declaration.decimals)),
    )


def _column(item: SlotRows) -> tuple[int, int]:
    return item.slot.panel, item.slot.column


def _pools(collected: Sequence[SlotRows]) -> dict[tuple[int, int], Pooled | str]:
    """The pooled spread of each column of each panel, or why there is none."""
    columns: dict[tuple[int, int], list[list[float]]] = {}
    for item in collected:
        columns.setdefault(_column(item), []).append([row.value for row in item.rows if row.value is not None])
    return {column: pool(values) for column, values in columns.items()}


def _verdict_notes(
    declaration: Declaration,
    published: Sequence[Published],
    cells: Sequence[TableCell],
    pools: Mapping[tuple[int, int], Pooled | str],
) -> list[str]:
    """The rule, the number of verdicts and of those that chance gives, and the columns that could not be pooled."""
    sds = [entry.sd is not None for entry in published if entry.value is not None and not entry.quoted]
    runs = f"{declaration.published_n} runs assumed"
    if any(entry.n for entry in published):
        runs = f"runs as published, else {runs}"
    lines = [
        rule(
            declaration.direction,
            declaration.tolerance,
            declaration.unit,
            published_runs=runs if any(sds) else "",
            taken_as_exact=not all(sds),
            pooled_sd=declaration.pooled_sd,
        )
    ]
    verdicts = sum(cell.judgement is not None for cell in cells)
    if verdicts:
        lines.append(expected_errors(verdicts))
    blocks = declaration.blocks()
    for (panel, column), spread in pools.items():
        if isinstance(spread, str):
            title = ", ".join(filter(None, (blocks[panel].title, declaration.columns[column].title)))
            lines.append(f"No pooled sd for {title}: {spread}.")
    return lines


def _panel(
    spec: TableSpec, declaration: Declaration, number: int, collected: Sequence[SlotRows], cells: Sequence[TableCell]
) -> TablePanel:
    """One panel; a column without any entry in it (the paper prints dashes only) is dropped."""
    block = declaration.blocks()[number]
    mine = [(item, cell) for item, cell in zip(collected, cells, strict=True) if item.slot.panel == number]
    used = sorted({item.slot.column for item, _ in mine})
    order = list(dict.fromkeys((item.slot.entry.group, getattr(item.slot.entry, declaration.rows)) for item, _ in mine))
    placed = {
        (item.slot.entry.group, getattr(item.slot.entry, declaration.rows), item.slot.column): cell
        for item, cell in mine
    }
    columns = [declaration.columns[position] for position in used]
    return TablePanel(
        title=block.title + stand_in(block.target or block.source or "", spec),
        columns=tuple(column.title + stand_in(column.source or column.target or "", spec) for column in columns),
        rows=tuple(
            Row(
                group=declaration.groups.get(group, group),
                label=declaration.row_labels.get(name, name),
                cells=tuple(placed.get((group, name, position)) for position in used),
            )
            for group, name in order
        ),
    )


def _cell(
    spec: TableSpec,
    declaration: Declaration,
    item: SlotRows,
    comparison: Comparison | None,
    pooled: Pooled | str | None,
) -> TableCell:
    entry = item.slot.entry
    if isinstance(item.address, str):
        return TableCell(entry, item.rows, missing=item.address)
    values = [row.value for row in item.rows if row.value is not None]
    if not values:
        return TableCell(entry, item.rows, expected=len(spec.seeds), missing=_why(item.rows))
    ours = estimate(values)
    cell = TableCell(entry, item.rows, ours, len(spec.seeds), comparison=comparison)
    if entry.value is None:
        return cell
    cell = dataclasses.replace(cell, delta=ours.mean - entry.value)
    if not spec.comparable:
        return dataclasses.replace(cell, verdict=withheld(spec.scale))
    if item.slot.secondary:
        return dataclasses.replace(cell, verdict=OTHER_READING)
    judgement = assess(
        values,
        entry.value,
        entry.sd,
        declaration.tolerance,
        declaration.direction,
        published_n=entry.n or declaration.published_n,
        pooled=pooled if isinstance(pooled, Pooled) else None,
    )
    failed = sum(row.status == FAILED for row in item.rows)
    text = judgement.text + (f", {failed} failed" if failed else "")
    return dataclasses.replace(cell, verdict=text, judgement=judgement)


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
