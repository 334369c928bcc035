"""Options of every network family: what an architecture may say, with its defaults and limits.

Needs nothing but the standard library, so that a bare machine with a GPU can build networks.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ltpa.core.declared import near_matches
from ltpa.core.errors import ModelError
from ltpa.models.fields import choice, number, ordered, read_fields, switch, whole

VGG_LEVELS = ("conv7", "conv10", "conv13")
RESNET_LEVELS = ("stage2", "stage3")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What every family knows.

    Attributes:
        builder: module and name of the function that builds a network of these options.
        width: factor on every channel count, 1 for the networks of the paper, 16 at most; no layer gets narrower than 4
            channels.
        bn_weight: initial batch-normalisation weights: `uniform` U(0,1) as in Torch7, or `one` as in PyTorch.
        u_std: standard deviation of the initial u of every attention unit; sqrt 2 in the published code.
        dropout: factor on every dropout rate; 1 for the published rates, 0 for none.
        bn_eps: epsilon of batch normalisation in every block of convolution, BN, ReLU and dropout; PyTorch's default is
            1e-5.
        legacy_grad_avg: average gradients where branches merge, as the published training code did; no effect on a
            network in which none do.
    """

    builder: ClassVar[str]
    layers: ClassVar[tuple[str, ...]]  # whose maps can be read (`local_features`)
    single_pass: ClassVar[bool] = True  # whether an image passes the trunk once, as Grad-CAM asks
    size_multiple: ClassVar[int] = 1

    family: str
    width: float = number(1.0, above=0, at_most=16)
    bn_weight: str = choice("uniform", "one")
    u_std: float = number(math.sqrt(2), above=0)
    dropout: float = number(1.0, at_least=0, at_most=1)
    bn_eps: float = number(1e-3, above=0)
    legacy_grad_avg: bool = switch(False)

    def built_by(self) -> str:
        """Module and name of the function that builds the network: the code that it alone needs of all families'."""
        return self.builder

    def channels(self, full: int) -> int:
        """Channel count of a layer that has `full` channels at width 1."""
        return max(4, round(full * self.width))

    @property
    def smallest_image(self) -> int:
        """Side of the smallest images, in pixels, that leave every pool something to pool."""
        return 16

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless the network takes images of `size` x `size` pixels."""
        if not isinstance(size, int) or size < self.smallest_image or size % self.size_multiple:
            multiple = f", divisible by {self.size_multiple}" if self.size_multiple > 1 else ""
            raise ModelError(
                f"{self.family} cannot take images of size {size!r}; use a whole number of at least "
                f"{self.smallest_image}{multiple}, so that every pool has something to pool"
            )

    def check(self) -> None:
        """Raise `ValueError` where options that are each possible do not go together."""

    def plain(self) -> dict[str, Any]:
        """All options as plain JSON data; `parse_options` of it gives an equal object."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionOptions(NetworkOptions):
    """Options of the attention part, shared by the families that have one.

    Attributes:
        compatibility: `pc` <u, l+g> (eq. 2), `dp` <l, g> (eq. 3), `tanh` <u, tanh(l+g)>, `local` <u, l> (no g at all).
        normalisation: `softmax` (eq. 1), or `sigmoid`: sigmoid scores divided by their sum over the map.
        head: `concat` of the levels' vectors before one linear layer, or `indep`: the mean of one classifier per level.
        prediction: of an `indep` head: the `mean-probability` of its classifiers (section 3.1), or their
            `sum-log-probability`, as in the released code. Both are trained alike.
        head_norm: whether BN, ReLU and dropout stand between an attended vector and its linear layer, as in the
            released code.
        attention_bias: whether the scores of `pc` and the projection of g or l have a bias, as in the released code.
        project: which of g and l is mapped to the other's dimension where they differ: `global` (section 4), `local`.
        levels: the layers attended to, from input to output.
    """

    compatibility: str = choice("pc", "dp", "tanh", "local")
    normalisation: str = choice("softmax", "sigmoid")
    head: str = choice("concat", "indep")
    prediction: str = choice("mean-probability", "sum-log-probability")
    head_norm: bool = switch(True)
    attention_bias: bool = switch(True)
    project: str = choice("global", "local")
    levels: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `ValueError` for `indep` without several levels to average over, and for a sum without `indep`."""
        if self.head == "indep" and len(self.levels) < 2:
            raise ValueError(
                f"head 'indep' averages the classifiers of several levels, and levels are {list(self.levels)}; "
                "with fewer than two use head 'concat'"
            )
        if self.head == "concat" and self.prediction != "mean-probability":
            raise ValueError(
                f"prediction {self.prediction!r} joins the classifiers of head 'indep', and head 'concat' has one; "
                "leave 'prediction' out"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PoolOptions(NetworkOptions):
    """`pools`: where a VGG network pools; `cub` places pools as the 80 x 80 networks for birds do."""

    layers: ClassVar[tuple[str, ...]] = VGG_LEVELS

    pools: str = choice("cifar", "cub")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VggOptions(_PoolOptions):
    """The 15-layer baseline without attention."""

    builder: ClassVar[str] = "ltpa.models.vgg:build_vgg"

    @property
    def smallest_image(self) -> int:
        """Five halvings, for birds six; the last needs at least 2 x 2 values."""
        return 33 if self.pools == "cub" else 17


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapOptions(_PoolOptions):
    """VGG-GAP: 13 convolutions, global average pooling, class activation maps."""

    builder: ClassVar[str] = "ltpa.models.vgg:build_gap"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PanOptions(_PoolOptions):
    """VGG-PAN, progressive attention. `compatibility` is that of the last level; the gate's is always pc."""

    builder: ClassVar[str] = "ltpa.models.pan:build_pan"
    single_pass: ClassVar[bool] = False

    compatibility: str = choice("pc", "local")

    @property
    def smallest_image(self) -> int:
        """Five halvings, of which for birds the first is a division by 5."""
        return 41 if self.pools == "cub" else 17


