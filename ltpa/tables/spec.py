"""The specs of the jobs that only read results: tables, checks, tracking."""

import dataclasses
from typing import Any

from ltpa.core.specs import Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSpec(Spec):
    """A job that only reads results: it has no dataset of its own and computes with one thread.

    `records` are the files it reads, relative to the folder of the scale: result records, or for a table of datasets
    their manifests.
    """

    dataset: str = ""
    threads: int = 1
    records: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSpec(ViewSpec):
    """Make one table.

    Attributes:
        table: its name, `table1`.
        comparable: whether this scale's numbers may be compared with the paper's; otherwise verdicts are withheld.
        scale_note: what the head of the table says about the scale; may be empty.
        seeds: the seeds every network is trained with.
        variants: the variants of this scale.
        roles: role to concrete dataset, for the roles that this scale fills.
        standins: concrete dataset to title, for those that play a role instead of being the paper's dataset.
        declaration: the table's declaration as plain data.
        published: its published values as plain data (`ltpa.tables.published.to_dicts`).
        conditions: role to a map from the paper's conditions to the dataset's own, where they differ.
        baselines: variant to the variant it is tested against, for those that have one.
        max_error_of_chance: see `ltpa.core.learned.Limits`; networks beyond are named below the table.
    """

    table: str
    comparable: bool
    scale_note: str
    seeds: list[int]
    variants: list[str]
    roles: dict[str, str]
    standins: dict[str, str]
    declaration: dict[str, Any]
    published: list[dict[str, Any]]
    conditions: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    baselines: dict[str, str] = dataclasses.field(default_factory=dict)
    max_error_of_chance: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckSpec(ViewSpec):
    """What must hold.

    Attributes:
        max_error_of_chance: see `ltpa.core.learned.Limits`; the worst seed decides whether a network learned.
        protocols: for each protocol that has checks, what they must know (`Protocol.check_facts`).
        files: those that define protocols of the user's, by name.
        patch_limits: lowest and highest value of statistics of the test split's boxes, by patch source.
        strict: whether a check that fails fails the run; otherwise it is a warning.
    """

    max_error_of_chance: dict[str, float]
    strict: bool
    protocols: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    patch_limits: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackSpec(ViewSpec):
    """What goes into the store.

    `models` keeps networks of 5 MB and more among the artefacts; small ones always are. `tables` are the tidy tables to
    compare with the store, relative to the folder of the scale.
    """

    models: bool = False
    tables: list[str] = dataclasses.field(default_factory=list)
