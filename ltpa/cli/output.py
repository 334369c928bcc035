"""How commands print tables: aligned columns on a terminal, Markdown where the output goes to a file or a pipe."""

import re
import sys
from collections.abc import Iterable, Sequence

from ltpa.core.text import markdown_text

_RULE = re.compile(r"\|(?::?-+:?\|)+")  # between the titles of a Markdown table and its rows
_ESCAPED = re.compile(r"\\(?=[!-/:-@\[-`{-~])")  # as `markdown_text` does


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a title that ends in `:` marks a column of numbers, which is set to the right."""
    titles = f"| {' | '.join(title.removesuffix(':') for title in header)} |"
    rule = f"|{'|'.join('---:' if title.endswith(':') else '---' for title in header)}|"
    return "\n".join([titles, rule, *(f"| {' | '.join(map(markdown_text, row))} |" for row in rows)])


def print_text(text: str) -> None:
    """Print a text with Markdown tables: as it is, or on a terminal with its tables as aligned columns."""
    print(_aligned(text) if sys.stdout.isatty() else text)


def _aligned(text: str) -> str:
    blocks: list[list[str]] = []
    for line in text.split("\n"):
        if not (line.startswith("|") and blocks and blocks[-1][0].startswith("|")):
            blocks.append([])
        blocks[-1].append(line)
    return "\n".join(_columns(block) if _is_table(block) else _ESCAPED.sub("", "\n".join(block)) for block in blocks)


def _is_table(lines: Sequence[str]) -> bool:
    return len(lines) > 1 and _RULE.fullmatch(lines[1]) is not None


def _columns(lines: Sequence[str]) -> str:
    from tabulate import tabulate

    header, rule, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    plain = [[_ESCAPED.sub("", cell) for cell in row] for row in rows]
    align = ["right" if cell.endswith(":") else "left" for cell in rule]
    return tabulate(plain, header, tablefmt="simple", disable_numparse=True, colalign=align if plain else None)
