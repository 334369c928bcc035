"""Cells of tables as the pages show them: numbers apart from texts, a mark with a text for each verdict."""

import dataclasses

from ltpa.tables.frame import FAILED
from ltpa.tables.model import Row, Table, TableCell, TablePanel
from ltpa.tables.published import YOURS
from ltpa.tables.slots import NOT_IN_SCALE
from ltpa.tables.verdict import BETTER, REPRODUCED, UNDECIDED, WORSE

WITHHELD, MEASURED, FAILURE, NOTHING = "withheld", "measured", "failed", "nothing"
# What a verdict looks like besides its colour, in the order in which counters list them.
MARKS = {
    REPRODUCED: "=",
    BETTER: "▲",
    WORSE: "▼",
    UNDECIDED: "?",
    WITHHELD: "○",
    MEASURED: "•",
    FAILURE: "✕",
    NOTHING: "·",
}
MEANINGS = {
    REPRODUCED: "reproduced",
    BETTER: "better than published",
    WORSE: "worse than published",
    UNDECIDED: "undecided",
    WITHHELD: "verdict withheld",
    MEASURED: "measured, nothing to compare with",
    FAILURE: "failed",
    NOTHING: "no number of ours",
}


def kind_of(cell: TableCell) -> str:
    """Which of `MARKS` a cell gets."""
    if cell.judgement is not None:
        return cell.judgement.word
    if cell.estimate is None:
        return FAILURE if any(row.status == FAILED for row in cell.rows) else NOTHING
    return WITHHELD if cell.verdict.startswith(WITHHELD) else MEASURED


@dataclasses.dataclass(frozen=True)
class Shown:
    """One cell as a page shows it: texts without their unit, empty where there is nothing.

    Attributes:
        key: its id in the page; empty where there is nothing to look at behind it.
        ours, spread: mean and standard deviation over seeds.
        n: `2/2`, seeds with a result of those asked for; empty where the column's title says it for all.
        text: in place of a number, why there is none.
        kind: one of `MARKS`.
        verdict: the verdict in words.
    """

    cell: TableCell | None
    key: str = ""
    published: str = ""
    published_spread: str = ""
    ours: str = ""
    spread: str = ""
    n: str = ""
    delta: str = ""
    text: str = ""
    kind: str = NOTHING
    verdict: str = ""


@dataclasses.dataclass(frozen=True)
class ShownRow:
    """A row; `outside` says that it is not in this scale, `yours` that its network is the user's own."""

    group: str
    label: str
    lead: tuple[str, ...]
    cells: tuple[Shown, ...]
    outside: bool
    yours: bool


@dataclasses.dataclass(frozen=True)
class ShownPanel:
    """A panel. `n` holds per column what all its cells have in common (`2/2`), or nothing."""

    title: str
    columns: tuple[str, ...]
    n: tuple[str, ...]
    rows: tuple[ShownRow, ...]
    judged: bool
    compared: bool

    @property
    def outside(self) -> int:
        """How many rows are not in this scale."""
        return sum(row.outside for row in self.rows)


def shown(table: Table) -> list[ShownPanel]:
    """All panels of a table."""
    return [_panel(table, number, panel) for number, panel in enumerate(table.panels)]


def _panel(table: Table, number: int, panel: TablePanel) -> ShownPanel:
    common = panel.seeds
    rows = tuple(
        ShownRow(
            group=row.group,
            label=row.label,
            lead=row.lead,
            cells=tuple(
                _shown(table, f"cell-{number}-{line}-{place}", cell, bool(common[place]))
                for place, cell in enumerate(row.cells)
            ),
            outside=_is_outside(row),
            yours=any(cell is not None and cell.entry.group == YOURS for cell in row.cells),
        )
        for line, row in enumerate(panel.rows)
    )
    cells = [cell for row in panel.rows for cell in row.cells if cell is not None]
    return ShownPanel(
        title=panel.title,
        columns=panel.columns,
        n=common,
        rows=rows,
        judged=any(cell.verdict and kind_of(cell) != WITHHELD for cell in cells),
        compared=any(cell.entry.value is not None for cell in cells),
    )


def _is_outside(row: Row) -> bool:
    statuses = {tidy.status for cell in row.cells if cell is not None for tidy in cell.rows}
    return NOT_IN_SCALE in statuses and all(cell is None or cell.estimate is None for cell in row.cells)


def number(value: float, decimals: int, sign: str = "") -> str:
    """`value` rounded, with a true minus sign and no negative zero."""
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}".replace("-", "−")


def _shown(table: Table, key: str, cell: TableCell | None, said: bool) -> Shown:
    if cell is None:
        return Shown(None)
    entry, ours, digits = cell.entry, cell.estimate, table.decimals
    texts = {
        "published": "" if entry.value is None else number(entry.value, digits),
        "published_spread": "(quoted)" if entry.quoted else "" if entry.sd is None else f"({entry.sd:.{digits}f})",
        "delta": "" if cell.delta is None else number(cell.delta, digits, "+"),
    }
    if ours is None:
        return Shown(cell, key if cell.rows[0].record else "", text=cell.missing, kind=kind_of(cell), **texts)
    return Shown(
        cell,
        key,
        ours=number(ours.mean, digits),
        spread="" if ours.sd is None else f"({ours.sd:.{digits}f})",
        n="" if said else f"{ours.n}/{cell.expected}",
        kind=kind_of(cell),
        verdict=cell.verdict,
        **texts,
    )
