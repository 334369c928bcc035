"""The loop of a training: epochs of steps, evaluations, saved states, requests to stop, history.

The state saved mid-way holds all that the remaining steps depend on, so an interrupted run ends with the same bits as
an unbroken one. An evaluation is cut into pieces, and a state may be saved after each. Every call of `Loop.run` thus
gets at least one step or one piece further, however soon it is asked to stop.
"""

import abc
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from ltpa.core.errors import MemoryFullError, TrainingError
from ltpa.runtime import checkpoint
from ltpa.runtime.progress import Meter, Progress
from ltpa.training.memory import is_out_of_memory, memory_full
from ltpa.training.recipe import Routine
from ltpa.training.schedule import epoch_rate
from ltpa.training.stepping import Stepping

JUDGED_EVERY = 50  # steps between looks at the loss, each of which waits for the device
_DIVERGED = 1e4  # a thousand times the loss of guessing, and more


@dataclasses.dataclass(frozen=True)
class EpochRow:
    """One line of the history. Errors are in percent.

    What an evaluation measures is NaN where the epoch was not evaluated; errors are NaN where nothing is classified. A
    task with another measure adds a field of its own (`Loop.measure`).
    """

    epoch: int
    lr: float
    train_loss: float
    train_error_pct: float
    test_error_pct: float
    seconds: float

    def trained(self) -> str:
        """How the training images went, in words."""
        return f"loss {self.train_loss:.3f}{_in_words('train', self.train_error_pct)}"

    def tested(self) -> str:
        """What the evaluation found, in words that follow others; empty where there was none."""
        return _in_words("test", self.test_error_pct)


def _in_words(what: str, error_pct: float) -> str:
    return "" if math.isnan(error_pct) else f", {what} {error_pct:.1f} %"


class Interrupted(Exception):
    """Training stopped on request; its state is saved and the same call resumes it."""


class Diverged(TrainingError):
    """The loss is not finite, or beyond all sense: what the recipe leads to, every time it is run."""


@dataclasses.dataclass(frozen=True)
class Watch:
    """Who is asked and told while a training runs.

    Attributes:
        should_stop: asked after each step and each piece of an evaluation; true saves the state and raises
            `Interrupted`.
        on_epoch: told each finished epoch's row.
        on_start: told the rows of the epochs that were done before, once, at the start of `Loop.run`.
        on_progress: told about once a second where training stands.
    """

    should_stop: Callable[[], bool] = lambda: False
    on_epoch: Callable[[EpochRow], None] = lambda row: None
    on_start: Callable[[list[EpochRow]], None] = lambda rows: None
    on_progress: Callable[[Progress], None] = lambda progress: None


def _nothing() -> Tensor:
    """The sum over no test images; a sum of floats makes it one."""
    return torch.zeros((), dtype=torch.int64)