@dataclasses.dataclass(frozen=True, kw_only=True)
class VggAttentionOptions(_PoolOptions, AttentionOptions):
    """VGG-att, att2, att3. `global_branches`: one g `shared` by all levels (the paper), or one branch `per-level`."""

    builder: ClassVar[str] = "ltpa.models.vgg_attention:build_vgg_attention"

    levels: tuple[str, ...] = ordered(("conv10", "conv13"), VGG_LEVELS, at_least=1)
    global_branches: str = choice("shared", "per-level")

    @property
    def smallest_image(self) -> int:
        """As PAN; but for birds conv7's map is cut to 32 x 32 before it is attended to, and never enlarged."""
        if self.pools == "cub" and "conv7" in self.levels:
            return 32
        if self.compatibility == "local":  # without a global branch there are two pools
            return super().smallest_image
        return 41 if self.pools == "cub" else 17


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetOptions(AttentionOptions):
    """Pre-activation ResNet of depth 9 x `blocks_per_stage` + 2; without `levels` it is the plain baseline."""

    builder: ClassVar[str] = "ltpa.models.resnet:build_resnet"
    layers: ClassVar[tuple[str, ...]] = RESNET_LEVELS
    size_multiple: ClassVar[int] = 4

    blocks_per_stage: int = whole(18, at_least=1)
    levels: tuple[str, ...] = ordered((), RESNET_LEVELS)

    def built_by(self) -> str:
        """The baseline needs no code of attention."""
        return "ltpa.models.resnet_attention:build_resnet_attention" if self.levels else self.builder


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
    options = FAMILIES[family](family=family, **read_fields(FAMILIES[family], architecture, family))
    try:
        options.check()
    except ValueError as error:
        raise ModelError(f"{family}: {error}") from error
    return options
