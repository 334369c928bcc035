"""A finished table for a terminal: at most 100 columns wide, without markup."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from ltpa.core.text import printable
from ltpa.tables.frame import doubts
from ltpa.tables.render import ORDERS

WIDTH = 100
_BETWEEN = 2  # spaces between two columns, and beside a title


def to_terminal(path: Path) -> str:
    """The table whose CSV lies at `path`: one block per panel, one line per row, `published -> ours (sd)` per column.

    Where a block's cells have the same n, it is said once above; a block that is too wide goes on below. Cells without
    a number of ours say why. Published orders are left out. Numbers are rounded to two digits after the point, counts
    are whole. Lines below name the numbers that their records cast doubt on, by its tidy CSV.
    """
    with open(path, encoding="utf-8", newline="") as stream:
        cells = [cell for cell in csv.DictReader(stream) if cell["panel"] != ORDERS]
    blocks = []
    for panel in dict.fromkeys(cell["panel"] for cell in cells):
        chosen = [cell for cell in cells if cell["panel"] == panel]
        seeds = {f"{cell['n']}/{cell['expected']}" for cell in chosen if cell["mean"] and cell["metric"] != "count"}
        once = len(seeds) == 1
        head = [printable(panel)] * bool(panel) + [f"n={each}" for each in seeds if once]
        blocks.append("\n".join([*[", ".join(head)] * bool(head), *_blocks(chosen, once)]))
    with open(path.with_suffix(".tidy.csv"), encoding="utf-8", newline="") as stream:
        lines = doubts(csv.DictReader(stream))
    lines = [printable(line) for line in lines]
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])


def _blocks(cells: Sequence[dict[str, str]], once: bool) -> Iterator[str]:
    """The columns, side by side as far as they fit, and the rest below with the rows' labels again."""
    columns = list(dict.fromkeys(cell["column"] for cell in cells))
    rows = list(dict.fromkeys((cell["group"], cell["row"]) for cell in cells))
    texts = {(cell["group"], cell["row"], cell["column"]): printable(_text(cell, once)) for cell in cells}
    first = "published -> ours" if any(cell["published"] for cell in cells) else "ours"
    labels = max(len(first) + _BETWEEN, *(len(printable(text)) for row in rows for text in row))
    while columns:
        width, shown = labels, list[str]()
        for column in columns:
            needed = max(len(printable(column)) + _BETWEEN, *(len(texts.get((*row, column), "")) for row in rows))
            if shown and width + _BETWEEN + needed > WIDTH:
                break
            width += _BETWEEN + needed
            shown.append(column)
        columns = columns[len(shown) :]
        lines: list[list[str]] = []
        for place, (group, row) in enumerate(rows):
            if group and (place == 0 or rows[place - 1][0] != group):
                lines.append([printable(group), *[""] * len(shown)])
            lines.append([printable(row), *(texts.get((group, row, column), "") for column in shown)])
        sides = ["left", *["right"] * len(shown)]
        titles = [first, *map(printable, shown)]
        block = tabulate(lines, titles, tablefmt="simple", disable_numparse=True, colalign=sides)
        yield block + "\n" * bool(columns)


def _text(cell: dict[str, str], once: bool) -> str:
    digits = 0 if cell["metric"] == "count" else 2
    published = f"{float(cell['published']):.{digits}f} -> " if cell["published"] else ""
    if not cell["mean"]:
        return f"{published}{cell['missing']}"
    ours = f"{published}{float(cell['mean']):.{digits}f}"
    if not digits:
        return ours
    sd = f" ({float(cell['sd']):.2f})" if cell["sd"] else ""
    return f"{ours}{sd}" + ("" if once else f" n={cell['n']}/{cell['expected']}")
