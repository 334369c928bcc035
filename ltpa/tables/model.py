"""The table model: what a table says, before it is written as CSV, Markdown, LaTeX or HTML."""

import dataclasses
from collections.abc import Sequence

from ltpa.tables.claims import Claim
from ltpa.tables.frame import TidyRow
from ltpa.tables.paired import Comparison
from ltpa.tables.published import Published
from ltpa.tables.statistics import Estimate
from ltpa.tables.verdict import Judgement


@dataclasses.dataclass(frozen=True)
class TableCell:
    """One published value and ours beside it.

    `estimate` is None where there is no number; `missing` then says why. `expected` is the number of seeds asked for.
    `verdict` is what the cell shows; `judgement` what it rests on, None where it is withheld or of another reading.
    `comparison` compares the network with its baseline over seeds, where the table shows both.
    """

    entry: Published
    rows: tuple[TidyRow, ...]
    estimate: Estimate | None = None
    expected: int = 0
    delta: float | None = None
    verdict: str = ""
    judgement: Judgement | None = None
    missing: str = ""
    comparison: Comparison | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A row: its group's title, its label, leading texts (one per `Table.lead`), and one cell or None per column."""

    group: str
    label: str
    cells: tuple[TableCell | None, ...]
    lead: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TablePanel:
    """A block of rows under its own title and column titles."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def seeds(self) -> tuple[str, ...]:
        """Per column `2/2`, seeds with a result of those asked for, where all its cells agree; else nothing."""
        return tuple(_same_seeds([row.cells[place] for row in self.rows]) for place in range(len(self.columns)))


def _same_seeds(cells: Sequence[TableCell | None]) -> str:
    counts = {f"{cell.estimate.n}/{cell.expected}" for cell in cells if cell is not None and cell.estimate is not None}
    return counts.pop() if len(counts) == 1 else ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A whole table.

    Attributes:
        head: paragraphs above the table, the scale note first.
        fields: what each column shows, of `published`, `ours`, `prepared`, `delta`, `verdict`.
        lead: titles of the leading text columns after the row label.
        notes: paragraphs below the table.
        claims: the published orders of networks beside ours; none where the scale is not comparable.
        orders: what the block of published orders says, a paragraph each; empty where there is no such block.
    """

    name: str
    title: str
    caption: str
    paper: str
    unit: str
    decimals: int
    head: tuple[str, ...]
    fields: tuple[str, ...]
    lead: tuple[str, ...]
    panels: tuple[TablePanel, ...]
    notes: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    orders: tuple[str, ...] = ()

    def tidy(self) -> list[TidyRow]:
        """The tidy rows behind all cells, in the table's order."""
        cells = (cell for panel in self.panels for row in panel.rows for cell in row.cells if cell is not None)
        return [tidy for cell in cells for tidy in cell.rows]
