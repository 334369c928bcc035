"""Two runs side by side: every number of their tables, differences marked, as Markdown or as a page."""

import csv
import dataclasses
import math
from pathlib import Path

from markupsafe import Markup

from ltpa.core.errors import ConfigError
from ltpa.core.layout import TABLE_SUFFIXES
from ltpa.core.text import markdown_text
from ltpa.pages.cells import number
from ltpa.pages.site import STYLE, environment
from ltpa.pages.spec import ASSETS
from ltpa.tables.render import ORDERS

_KEYS = ("table", "panel", "group", "row", "column", "metric", "target", "condition")
_ROUNDING = 1e-9  # relative


@dataclasses.dataclass(frozen=True)
class Number:
    """One cell of a run's table: mean and standard deviation over n seeds; None where there is none."""

    mean: float | None
    sd: float | None
    n: str

    @property
    def text(self) -> str:
        """`7.50 (0.35), n=2`."""
        if self.mean is None:
            return "–"
        sd = "" if self.sd is None else f" ({self.sd:.2f})"
        return f"{number(self.mean, 2)}{sd}, n={self.n}"


NOTHING = Number(None, None, "")


@dataclasses.dataclass(frozen=True)
class Difference:
    """A cell that the runs do not share: its table, place, and the number in each run."""

    table: str
    place: str
    first: Number
    second: Number

    @property
    def mark(self) -> str:
        """An arrow for a change of the number, `A` or `B` where only one run has it, `n` where only seeds differ."""
        one, other = self.first.mean, self.second.mean
        if one is None or other is None:
            return "A" if other is None else "B"
        return "n" if _same(one, other) else "↑" if other > one else "↓"

    @property
    def change(self) -> str:
        """The second number less the first; empty where one is missing."""
        if self.first.mean is None or self.second.mean is None:
            return ""
        return number(self.second.mean - self.first.mean, 2, "+")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two runs have in common and where they differ."""

    names: tuple[str, str]
    equal: int
    differences: tuple[Difference, ...]


def compare(first: Path, second: Path) -> Comparison:
    """Compare the tables of two folders `results/<scale>`.

    Raises:
        ConfigError: one has no tables, or a table that cannot be read.
    """
    one, other = _read(first), _read(second)
    equal, found = 0, []
    for key in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(key, NOTHING), other.get(key, NOTHING)
        if (mine.mean is None and theirs.mean is None) or (_same(mine.mean, theirs.mean) and mine.n == theirs.n):
            equal += mine.mean is not None
            continue
        table, panel, group, row, column, *measured = key
        found.append(Difference(table, ", ".join(filter(None, (row, group, column, panel, *measured))), mine, theirs))
    return Comparison((str(first), str(second)), equal, tuple(found))


def _same(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=1e-12)


def _read(results: Path) -> dict[tuple[str, ...], Number]:
    """Every number of a run's tables by where it stands."""
    paths = sorted(
        path for path in (results / "tables").glob(f"*.{TABLE_SUFFIXES[0]}") if "tidy" not in path.suffixes[0]
    )
    if not paths:
        raise ConfigError(f"{results}: no tables there; name a folder such as results/demo of a finished run")
    found = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8", newline="") as stream:
                for cell in csv.DictReader(stream):
                    if cell["panel"] != ORDERS:
                        mean, sd = (float(cell[key]) if cell[key] else None for key in ("mean", "sd"))
                        found[tuple(cell[key] for key in _KEYS)] = Number(mean, sd, cell["n"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path}: not a table ({error}); remake it with snakemake {path.stem}") from error
    return found


def to_markdown(found: Comparison) -> str:
    """The comparison as Markdown."""
    from tabulate import tabulate

    lines = [f"# A: {markdown_text(found.names[0])}, B: {markdown_text(found.names[1])}", summary(found)]
    rows = [
        [each.mark, *map(markdown_text, (each.table, each.place, each.first.text, each.second.text)), each.change]
        for each in found.differences
    ]
    if rows:
        titles = ["", "table", "cell", "A", "B", "B − A"]
        lines.append(tabulate(rows, titles, tablefmt="pipe", disable_numparse=True))
    return "\n\n".join(lines) + "\n"


def summary(found: Comparison) -> str:
    """How many numbers are equal and how many differ."""
    if not found.differences:
        return f"All {found.equal} numbers are equal."
    alone = sum(each.mark in "AB" for each in found.differences)
    return f"{found.equal} numbers are equal, {len(found.differences) - alone} differ, {alone} are in one run alone."


def to_html(found: Comparison) -> str:
    """The comparison as a page that needs nothing else."""
    style = Markup((ASSETS / STYLE).read_text(encoding="utf-8"))  # our own file
    return environment().get_template("compare.html").render(found=found, summary=summary(found), style=style)
