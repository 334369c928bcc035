"""A page for each table: every cell with its seeds, curve, record and command behind it, and a plot of differences."""

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

from ltpa.core import layout
from ltpa.pages import charts
from ltpa.pages.cells import MARKS, Shown, ShownPanel, kind_of, shown
from ltpa.pages.run import MadeTable, Run
from ltpa.pages.site import Site
from ltpa.tables.frame import TidyRow
from ltpa.tables.model import TableCell

_DOWNLOADS = ("csv", "tidy.csv", "md", "tex")
_MOST_ROWS = 60  # of one forest plot


@dataclasses.dataclass(frozen=True)
class Behind:
    """What is behind one cell: its place in words, seeds, interval of the difference, curve, command."""

    shown: Shown
    place: str
    seeds: tuple[TidyRow, ...]
    interval: str
    curve: str
    command: str


def add(site: Site, run: Run) -> None:
    """Add the pages of all tables, and the tables' files."""
    for made in run.tables:
        panels = shown(made.table)
        behind = [each for panel in panels for each in _behind(run, made, panel)]
        used = dict.fromkeys(each.curve for each in behind if each.curve)
        files = []
        for suffix in _DOWNLOADS:
            path = layout.table_path(run.results, made.name, suffix)
            if path.is_file():
                site.add(f"tables/{path.name}", path.read_bytes())
                files.append((suffix, f"tables/{path.name}"))
        site.page(
            page_of(made.name),
            "table.html",
            made=made,
            panels=panels,
            behind=behind,
            forests=[forest(made, panel) for panel in panels],
            curves={key: svg for key, svg in _curves(run).items() if key in used},
            files=files,
        )


def page_of(table: str) -> str:
    """The page of a table."""
    return f"table-{table}.html"


def _curves(run: Run) -> dict[str, Markup]:
    return {
        f"{dataset} {variant}": charts.curves(
            series, title=f"Test error of {variant} on {dataset} by epoch", across="epoch"
        )
        for (dataset, variant), series in run.curves.items()
    }


def _behind(run: Run, made: MadeTable, panel: ShownPanel) -> list[Behind]:
    found = []
    for row in panel.rows:
        for column, each in zip(panel.columns, row.cells, strict=True):
            if each.cell is None or not each.key:
                continue
            rows, judged = each.cell.rows, each.cell.judgement
            curve = f"{rows[0].dataset} {rows[0].variant}"
            interval = ""
            if judged is not None and judged.low is not None and judged.high is not None:
                interval = f"95 % interval of the difference: {judged.low:+.3g} to {judged.high:+.3g}"
            paths = list(dict.fromkeys(tidy.record for tidy in rows if tidy.record))
            place = ", ".join(filter(None, (row.label, column, panel.title)))
            known = (rows[0].dataset, rows[0].variant) in run.curves
            found.append(Behind(each, place, rows, interval, curve if known else "", run.command(*paths)))
    return found


def forest(made: MadeTable, panel: ShownPanel) -> Markup | None:
    """The differences of a panel from the published values; None where there are none, or too many to be read.

    Where no verdict is passed, the interval is that of our mean alone, and the published value is taken as exact.
    """
    rows: list[tuple[str, float, float | None, float | None, str]] = []
    for row in panel.rows:
        for column, each in zip(panel.columns, row.cells, strict=True):
            cell = each.cell
            if cell is None or cell.delta is None or cell.estimate is None or cell.entry.value is None:
                continue
            label = f"{row.label}, {column}" if len(panel.columns) > 1 else row.label
            rows.append((label, cell.delta, *_interval(cell), kind_of(cell)))
    if not rows or len(rows) > _MOST_ROWS or made.declaration.kind == "datasets":
        return None
    title = f"Differences from the published values, {made.title}{': ' * bool(panel.title)}{panel.title}"
    return charts.forest(rows, made.declaration.tolerance, made.table.unit, title)


def _interval(cell: TableCell) -> tuple[float | None, float | None]:
    if cell.judgement is not None:
        return cell.judgement.low, cell.judgement.high
    ours, published = cell.estimate, cell.entry.value
    if ours is None or ours.low is None or ours.high is None or published is None:
        return None, None
    return ours.low - published, ours.high - published


def strip(panels: Sequence[ShownPanel]) -> list[tuple[str, str, str]]:
    """Mark, kind and title of every cell of a table's rows in this scale, in the table's order."""
    return [
        (MARKS[each.kind], each.kind, f"{row.label}, {column}: {each.verdict or each.text or each.kind}")
        for panel in panels
        for row in panel.rows
        if not row.outside
        for column, each in zip(panel.columns, row.cells, strict=True)
        if each.cell is not None
    ]
