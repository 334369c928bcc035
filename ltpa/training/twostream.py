"""Training of two-stream networks: two learning rates, a random patch per image and step, resumable to the bit.

Images stay decoded, as uint8; everything random is drawn from streams named by (seed, purpose, epoch, step), and the
state saved mid-way holds all that the remaining steps depend on.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ltpa.core.errors import ConfigError, TrainingError
from ltpa.core.seeds import derive
from ltpa.models.twostream.inputs import draw_views, follow, look, patches_of, pixels, shown
from ltpa.models.twostream.losses import two_stream_loss
from ltpa.models.twostream.network import TwoStream
from ltpa.training import checkpoint
from ltpa.training.engine import Diverged, Interrupted
from ltpa.training.recipe import Recipe
from ltpa.training.schedule import epoch_rate

AUGMENTATIONS = ("none", "flip_crop", "resized_crop")
_SHARED = ("epochs", "batch_size", "lr", "momentum", "weight_decay", "schedule", "precision", "evaluate_every")


@dataclasses.dataclass(frozen=True)
class TwoStreamRecipe:
    """How a two-stream network is trained.

    Attributes:
        routine: epochs, batch, SGD and schedule (`ltpa.training.recipe`); its `lr` is that of the global stream.
        lr_local: learning rate of local trunk, LSTM, attention and local classifier, on the same schedule.
        augment: of `AUGMENTATIONS`; boxes follow the image.
        label_smoothing: of the cross-entropies.
    """

    routine: Recipe
    lr_local: float
    augment: Literal["none", "flip_crop", "resized_crop"] = "none"
    label_smoothing: float = 0.0

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "recipe") -> "TwoStreamRecipe":
        """Read a recipe from plain data, flat: keys of the routine beside `lr_local`, `augment`, `label_smoothing`.

        Raises:
            ConfigError: a key is unknown or missing, or a value is out of range; the message names `where` and the key.
        """
        own = ("lr_local", "augment", "label_smoothing")
        for key in values:
            if key not in own + _SHARED:
                raise ConfigError(f"{where}: unknown key {key!r}; allowed: {', '.join(_SHARED + own)}")
        shared = {key: value for key, value in values.items() if key in _SHARED}
        routine = Recipe.from_dict(shared | {"flip": "none"}, where, smallest_batch=1)
        if routine.precision == "tf32":
            raise ConfigError(f"{where}: precision is 'tf32'; allowed: fp32, bf16")
        rate, smoothing = values.get("lr_local"), values.get("label_smoothing", 0.0)
        for key, value, limit in (("lr_local", rate, math.inf), ("label_smoothing", smoothing, 1)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < limit:
                raise ConfigError(f"{where}: {key} is {value!r}; it must be a number from 0 to below {limit:g}")
        if values.get("augment", "none") not in AUGMENTATIONS:
            raise ConfigError(f"{where}: augment is {values['augment']!r}; allowed: {', '.join(AUGMENTATIONS)}")
        return cls(routine, **{key: values[key] for key in own if key in values})


@dataclasses.dataclass(frozen=True, eq=False)
class FineData:
    """Images (N, S, S, 3) uint8, labels (N,) int64, and boxes (N, n, 4) int64 of their patches, best first.

    Without boxes it serves networks without a local stream.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class TwoStreamRow:
    """One line of the history. Errors (joint prediction) in percent, NaN where the epoch was not evaluated."""

    epoch: int
    lr: float
    lr_local: float
    train_loss: float
    train_error_pct: float
    test_error_pct: float
    seconds: float


