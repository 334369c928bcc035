"""The run configuration: one YAML file, every key typed here, anything else refused."""

import functools
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError
from ltpa.protocols.registry import built_in, find

# What other rules and folders of results are called.
_TAKEN = frozenset(
    [
        "prepare",
        "train",
        "twostream",
        "finegrained",
        "table",
        "tables",
        "check",
        "track",
        "figures",
        "gallery",
        "patch_picture",
        "step_picture",
        "all_tables",
        "all_figures",
        "data",
        "state",
        "specs",
        "code",
        "logs",
        "downloads",
    ]
)
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Scale(_Section):
    """How big the networks are, and whether the results may be held against the paper's.

    `networks` lays architecture options (`ltpa.models.options`) over all variants of a family, `vgg` or `resnet`.
    """

    name: Name
    comparable: bool = False
    networks: dict[Literal["vgg", "resnet"], dict[str, Any]] = {}


class Minutes(_Section):
    """How long a scheduler lets a job run, per kind of job; `view` is tables, checks, figures and tracking."""

    prepare: Positive = 60
    train: Positive = 240
    evaluate: Positive = 120
    view: Positive = 30


class Jobs(_Section):
    """What jobs ask for, and `archives`, folders of dataset archives that need no download.

    `mem_mb` and `minutes` are what a job asks of a scheduler; attempt n asks for n times as much, at most `max_growth`
    times. `gpu_share` is how many processes may use one GPU at a time; it changes no result.
    """

    threads: Positive = 1
    mem_mb: Positive = 2000
    minutes: Minutes = Minutes()
    max_growth: Positive = 3
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    gpu_share: Literal[1, 2, 4, 8] = 1
    track: bool = True
    tolerate_failures: bool = False
    archives: list[str] = []


class Protopnet(_Section):
    """Training of ProtoPNet's prototypes: a named set of settings (`ltpa.training.protopnet`), and changes to it."""

    routine: Literal["st-protopnet", "protopnet"] = "st-protopnet"
    per_class: Positive | None = None
    width: Positive | None = None
    epochs: Positive | None = None
    warm_epochs: Natural | None = None
    freeze_norm: bool | None = None
    first_push: Natural | None = None
    push_every: Positive | None = None
    last_epochs: Natural | None = None
    batch_size: Positive | None = None
    trunk_lr: NotNegative | None = None
    add_on_lr: NotNegative | None = None
    last_lr: NotNegative | None = None
    weight_decay: NotNegative | None = None
    decay_every: Positive | None = None
    cluster: NotNegative | None = None
    separation: NotNegative | None = None
    sparsity: NotNegative | None = None
    rotation: NotNegative | None = None
    shear: NotNegative | None = None


class Patches(_Section):
    """Patch boxes for the fine-grained sets.

    `sources` names patch sources (`config/patches.yaml`) and the variant behind each, `none` for those without.
    `released` names array files by split. `limits` are the lowest and the highest value allowed of statistics of the
    test split's boxes, by source. The rest are settings of `ltpa.evaluation.patches.PatchSettings`; what is left out
    has the default given there.
    """

    sources: dict[str, str] = {}
    released: dict[str, str] = {}
    limits: dict[str, dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]] = {}
    protopnet: Protopnet = Protopnet()
    boxes: Positive | None = None
    cleaning: Literal["clean", "parity"] | None = None
    percentile: Annotated[float, Field(gt=0, lt=100)] | None = None
    smooth: Positive | None = None
    grid: Positive | None = None
    level: Name | None = None
    min_side: Fraction | None = None
    grown_side: Fraction | None = None
    max_aspect: Annotated[float, Field(ge=1)] | None = None
    max_area: Fraction | None = None
    max_iou: Fraction | None = None
    window_iou: Fraction | None = None
    clusters: Positive | None = None
    cells_per_image: Positive | None = None
    iterations: Positive | None = None
    min_share: Fraction | None = None
    center_sides: list[Fraction] | None = None
    random_areas: list[list[Fraction]] | None = None
    random_aspect: Annotated[float, Field(ge=1)] | None = None
    batch_size: Positive | None = None

    def settings(self) -> dict[str, Any]:
        """The settings that were given."""
        return self.model_dump(exclude={"sources", "released", "limits", "protopnet"}, exclude_none=True)


class TwoStream(_Section):
    """The two-stream rows (`config/twostream.yaml`): one profile, recipe and kind of initial weights for all of them.

    `weights`: `imagenet`, `scratch`, or a file. `patches` names the patch source of all rows that name none, `boxes`
    how many of its boxes are used. `split` `validation` holds training images out and tests on them, for choices;
    tables then stay empty. `overlap` gives, by role, a list of test images that the pretraining has seen. `networks`
    lays options over the profile.
    """

    rows: list[str] = []
    profile: str = "paper"
    recipe: str = "paper"
    weights: str = "imagenet"
    patches: str = "protolite"
    boxes: Positive = 10
    split: Literal["test", "validation"] = "test"
    overlap: dict[str, str] = {}
    networks: dict[str, Any] = {}


