"""Training recipes: every setting of a routine, as plain data. Free of torch."""

import itertools
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ltpa.core.errors import ConfigError
from ltpa.core.registry import Registry
from ltpa.core.schema import ListOf, PlainData, read_plain
from ltpa.data.schemes import SCHEMES

# Upper bounds keep a slip of the keyboard from a training that would never end, or a batch that fits no memory.
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Images = Annotated[int, Field(ge=1, le=1_000_000)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]  # rates and seconds; weights overflow long before such a rate
Factor = Annotated[float, Field(gt=0, le=1e6)]


class Schedule(PlainData):
    """How the learning rate moves with the epoch, epochs counted from 1.

    `constant`; `every`: multiply by `factor` at each epoch divisible by `period`; `milestones`: multiply by
    `factors[k]` from epoch `milestones[k]` on; `cosine`: from the base rate to zero over all epochs. Over the first
    `warmup` epochs the rate also rises linearly, epoch e taking e / (warmup + 1) of it.

    `per: step` lets `cosine` and the warm-up move with every step instead: of S steps in the warm-up, step s (counted
    from 1) takes s / S of the rate.
    """

    kind: Literal["constant", "every", "milestones", "cosine"] = "constant"
    period: Epochs = 25
    factor: Factor = 0.5
    milestones: Annotated[ListOf[Epochs], Field(max_length=1000)] = ()
    factors: Annotated[ListOf[Factor], Field(max_length=1000)] = ()
    warmup: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    per: Literal["epoch", "step"] = "epoch"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.per == "step" and self.kind not in ("constant", "cosine"):
            raise ValueError(f"per step goes with kind cosine or constant, not {self.kind}")
        if self.per == "epoch" and not self.warmup.is_integer():
            raise ValueError(f"warmup is {self.warmup}; it must be whole, but for per: step")
        if len(self.milestones) != len(self.factors):
            raise ValueError("milestones and factors differ in length")
        if not all(earlier < later for earlier, later in itertools.pairwise(self.milestones)):
            raise ValueError(f"milestones {list(self.milestones)} must be epochs, each after the one before")
        return self


class Routine(PlainData):
    """What every kind of training knows.

    Attributes:
        job: module and name of the class that trains by such a recipe (`ltpa.stages.training.TrainingJob`).
        learning: the kind of training step.
        epochs: passes over the training images.
        batch_size: images per step.
        lr, momentum, weight_decay: as in `torch.optim.SGD`; see `UpdateRoutine` for others.
        schedule: the rate's course over epochs.
        lr_decay: the rate is divided by (1 + lr_decay * step), step counted from 0 over the whole run.
        precision: of the training passes: `fp32`, or `bf16` (autocast); evaluation is always float32.
        channels_last: keep images and weights with their channels innermost in memory.
        evaluation_batch: images at once in evaluation.
        evaluate_every: epochs between test evaluations; the last epoch is always evaluated.
        checkpoint_seconds: seconds between saved states.
        checkpoint_epochs: save at least every so many epochs; 0 leaves it to the seconds.
    """

    job: ClassVar[str]

    learning: str
    epochs: Epochs
    batch_size: Images
    lr: NotNegative
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 5e-4
    schedule: Schedule = Schedule()
    lr_decay: NotNegative = 0.0
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    channels_last: bool = True
    evaluation_batch: Images = 500
    evaluate_every: Epochs = 1
    checkpoint_seconds: NotNegative = 60.0
    checkpoint_epochs: Annotated[int, Field(ge=0, le=100_000)] = 0

    @classmethod
    def from_dict(cls, values: Any, where: str = "recipe") -> Self:
        """Read a recipe of this kind from plain data.

        Raises:
            ConfigError: a key is unknown or missing, or a value is out of range; the message names `where` and the key.
        """
        return read_plain(cls, values, where)

    @property
    def patch_source(self) -> str:
        """The patch source whose boxes are learned from; empty where images alone are."""
        return ""

    @property
    def weight_file(self) -> str:
        """The file of the weights to begin with; empty where there is none."""
        return ""

    @property
    def pretraining(self) -> str:
        """Whose weights the training begins with, in words; empty for random ones or those of a training here."""
        return ""

    def plain(self) -> dict[str, Any]:
        """The recipe as plain JSON data; `from_dict` of it gives an equal one."""
        return self.model_dump(mode="json")


