"""RAM: glimpses of an image, placed by a policy that learns from rewards (Mnih et al. 2014)."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ltpa.core.errors import ModelError
from ltpa.core.schema import ListOf
from ltpa.models.small_options import SmallOptions

Std = Annotated[float, Field(gt=0, le=1)]  # of a location, in halves of the image's side
Units = Annotated[int, Field(ge=1, le=4096)]


class Options(SmallOptions):
    """Sizes of the network and how its policy learns; the defaults are the paper's where it says them.

    Attributes:
        glimpses: glimpses of an image, T. The first one is not chosen by the network.
        glimpse: side of the finest patch in pixels, even, so that the place of its centre is the same at all scales.
        scales: patches of a glimpse, each twice as wide as the one before, all brought to `glimpse` pixels by means.
        hidden, what, where: units of the core, and of what and where in the glimpse network.
        start: the first location: `uniform` (in evaluation given by the image's own pixels), or the `centre`.
        policy: `learned`, or `random`: all locations are uniform.
        policy_warmup: share of the training with uniform locations before the policy takes over.
        policy_gradient: whether rewards train the `location` layer alone, or the `core` through it.
        policy_weight: factor on the policy's loss.
        std: standard deviation of drawn locations after the warm-up and at the end of training.
        credit: the reward of a location: `last`, 1 where the answer is right and 0 else; `next`, the true class's
            log-probability after the next glimpse.
        supervise: whether the classes are learned from the `last` glimpse alone, or after `every` one.
        baseline: of the reward: a `learned` linear function of the state, or `leave-one-out` over `samples`.
        samples: walks over each image of a training batch.
    """

    builder: ClassVar[str] = "ltpa.models.glimpse:build_ram"
    recipes: ClassVar[str] = "ram"
    named_by: ClassVar[tuple[str, ...]] = ("glimpses", "policy", "policy_warmup", "credit", "supervise")

    glimpses: Annotated[int, Field(ge=1, le=64)] = 6
    glimpse: Annotated[int, Field(ge=2, le=64, multiple_of=2)] = 8
    scales: Annotated[int, Field(ge=1, le=6)] = 1
    hidden: Units = 256
    what: Units = 128
    where: Units = 128
    start: Literal["centre", "uniform"] = "uniform"
    policy: Literal["learned", "random"] = "learned"
    policy_warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    policy_gradient: Literal["location", "core"] = "location"
    policy_weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    std: Annotated[ListOf[Std], Field(min_length=2, max_length=2)] = (0.22, 0.22)
    credit: Literal["last", "next"] = "last"
    supervise: Literal["last", "every"] = "last"
    baseline: Literal["learned", "leave-one-out"] = "learned"
    samples: Annotated[int, Field(ge=1, le=64)] = 1

    @property
    def map_levels(self) -> tuple[str, ...]:
        """A map for each glimpse."""
        return tuple(f"glimpse{number}" for number in range(1, self.glimpses + 1))

    @property
    def gaze_steps(self) -> int:
        """The glimpses."""
        return self.glimpses

    def check_image_size(self, size: int) -> None:
        """Raise `ModelError` unless `size` holds a glimpse, and is no less than a quarter of its widest patch."""
        super().check_image_size(size)
        widest = self.glimpse << (self.scales - 1)
        if self.glimpse > size or widest > 4 * size:
            raise ModelError(
                f"scales {self.scales}: patches would have {self.glimpse} to {widest} pixels; the finest has to fit "
                f"into the image's {size}, and the widest into four times as many; take fewer scales or a smaller "
                "glimpse"
            )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.policy == "learned" and self.glimpses < 2:
            raise ValueError(
                "glimpses is 1, and the first location is not chosen: nothing is left for policy 'learned'; "
                "take more glimpses, or policy 'random'"
            )
        if self.baseline == "leave-one-out" and self.samples < 2:
            raise ValueError("baseline 'leave-one-out' is the mean of the other samples; samples must be 2 or more")
        return self
