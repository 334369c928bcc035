"""The training engine: network, arrays, recipe and seed in; a trained network and its history out.

The state saved mid-way holds all that the remaining steps depend on (`ltpa.training.step`), so an interrupted run ends
with the same bits as an unbroken one.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ltpa.core.errors import TrainingError
from ltpa.models.base import AttentionClassifier
from ltpa.training import checkpoint
from ltpa.training.arrays import Arrays, error_pct
from ltpa.training.recipe import Recipe
from ltpa.training.schedule import epoch_rate
from ltpa.training.step import Stepper


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


class Trainer:
    """Trains `model` on `train` and reports the error on `test`.

    Args:
        model: a network of `ltpa.models`.
        recipe, seed: what to do; with the arrays they fix the result's bits on one machine.
        folder: where resumable state is kept.
        should_stop: asked after each step; true saves the state and raises `Interrupted`.
        on_epoch: told each finished epoch's row.
        name: how errors call this run.
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
    ) -> None:
        if len(train.labels) < recipe.batch_size:
            raise TrainingError(
                f"{name}: {len(train.labels)} training images do not fill one batch of {recipe.batch_size}; "
                "lower the recipe's batch_size"
            )
        self.model, self.test_arrays = model, test
        self.recipe, self.seed, self.folder, self.name = recipe, seed, folder, name
        self.should_stop, self.on_epoch = should_stop, on_epoch
        self.stepper = Stepper(model, train, recipe, seed)
        self.steps_per_epoch = self.stepper.steps_per_epoch
        self.history: list[EpochRow] = []
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self._saved_at = time.monotonic()

    def run(self) -> list[EpochRow]:
        """Train to the last epoch, from the newest saved state where there is one, and return the history.

        Raises:
            TrainingError: the loss is not finite (the last good state is kept), or another process trains this.
            Interrupted: `should_stop` said so; call again to go on.
        """
        with checkpoint.exclusive(self.folder):
            self._restore()
            while self.epoch <= self.recipe.epochs:
                self._run_epoch()
            return self.history

    def _run_epoch(self) -> None:
        started = time.monotonic()
        self.stepper.enter_epoch(self.epoch, self.step)
        while self.step < self.steps_per_epoch:
            self.stepper.take(self.epoch, self.step)
            self.step += 1
            if self.should_stop():
                self._check_finite()
                self.seconds += time.monotonic() - started
                self._save()
                raise Interrupted(f"{self.name}: stopped in epoch {self.epoch}; the same command resumes it")
        self._finish_epoch(started)

    def _finish_epoch(self, started: float) -> None:
        self._check_finite()
        rate = epoch_rate(self.recipe, self.epoch)
        loss_sum, wrong = self.stepper.totals()
        last = self.epoch == self.recipe.epochs
        evaluate = last or self.epoch % self.recipe.evaluate_every == 0
        test_error = error_pct(self.model, self.test_arrays, self.recipe.evaluation_batch) if evaluate else math.nan
        self.seconds += time.monotonic() - started
        images = self.steps_per_epoch * self.recipe.batch_size
        row = EpochRow(
            self.epoch,
            rate,
            loss_sum / self.steps_per_epoch,
            100 * wrong / images,
            test_error,
            round(self.seconds, 3),
        )
        self.history.append(row)
        self.on_epoch(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        if not last and time.monotonic() - self._saved_at >= self.recipe.checkpoint_seconds:
            self._save()

    def _check_finite(self) -> None:
        if not self.stepper.finite():
            raise TrainingError(
                f"{self.name}: the loss is not finite in epoch {self.epoch} at learning rate "
                f"{epoch_rate(self.recipe, self.epoch):g}; lower the recipe's lr (the last good state is kept)"
            )

    def _save(self) -> None:
        payload: dict[str, Any] = {
            "model": self.model.state_dict(),
            "stepper": self.stepper.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "history": [dataclasses.asdict(row) for row in self.history],
        }
        checkpoint.save(self.folder, (self.epoch - 1) * self.steps_per_epoch + self.step, payload)
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        payload = checkpoint.load_newest(self.folder)
        if payload is None:
            return
        self.model.load_state_dict(payload["model"])
        self.stepper.load_state_dict(payload["stepper"])
        self.history = [EpochRow(**row) for row in payload["history"]]
        for key in ("epoch", "step", "seconds"):
            setattr(self, key, payload[key])
