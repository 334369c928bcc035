"""Published values: one tidy CSV file per table of the paper, in one long form.

Columns: `table, group, variant, label, source, target, condition, value, sd, quoted, where`, and a last one, `n`, in a
file whose publication says how many runs stand behind a mean and its sd. `source` and `target` are roles (a dataset's
name in the paper); `target` may carry a split (`stl10/test`) and is empty where a network is measured on its own
dataset. `variant` is empty for rows that no network here produces. An empty `value` is a dash in the paper or, in a
table declared `beyond_paper`, a number that the paper does not give; such a line may name several sources and
conditions, with `|` between them, and stands for all their pairs. `quoted` is 1 for values that the paper itself quotes
from other publications.
"""

import csv
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltpa.core.errors import ConfigError

YOURS = "yours"  # the group of rows of a user's own networks


@dataclasses.dataclass(frozen=True)
class Published:
    """One published value, or a dash (`value` is None). `value` and `sd` are in the unit of the table."""

    table: str
    group: str
    variant: str
    label: str
    source: str
    target: str
    condition: str
    value: float | None
    sd: float | None
    quoted: bool
    where: str
    n: int | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(Published) if field.name != "n")
_RUNS = (*COLUMNS, "n")


def load_published(path: Path) -> list[Published]:
    """Read and check `<table>.csv`; rows keep the order of the file.

    Raises:
        ConfigError: the file is missing or malformed; the message names file, line and remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the published values ({error}); restore the file") from error
    rows = csv.reader(text.splitlines())
    header = next(rows, [])
    if tuple(header) not in (COLUMNS, _RUNS):
        raise ConfigError(
            f"{path}: its columns are {','.join(header)}; they must be {','.join(COLUMNS)}, and n as a last one where "
            "the numbers of runs are published"
        )
    entries = list(_parse(rows, path, header))
    if not entries:
        raise ConfigError(f"{path}: holds no values; restore the file")
    return entries


def to_dicts(entries: Sequence[Published]) -> list[dict[str, Any]]:
    """Published values in the plain form that a spec carries, as short as in the file.

    A spec is one argument of a command, which systems limit to 128 KiB.
    """
    packed: list[Published] = []
    for _, neighbours in itertools.groupby(entries, lambda entry: dataclasses.replace(entry, source="", condition="")):
        members = list(neighbours)
        sources, conditions = (
            list(dict.fromkeys(getattr(entry, key) for entry in members)) for key in ("source", "condition")
        )
        together = dataclasses.replace(members[0], source="|".join(sources), condition="|".join(conditions))
        packed += [together] if _unpacked(together) == members else members
    plain = [dataclasses.asdict(entry) for entry in packed]
    return [{key: value for key, value in row.items() if key != "n" or value is not None} for row in plain]


def _unpacked(entry: Published) -> list[Published]:
    pairs = itertools.product(entry.source.split("|"), entry.condition.split("|"))
    return [dataclasses.replace(entry, source=source, condition=condition) for source, condition in pairs]


def from_dicts(rows: list[dict[str, Any]]) -> list[Published]:
    """Published values from the plain form that a spec carries (`to_dicts`).

    Raises:
        ConfigError: a row has other keys.
    """
    try:
        return [entry for row in rows for entry in _unpacked(Published(**row))]
    except TypeError as error:
        raise ConfigError(f"published values of a table spec: {error}; take the spec from `snakemake -n -p`") from error


def _parse(rows: Iterator[list[str]], path: Path, header: Sequence[str]) -> Iterator[Published]:
    seen: dict[tuple[str, ...], int] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise ConfigError(f"{where}: {len(row)} fields; there must be {len(header)} (quote those with commas)")
        for entry in _entries(dict(zip(header, row, strict=True)), where):
            _check(entry, where, path.stem)
            key = (entry.label, entry.source, entry.target, entry.condition)
            if key in seen:
                cell = ", ".join(filter(None, key))
                raise ConfigError(f"{where}: the same cell as line {seen[key]} ({cell}); keep one")
            seen[key] = line
            yield entry


def _entries(fields: dict[str, str], where: str) -> Iterator[Published]:
    """What one line stands for."""
    value = _number(fields["value"], f"{where}: value")
    pairs = list(itertools.product(fields["source"].split("|"), fields["condition"].split("|")))
    if value is not None and len(pairs) > 1:
        raise ConfigError(f"{where}: one value for {len(pairs)} cells; give each cell a line of its own")
    for source, condition in pairs:
        yield Published(
            **{name: fields[name] for name in ("table", "group", "variant", "label", "target")},
            source=source,
            condition=condition,
            value=value,
            sd=_number(fields["sd"], f"{where}: sd"),
            quoted=_flag(fields["quoted"], f"{where}: quoted"),
            where=fields["where"],
            n=_runs(fields.get("n", ""), f"{where}: n"),
        )


def _check(entry: Published, where: str, table: str) -> None:
    if entry.table != table:
        raise ConfigError(f"{where}: table is {entry.table!r}; in this file it must be {table!r}")
    if not entry.label or not entry.where:
        raise ConfigError(f"{where}: label and where must not be empty; say which row this is and where it stands")
    if entry.sd is not None and (entry.value is None or entry.sd < 0):
        raise ConfigError(f"{where}: sd is {entry.sd}; it must be 0 or more and stand beside a value")


def _number(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{where} is {text!r}; write a number, or nothing for a dash") from error
    if not math.isfinite(value):
        raise ConfigError(f"{where} is {text!r}; write a finite number, or nothing for a dash")
    return value


def _runs(text: str, where: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) < 2:
        raise ConfigError(f"{where} is {text!r}; write the number of runs, 2 or more, or nothing")
    return int(text)


def _flag(text: str, where: str) -> bool:
    if text not in ("0", "1"):
        raise ConfigError(f"{where} is {text!r}; write 0 (the paper's own value) or 1 (quoted from elsewhere)")
    return text == "1"