class UpdateRoutine(Routine):
    """A routine whose recipe chooses how weights are updated (`ltpa.training.update`).

    Attributes:
        optimizer: `sgd`, `adam` or `rmsprop`, as in `torch.optim`; `lr` and `weight_decay` are those of all three, and
            decay is added to the gradient in all three.
        momentum, dampening, nesterov: of `sgd`. Torch7's default dampening equals the momentum, so the paper's rate 1.0
            goes with dampening 0.9.
        betas: of `adam`: shares that the means of gradients and of their squares keep at each step.
        alpha: of `rmsprop`: share that the mean of squares keeps.
        eps: of `adam` and `rmsprop`.
        rates: factors on the rate of the parameters whose names begin with a key; the longest key that fits counts.
        no_decay: beginnings of the names of parameters without weight decay.
        clip: largest Euclidean norm of all gradients together; larger gradients are scaled to it. 0 for no limit.
        fused: update all weights in one call of the device's own kernel; `rmsprop` has none.
    """

    optimizer: Literal["sgd", "adam", "rmsprop"] = "sgd"
    dampening: Annotated[float, Field(ge=0, le=1)] = 0.0
    nesterov: bool = False
    betas: Annotated[ListOf[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = (0.9, 0.999)
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    eps: Factor = 1e-8
    rates: dict[str, NotNegative] = {}
    no_decay: Annotated[ListOf[str], Field(max_length=100)] = ()
    clip: NotNegative = 0.0
    fused: bool = True

    @model_validator(mode="after")
    def _one_optimizer(self) -> Self:
        if self.nesterov and self.dampening:
            raise ValueError(f"nesterov goes with dampening 0, not {self.dampening}")
        if self.nesterov and not self.momentum:
            raise ValueError(f"nesterov needs momentum above 0, not {self.momentum}")
        if self.optimizer != "sgd" and (self.nesterov or self.dampening):
            raise ValueError(f"nesterov and dampening belong to optimizer sgd, not {self.optimizer}; leave them out")
        return self

    @property
    def reads_rate(self) -> bool:
        """Whether the update reads its rate on the device."""
        return self.fused and self.optimizer != "rmsprop"


def _known_scheme(name: str) -> str:
    if name not in SCHEMES:
        raise ValueError(f"must be one of {', '.join(SCHEMES)}")
    return name


class Recipe(UpdateRoutine):
    """How a network is trained on images and classes alone, as in Jetley et al. 2018.

    Attributes:
        batch_size: at least 2, as batch normalisation of one vector is not defined; the last short batch of an epoch is
            dropped, as the released code does.
        reset_momentum: with `sgd`, forget the momentum whenever the schedule changes the rate.
        flip: `half` mirrors exactly half of each batch, `none` nothing.
        crop: pixels of reflection padding before a random crop, one offset per batch; 0 for none.
        normalise: preprocessing scheme, see `ltpa.data.normalise`.
        precision: besides, `tf32` (a GPU's tensor cores; the same as `fp32` on a CPU).
        compile: let torch generate code for augmentation, forward and backward pass (minutes before the first step).
        cuda_graph: record a step on the GPU once and play it back; needs `fused`. A CPU has no such graphs, there it
            changes nothing.
        initialise: the role whose trained network, of the same variant and seed, gives all weights but the head's;
            empty for random weights.
    """

    job: ClassVar[str] = "ltpa.stages.cross_entropy:CrossEntropyJob"

    learning: Literal["cross-entropy"] = "cross-entropy"
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]
    reset_momentum: bool = False
    flip: Literal["half", "none"] = "half"
    crop: Annotated[int, Field(ge=0, le=4096)] = 0
    normalise: Annotated[str, AfterValidator(_known_scheme)] = "meanstd"
    compile: bool = False
    cuda_graph: bool = False
    initialise: str = ""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.cuda_graph and not self.reads_rate:
            raise ValueError(
                "cuda_graph needs fused: true and optimizer sgd or adam, whose learning rate the GPU reads for itself"
            )
        if self.reset_momentum and self.optimizer != "sgd":
            raise ValueError(f"reset_momentum belongs to optimizer sgd, not {self.optimizer}; leave it out")
        if self.reset_momentum and self.schedule.per == "step":
            raise ValueError("reset_momentum would forget it at every step under schedule.per step; drop one")
        return self


# The settings of each kind of learning.
KINDS = Registry(
    "kind of learning",
    {
        "cross-entropy": "ltpa.training.recipe:Recipe",
        "captions": "ltpa.training.caption_recipe:CaptionRecipe",
        "likelihood": "ltpa.training.pixel_recipe:PixelRecipe",
        "two-stream": "ltpa.training.two_stream_recipe:TwoStreamRecipe",
    },
)


def read_recipe(values: Any, where: str) -> Routine:
    """A recipe of the kind that its key `learning` names, `cross-entropy` without it.

    Raises:
        ConfigError: as `Routine.from_dict`, or there is no such kind.
    """
    if not isinstance(values, dict):
        return Recipe.from_dict(values, where)  # which says what it must be
    try:
        kind: type[Routine] = KINDS.load(values.get("learning", "cross-entropy"))
    except ValueError as error:
        raise ConfigError(f"{where}: key 'learning': {error}") from error
    return kind.from_dict(values, where)
