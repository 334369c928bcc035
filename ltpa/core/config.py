"""The run configuration: one YAML file, every key typed here, anything else refused."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError
from ltpa.core.patches import PatchSettings, PrototypeTraining
from ltpa.core.plain_yaml import parse_yaml
from ltpa.core.schema import PlainData, read_plain

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]  # what a scheduler and an array's index take
Fraction = Annotated[float, Field(ge=0, le=1)]


def once_each(values: list[Any]) -> list[Any]:
    """For lists that must not name anything twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands twice; name each once")
    return values


class Scale(PlainData):
    """How big the networks are, and whether the results may be held against the paper's.

    `networks` lays architecture options over all variants whose family takes a group of recipes (`vgg`, `resnet`).
    """

    name: Name
    comparable: bool = False
    networks: dict[str, dict[str, Any]] = {}


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
    archives: list[str] = []


class Transfer(PlainData):
    """Cross-domain classification by a linear SVM on features, in folds (paper section 5.3, appendix A.4)."""

    folds: Annotated[int, Field(ge=2)] = 5
    C: Annotated[float, Field(gt=0)] = 1.0
    multiclass: Literal["ovr", "ovo"] = "ovr"
    solver: Literal["exact", "liblinear"] = "exact"
    loss: Literal["squared_hinge", "hinge"] = "squared_hinge"
    normalise: Annotated[list[Literal["raw", "l2"]], Field(min_length=1)] = ["raw", "l2"]
    seed: int = 0
    batch_size: Positive = 500
    preprocessing: Literal["network", "zca"] = "network"
    storage: Literal["memory", "float16"] = "memory"

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        if self.loss == "hinge" and self.solver == "exact" and self.multiclass == "ovr":
            raise ValueError("loss hinge goes with solver liblinear; the exact solver knows the squared hinge alone")
        return self


Epsilons = Annotated[list[Annotated[float, Field(ge=0, le=255)]], Field(min_length=1)]


class Pgd(PlainData):
    """Projected gradient descent, the iterated attack; `step_size` is a share of epsilon."""

    epsilons: Epsilons = [1, 2, 4, 8, 16]
    steps: Positive = 10
    step_size: Annotated[float, Field(gt=0)] = 0.25
    random_start: bool = True
    seed: Annotated[int, Field(ge=0)] = 0


class Fgsm(PlainData):
    """Fast gradient sign attack; epsilons on the 0-255 scale (paper section 5.2).

    `loss` is of the `predicted` or the `true` class, or the `score` of the predicted one. YAML reads a plain `true` as
    a boolean; here it means the true class. Beyond the paper: `pgd`, the iterated attack (null: none), and
    `transferred`, which maps a variant to the one whose perturbations are tried on it.
    """

    epsilons: Epsilons = [1, 2, 4, 8, 16]
    loss: Annotated[
        Literal["predicted", "true", "score"], BeforeValidator(lambda value: "true" if value is True else value)
    ] = "predicted"
    clip: bool = True
    round: bool = False
    batch_size: Positive = 250
    pgd: Pgd | None = None
    transferred: dict[str, str] = {"vgg": "vgg-att2-concat-pc", "vgg-att2-concat-pc": "vgg"}


class Segmentation(PlainData):
    """Binarised attention against object masks (paper section 5.4); stage `maps` and the figures follow too.

    Attributes:
        levels: the attention levels multiplied, those `declared` for the variant (the paper's last two), the `last`
            alone, or `all`.
        root: the square root of the product, as `declared` (the paper's networks, not PAN), `always`, or `never`.
        upsampling: how maps are enlarged to the size of the mask.
        threshold: null for Otsu's, or a share of each map's range above which a pixel counts.
        cam_class: class activation maps of the `annotated` class, or of each image's `predicted` one.
        batch_size: images per forward pass.
    """

    levels: Literal["declared", "last", "all"] = "declared"
    root: Literal["declared", "always", "never"] = "declared"
    upsampling: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    threshold: Fraction | None = None
    cam_class: Literal["annotated", "predicted"] = "annotated"
    batch_size: Positive = 250


class Maps(PlainData):
    """Other maps against object masks, beyond the paper.

    `controls` look at no network; they are measured in the job of variant `controls_with`.
    """

    batch_size: Positive = 250
    controls: list[Literal["boolean_maps", "spectral_residual", "centre"]] = [
        "boolean_maps",
        "spectral_residual",
        "centre",
    ]
    controls_with: str = "vgg"


