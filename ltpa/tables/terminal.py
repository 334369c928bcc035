"""A finished table for a terminal: narrow, without markup."""

import csv
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from ltpa.core.text import printable
from ltpa.tables.frame import doubts
from ltpa.tables.render import ORDERS


def to_terminal(path: Path) -> str:
    """The table whose CSV lies at `path`: one block per panel, one line per row, `published -> ours (sd) n` per column.

    Cells without a number of ours say why. Published orders are left out. Numbers are rounded to two digits after the
    point, counts are whole. Lines below name the numbers that their records cast doubt on, by its tidy CSV.
    """
    with open(path, encoding="utf-8", newline="") as stream:
        cells = [cell for cell in csv.DictReader(stream) if cell["panel"] != ORDERS]
    blocks = []
    for panel in dict.fromkeys(cell["panel"] for cell in cells):
        chosen = [cell for cell in cells if cell["panel"] == panel]
        blocks.append(printable(panel) + "\n" * bool(panel) + _block(chosen))
    with open(path.with_suffix(".tidy.csv"), encoding="utf-8", newline="") as stream:
        lines = doubts(csv.DictReader(stream))
    lines = [printable(line) for line in lines]
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])


def _block(cells: Sequence[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(cell["column"] for cell in cells))
    rows = dict.fromkeys(cell["row"] for cell in cells)
    texts = {(cell["row"], cell["column"]): _text(cell) for cell in cells}
    lines = [[row, *(texts.get((row, column), "") for column in columns)] for row in rows]
    lines = [list(map(printable, line)) for line in lines]
    titles = ["published -> ours", *map(printable, columns)]
    return tabulate(lines, titles, tablefmt="simple", disable_numparse=True)


def _text(cell: dict[str, str]) -> str:
    digits = 0 if cell["metric"] == "count" else 2
    published = f"{float(cell['published']):.{digits}f}" if cell["published"] else "-"
    if not cell["mean"]:
        return f"{published} -> {cell['missing']}"
    ours = f"{published} -> {float(cell['mean']):.{digits}f}"
    if not digits:
        return ours
    sd = f" ({float(cell['sd']):.2f})" if cell["sd"] else ""
    return f"{ours}{sd} n={cell['n']}/{cell['expected']}"
