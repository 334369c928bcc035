"""The training engine: network, arrays, recipe and seed in; a trained network and its history out.

Everything random is drawn from streams named by (seed, purpose, epoch), and the state saved mid-way holds all that the
remaining steps depend on, so an interrupted run ends with the same bits as an unbroken one.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltpa.core.errors import TrainingError
from ltpa.core.seeds import derive
from ltpa.models.base import AttentionClassifier
from ltpa.training import checkpoint
from ltpa.training.augment import augment
from ltpa.training.recipe import Recipe
from ltpa.training.schedule import epoch_rate, step_rate

EVALUATION_BATCH = 500


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


@dataclasses.dataclass
class Arrays:
    """Network inputs (N, C, H, W) float32 and labels (N,) int64, on one device."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def prepare(
        cls, images: np.ndarray, labels: np.ndarray, preprocessing: nn.Module, device: torch.device
    ) -> "Arrays":
        """Normalise uint8 images (N, H, W, 3) once; what depends on the image alone is never computed again."""
        chunks = []
        with torch.no_grad():
            for start in range(0, len(images), EVALUATION_BATCH):
                block = torch.from_numpy(np.array(images[start : start + EVALUATION_BATCH])).to(device)
                chunks.append(preprocessing(block.permute(0, 3, 1, 2).float()))
        return cls(torch.cat(chunks), torch.from_numpy(np.array(labels, dtype=np.int64)).to(device))


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
        self.model = model
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.train_arrays, self.test_arrays = train, test
        self.recipe, self.seed, self.folder, self.name = recipe, seed, folder, name
        self.should_stop, self.on_epoch = should_stop, on_epoch
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            dampening=recipe.dampening,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.steps_per_epoch = len(train.labels) // recipe.batch_size
        self.history: list[EpochRow] = []
        self.epoch, self.step = 1, 0
        self.loss_sum, self.wrong, self.seconds = 0.0, 0, 0.0
        self._device = train.labels.device
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
        order = self._stream("order").permutation(len(self.train_arrays.labels))
        if self.step == 0:
            torch.manual_seed(derive(self.seed, "dropout", self.epoch))
            self._maybe_reset_momentum()
        self.model.train()
        while self.step < self.steps_per_epoch:
            first = self.step * self.recipe.batch_size
            self._run_step(torch.from_numpy(order[first : first + self.recipe.batch_size]))
            self.step += 1
            if self.should_stop():
                self.seconds += time.monotonic() - started
                self._save()
                raise Interrupted(f"{self.name}: stopped in epoch {self.epoch}; the same command resumes it")
        self._finish_epoch(started)

    def _run_step(self, chosen: Tensor) -> None:
        total = (self.epoch - 1) * self.steps_per_epoch + self.step
        for group in self.optimizer.param_groups:
            group["lr"] = step_rate(self.recipe, self.epoch, total)
        generator = torch.Generator().manual_seed(derive(self.seed, "augment", self.epoch, self.step))
        chosen = chosen.to(self.train_arrays.labels.device)
        inputs = augment(self.train_arrays.inputs[chosen], self.recipe, generator)
        targets = self.train_arrays.labels[chosen]
        self.optimizer.zero_grad(set_to_none=True)
        with precision(self.recipe.precision, self._device):
            loss, logits = self.model.loss_and_logits(inputs.contiguous(memory_format=torch.channels_last), targets)
        loss.backward()
        self.optimizer.step()
        self.loss_sum += float(loss.detach())
        self.wrong += int((logits.detach().argmax(1) != targets).sum())

    def _finish_epoch(self, started: float) -> None:
        rate = epoch_rate(self.recipe, self.epoch)
        if not math.isfinite(self.loss_sum):
            raise TrainingError(
                f"{self.name}: the loss is not finite in epoch {self.epoch} at learning rate {rate:g}; "
                "lower the recipe's lr (the last good state is kept)"
            )
        last = self.epoch == self.recipe.epochs
        evaluate = last or self.epoch % self.recipe.evaluate_every == 0
        test_error = error_pct(self.model, self.test_arrays) if evaluate else math.nan
        self.seconds += time.monotonic() - started
        images = self.steps_per_epoch * self.recipe.batch_size
        row = EpochRow(
            self.epoch,
            rate,
            self.loss_sum / self.steps_per_epoch,
            100 * self.wrong / images,
            test_error,
            round(self.seconds, 3),
        )
        self.history.append(row)
        self.on_epoch(row)
        self.epoch, self.step, self.loss_sum, self.wrong, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0
        if not last and time.monotonic() - self._saved_at >= self.recipe.checkpoint_seconds:
            self._save()

    def _stream(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(derive(self.seed, purpose, self.epoch))

    def _maybe_reset_momentum(self) -> None:
        changed = self.epoch > 1 and epoch_rate(self.recipe, self.epoch) != epoch_rate(self.recipe, self.epoch - 1)
        if self.recipe.reset_momentum and changed:
            self.optimizer.state.clear()

    def _save(self) -> None:
        payload: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "gpu_rng": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "wrong": self.wrong,
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
        self.optimizer.load_state_dict(payload["optimizer"])
        torch.set_rng_state(payload["rng"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(payload["gpu_rng"], self._device)
        self.history = [EpochRow(**row) for row in payload["history"]]
        for key in ("epoch", "step", "loss_sum", "wrong", "seconds"):
            setattr(self, key, payload[key])


def precision(name: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Where the forward pass runs: `bf16` under autocast, `tf32` with tensor cores on float32, `fp32` without.

    Weights, losses, softmax and batch-normalisation statistics stay float32 in all of them.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    if name == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


@torch.no_grad()
def error_pct(model: nn.Module, arrays: Arrays) -> float:
    """Top-1 error in percent of `model` in evaluation mode; the mode is put back afterwards."""
    was_training = model.training
    model.eval()
    wrong = 0
    for start in range(0, len(arrays.labels), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        inputs = arrays.inputs[part].contiguous(memory_format=torch.channels_last)
        wrong += int((model(inputs).argmax(1) != arrays.labels[part]).sum())
    model.train(was_training)
    return 100 * wrong / len(arrays.labels)