class Checks(_Section):
    """What the pipeline asserts about its own results.

    A seed learned where its test error is at most `max_error_of_chance` of that of guessing
    (`max_twostream_error_of_chance` for two-stream networks). `attention_beats` says what the peaks of maps must hit
    the object more often than: a `random` pixel, the same network `untrained`, the `centre` of the image.
    `local_beats`, by dataset and row: the row's local stream must be right oftener than its global one on patches that
    hold the part, and than the local streams of the rows listed, its controls.
    """

    max_error_of_chance: Annotated[float, Field(gt=0, le=1)] = 0.5
    attention_beats: list[Literal["random", "untrained", "centre"]] = ["random", "untrained"]
    query_pc_max: Annotated[float, Field(ge=0)] = 1e-4
    max_twostream_error_of_chance: Annotated[float, Field(gt=0, le=1)] = 0.9
    local_beats: dict[str, dict[str, list[str]]] = {}


class FixedProtocols(_Section):
    """The sections under `protocols` that are no protocol of `ltpa.protocols`; those are added by `_schema`."""

    patches: Patches = Patches()
    checks: Checks = Checks()


class Config(_Section):
    """The whole run configuration. Names refer to declarations in `config/`; `ltpa.plan` checks that they exist.

    `data` lays options (`ltpa.data.source.Options`) over those that a dataset's declaration makes. `protocols` holds a
    section for each protocol: its own class `Settings`. One with the key `module` is a protocol of the user's, which
    that file defines; the path is relative to the working directory. `own_tables` declares further tables, in the form
    of `config/tables.yaml`.
    """

    scale: Scale
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    variants: Annotated[list[str], Field(min_length=1)]
    datasets: Annotated[list[str], Field(min_length=1)]
    tables: Annotated[list[str], Field(min_length=1)]
    jobs: Jobs = Jobs()
    recipes: dict[str, dict[str, str]]
    data: dict[str, dict[str, Any]] = {}
    protocols: FixedProtocols = FixedProtocols()
    own_tables: dict[Name, dict[str, Any]] = {}
    twostream: TwoStream = TwoStream()

    @field_validator("seeds", "variants", "datasets", "tables")
    @classmethod
    def _unique(cls, values: list[Any]) -> list[Any]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value!r} stands twice; name each once")
        return values


def schema(values: dict[str, Any], source: str) -> type[Config]:
    """The schema of a configuration: settings of the package's protocols, and of those that it adds as a `module`.

    Raises:
        ConfigError: such a protocol has no proper name, or its file does not define it.
    """
    sections = values.get("protocols")
    own: dict[str, str] = {}
    for name, section in sections.items() if isinstance(sections, dict) else ():
        if not isinstance(section, dict) or not isinstance(section.get("module"), str) or name in built_in():
            continue
        if not re.fullmatch("[a-z][a-z0-9_]{0,59}", str(name)) or name in _TAKEN | FixedProtocols.model_fields.keys():
            raise ConfigError(f"{source}: key 'protocols': {name!r} is no name for a protocol; take another one")
        own[name] = section["module"]
    return _schema(tuple(own.items()), source)


@functools.lru_cache(maxsize=8)
def _schema(own: tuple[tuple[str, str], ...], source: str) -> type[Config]:
    kinds: dict[str, Any] = {name: (find(name).Settings, find(name).Settings()) for name in built_in()}
    for name, module in own:
        try:
            settings = find(name, module).Settings
        except ConfigError as error:
            raise ConfigError(f"{source}: key 'protocols.{name}.module': {error}") from error
        kinds[name] = (create_model(settings.__name__, __base__=settings, module=(str, ...)), ...)
    section = create_model("Protocols", __base__=FixedProtocols, **kinds)
    default: Any = ... if own else section()
    return create_model("Config", __base__=Config, protocols=(section, default))


def parse_config(values: Any, source: str) -> Config:
    """Check plain data against the schema; `source` is how errors call it (a file name).

    Raises:
        ConfigError: one line with source, key, what is wrong, and the allowed keys for an unknown one.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: must be a mapping of {', '.join(Config.model_fields)}")
    form = schema(values, source)
    try:
        return form.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{source}: {_describe(problems[0], form)}{more}") from error


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: the file is missing, not YAML, or breaks the schema.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name an existing file with --config") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    return parse_config(values, str(path))


def _describe(problem: Any, form: type[Config]) -> str:
    key = ".".join(map(str, problem["loc"])) or "(top level)"
    if problem["type"] == "extra_forbidden":
        section: Any = form
        for part in problem["loc"][:-1]:
            annotation = section.model_fields[part].annotation
            section = next((kind for kind in get_args(annotation) if kind is not type(None)), annotation)
        return f"{unknown_name('key', str(problem['loc'][-1]), list(section.model_fields))} (at {key!r})"
    if problem["type"] == "missing":
        return f"key {key!r} is missing; add it"
    text = problem["msg"].removeprefix("Value error, ")
    hint = ""
    if problem["type"] == "float_type" and isinstance(problem["input"], str):
        hint = " (YAML reads 1e-4 as text; write 1.0e-4)"
    return f"key {key!r} is {problem['input']!r}: {text[0].lower()}{text[1:]}{hint}"
