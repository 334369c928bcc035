"""Options of every network family: what an architecture may say, with its defaults and limits. Free of torch."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ltpa.core.declared import near_matches
from ltpa.core.errors import ModelError

VggLevel = Literal["conv7", "conv10", "conv13"]
ResNetLevel = Literal["stage2", "stage3"]


class NetworkOptions(BaseModel):
    """What every family knows.

    Attributes:
        width: factor on every channel count, 1 for the networks of the paper; no layer gets narrower than 4 channels.
        bn_weight: initial batch-normalisation weights: `uniform` U(0,1) as in Torch7, or `one` as in PyTorch.
        u_std: standard deviation of the initial u of every attention unit; sqrt 2 in the published code.
        dropout: factor on every dropout rate; 1 for the published rates, 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    size_multiple: ClassVar[int] = 1

    family: str
    width: float = Field(default=1.0, gt=0)
    bn_weight: Literal["uniform", "one"] = "uniform"
    u_std: float = Field(default=math.sqrt(2), gt=0)
    dropout: float = Field(default=1.0, ge=0, le=1)

    def channels(self, full: int) -> int:
        """Channel count of a layer that has `full` channels at width 1."""
        return max(4, round(full * self.width))

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless images of `size` x `size` pixels leave a map to attend to after every pool."""
        if size < 16 or size % self.size_multiple:
            multiple = f", divisible by {self.size_multiple}" if self.size_multiple > 1 else ""
            raise ModelError(f"{self.family} cannot take {size} x {size} images; use a size of at least 16{multiple}")


class AttentionOptions(NetworkOptions):
    """Options of the attention part, shared by the families that have one.

    Attributes:
        compatibility: `pc` <u, l+g> (eq. 2), `dp` <l, g> (eq. 3), `tanh` <u, tanh(l+g)>, `local` <u, l> (no g at all).
        normalisation: `softmax` (eq. 1), or `sigmoid`: sigmoid scores divided by their sum over the map.
        head: `concat` of the levels' vectors before one linear layer, or `indep`: the mean of one classifier per level.
        project: which of g and l is mapped to the other's dimension where they differ: `global` (section 4), `local`.
        legacy_grad_avg: average gradients where branches merge, as the published training code did.
        levels: the layers attended to, from input to output.
    """

    level_order: ClassVar[tuple[str, ...]] = ()

    compatibility: Literal["pc", "dp", "tanh", "local"] = "pc"
    normalisation: Literal["softmax", "sigmoid"] = "softmax"
    head: Literal["concat", "indep"] = "concat"
    project: Literal["global", "local"] = "global"
    legacy_grad_avg: bool = False
    levels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _levels_make_sense(self) -> "AttentionOptions":
        if self.levels != tuple(level for level in self.level_order if level in self.levels):
            raise ValueError(f"levels {list(self.levels)} must be in order from input to output, each once")
        if self.head == "indep" and len(self.levels) < 2:
            raise ValueError("head 'indep' averages the classifiers of several levels; with one level use 'concat'")
        return self


class _PoolOptions(BaseModel):
    """`pools`: where a VGG network pools; `cub` places pools as the 80 x 80 networks for birds do."""

    pools: Literal["cifar", "cub"] = "cifar"


class VggOptions(NetworkOptions, _PoolOptions):
    """The 15-layer baseline without attention."""

    family: Literal["vgg"] = "vgg"


class GapOptions(NetworkOptions, _PoolOptions):
    """VGG-GAP: 13 convolutions, global average pooling, class activation maps."""

    family: Literal["vgg-gap"] = "vgg-gap"


class PanOptions(NetworkOptions, _PoolOptions):
    """VGG-PAN, progressive attention. `compatibility` is that of the last level; the gate's is always pc."""

    family: Literal["vgg-pan"] = "vgg-pan"
    compatibility: Literal["pc", "local"] = "pc"
    legacy_grad_avg: bool = False


class VggAttentionOptions(AttentionOptions, _PoolOptions):
    """VGG-att, att2, att3. `global_branches`: one g `shared` by all levels (the paper), or one branch `per-level`."""

    level_order: ClassVar[tuple[str, ...]] = get_args(VggLevel)

    family: Literal["vgg-att"] = "vgg-att"
    levels: tuple[VggLevel, ...] = Field(default=("conv10", "conv13"), min_length=1)
    global_branches: Literal["shared", "per-level"] = "shared"


class ResNetOptions(AttentionOptions):
    """Pre-activation ResNet of depth 9 x `blocks_per_stage` + 2; without `levels` it is the plain baseline."""

    level_order: ClassVar[tuple[str, ...]] = get_args(ResNetLevel)
    size_multiple: ClassVar[int] = 4

    family: Literal["resnet"] = "resnet"
    blocks_per_stage: int = Field(default=18, ge=1)
    levels: tuple[ResNetLevel, ...] = ()


FAMILIES: dict[str, type[NetworkOptions]] = {
    "vgg": VggOptions,
    "vgg-gap": GapOptions,
    "vgg-pan": PanOptions,
    "vgg-att": VggAttentionOptions,
    "resnet": ResNetOptions,
}


def parse_options(architecture: Mapping[str, Any]) -> NetworkOptions:
    """Options of the family that `architecture["family"]` names, checked and completed with defaults.

    Raises:
        ModelError: unknown family or option, or a value that is not possible; the message says what is.
    """
    family = architecture.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ModelError(f"unknown family {family!r}: {near_matches(str(family), FAMILIES)}")
    kind = FAMILIES[family]
    for key in architecture:
        if key not in kind.model_fields:
            raise ModelError(f"{family} has no option {key!r}: {near_matches(key, kind.model_fields)}")
    try:
        return kind.model_validate(dict(architecture))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        given = f"{key} = {problem['input']!r}: " if key else ""
        raise ModelError(f"{family}: {given}{message}") from error
