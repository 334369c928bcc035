"""All networks by all measures that a table shows, to be sorted and filtered."""

import dataclasses
from collections import defaultdict

from ltpa.pages.cells import number
from ltpa.pages.run import Run
from ltpa.pages.site import Site
from ltpa.tables.frame import OK, TidyRow


@dataclasses.dataclass(frozen=True)
class Board:
    """The measures of one stage: column titles, and rows of network, dataset and a (text, value) per column."""

    stage: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[tuple[str, float | None], ...]], ...]


def boards(run: Run) -> list[Board]:
    """One board per stage that a table shows numbers of, in the order of the tables."""
    values: dict[str, dict[tuple[str, str], dict[str, dict[int, float]]]] = defaultdict(lambda: defaultdict(dict))
    digits: dict[tuple[str, str], int] = {}
    for made in run.tables:
        for row in made.table.tidy():
            if row.status == OK and row.value is not None and row.seed is not None:
                measure = _measure(row)
                values[row.stage][row.variant, row.dataset].setdefault(measure, {})[row.seed] = row.value
                digits.setdefault((row.stage, measure), made.table.decimals)
    found = []
    for stage, networks in values.items():
        columns = tuple(dict.fromkeys(measure for measures in networks.values() for measure in measures))
        rows = tuple(
            (
                run.label(variant),
                dataset,
                tuple(_cell(measures.get(column), digits[stage, column]) for column in columns),
            )
            for (variant, dataset), measures in networks.items()
        )
        found.append(Board(stage, columns, rows))
    return found


def _measure(row: TidyRow) -> str:
    words = row.metric.removesuffix("_pct").replace("_", " ") + (" (%)" if row.metric.endswith("_pct") else "")
    where = "" if row.target in ("", row.dataset) else row.target
    return ", ".join(filter(None, (words, row.condition, where)))


def _cell(seeds: dict[int, float] | None, decimals: int) -> tuple[str, float | None]:
    if not seeds:
        return "", None
    mean = sum(seeds.values()) / len(seeds)
    return number(mean, decimals), mean


def add(site: Site, run: Run) -> None:
    """Add the page."""
    site.page("leaderboard.html", "leaderboard.html", boards=boards(run))
