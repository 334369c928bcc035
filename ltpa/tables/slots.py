"""Slots: which published entry stands where in a table, and which result it is compared with."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from ltpa.core.errors import ConfigError
from ltpa.tables.declaration import Declaration, FirstRow
from ltpa.tables.published import YOURS, Published

NOT_OURS = "no network of ours"
QUOTED = "quoted"
DASH = "not in the paper"
NOT_IN_SCALE = "not in this scale"
GROUP = "{group}"  # in a metric or measure: the group of the row


@dataclasses.dataclass(frozen=True)
class Slot:
    """A published entry at its place: panel and column by position, the metric and record condition read for it.

    A `dash` is a value that the paper lacks, and so does the table. `secondary` slots get no verdict and no test.
    """

    panel: int
    column: int
    entry: Published
    metric: str
    measure: str
    secondary: bool
    dash: bool


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a slot's numbers are: the runs (stage, dataset, variant) and the metric inside their records."""

    stage: str
    dataset: str
    variant: str
    metric: str
    target: str
    condition: str

    @property
    def run(self) -> tuple[str, str, str]:
        """Stage, dataset and variant; with a seed it names one record."""
        return self.stage, self.dataset, self.variant


def place(declaration: Declaration, published: Sequence[Published]) -> list[Slot]:
    """Every published entry at its place or places (a secondary panel repeats entries), in panel and file order.

    Raises:
        ConfigError: an entry fits no panel, no column of its panel, or several.
    """
    slots: list[Slot] = []
    placed: set[Published] = set()
    for number, panel in enumerate(declaration.blocks()):
        for entry in filter(panel.matches, published):
            if panel.beyond_paper and (entry.quoted or not entry.variant):
                continue
            fits = [position for position, column in enumerate(declaration.columns) if column.matches(entry)]
            if len(fits) != 1:
                raise ConfigError(f"{_describe(entry)} fits {len(fits)} columns; correct the columns in tables.yaml")
            column = declaration.columns[fits[0]]
            if panel.metric and column.metric:
                continue  # a column of its own kind, shown in the panels of the table's metric
            slot = Slot(
                panel=number,
                column=fits[0],
                entry=_unpublished(entry) if panel.beyond_paper else entry,
                metric=_of_group(entry, column.metric or panel.metric or declaration.metric),
                measure=_of_group(entry, _first(column.measure, panel.measure, declaration.measure, entry.condition)),
                secondary=panel.secondary or panel.beyond_paper,
                dash=entry.value is None and not declaration.beyond_paper and entry.group != YOURS,
            )
            if panel.first_row and not any((number, fits[0]) == (other.panel, other.column) for other in slots):
                slots.append(_above(slot, panel.first_row))
            slots.append(slot)
            placed.add(entry)
    for entry in published:
        if entry not in placed:
            raise ConfigError(f"{_describe(entry)} fits no panel; correct the panels in tables.yaml")
    return slots


def resolve(
    slot: Slot,
    stage: str,
    roles: Mapping[str, str],
    variants: Collection[str],
    conditions: Mapping[str, Mapping[str, str]],
) -> Address | str:
    """The address of a slot's numbers at this scale, or the reason why there is none."""
    entry = slot.entry
    if entry.quoted:
        return QUOTED
    if not entry.variant:
        return NOT_OURS
    if slot.dash:
        return DASH
    role, _, split = entry.target.partition("/")
    if entry.variant not in variants or entry.source not in roles or (role and role not in roles):
        return NOT_IN_SCALE
    measured_on = roles[role] if role else roles[entry.source]
    return Address(
        stage=stage,
        dataset=roles[entry.source],
        variant=entry.variant,
        metric=slot.metric,
        target=f"{measured_on}/{split}" if split else measured_on,
        condition=conditions.get(role or entry.source, {}).get(slot.measure, slot.measure),
    )


def _above(slot: Slot, row: FirstRow) -> Slot:
    """The slot of the panel's first row above `slot`, in the same column."""
    entry = dataclasses.replace(_unpublished(slot.entry), condition=row.label)
    return dataclasses.replace(slot, entry=entry, metric=row.metric, measure="")


def _unpublished(entry: Published) -> Published:
    return dataclasses.replace(entry, value=None, sd=None, where="no published value")


def _of_group(entry: Published, text: str) -> str:
    return text.replace(GROUP, entry.group)


def _first(*texts: str | None) -> str:
    return next((text for text in texts if text is not None), "")


def _describe(entry: Published) -> str:
    cell = ", ".join(filter(None, (entry.label, entry.source, entry.target, entry.condition)))
    return f"published value {entry.table} ({cell})"
