"""Declarations of tables: `config/tables.yaml`, checked. Tables speak of roles, never of concrete datasets."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ltpa.core.declared import load_declaration, unknown_name
from ltpa.core.errors import ConfigError
from ltpa.tables.published import Published
from ltpa.tables.verdict import PUBLISHED_RUNS


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Selector(_Section):
    """A column or panel: which published entries stand in it, and what is read from the records for them.

    `model` (an entry's label), `source`, `target` and `condition` select; a key left out selects everything. `metric`
    and `measure` override the table's metric name and record condition. A column with a `metric` is in no panel that
    has one, too.
    """

    title: str
    model: str | None = None
    source: str | None = None
    target: str | None = None
    condition: str | None = None
    metric: str | None = None
    measure: str | None = None

    def matches(self, entry: Published) -> bool:
        """Whether `entry` stands in this column or panel."""
        pairs = (
            (self.model, entry.label),
            (self.source, entry.source),
            (self.target, entry.target),
            (self.condition, entry.condition),
        )
        return all(wanted is None or wanted == text for wanted, text in pairs)


class FirstRow(_Section):
    """A row above the others of a panel, the same for all of them: its label, and the metric that it shows."""

    label: str
    metric: str


class Panel(Selector):
    """A block of rows with its own title.

    Attributes:
        first_row: a row above those of the published entries; in tables whose rows are conditions.
        secondary: another reading of the same values; they are repeated for orientation, without a verdict.
        beyond_paper: something measured on the same rows that the paper gives no number for; its values are not shown.
        requires: the setting of the stage's protocol without which there is nothing to measure; where a configuration
            leaves it empty the panel is left out, and a note says so.
    """

    first_row: FirstRow | None = None
    secondary: bool = False
    beyond_paper: bool = False
    requires: str | None = None


class Description(_Section):
    """What the paper states about a dataset besides counts (its Table 4)."""

    type: str
    resolution: str
    tasks: str


class Declaration(_Section):
    """One table.

    Attributes:
        paper: what the paper calls it (`Table 1`).
        kind: `metrics` shows result records, `datasets` the manifests of prepared datasets.
        layout: `wide` is one block, `long` one block per panel.
        rows: the key of an entry that names its row.
        row_labels: texts for row names; a name without one stands for itself.
        stage, metric, measure: which records, which metric; `measure` is the record condition, by default the entry's.
            `{group}` in a metric or measure, here and in columns and panels, stands for the group of the row.
        direction: whether a `lower` or a `higher` number is better.
        decimals: digits after the point in rendered tables (CSV files keep full precision).
        tolerance: smallest difference from the paper that counts, in `unit`.
        published_n: runs behind published values whose line in the CSV does not say (its column `n`).
        pooled_sd: whether a cell of fewer than 3 seeds, or of seeds that all agree, is judged by the spread of its
            column, where that is of one size; such a cell is marked.
        groups: titles of the groups of rows.
        baseline: the variant that networks with a baseline are tested against in a table that does not show theirs.
        beyond_paper: a row without a published value is a network that the paper gives no number for; it is run all the
            same. Otherwise such a value is a dash in the paper, against which nothing is run.
        descriptions: role to description, for `kind: datasets`; the plan fills it in from the datasets' declarations.
    """

    title: str
    caption: str
    paper: str
    kind: Literal["metrics", "datasets"] = "metrics"
    layout: Literal["wide", "long"]
    rows: Literal["label", "condition"] = "label"
    row_labels: dict[str, str] = {}
    stage: str
    metric: str
    measure: str | None = None
    unit: str
    direction: Literal["lower", "higher"]
    decimals: Annotated[int, Field(ge=0, le=6)]
    tolerance: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    published_n: Annotated[int, Field(ge=2, le=10**6)] = PUBLISHED_RUNS
    pooled_sd: bool = False
    groups: dict[str, str] = {}
    baseline: str | None = None
    beyond_paper: bool = False
    columns: Annotated[list[Selector], Field(min_length=1, max_length=100)]
    panels: Annotated[list[Panel], Field(max_length=100)] = []
    descriptions: dict[str, Description] = {}
    notes: list[str] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.layout == "long") != bool(self.panels):
            raise ValueError("layout 'long' needs panels, and 'wide' must have none")
        if (self.kind == "datasets") != (self.stage == "prepare"):
            raise ValueError("kind 'datasets' goes with stage 'prepare', and only with it")
        if self.rows != "condition" and any(panel.first_row for panel in self.panels):
            raise ValueError("a panel's first_row goes with rows 'condition'")
        return self

    def baselines(self, of_variants: Mapping[str, str]) -> Mapping[str, str]:
        """Variant to the one it is tested against in this table, for the variants that declare a baseline."""
        return dict.fromkeys(of_variants, self.baseline) if self.baseline else of_variants

    def blocks(self) -> list[Panel]:
        """The panels; for a wide table the single block that takes every entry."""
        return self.panels or [Panel(title="")]


def parse_declaration(values: Any, name: str, source: str = "table spec") -> Declaration:
    """Check plain data as the declaration of table `name`; errors name `source` as its origin.

    Raises:
        ConfigError: one line with source, key and what is wrong with it.
    """
    try:
        return Declaration.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join([name, *map(str, problem["loc"])])
        text = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}: {key}: {text[0].lower()}{text[1:]}; correct the table's declaration") from error


def load_declarations() -> dict[str, Declaration]:
    """All tables of `config/tables.yaml` and the folder beside it, by name, in order.

    Raises:
        ConfigError: a file is missing, not YAML, or a declaration is wrong.
    """
    return {name: parse_declaration(entry, name) for name, entry in load_declaration("tables").items()}


def find_declaration(declarations: dict[str, Declaration], name: str) -> Declaration:
    """The declaration of table `name`.

    Raises:
        ConfigError: there is none; the message lists near matches and all tables.
    """
    if name not in declarations:
        raise ConfigError(unknown_name("table", name, list(declarations)))
    return declarations[name]
