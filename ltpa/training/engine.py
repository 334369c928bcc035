"""The training engine: network, arrays, recipe and seed in; a trained network and its history out.

The state saved mid-way holds all that the remaining steps depend on (`ltpa.training.step`), so an interrupted run ends
with the same bits as an unbroken one.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ltpa.core.errors import DiskFullError, MemoryFullError, TrainingError
from ltpa.models.base import AttentionClassifier
from ltpa.training import checkpoint
from ltpa.training.arrays import Arrays, error_pct
from ltpa.training.memory import is_out_of_memory, memory_full
from ltpa.training.progress import Meter, Progress
from ltpa.training.recipe import Recipe
from ltpa.training.schedule import epoch_rate
from ltpa.training.step import Stepper

_LOG = logging.getLogger(__name__)
_DIVERGED = 1e4  # a thousand times the loss of guessing, and more


@dataclasses.dataclass(frozen=True)
class EpochRow:
    """One line of the history. Errors are in percent; `test_error_pct` is NaN where the epoch was not evaluated."""

    epoch: int
    lr: float
    train_loss: float
    train_error_pct: float
    test_error_pct: float
    seconds: float


class Interrupted(Exception):
    """Training stopped on request; its state is saved and the same call resumes it."""


class Diverged(TrainingError):
    """The loss is not finite, or beyond all sense: what the recipe leads to, every time it is run."""


class Trainer:
    """Trains `model` on `train` and reports the error on `test`.

    Args:
        model: a network of `ltpa.models`.
        recipe, seed: what to do; with the arrays they fix the result's bits on one machine.
        folder: where resumable state is kept. One process at a time: hold `checkpoint.exclusive` where others may come.
        should_stop: asked after each step and each evaluated batch; true saves the state and raises `Interrupted`.
        on_epoch: told each finished epoch's row.
        on_start: told the rows of the epochs that were done before, once, at the start of `run`.
        on_progress: told about once a second where training stands.
        name: how errors call this run.
        key: what else the states in `folder` must belong to; a state of another key is refused.
    """

    def __init__(
        self,
        model: AttentionClassifier,
        train: Arrays,
        test: Arrays,
        recipe: Recipe,
        seed: int,
        folder: Path,
        should_stop: Callable[[], bool] = lambda: False,
        on_epoch: Callable[[EpochRow], None] = lambda row: None,
        name: str = "training",
        key: str = "",
        on_start: Callable[[list[EpochRow]], None] = lambda rows: None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        if len(train.labels) < recipe.batch_size:
            raise TrainingError(
                f"{name}: {len(train.labels)} training images do not fill one batch of {recipe.batch_size}; "
                "lower the recipe's batch_size"
            )
        self.model, self.test_arrays = model, test
        self.recipe, self.seed, self.folder, self.name, self.key = recipe, seed, folder, name, key
        self.should_stop, self.on_epoch = should_stop, on_epoch
        self.on_start, self.on_progress = on_start, on_progress
        self.stepper = Stepper(model, train, recipe, seed)
        self.steps_per_epoch = self.stepper.steps_per_epoch
        self.history: list[EpochRow] = []
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self._meter = Meter()
        self._saved_at, self._saved_epoch = time.monotonic(), 0
        self._clock = self._saved_at

    def run(self) -> list[EpochRow]:
        """Train to the last epoch, from the newest saved state where there is one, and return the history.

        Raises:
            Diverged: the loss is not finite, or beyond all sense; the last good state is kept.
            MemoryFullError: a batch does not fit into memory.
            Interrupted: `should_stop` said so; call again to go on.
        """
        self._restore()
        self.on_start(list(self.history))
        try:
            while self.epoch <= self.recipe.epochs:
                self._run_epoch()
            return self.history
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            cause = " ".join(str(error).split()).partition(". ")[0]
        raise memory_full(self.name, self.model, self.recipe, self.stepper.device, cause)

    def _run_epoch(self) -> None:
        self._clock = time.monotonic()
        self.stepper.enter_epoch(self.epoch, self.step)
        while self.step < self.steps_per_epoch:
            self.stepper.take(self.epoch, self.step)
            self.step += 1
            self._obey()
            if self._meter.count():
                self._tell()
            if time.monotonic() - self._saved_at >= self.recipe.checkpoint_seconds:
                self._save()
        self._finish_epoch()

    def _obey(self) -> None:
        """Save and leave where that was asked for. A state that is not finite is no state to resume from."""
        if not self.should_stop():
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
        self.on_progress(
            Progress(
                self.epoch,
                self.recipe.epochs,
                self.step,
                self.steps_per_epoch,
                loss_sum / self.step,
                100 * wrong / (self.step * self.recipe.batch_size),
                rate * self.recipe.batch_size,
                left / rate if rate else math.nan,
            )
        )

    def _finish_epoch(self) -> None:
        rate = epoch_rate(self.recipe, self.epoch)
        loss_sum, wrong = self.stepper.totals()
        loss = loss_sum / self.steps_per_epoch
        if not self.stepper.finite() or loss > _DIVERGED:
            what = f"rose to {loss:g}" if math.isfinite(loss) and loss > _DIVERGED else "is not finite"
            raise Diverged(
                f"{self.name}: the loss {what} in epoch {self.epoch} at learning rate {rate:g}; "
                "lower the recipe's lr (the last good state is kept)"
            )
        last = self.epoch == self.recipe.epochs
        evaluate = last or self.epoch % self.recipe.evaluate_every == 0
        test_error = self._evaluate(self.recipe.evaluation_batch) if evaluate else math.nan
        self._pass_time()
        images = self.steps_per_epoch * self.recipe.batch_size
        row = EpochRow(
            self.epoch,
            rate,
            loss,
            100 * wrong / images,
            test_error,
            round(self.seconds, 3),
        )
        self.history.append(row)
        self._tell()
        self.on_epoch(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        if not last and self._save_is_due():
            self._save()

    def _evaluate(self, batch: int) -> float:
        try:
            return error_pct(self.model, self.test_arrays, batch, self._obey)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise MemoryFullError(
            f"{self.name}: {batch} images at once do not fit into memory in evaluation; lower the recipe's "
            "evaluation_batch"
        )

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
            "seconds": self.seconds,
            "history": [dataclasses.asdict(row) for row in self.history],
        }
        try:
            checkpoint.save(self.folder, (self.epoch - 1) * self.steps_per_epoch + self.step, payload, self.key)
        except DiskFullError as error:
            _LOG.warning("%s", error)
            return str(error)
        return ""

    def _restore(self) -> None:
        payload = checkpoint.load_newest(self.folder, self.key)
        if payload is None:
            return
        self.model.load_state_dict(payload["model"])
        self.stepper.load_state_dict(payload["stepper"])
        self.history = [EpochRow(**row) for row in payload["history"]]
        for key in ("epoch", "step", "seconds"):
            setattr(self, key, payload[key])
        self._saved_epoch = self.epoch - 1