class Loop(abc.ABC):
    """Trains `model` by the steps of `stepper`; what is trained how, and evaluated on what, subclasses say.

    Args:
        recipe: epochs, batches, evaluations, intervals of saving.
        test_images: how many images an evaluation takes, in pieces of the recipe's `evaluation_batch`.
        folder: where resumable state is kept. One process at a time: hold `exclusive_folder` where others may come.
        watch: who is asked and told.
        name: how errors call this run.
        key: what else the states in `folder` must belong to; a state of another key is refused.

    Attributes:
        row_type: a line of the history.
        measure: the field of `row_type` that an evaluation fills.
        outputs: logits of the pieces of the last epoch's evaluation; part of every saved state.
    """

    row_type: ClassVar[type[EpochRow]] = EpochRow
    measure: ClassVar[str] = "test_error_pct"

    def __init__(
        self,
        model: nn.Module,
        stepper: Stepping,
        recipe: Routine,
        test_images: int,
        folder: Path,
        watch: Watch,
        name: str,
        key: str,
    ) -> None:
        if stepper.steps_per_epoch < 1:
            raise TrainingError(
                f"{name}: {stepper.images} training images do not fill one batch of {recipe.batch_size}; "
                "lower the recipe's batch_size"
            )
        self.model, self.stepper, self.recipe, self.test_images = model, stepper, recipe, test_images
        self.folder, self.name, self.key = folder, name, key
        self.watch = watch
        self.steps_per_epoch = stepper.steps_per_epoch
        self.history: list[EpochRow] = []
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.tested, self._total = 0, _nothing()
        self.outputs: list[Tensor] = []
        self._meter = Meter()
        self._saved_at, self._saved_epoch = time.monotonic(), 0
        self._clock = self._saved_at

    def rates(self) -> dict[str, float]:
        """The learning rates of this epoch, by the recipe's keys; columns of the history."""
        return {"lr": epoch_rate(self.recipe, self.epoch)}

    @abc.abstractmethod
    def wrong(self, part: slice) -> Tensor:
        """How many of these test images the network as it is gets wrong: a whole number, wherever it lies.

        Gives their logits to `keep`. A task with another measure than errors gives the sum over these images of what
        `measured` makes it of, a float64.
        """

    def measured(self, total: float) -> float:
        """The measure of all test images from the sum of what `wrong` gave: the share of wrong ones, in percent."""
        return 100 * total / self.test_images

    def keep(self, logits: Tensor) -> None:
        """Keep logits (B, C) of the next test images if this is the last epoch."""
        if self.epoch == self.recipe.epochs:
            self.outputs.append(logits)

    def test_logits(self) -> Tensor:
        """Logits (N, C) of the test images, on the CPU, behind the last epoch's test error.

        (0, 0) where training ended before that epoch was evaluated.
        """
        return torch.cat([logits.cpu() for logits in self.outputs] or [torch.zeros(0, 0)])

    def run(self) -> list[EpochRow]:
        """Train to the last epoch, from the newest saved state where there is one, and return the history.

        Raises:
            Diverged: the loss is not finite, or beyond all sense; the last good state is kept.
            MemoryFullError: a batch does not fit into memory.
            Interrupted: `should_stop` said so; call again to go on.
        """
        self._restore()
        self.watch.on_start(list(self.history))
        try:
            while self.epoch <= self.recipe.epochs:
                self._run_epoch()
            return self.history
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            cause = " ".join(str(error).split()).partition(". ")[0]
        raise memory_full(self.name, self.stepper, cause)

    def _run_epoch(self) -> None:
        self._clock = time.monotonic()
        self.stepper.enter_epoch(self.epoch, self.step)
        while self.step < self.steps_per_epoch:
            self.stepper.take(self.epoch, self.step)
            self.step += 1
            self._obey()
            if self._meter.count():
                self._tell()
            if self.step % JUDGED_EVERY == 0:
                self._judge()
            self._save_in_time()
        self._finish_epoch()

    def _obey(self) -> None:
        """Save and leave where that was asked for. A state that is not finite is no state to resume from."""
        if not self.watch.should_stop():
            return
        problem = self._save()
        raise Interrupted(
            f"{self.name}: stopped in epoch {self.epoch}; the same command resumes it"
            + (f" from the state before ({problem})" if problem else "")
        )

    def _tell(self) -> None:
        loss_sum, wrong = self.stepper.totals()
        rate = self._meter.steps_per_second()
        left = self.steps_per_epoch * (self.recipe.epochs - self.epoch + 1) - self.step
        self.watch.on_progress(
            Progress(
                self.epoch,
                self.recipe.epochs,
                self.step,
                self.steps_per_epoch,
                loss_sum / self.step,
                self._train_error(wrong, min(self.step * self.recipe.batch_size, self.stepper.images_per_epoch)),
                rate * self.recipe.batch_size,
                left / rate if rate else math.nan,
            )
        )

    def _judge(self) -> None:
        """End a run whose epoch is lost, whatever its other steps will add: no loss is negative.

        Asked for after the same steps in every run, so that a run that fails leaves the same bits each time.
        """
        loss_sum, _ = self.stepper.totals()
        if math.isfinite(loss_sum) and loss_sum <= _DIVERGED * self.steps_per_epoch:
            return
        self._fail(f"rose to {loss_sum / self.step:g}" if math.isfinite(loss_sum) else "is not finite")

    def _fail(self, what: str) -> NoReturn:
        rates = self.rates()
        named = [f"{rate:g}" if len(rates) == 1 else f"{rate:g} ({key})" for key, rate in rates.items()]
        raise Diverged(
            f"{self.name}: the loss {what} in epoch {self.epoch} at learning rate {' and '.join(named)}; "
            f"lower the recipe's {' or '.join(rates)} (the last good state is kept)"
        )

    def _finish_epoch(self) -> None:
        self._judge()
        if not self.stepper.finite():
            self._fail("is not finite")
        loss_sum, wrong = self.stepper.totals()
        last = self.epoch == self.recipe.epochs
        evaluate = last or self.epoch % self.recipe.evaluate_every == 0
        found = self._evaluate() if evaluate else math.nan
        self._pass_time()
        values: dict[str, Any] = {
            "epoch": self.epoch,
            **self.rates(),
            "train_loss": loss_sum / (self.stepper.images_per_epoch / self.recipe.batch_size),
            "train_error_pct": self._train_error(wrong, self.stepper.images_per_epoch),
            "test_error_pct": math.nan,
            "seconds": round(self.seconds, 3),
        }
        row = self.row_type(**{**values, self.measure: found})
        self.history.append(row)
        self._tell()
        self.watch.on_epoch(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.tested, self._total = 0, _nothing()
        if not last and self._save_is_due():
            self._save()

    def _train_error(self, wrong: int, images: int) -> float:
        """In percent; NaN where nothing is classified."""
        return 100 * wrong / images if self.stepper.counts_errors else math.nan

    def _evaluate(self) -> float:
        """What the test images measure, from where an evaluation of this epoch was cut off."""
        size = self.recipe.evaluation_batch
        try:
            while self.tested < self.test_images:
                end = min(self.tested + size, self.test_images)
                found = self.wrong(slice(self.tested, end))
                self.tested, self._total = end, self._total.to(found.device) + found
                self._obey()
                self._save_in_time()
            return self.measured(self._total.item())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise MemoryFullError(
            f"{self.name}: {size} images at once do not fit into memory in evaluation; lower the recipe's "
            "evaluation_batch"
        )

    def _save_in_time(self) -> None:
        if time.monotonic() - self._saved_at >= self.recipe.checkpoint_seconds:
            self._save()

    def _save_is_due(self) -> bool:
        every = self.recipe.checkpoint_epochs
        return time.monotonic() - self._saved_at >= self.recipe.checkpoint_seconds or (
            every > 0 and self.epoch - 1 - self._saved_epoch >= every
        )

    def _pass_time(self) -> None:
        """Put the time since the last look on the epoch's account."""
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _place(self) -> int:
        """A number for where the run stands, larger after each step and each piece of an evaluation."""
        size = self.recipe.evaluation_batch
        pieces, done = (-(-images // size) for images in (self.test_images, self.tested))
        return (self.epoch - 1) * (self.steps_per_epoch + pieces + 1) + self.step + done

    def _save(self) -> str:
        """Save the state, if it is one to resume from and fits; else say why not, in the log and to the caller."""
        self._saved_at, self._saved_epoch = time.monotonic(), self.epoch - 1  # also a failure is not repeated at once
        if not self.stepper.finite():
            return "this one is not finite"
        if self.step and self.stepper.totals()[0] / self.step > _DIVERGED:
            return "in this one the loss has run away"
        self._pass_time()
        payload: dict[str, Any] = {
            "model": self.model.state_dict(),
            "stepper": self.stepper.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "tested": self.tested,
            "total": self._total.cpu(),
            "outputs": [part.cpu() for part in self.outputs],
            "seconds": self.seconds,
            "history": [dataclasses.asdict(row) for row in self.history],
        }
        return checkpoint.save_if_it_fits(self.folder, self._place(), payload, self.key)

    def _restore(self) -> None:
        payload = checkpoint.load_newest(self.folder, self.key)
        if payload is None:
            return
        self.model.load_state_dict(payload["model"])
        self.stepper.load_state_dict(payload["stepper"])
        self.history = [self.row_type(**row) for row in payload["history"]]
        for key in ("epoch", "step", "tested", "seconds"):
            setattr(self, key, payload[key])
        self._total = payload["total"]
        self.outputs = list(payload["outputs"])
        self._saved_epoch = self.epoch - 1
