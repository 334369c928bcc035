"""A reader: soft or hard attention over a convolutional map, step by step (Xu et al. 2015), as a classifier."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ltpa.models.options import ClassifierOptions, Share

Units = Annotated[int, Field(ge=1, le=4096)]
WAYS = ("expectation", "argmax", "sample")


class Options(ClassifierOptions):
    """The convolutions of the baseline VGG up to `layer`, read by an LSTM.

    Attributes:
        layer: the convolution whose map is read.
        steps: how often; the classes come from the state after the last one.
        hidden, score: units of the LSTM, and of the layer that scores the cells.
        gate: whether a scalar of the state scales what is read, as in the authors' code.
        attention: `soft`, the expectation under the weights; `hard`, a cell drawn by them.
        read: how the network answers in evaluation; of `soft` the expectation.
        penalty: factor on the sum over cells of (1 - sum of the steps' weights)^2. It is least for even weights.
        policy_weight, entropy: factors on the loss of the drawn cells, and on the entropy of the weights.
        coin: chance that a training batch is read by expectation instead; one coin for the whole batch.
    """

    builder: ClassVar[str] = "ltpa.models.reader:build_reader"
    recipes: ClassVar[str] = "reader"
    layers: ClassVar[tuple[str, ...]] = ("conv7", "conv10", "conv13")
    named_by: ClassVar[tuple[str, ...]] = ("layer", "steps", "attention", "read")

    layer: Literal["conv7", "conv10", "conv13"] = "conv7"
    steps: Annotated[int, Field(ge=1, le=64)] = 3
    hidden: Units = 64
    score: Units = 64
    gate: bool = False
    attention: Literal["soft", "hard"] = "soft"
    read: Literal["expectation", "argmax"] = "expectation"
    penalty: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    policy_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    entropy: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    coin: Share = 0.0

    @property
    def map_levels(self) -> tuple[str, ...]:
        """The weights of each step."""
        return tuple(f"step{number}" for number in range(1, self.steps + 1))

    @property
    def read_ways(self) -> tuple[str, ...]:
        """All of them, whatever it was trained with."""
        return WAYS
