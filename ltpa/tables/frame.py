"""From records to tidy rows: one row per cell and seed, with the number or the reason why there is none."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ltpa.core.errors import RecordError
from ltpa.core.learned import Limits, failures, outcomes
from ltpa.core.records import Metric, Record, read_record, unconverged
from ltpa.core.text import csv_value
from ltpa.tables.declaration import Declaration
from ltpa.tables.published import Published
from ltpa.tables.slots import NOT_IN_SCALE, Address, Slot, place, resolve
from ltpa.tables.spec import TableSpec

OK = "ok"
FAILED = "failed"
MISSING = "missing"
NO_TARGET = "no such target"


class Indexed(NamedTuple):
    """A record, its path below the results folder, and the folder that it lies in."""

    record: Record
    path: str
    folder: Path


RecordIndex = Mapping[tuple[str, str, str, int], Indexed]


@dataclasses.dataclass(frozen=True)
class TidyRow:
    """One number of one seed, and where it belongs.

    `status` is `ok` (then `value` and `items`, the count behind it, are set, and `reason` names the networks behind it
    that did not learn), `failed` or `missing` (the run, with its reason), `no such target` (the record lacks
    the metric), or why the cell has no run at all (then `seed` is None).
    `target` and `condition` say which of the record's metrics (an empty target in a record means its own dataset);
    `record` is its path below the results folder, and `doubt` why the record itself doubts the value.
    """

    table: str
    panel: str
    group: str
    row: str
    column: str
    paper_source: str
    paper_target: str
    paper_condition: str
    stage: str
    dataset: str
    variant: str
    target: str
    condition: str
    metric: str
    seed: int | None
    value: float | None
    items: int | None
    status: str
    reason: str
    doubt: str
    record: str


COLUMNS = tuple(field.name for field in dataclasses.fields(TidyRow))


@dataclasses.dataclass(frozen=True)
class SlotRows:
    """A slot, its address (or the reason why it has none), and its tidy rows."""

    slot: Slot
    address: Address | str
    rows: tuple[TidyRow, ...]


def index_records(paths: Sequence[Path], results: Path, spec: TableSpec) -> RecordIndex:
    """Read every record file, seal and all, and index it by stage, dataset, variant and seed.

    Raises:
        RecordError: a file is unreadable or edited, belongs to another scale or an unasked seed, or repeats another.
    """
    index: dict[tuple[str, str, str, int], Indexed] = {}
    for path in paths:
        record = read_record(path)
        key = (record.stage, record.dataset, record.variant, record.seed)
        if record.scale != spec.scale:
            raise RecordError(f"{path}: of scale {record.scale!r}, the table is of {spec.scale!r}; never mix scales")
        if record.seed not in spec.seeds:
            raise RecordError(f"{path}: seed {record.seed} is not among the table's seeds {spec.seeds}; leave it out")
        if key in index:
            raise RecordError(f"{path}: the same run as {index[key].path}; give each record once")
        index[key] = Indexed(record, relative(path, results), Path(path).parent)
    return index


def relative(path: Path, results: Path) -> str:
    """`path` below `results` with forward slashes; the whole path where it lies elsewhere."""
    path, results = Path(path).resolve(), Path(results).resolve()
    return path.relative_to(results).as_posix() if path.is_relative_to(results) else path.as_posix()


def tidy_rows(
    spec: TableSpec, declaration: Declaration, published: Sequence[Published], index: RecordIndex
) -> list[SlotRows]:
    """Every cell of a table of metrics with its tidy rows, in the table's order."""
    collected = []
    for slot in place(declaration, published):
        address = resolve(slot, declaration.stage, spec.roles, spec.variants, spec.conditions)
        blank = _blank(spec, declaration, slot, address)
        if isinstance(address, str):
            rows: tuple[TidyRow, ...] = (blank,)
        else:
            rows = tuple(_seed_row(blank, address, seed, index, spec.max_error_of_chance) for seed in spec.seeds)
        collected.append(SlotRows(slot, address, rows))
    return collected


