"""Captioners: soft and hard attention over the cells of an image, a word at a time (Xu et al. 2015)."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.errors import ModelError
from ltpa.models.families.cells import STRIDE
from ltpa.models.options import MAX_SIDE, NetworkOptions, Share

Wide = Annotated[int, Field(ge=1, le=65536)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class Options(NetworkOptions):
    """One captioner. Its trunk is that of a trained `cells` network and stays as it is.

    Attributes:
        attention: what the decoder sees of the cells at each word: their mean under the weights (`soft`), one cell that
            is drawn by them (`hard`), or their plain mean, as a control (`none`).
        width: of the trunk, as in the `cells` network that it comes from.
        word, hidden, score: sizes of embedded words, of the LSTM's state, and of the layer behind the scores.
        length: most words of a caption, its end included.
        position: whether a learned vector is added to each cell. The paper has none; here the trunk sees no borders.
        gate: whether a scalar beta between 0 and 1, from the state, weighs what is seen.
        deep_output: whether words are read from word, state and what is seen together, or from the state alone.
        dropout: before and behind the tanh of the output.
        penalty: lambda of the penalty sum_i (target - sum_t alpha_ti)^2 (eq. 14); soft attention only.
        penalty_target: `one` as in the paper, or words over cells, which the sums can meet.
        coin: share of batches that learn from the mean under the weights in place of a drawn cell (hard).
        policy_weight: lambda_r of log p(words) - b at the weights of the cells drawn (hard); 1 is the gradient of the
            bound.
        credit: the words whose likelihood a drawn cell gets credit for: `all`, or those from its own on (`to-go`).
            Both are exact in expectation.
        entropy: lambda_e of the entropy of the weights (hard).
        baseline_decay: of the moving mean b.
    """

    builder: ClassVar[str] = "ltpa.models.captioner:build_captioner"
    recipes: ClassVar[str] = "captioner"
    learning: ClassVar[str] = "captions"
    trained_on: ClassVar[str] = "captions"
    named_by: ClassVar[tuple[str, ...]] = ("attention", "position", "gate", "deep_output", "penalty")

    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    attention: Literal["soft", "hard", "none"] = "soft"
    word: Wide = 32
    hidden: Wide = 96
    score: Wide = 48
    length: Annotated[int, Field(ge=1, le=1000)] = 11
    position: bool = True
    gate: bool = True
    deep_output: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    penalty: Weight = 0.0
    penalty_target: Literal["one", "words-over-cells"] = "one"
    coin: Share = 0.5
    policy_weight: Weight = 1.0
    credit: Literal["all", "to-go"] = "to-go"
    entropy: Weight = 0.002
    baseline_decay: Share = 0.9

    @property
    def map_levels(self) -> tuple[str, ...]:
        """A map for each word; none without attention."""
        return () if self.attention == "none" else tuple(f"word{number + 1}" for number in range(self.length))

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless images of `size` x `size` pixels fall into at least two cells by two."""
        if not (isinstance(size, int) and 2 * STRIDE <= size <= MAX_SIDE) or size % STRIDE:
            raise ModelError(
                f"captioner cannot read images of size {size!r}; use a multiple of {STRIDE} from {2 * STRIDE} to "
                f"{MAX_SIDE}"
            )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """The penalty goes with soft attention."""
        if self.penalty and self.attention != "soft":
            raise ValueError(f"penalty is {self.penalty:g} with {self.attention} attention; leave it out, or use soft")
        return self
