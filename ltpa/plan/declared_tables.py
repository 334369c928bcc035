"""Tables as declared, for one configuration: panels at this scale, rows of networks without published values."""

import functools
import json
from typing import Any

from ltpa.core.declared import config_dir, near_matches, unknown_name
from ltpa.core.errors import ConfigError
from ltpa.plan import jobs
from ltpa.plan.plan import Plan
from ltpa.tables.declaration import Declaration, Panel, Selector, parse_declaration
from ltpa.tables.published import YOURS, Published, load_published


@functools.lru_cache(maxsize=64)  # specs, inputs and runs of a table ask for it, each time Snakemake starts
def table_declaration(plan: Plan, table: str) -> tuple[Declaration, tuple[Published, ...]]:
    """Declaration, without panels whose protocol setting this scale leaves empty, and published values of a table."""
    own = table in plan.config.own.tables
    where = f"{plan.source}: key 'own.tables'" if own else "config/tables.yaml"
    values = {**_of_metric(plan, plan.tables[table]), **plan.tables[table]} if own else plan.tables[table]
    declaration = parse_declaration(values, table, where)
    known = [*jobs.stages(plan), "prepare"]
    if declaration.stage not in known:
        raise ConfigError(f"{where}: {table}.stage: {unknown_name('stage', declaration.stage, known)}")
    empty = [panel for panel in declaration.panels if panel.requires and not _setting(plan, declaration, panel)]
    if empty:
        key = f"protocols.{declaration.stage}"
        notes = [f"Left out, as {key}.{panel.requires} is empty at this scale: {panel.title}." for panel in empty]
        kept = [panel for panel in declaration.panels if panel not in empty]
        declaration = declaration.model_copy(update={"panels": kept, "notes": [*declaration.notes, *notes]})
    if changed := _other_readings(plan, declaration.stage):
        note = f"Protocol settings that are not the default: {', '.join(changed)}."
        declaration = declaration.model_copy(update={"notes": [*declaration.notes, note]})
    published = config_dir() / "published" / f"{table}.csv"
    if own or (declaration.beyond_paper and not published.exists()):
        return declaration, tuple(_unpublished(plan, table, declaration))
    entries = load_published(published)
    if declaration.kind == "metrics" and (mine := _own_rows(plan, table, declaration, entries)):
        declaration = declaration.model_copy(update={"groups": {**declaration.groups, YOURS: "Yours"}})
        entries = [*entries, *mine]
    return declaration, tuple(entries)


def _own_rows(plan: Plan, table: str, declaration: Declaration, published: list[Published]) -> list[Published]:
    """For each variant of the user's own the cells that the paper's rows have, where it is measured there."""
    cells = dict.fromkeys((entry.source, entry.target, entry.condition) for entry in published)
    found = []
    for variant in plan.config.variants:
        if variant not in plan.config.own.variants:
            continue
        for source, target, condition in cells:
            if source not in plan.roles or not _is_measured(plan, declaration.stage, plan.roles[source], variant):
                continue
            found.append(_cell(plan, table, YOURS, variant, (source, target, condition), "yours"))
    return found


def _is_measured(plan: Plan, stage: str, dataset: str, variant: str) -> bool:
    """Whether a stage says something of the networks of a variant trained on a dataset."""
    if stage in plan.protocols:
        return not plan.inapplicable(stage, dataset, variant)
    return stage == "train" and plan.trains(dataset, variant)


def _of_metric(plan: Plan, declared: dict[str, Any]) -> dict[str, Any]:
    """What a table of the user's need not say: there is no paper, and a protocol says the rest of its metric."""
    protocol = plan.protocols.get(str(declared.get("stage")))
    kinds = {kind.name: kind for kind in (protocol.metrics if protocol else ())}
    kind = kinds.get(str(declared.get("metric")))
    found = {"unit": kind.unit, "direction": kind.better, "caption": kind.title} if kind else {}
    fixed = {"paper": "", "layout": "wide", "decimals": 2, "tolerance": 0.0, "beyond_paper": True}
    fixed["direction"] = "higher"  # where neither is better: with nothing published it decides nothing
    return {**fixed, **{key: value for key, value in found.items() if value}}


def _unpublished(plan: Plan, table: str, declaration: Declaration) -> list[Published]:
    """A row for each variant of the configuration that the table's protocol applies to, without published values.

    Where the protocol divides them (`Protocol.row_groups`) a variant has a row in each of its groups.
    """
    sources = {str(column.source or block.source) for block in declaration.blocks() for column in declaration.columns}
    if not sources & plan.roles.keys():
        key = f"{plan.source}: key 'tables': {table}"
        raise ConfigError(
            f"{key}: no column has a source that a dataset of the configuration stands for; there are "
            f"{', '.join(plan.roles)}"
        )
    protocol = plan.protocols.get(declaration.stage)
    entries = [
        _cell(plan, table, group, variant, _address(column, block), "measured here alone")
        for block in declaration.blocks()
        for column in declaration.columns
        for variant in plan.config.variants
        for group in (protocol.row_groups(plan, variant) if protocol else ("",))
    ]
    order = [*declaration.groups, ""]
    used = [
        entry
        for entry in dict.fromkeys(entries)
        if entry.source in plan.roles
        and not (protocol and plan.inapplicable(protocol.name, plan.roles[entry.source], entry.variant))
    ]
    return sorted(used, key=lambda entry: order.index(entry.group) if entry.group in order else len(order))


def _other_readings(plan: Plan, stage: str) -> list[str]:
    """The settings of a stage's protocol that are not the project's rulings, as `key value`."""
    sections = [*plan.protocols[stage].settings_of, stage] if stage in plan.protocols else []
    return [
        f"protocols.{name}.{key} {json.dumps(value)}"
        for name in sections
        for key, value in plan.settings(name).other_readings().items()
    ]


def _setting(plan: Plan, declaration: Declaration, panel: Panel) -> Any:
    protocol = plan.settings(declaration.stage)
    if panel.requires not in type(protocol).model_fields:
        raise ConfigError(
            f"config/tables.yaml: panel {panel.title!r} requires {panel.requires!r}, which is no setting of protocol "
            f"{declaration.stage}; {near_matches(str(panel.requires), type(protocol).model_fields)}"
        )
    return getattr(protocol, str(panel.requires))


def _address(column: Selector, block: Panel) -> tuple[str, str, str]:
    """Source, target and condition of a column in a panel."""
    return (
        str(column.source or block.source),
        column.target or block.target or "",
        column.condition or block.condition or "",
    )


def _cell(plan: Plan, table: str, group: str, variant: str, address: tuple[str, str, str], where: str) -> Published:
    """A cell of a network that has no published value."""
    source, target, condition = address
    label = plan.variants[variant].label
    return Published(table, group, variant, label, source, target, condition, None, None, quoted=False, where=where)