def to_csv(rows: Sequence[TidyRow]) -> str:
    """Tidy rows as CSV text; numbers in full precision (`repr`), empty where there is none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([csv_value(getattr(row, column)) for column in COLUMNS] for row in rows)
    return stream.getvalue()


def doubts(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """A line for each number that its record casts doubt on; `rows` are tidy rows as dictionaries."""
    text = "Doubtful: {stage} {dataset} {variant} seed {seed}, {target} {condition}: {doubt}"
    return list(dict.fromkeys(text.format_map(row) for row in rows if row.get("doubt")))


def several_processors(collected: Iterable[SlotRows], index: RecordIndex) -> list[str]:
    """A line for each run whose seeds were trained or evaluated on several kinds of processors."""
    lines: dict[str, None] = {}
    for item in collected:
        seeds: dict[str, list[str]] = {}
        for row in item.rows:
            if row.status == OK and row.seed is not None:
                kind = _computed_on(index[row.stage, row.dataset, row.variant, row.seed].record)
                seeds.setdefault(kind, []).append(str(row.seed))
        if len(seeds) > 1:
            run = f"{item.rows[0].stage} {item.rows[0].dataset} {item.rows[0].variant}"
            kinds = "; ".join(f"seed {', '.join(numbers)} on {kind}" for kind, numbers in seeds.items())
            lines[f"Several kinds of processors, which round otherwise: {run}, {kinds}"] = None
    return list(lines)


def _computed_on(record: Record) -> str:
    """The kind of machine that made a record, and where they differ those that trained the networks behind it."""
    own = record.computed_on
    others = [each.computed_on for each in outcomes(record) if each.computed_on not in ("", own)]
    return " with networks of ".join([own or "an unknown one", *dict.fromkeys(others)])


def _blank(spec: TableSpec, declaration: Declaration, slot: Slot, address: Address | str) -> TidyRow:
    """The row of a cell before any seed is looked at."""
    entry = slot.entry
    addressed = address if isinstance(address, Address) else Address(declaration.stage, "", entry.variant, "", "", "")
    return TidyRow(
        table=spec.table,
        panel=declaration.blocks()[slot.panel].title,
        group=entry.group,
        row=getattr(entry, declaration.rows),
        column=declaration.columns[slot.column].title,
        paper_source=entry.source,
        paper_target=entry.target,
        paper_condition=entry.condition,
        stage=addressed.stage,
        dataset=addressed.dataset,
        variant=addressed.variant,
        target=addressed.target,
        condition=addressed.condition,
        metric=slot.metric,
        seed=None,
        value=None,
        items=None,
        status=address if isinstance(address, str) else NOT_IN_SCALE,
        reason="",
        doubt="",
        record="",
    )


def _seed_row(blank: TidyRow, address: Address, seed: int, index: RecordIndex, limits: Limits) -> TidyRow:
    indexed = index.get((*address.run, seed))
    if indexed is None:
        return dataclasses.replace(blank, seed=seed, status=MISSING, reason="no record")
    record, path, _ = indexed
    if record.status != "ok":
        return dataclasses.replace(blank, seed=seed, status=FAILED, reason=record.reason, record=path)
    metric = _find(record, address, path)
    if metric is None:
        reason = f"the record has no {address.metric} for {' '.join((address.target, address.condition)).strip()}"
        return dataclasses.replace(blank, seed=seed, status=NO_TARGET, reason=reason, record=path)
    return dataclasses.replace(
        blank,
        seed=seed,
        value=metric.value,
        items=metric.n,
        status=OK,
        reason="; ".join(failures(record, limits)),
        doubt=unconverged(record.extra).get((address.target, address.condition), ""),
        record=path,
    )


def _find(record: Record, address: Address, path: str) -> Metric | None:
    """The record's metric at `address`. An empty metric target means the record's own dataset."""
    metrics = [
        metric
        for metric in record.metrics
        if metric.name == address.metric
        and (metric.target or record.dataset) == address.target
        and metric.condition == address.condition
    ]
    if len(metrics) > 1:
        raise RecordError(
            f"{path}: holds {address.metric} {address.target} {address.condition} twice; remake the record"
        )
    return metrics[0] if metrics else None