class Query(PlainData):
    """Attention of one image under another image's global vector (paper appendix A.5).

    `query`: an image of `other_class` for each, or the `first` test image for all others (as in the released code).
    """

    variants: list[str] = ["vgg-att2-concat-dp", "vgg-att3-concat-pc"]
    query: Literal["other_class", "first"] = "other_class"
    pairs: Positive = 200


def _rising(limits: list[float]) -> list[float]:
    if limits[0] > limits[1]:
        raise ValueError("must be the lowest value and then the highest")
    return limits


Limits = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_rising)]


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


class TwoStream(PlainData):
    """The two-stream rows (`config/twostream.yaml`): one profile, recipe and kind of initial weights for all of them.

    `weights`: `imagenet`, `scratch`, or a file. `patches` names the patch source of all rows that name none, `boxes`
    how many of its boxes are used. `split` `validation` holds training images out and tests on them, for choices;
    tables then stay empty. `overlap` gives, by role, a list of test images that the pretraining has seen. `networks`
    lays options over the profile.
    """

    rows: Annotated[list[str], AfterValidator(once_each)] = []
    profile: str = "paper"
    recipe: str = "paper"
    weights: str = "imagenet"
    patches: str = "protolite"
    boxes: Positive = 10
    split: Literal["test", "validation"] = "test"
    overlap: dict[str, str] = {}
    networks: dict[str, Any] = {}


class Checks(PlainData):
    """What the pipeline checks of its own results.

    What does not hold is a warning, or with `strict` fails the run.

    A seed learned where its test error is at most `max_error_of_chance` of that of guessing
    (`max_twostream_error_of_chance` for two-stream networks). `attention_beats` says what the peaks of maps must hit
    the object more often than: a `random` pixel, the same network `untrained`, the `centre` of the image.
    `must_attend` names the variants for which a run fails where that is not shown; for others the checks report it.
    Null stands for all.
    `local_beats`, by dataset and row: the row's local stream must be right oftener than its global one on patches that
    hold the part, and than the local streams of the rows listed, its controls.
    """

    strict: bool = False
    max_error_of_chance: Annotated[float, Field(gt=0, le=1)] = 0.5
    attention_beats: Annotated[list[Literal["random", "untrained", "centre"]], AfterValidator(once_each)] = [
        "random",
        "untrained",
    ]
    must_attend: Annotated[list[str], AfterValidator(once_each)] | None = None
    query_pc_max: Annotated[float, Field(ge=0)] = 1e-4
    max_twostream_error_of_chance: Annotated[float, Field(gt=0, le=1)] = 0.9
    local_beats: dict[
        str, Annotated[dict[str, Annotated[list[str], AfterValidator(once_each)]], Field(min_length=1)]
    ] = {}


class Protocols(PlainData):
    """Settings of every evaluation protocol; the defaults are the project's rulings (docs/choices.md)."""

    transfer: Transfer = Transfer()
    fgsm: Fgsm = Fgsm()
    segmentation: Segmentation = Segmentation()
    maps: Maps = Maps()
    query: Query = Query()
    patches: Patches = Patches()
    checks: Checks = Checks()


class Config(PlainData):
    """The whole run configuration. Names refer to declarations in `config/`; `ltpa.plan` checks that they exist.

    `data` lays options (`ltpa.data.source.Options`) over those that a dataset's declaration makes. `recipes` names a
    recipe for each family, by what it is for; of the keys `VARIANT on ROLE`, `VARIANT`, `ROLE` and `default` the first
    that is there holds.
    """

    scale: Scale
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    variants: Annotated[list[str], Field(min_length=1)]
    datasets: Annotated[list[str], Field(min_length=1)]
    tables: Annotated[list[str], Field(min_length=1)]
    jobs: Jobs = Jobs()
    recipes: dict[str, dict[str, str]]
    data: dict[str, dict[str, Any]] = {}
    protocols: Protocols = Protocols()
    twostream: TwoStream = TwoStream()

    _unique = field_validator("seeds", "variants", "datasets", "tables")(once_each)


def parse_config(values: Any, source: str) -> Config:
    """Check plain data against the schema; `source` is how errors call it (a file name).

    Raises:
        ConfigError: one line with source, key, what is wrong, and the allowed keys for an unknown one.
    """
    return read_plain(Config, values, source)


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


def unknown_name(kind: str, name: str, known: list[str]) -> str:
    """The text for an unknown name: near matches, or all that exist."""
    return f"unknown {kind} {name!r}; {near_matches(name, known)}"