class TwoStreamTrainer:
    """Trains `model` on `train`; `evaluate` gives the test error in percent of the network as it is.

    Args:
        should_stop: asked after each step; true saves the state and raises `Interrupted`.
        on_epoch: told each finished epoch's row.
        name: how errors call this run.
    """

    def __init__(
        self,
        model: TwoStream,
        train: FineData,
        evaluate: Callable[[TwoStream], float],
        recipe: TwoStreamRecipe,
        seed: int,
        folder: Path,
        device: torch.device,
        should_stop: Callable[[], bool] = lambda: False,
        on_epoch: Callable[[TwoStreamRow], None] = lambda row: None,
        name: str = "training",
    ) -> None:
        self.routine = recipe.routine
        if len(train.labels) < self.routine.batch_size:
            raise TrainingError(
                f"{name}: {len(train.labels)} training images do not fill one batch of {self.routine.batch_size}; "
                "lower the recipe's batch_size"
            )
        self.model = model.to(device)
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.train, self.evaluate, self.recipe, self.seed = train, evaluate, recipe, seed
        self.folder, self.device, self.name = folder, device, name
        self.should_stop, self.on_epoch = should_stop, on_epoch
        groups = [{"params": group} for group in model.streams().values() if group]
        self.optimizer = torch.optim.SGD(
            groups, lr=0.0, momentum=self.routine.momentum, weight_decay=self.routine.weight_decay
        )
        self.steps_per_epoch = len(train.labels) // self.routine.batch_size
        self.history: list[TwoStreamRow] = []
        self.epoch, self.step = 1, 0
        self.loss_sum, self.wrong, self.seconds = 0.0, 0, 0.0
        self._saved_at = time.monotonic()

    def run(self) -> list[TwoStreamRow]:
        """Train to the last epoch, from the newest saved state where there is one, and return the history.

        Raises:
            Diverged: loss or weights are not finite; the last good state is kept.
            Interrupted: `should_stop` said so; call again to go on.
        """
        with checkpoint.exclusive(self.folder):
            self._restore()
            while self.epoch <= self.routine.epochs:
                self._run_epoch()
            return self.history

    def rates(self) -> tuple[float, float]:
        """Learning rates of the global and the local stream in this epoch."""
        rate = epoch_rate(self.routine, self.epoch)
        return rate, rate * self.recipe.lr_local / self.routine.lr if self.routine.lr else 0.0

    def _run_epoch(self) -> None:
        started = time.monotonic()
        order = np.random.default_rng(derive(self.seed, "order", self.epoch)).permutation(len(self.train.labels))
        self.model.train()
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=False):
            group["lr"] = rate
        while self.step < self.steps_per_epoch:
            first = self.step * self.routine.batch_size
            self.take(np.sort(order[first : first + self.routine.batch_size]))
            self.step += 1
            if self.should_stop():
                self._check_finite()
                self.seconds += time.monotonic() - started
                self._save()
                raise Interrupted(f"{self.name}: stopped in epoch {self.epoch}; the same command resumes it")
            if time.monotonic() - self._saved_at >= self.routine.checkpoint_seconds:
                self._check_finite()
                now = time.monotonic()
                self.seconds, started = self.seconds + now - started, now
                self._save()
        self._finish_epoch(started)

    def take(self, chosen: np.ndarray) -> None:
        """One step on the images numbered `chosen`."""
        rng = np.random.default_rng(derive(self.seed, "augment", self.epoch, self.step))
        images, patches = self._inputs(chosen, rng)
        targets = torch.from_numpy(self.train.labels[chosen]).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        reduced = torch.autocast(self.device.type, torch.bfloat16) if self.routine.precision == "bf16" else None
        with reduced or contextlib.nullcontext():
            outputs = self.model(images, patches)
            loss = two_stream_loss(outputs, targets, self.model.options, self.recipe.label_smoothing)
        loss.backward()
        self.optimizer.step()
        local = None if outputs.local is None else outputs.local.logits
        joint = self.model.joint(outputs.global_logits, local)
        self.loss_sum += float(loss.detach())
        self.wrong += int((joint.detach().argmax(1) != targets).sum())

    def _inputs(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """What both streams see of images `chosen`: a view each, and in it one of their patches, drawn at random."""
        options, size = self.model.options, self.train.images.shape[1]
        views = draw_views(self.recipe.augment, len(chosen), size, rng)
        batch = look(pixels(self.train.images[chosen], self.device), views)
        patches = None
        if self.train.boxes is not None:
            ranks = rng.integers(self.train.boxes.shape[1], size=len(chosen))
            boxes = self.train.boxes[chosen, ranks]
            boxes = boxes if views is None else follow(boxes, views, size)
            patches = patches_of(batch, boxes, options)
        return shown(batch, options.image_size), patches

    def _finish_epoch(self, started: float) -> None:
        self._check_finite()
        last = self.epoch == self.routine.epochs
        due = last or self.epoch % self.routine.evaluate_every == 0
        test_error = self.evaluate(self.model) if due else math.nan
        self.seconds += time.monotonic() - started
        images = self.steps_per_epoch * self.routine.batch_size
        row = TwoStreamRow(
            self.epoch,
            *self.rates(),
            self.loss_sum / self.steps_per_epoch,
            100 * self.wrong / images,
            test_error,
            round(self.seconds, 3),
        )
        self.history.append(row)
        self.on_epoch(row)
        self.epoch, self.step, self.loss_sum, self.wrong, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0
        if not last and time.monotonic() - self._saved_at >= self.routine.checkpoint_seconds:
            self._save()

    def _check_finite(self) -> None:
        values = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        if not math.isfinite(self.loss_sum) or not all(bool(value.isfinite().all()) for value in values):
            rate, rate_local = self.rates()
            raise Diverged(
                f"{self.name}: the loss is not finite in epoch {self.epoch} at learning rates {rate:g} (global) and "
                f"{rate_local:g} (local); lower the recipe's lr or lr_local (the last good state is kept)"
            )

    def _save(self) -> None:
        payload: dict[str, Any] = {
            "model": self.model.state_dict(),
            "momentum": self.optimizer.state_dict()["state"],
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
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": payload["momentum"], "param_groups": groups})
        self.history = [TwoStreamRow(**row) for row in payload["history"]]
        for key in ("epoch", "step", "loss_sum", "wrong", "seconds"):
            setattr(self, key, payload[key])


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Mask (N,) of a stratified validation split: `share` of every class, at least one image, by a fixed seed.

    Raises:
        ConfigError: a class has one image only.
    """
    rng = np.random.default_rng(derive(seed, "validation"))
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ConfigError(f"class {label} has one training image; a validation split needs two of every class")
        mask[members[: max(1, round(share * len(members)))]] = True
    return mask
