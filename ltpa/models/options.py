"""Options that network families share: what an architecture may say, with its defaults and limits. Free of torch.

A family is one file of `ltpa/models/families`, named as the family is; its class `Options` declares everything that the
rest of the project asks of it. `ltpa.models.registry` finds it.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.errors import ModelError
from ltpa.core.registry import member
from ltpa.core.schema import ListOf, PlainData

MAX_SIDE = 1024  # of images, in pixels; a full-width network's maps of them take gigabytes
Positive = Annotated[float, Field(gt=0, le=1000)]  # of deviations and epsilons: larger ones drown every image
Share = Annotated[float, Field(ge=0, le=1)]


class NetworkOptions(PlainData):
    """What every family declares, and the options that every network has.

    Attributes:
        builder: module and name of the function that builds a network of these options, given the number of classes and
            the image size; in a user's own file the name alone.
        recipes: the group of training recipes that a configuration gives it (`recipes: {GROUP: ...}`).
        learning: the kind of training step (`ltpa.training.recipe.KINDS`).
        trained_on: the use (`config/datasets`) of the datasets that it is meant for; empty for any.
        named_by: the options that tell its variants apart: a network in which they differ from a variant's declaration
            does not bear its name. Others a configuration may choose.
        family: its name.
        width: factor on every channel count, 1 for the published networks.
    """

    builder: ClassVar[str]
    recipes: ClassVar[str]
    learning: ClassVar[str] = "cross-entropy"
    trained_on: ClassVar[str] = ""
    named_by: ClassVar[tuple[str, ...]] = ()

    family: str
    width: Annotated[float, Field(gt=0, le=16)] = 1.0

    @property
    def sees_patches(self) -> bool:
        """Whether it looks at patches of an image besides the image."""
        return False

    @property
    def has_steps(self) -> bool:
        """Whether it looks step by step, so that its steps can be drawn."""
        return False

    def built_by(self) -> str:
        """Module and name of the function that builds this very network: the code that it needs beside others'."""
        return self.builder

    @property
    def map_levels(self) -> tuple[str, ...]:
        """The layers with a trained attention map, from input to output."""
        return ()

    @property
    def takes_other_maps(self) -> bool:
        """Whether other maps can stand in for its own, one by one (`AttentionClassifier.vectors_under`)."""
        return False

    @property
    def gaze_steps(self) -> int:
        """How many glimpses it takes of an image; 0 where it sees the whole (`ltpa.models.looking.Glimpsing`)."""
        return 0

    @property
    def read_ways(self) -> tuple[str, ...]:
        """In what ways it can read a map of features (`ltpa.models.looking.Reading`); none where it cannot choose."""
        return ()

    @property
    def query_levels(self) -> tuple[str, ...]:
        """Those of `map_levels` whose map has a global vector that another image could give."""
        return ()

    @property
    def map_follows_query(self) -> bool:
        """Whether some map changes with the global vector: not under a softmax of <u, l + g>, where g adds a constant
        to every score of a map."""
        return bool(self.query_levels)

    def without_dead_branch(self) -> Self:
        """Options of the network without the parameters that cannot matter; most networks have none."""
        return self

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless the network takes images of `size` x `size` pixels."""

    def build(self, num_classes: int, image_size: int) -> Any:
        """A network of these options with weights from torch's global random stream. Loads the builder's module."""
        return member(self.built_by())(self, num_classes, image_size)

    def plain(self) -> dict[str, Any]:
        """All options as plain JSON data; `parse_options` of it gives an equal object."""
        return self.model_dump(mode="json")


class ClassifierOptions(NetworkOptions):
    """Options of the networks of Jetley et al. 2018.

    Attributes:
        width: as in `NetworkOptions`; no layer gets narrower than 4 channels.
        bn_weight: initial batch-normalisation weights: `uniform` U(0,1) as in Torch7, or `one` as in PyTorch.
        u_std: standard deviation of the initial u of every attention unit; sqrt 2 in the published code.
        dropout: factor on every dropout rate; 1 for the published rates, 0 for none.
        bn_eps: epsilon of batch normalisation in every block of convolution, BN, ReLU and dropout; PyTorch's default is
            1e-5.
        legacy_grad_avg: average gradients where branches merge, as the published training code did; no effect on a
            network in which none do.
    """

    layers: ClassVar[tuple[str, ...]]  # whose maps can be read (`local_features`)
    single_pass: ClassVar[bool] = True  # whether an image passes the trunk once, as Grad-CAM asks
    size_multiple: ClassVar[int] = 1

    bn_weight: Literal["uniform", "one"] = "uniform"
    u_std: Positive = math.sqrt(2)
    dropout: Share = 1.0
    bn_eps: Positive = 1e-3
    legacy_grad_avg: bool = False

    def channels(self, full: int) -> int:
        """Channel count of a layer that has `full` channels at width 1."""
        return max(4, round(full * self.width))

    @property
    def smallest_image(self) -> int:
        """Side of the smallest images, in pixels, that leave every pool something to pool."""
        return 16

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless the network takes images of `size` x `size` pixels."""
        known = isinstance(size, int) and self.smallest_image <= size <= MAX_SIDE
        if not known or size % self.size_multiple:
            multiple = f", divisible by {self.size_multiple}" if self.size_multiple > 1 else ""
            raise ModelError(
                f"{self.family} cannot take images of size {size!r}; use a whole number of at least "
                f"{self.smallest_image}{multiple}, so that every pool has something to pool, and at most {MAX_SIDE}"
            )

    def build(self, num_classes: int, image_size: int) -> Any:
        """A network of these options with weights from torch's global random stream. Loads the builder's module."""
        from torch import nn

        model = super().build(num_classes, image_size)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p *= self.dropout
        model.reset_parameters()
        return model


class AttentionOptions(ClassifierOptions):
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

    known_levels: ClassVar[tuple[str, ...]]
    named_by: ClassVar[tuple[str, ...]] = (
        "compatibility",
        "normalisation",
        "head",
        "head_norm",
        "attention_bias",
        "project",
        "levels",
    )

    compatibility: Literal["pc", "dp", "tanh", "local"] = "pc"
    normalisation: Literal["softmax", "sigmoid"] = "softmax"
    head: Literal["concat", "indep"] = "concat"
    prediction: Literal["mean-probability", "sum-log-probability"] = "mean-probability"
    head_norm: bool = True
    attention_bias: bool = True
    project: Literal["global", "local"] = "global"
    levels: ListOf[str] = ()

    @property
    def map_levels(self) -> tuple[str, ...]:
        """The levels."""
        return self.levels

    @property
    def takes_other_maps(self) -> bool:
        """Where there are any."""
        return bool(self.levels)

    @property
    def query_levels(self) -> tuple[str, ...]:
        """All levels, or none where scores look at local features alone."""
        return () if self.compatibility == "local" else self.levels

    @property
    def map_follows_query(self) -> bool:
        """Not for pc under a softmax."""
        return bool(self.query_levels) and (self.compatibility, self.normalisation) != ("pc", "softmax")

    def without_dead_branch(self) -> Self:
        """pc under a softmax is the same as `local`, without its global branch."""
        dead = bool(self.query_levels) and not self.map_follows_query
        return self.model_copy(update={"compatibility": "local"}) if dead else self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """The levels in their order, and a head that fits them."""
        known = self.known_levels
        if list(self.levels) != [level for level in known if level in self.levels]:
            raise ValueError(
                f"levels {list(self.levels)} must be in order from input to output, each once: some of "
                f"{', '.join(map(repr, known))}"
            )
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
        return self
