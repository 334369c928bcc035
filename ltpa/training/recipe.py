"""A training recipe: every setting of the routine, as plain data."""

import dataclasses
import itertools
import math
from typing import Any, Literal

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError
from ltpa.data.schemes import SCHEMES


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the learning rate moves with the epoch, epochs counted from 1.

    `constant`; `every`: multiply by `factor` at each epoch divisible by `period`; `milestones`: multiply by
    `factors[k]` from epoch `milestones[k]` on; `cosine`: from the base rate to zero over all epochs. Over the first
    `warmup` epochs the rate also rises linearly, epoch e taking e / (warmup + 1) of it.

    `per: step` lets `cosine` and the warm-up move with every step instead: of S steps in the warm-up, step s (counted
    from 1) takes s / S of the rate.
    """

    kind: Literal["constant", "every", "milestones", "cosine"] = "constant"
    period: int = 25
    factor: float = 0.5
    milestones: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()
    warmup: float = 0
    per: Literal["epoch", "step"] = "epoch"

    def _check(self, where: str) -> None:
        if self.kind not in (kinds := ("constant", "every", "milestones", "cosine")):
            raise ConfigError(f"{where}: schedule.kind is {self.kind!r}; allowed: {', '.join(kinds)}")
        if self.per not in ("epoch", "step"):
            raise ConfigError(f"{where}: schedule.per is {self.per!r}; allowed: epoch, step")
        if self.per == "step" and self.kind not in ("constant", "cosine"):
            raise ConfigError(f"{where}: schedule.per step goes with kind cosine or constant, not {self.kind}")
        if not _is_number(self.warmup) or not 0 <= self.warmup < math.inf:
            raise ConfigError(f"{where}: schedule.warmup is {self.warmup!r}; it must be a number of epochs")
        if self.per == "epoch" and not _is_whole(self.warmup):
            raise ConfigError(f"{where}: schedule.warmup is {self.warmup!r}; it must be whole, but for per: step")
        if not _is_whole(self.period) or self.period < 1:
            raise ConfigError(f"{where}: schedule.period is {self.period!r}; it must be a whole number of epochs")
        if not _is_number(self.factor) or not 0 < self.factor < math.inf:
            raise ConfigError(f"{where}: schedule.factor is {self.factor!r}; it must be a number above 0")
        if len(self.milestones) != len(self.factors):
            raise ConfigError(f"{where}: schedule.milestones and schedule.factors differ in length")
        if not all(0 < factor < math.inf for factor in self.factors):
            raise ConfigError(f"{where}: schedule.factors is {list(self.factors)}; it must be numbers above 0")
        epochs = (0, *self.milestones)
        if not all(_is_whole(later) and earlier < later for earlier, later in itertools.pairwise(epochs)):
            raise ConfigError(
                f"{where}: schedule.milestones is {list(self.milestones)}; it must be epochs, each after the one before"
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything the training engine needs to know besides network, data and seed.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step, at least 2 (batch normalisation of one vector is not defined); the last short batch
            of an epoch is dropped, as the released code does.
        lr, momentum, dampening, nesterov, weight_decay: as in `torch.optim.SGD`. Torch7's default dampening equals the
            momentum, so the paper's rate 1.0 goes with dampening 0.9.
        lr_decay: the rate is divided by (1 + lr_decay * step), step counted from 0 over the whole run.
        reset_momentum: forget the momentum whenever the schedule changes the rate.
        schedule: the rate's course over epochs.
        flip: `half` mirrors exactly half of each batch, `none` nothing.
        crop: pixels of reflection padding before a random crop, one offset per batch; 0 for none.
        normalise: preprocessing scheme, see `ltpa.data.normalise`.
        precision: of the training passes: `fp32`, `tf32` (a GPU's tensor cores; the same as `fp32` on a CPU), or `bf16`
            (autocast); evaluation is always float32.
        channels_last: keep images and weights with their channels innermost in memory.
        fused: update all weights in one call of the device's own kernel.
        compile: let torch generate code for augmentation, forward and backward pass (minutes before the first step).
        cuda_graph: record a step on the GPU once and play it back; needs `fused`. A CPU has no such graphs, there it
            changes nothing.
        evaluation_batch: images at once in evaluation.
        initialise: the role whose trained network, of the same variant and seed, gives all weights but the head's;
            empty for random weights.
        evaluate_every: epochs between test evaluations; the last epoch is always evaluated.
        checkpoint_seconds: seconds between saved states.
        checkpoint_epochs: save at least every so many epochs; 0 leaves it to the seconds.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 5e-4
    lr_decay: float = 0.0
    reset_momentum: bool = False
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    flip: Literal["half", "none"] = "half"
    crop: int = 0
    normalise: str = "meanstd"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    channels_last: bool = True
    fused: bool = True
    compile: bool = False
    cuda_graph: bool = False
    evaluation_batch: int = 500
    initialise: str = ""
    evaluate_every: int = 1
    checkpoint_seconds: float = 60.0
    checkpoint_epochs: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "recipe", smallest_batch: int = 2) -> "Recipe":
        """Read a recipe from plain data.

        Networks that normalise no vectors over a batch may lower `smallest_batch`.

        Raises:
            ConfigError: a key is unknown or missing, or a value is out of range; the message names `where` and the key.
        """
        for key, value in (("", values), (".schedule", values.get("schedule", {}) if isinstance(values, dict) else {})):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}{key} is {value!r}; it must be a mapping of keys to settings")
        schedule_values = dict(values.get("schedule", {}))
        _refuse_unknown(schedule_values, Schedule, f"{where}.schedule")
        _refuse_unknown(values, cls, where)
        for key in ("milestones", "factors"):
            numbers = schedule_values.get(key, ())
            if not isinstance(numbers, list | tuple) or not all(_is_number(number) for number in numbers):
                raise ConfigError(f"{where}: schedule.{key} is {numbers!r}; it must be a list of numbers")
            schedule_values[key] = tuple(numbers)
        try:
            recipe = cls(**{**values, "schedule": Schedule(**schedule_values)})
        except TypeError as error:
            raise ConfigError(f"{where}: {error}") from error
        recipe._check(where, smallest_batch)
        recipe.schedule._check(where)
        return recipe

    def _check(self, where: str, smallest_batch: int) -> None:
        least = {"batch_size": smallest_batch, "crop": 0, "checkpoint_epochs": 0}
        for key in ("epochs", "batch_size", "evaluate_every", "evaluation_batch", "crop", "checkpoint_epochs"):
            value = getattr(self, key)
            if not _is_whole(value) or value < least.get(key, 1):
                raise ConfigError(
                    f"{where}: {key} is {value!r}; it must be a whole number of at least {least.get(key, 1)}"
                )
        for key in ("lr", "weight_decay", "lr_decay", "checkpoint_seconds"):
            value = getattr(self, key)
            if not _is_number(value) or not 0 <= value < math.inf:
                raise ConfigError(f"{where}: {key} is {value!r}; it must be a number of at least 0")
        if not _is_number(self.momentum) or not 0 <= self.momentum < 1:
            raise ConfigError(f"{where}: momentum is {self.momentum!r}; it must be a number from 0 to below 1")
        if not _is_number(self.dampening) or not 0 <= self.dampening <= 1:
            raise ConfigError(f"{where}: dampening is {self.dampening!r}; it must be a number from 0 to 1")
        if not isinstance(self.initialise, str):
            raise ConfigError(f"{where}: initialise is {self.initialise!r}; it must be a role, such as cifar100")
        for key in ("nesterov", "reset_momentum", "channels_last", "fused", "compile", "cuda_graph"):
            value = getattr(self, key)
            if not isinstance(value, bool):
                raise ConfigError(f"{where}: {key} is {value!r}; it must be true or false")
        if self.cuda_graph and not self.fused:
            raise ConfigError(f"{where}: cuda_graph needs fused: true, whose learning rate the GPU reads for itself")
        if self.nesterov and self.dampening:
            raise ConfigError(f"{where}: nesterov goes with dampening 0, not {self.dampening}")
        if self.reset_momentum and self.schedule.per == "step":
            raise ConfigError(
                f"{where}: reset_momentum would forget it at every step under schedule.per step; drop one"
            )
        if self.nesterov and not self.momentum:
            raise ConfigError(f"{where}: nesterov needs momentum above 0, not {self.momentum}")
        for key, value, allowed in (
            ("flip", self.flip, ("half", "none")),
            ("precision", self.precision, ("fp32", "tf32", "bf16")),
            ("normalise", self.normalise, SCHEMES),
        ):
            if value not in allowed:
                raise ConfigError(f"{where}: {key} is {value!r}; allowed: {', '.join(allowed)}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_unknown(values: dict[str, Any], cls: type, where: str) -> None:
    allowed = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in allowed:
            raise ConfigError(f"{where}: unknown key {key!r}; {near_matches(key, allowed)}")
