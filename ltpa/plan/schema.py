"""The form of declared variants, datasets and figures, so that a slip in one is a clear line and not a crash."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError, ModelError
from ltpa.models.options import parse_options
from ltpa.plan.config import Name


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Saliency(_Entry):
    """How a class-agnostic map is made of a network (`config/variants.yaml`, key `saliency`)."""

    source: Literal["attention", "cam"]
    levels: list[str] | None = None
    sqrt: bool = False


class VariantEntry(_Entry):
    """One entry of `config/variants.yaml`."""

    label: str
    recipe: Literal["vgg", "resnet"]
    training: dict[str, Any] = {}
    architecture: dict[str, Any]
    saliency: Saliency | None
    extension: bool = False
    baseline: str | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            parse_options(self.architecture)
        except ModelError as error:
            raise ValueError(f"architecture: {error}") from error
        return self


class FigureImages(_Entry):
    """Which images the rows of a figure show."""

    roles: Annotated[list[str], Field(min_length=1)]
    count: Annotated[int, Field(ge=1, le=50)]
    choose: Literal["first_of_each_class", "spread"]


class FigureColumn(_Entry):
    """One column, or a few, of a figure; `config/figures.yaml` explains the keys."""

    show: Literal["image", "maps", "binary", "truth", "attacked", "query"]
    maps: str | None = None
    variant: str | None = None
    source: str | None = None
    level: str | None = None
    epsilons: list[Annotated[float, Field(ge=0, le=255)]] | None = None

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


class FigureEntry(_Entry):
    """One entry of `config/figures.yaml`."""

    title: str
    paper: str
    images: FigureImages
    columns: Annotated[list[FigureColumn], Field(min_length=1)]


class DatasetEntry(_Entry):
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
    image_size: Annotated[int, Field(ge=8, le=4096)]
    classes: Annotated[list[str], Field(min_length=2)]
    class_map: list[int | None] | None = None
    subset_roles: list[str] | None = None
    class_ids: dict[str, list[int | None]] | None = None
    networks: dict[Literal["vgg", "resnet"], dict[str, Any]] = {}
    splits: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    options: dict[str, Any] = {}
    layout: dict[str, Any] = {}
    archives: list[dict[str, Any]] = []
    seed: Annotated[int, Field(ge=0)] = 0
    style: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_per_class(self) -> Self:
        lists = {"class_map": self.class_map, "subset_roles": self.subset_roles}
        lists |= {f"class_ids.{role}": ids for role, ids in (self.class_ids or {}).items()}
        for key, values in lists.items():
            if values is not None and len(values) != len(self.classes):
                raise ValueError(f"{key} has {len(values)} entries for {len(self.classes)} classes; give one per class")
        return self


def check_entries(declared: Mapping[str, Any], entry: type[BaseModel], source: str) -> None:
    """Check the form of all entries of a declaration.

    Raises:
        ConfigError: one line with `source`, the key, and what is wrong with it.
    """
    for name, values in declared.items():
        try:
            entry.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, (name, *problem["loc"])))
            if problem["type"] == "extra_forbidden":
                text = f"unknown key; {near_matches(str(problem['loc'][-1]), entry.model_fields)}"
            else:
                text = problem["msg"].removeprefix("Value error, ")
                text = text[0].lower() + text[1:]
            raise ConfigError(f"{source}: key {key!r}: {text}; correct it there") from error
