"""The run configuration: one YAML file, every key typed here, anything else refused."""

import functools
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, create_model, field_validator

from ltpa.core.declared import unknown_name
from ltpa.core.errors import ConfigError
from ltpa.core.patches import PatchSettings, PrototypeTraining
from ltpa.core.plain_yaml import parse_yaml
from ltpa.core.schema import PlainData, once_each, read_plain
from ltpa.protocols.registry import built_in, find
from ltpa.training.recipe import KINDS

# What other rules and folders of results are called.
_TAKEN = frozenset(
    [
        "prepare",
        "train",
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
Positive = Annotated[int, Field(ge=1, lt=2**31)]  # what a scheduler and an array's index take
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Scale(PlainData):
    """How big the networks are, and whether the results may be compared with the paper's.

    `networks` lays architecture options over all variants whose family takes a group of recipes (`vgg`, `resnet`,
    `two-stream`); `profile` among them names options of `config/profiles.yaml` that the variants' own lie over.
    `training` lays settings over the recipes of such a group.
    """

    name: Name
    comparable: bool = False
    networks: dict[str, dict[str, Any]] = {}
    training: dict[str, dict[str, Any]] = {}


class Minutes(PlainData):
    """How long a scheduler lets a job run, per kind of job; `view` is tables, checks, figures and tracking."""

    prepare: Positive = 60
    train: Positive = 240
    evaluate: Positive = 120
    view: Positive = 30


class Jobs(PlainData):
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
    archives: Annotated[list[str], Field(max_length=1000)] = []


def _rising(limits: list[float]) -> list[float]:
    if limits[0] > limits[1]:
        raise ValueError("must be the lowest value and then the highest")
    return limits


Statistic = Annotated[float, Field(ge=-1e6, le=1e6)]  # shares, sides and aspects of boxes
Limits = Annotated[list[Statistic], Field(min_length=2, max_length=2), AfterValidator(_rising)]


class Patches(PatchSettings):
    """Patch boxes for the fine-grained sets: the settings of the extraction, and these.

    `sources` names patch sources (`config/patches.yaml`) and the variant behind each, `none` for those without.
    `released` names array files by split. `limits` are the lowest and the highest value allowed of statistics of the
    test split's boxes, by source. `protopnet` is the training behind source `protopnet`.
    """

    sources: dict[str, str] = {}
    released: dict[str, str] = {}
    limits: dict[str, Annotated[dict[str, Limits], Field(min_length=1)]] = {}
    protopnet: PrototypeTraining = PrototypeTraining()

    def settings(self) -> dict[str, Any]:
        """The settings of the extraction, as plain data."""
        return self.model_dump(mode="json", include=set(PatchSettings.model_fields))


_LEARNED = {"cross-entropy": 0.5, "two-stream": 0.9, "captions": 0.95, "likelihood": 0.9}


def _of_each_kind(given: Any) -> Any:
    if not isinstance(given, dict):
        return {**_LEARNED, "cross-entropy": given}
    for name in given:
        if name not in KINDS:
            raise ValueError(unknown_name("kind of learning", str(name), list(KINDS)))
    return {**_LEARNED, **given}


class Checks(PlainData):
    """What the pipeline checks of its own results.

    What does not hold is a warning, or with `strict` fails the run.

    A seed learned where its test error is at most `max_error_of_chance` of that of guessing, by kind of learning; a
    number holds for the first kind. Protocols have checks of their own, by settings in their own sections.
    """

    strict: bool = False
    max_error_of_chance: Annotated[dict[str, Annotated[float, Field(gt=0, le=1)]], BeforeValidator(_of_each_kind)] = (
        _LEARNED
    )


class FixedProtocols(PlainData):
    """The sections under `protocols` that are no protocol of `ltpa.protocols`; those are added by `schema`."""

    patches: Patches = Patches()
    checks: Checks = Checks()


class Own(PlainData):
    """Declarations of the user's own, beside those of `config/` and in the same form.

    In place of a name of code they may give a file, by its path from the working directory. As `family` of a variant's
    architecture it defines `Options`, as the files of `ltpa/models/families` do; as `reader` of a dataset it defines
    `read`, as those of `ltpa/data/readers` do. A variant of the user's own has a row of its own in every table that
    measures such networks.
    """

    variants: dict[Name, dict[str, Any]] = {}
    datasets: dict[Name, dict[str, Any]] = {}
    recipes: dict[Name, dict[str, Any]] = {}
    tables: dict[Name, dict[str, Any]] = {}


class Config(PlainData):
    """The whole run configuration. Names refer to declarations in `config/`; `ltpa.plan` checks that they exist.

    `data` lays options (`ltpa.data.source.Options`) over those that a dataset's declaration makes. `recipes` names a
    recipe for each family, by what it is for; of the keys `VARIANT on ROLE`, `VARIANT`, `ROLE` and `default` the first
    that is there holds. `protocols` holds a section for each protocol: its own class `Settings`. One with the key
    `module` is a protocol of the user's, which that file defines; the path is relative to the working directory.
    `own` declares what is the user's own.
    """

    scale: Scale
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)]  # each is a job of its own for every network
    variants: Annotated[list[str], Field(min_length=1)]
    datasets: Annotated[list[str], Field(min_length=1)]
    tables: Annotated[list[str], Field(min_length=1)]
    jobs: Jobs = Jobs()
    recipes: dict[str, dict[str, str]]
    data: dict[str, dict[str, Any]] = {}
    protocols: FixedProtocols = FixedProtocols()
    own: Own = Own()

    _unique = field_validator("seeds", "variants", "datasets", "tables")(once_each)


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
    """Check plain data against the schema; `source` names it in errors (a file name).

    Raises:
        ConfigError: one line with source, key, what is wrong, and the allowed keys for an unknown one.
    """
    return read_plain(schema(values, source) if isinstance(values, dict) else Config, values, source)


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: the file is missing, not YAML, has a key twice, or breaks the schema.
    """
    return parse_config(read_config_file(path), str(path))


def read_config_file(path: Path) -> Any:
    """The plain data of a configuration file, unchecked.

    Raises:
        ConfigError: the file is missing, not YAML, or has a key twice.
    """
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name an existing file with --config") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
