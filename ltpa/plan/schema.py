"""The form of declared datasets and figures, so that a slip in one is a clear line and not a crash."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.schema import PlainData, read_plain
from ltpa.plan.config import Name, Seed

ClassNumber = Annotated[int, Field(ge=0, le=100_000)]


class FigureImages(PlainData):
    """Which images the rows of a figure show."""

    roles: Annotated[list[str], Field(min_length=1)]
    count: Annotated[int, Field(ge=1, le=50)]
    choose: Literal["first_of_each_class", "spread"]


class FigureColumn(PlainData):
    """One column, or a few, of a figure; `config/figures.yaml` explains the keys."""

    show: Literal["image", "maps", "binary", "truth", "attacked", "query"]
    maps: str | None = None
    variant: str | None = None
    source: str | None = None
    level: str | None = None
    epsilons: Annotated[list[Annotated[float, Field(ge=0, le=255)]], Field(max_length=20)] | None = None

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> Self:
        network = {"variant", "source"}
        wanted = {
            "image": set(),
            "truth": set(),
            "binary": network,
            "maps": network | {"maps"},
            "attacked": network | {"epsilons"},
            "query": network | {"level"},
        }[self.show]
        given = self.model_fields_set - {"show"}
        if given != wanted:
            raise ValueError(f"show: {self.show} goes with {', '.join(sorted(wanted)) or 'no other key'}")
        return self


class FigureEntry(PlainData):
    """One entry of `config/figures.yaml`."""

    title: str
    paper: str
    images: FigureImages
    columns: Annotated[list[FigureColumn], Field(min_length=1, max_length=50)]


class DatasetEntry(PlainData):
    """One entry of `config/datasets.yaml` or `config/datasets/`; readers check what only they read."""

    title: str
    plays: Name | None = None
    use: Name | None = None
    reader: str
    type: str
    resolution: str | None = None
    licence: str
    citation: str
    tasks: list[str] = []
    contaminated: str = ""
    located: bool = False  # a mask or a box of the object comes with each image
    image_size: Annotated[int, Field(ge=8, le=4096)]
    classes: Annotated[list[str], Field(min_length=2, max_length=100_000)]
    class_map: list[ClassNumber | None] | None = None
    subset_roles: list[str] | None = None
    class_ids: dict[str, list[ClassNumber | None]] | None = None
    networks: dict[str, dict[str, Any]] = {}
    splits: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    options: dict[str, Any] = {}
    layout: dict[str, Any] = {}
    archives: Annotated[list[dict[str, Any]], Field(max_length=1000)] = []
    seed: Seed = 0
    style: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_per_class(self) -> Self:
        lists = {"class_map": self.class_map, "subset_roles": self.subset_roles}
        lists |= {f"class_ids.{role}": ids for role, ids in (self.class_ids or {}).items()}
        for key, values in lists.items():
            if values is not None and len(values) != len(self.classes):
                raise ValueError(f"{key} has {len(values)} entries for {len(self.classes)} classes; give one per class")
        return self


def check_entries(declared: Mapping[str, Any], entry: type[PlainData], source: str) -> None:
    """Check the form of all entries of a declaration.

    Raises:
        ConfigError: one line with `source`, the key, and what is wrong with it.
    """
    for name, values in declared.items():
        read_plain(entry, values, f"{source}: {name}", remedy="; correct it there")
