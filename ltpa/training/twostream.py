"""Training of two-stream networks: two learning rates, a random patch per image and step.

Images stay decoded, as uint8; everything random is drawn from streams named by (seed, purpose, epoch, step).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltpa.models.twostream.inputs import draw_views, follow, look, patches_of, pixels, shown
from ltpa.models.twostream.losses import two_stream_loss
from ltpa.models.twostream.network import TwoStream
from ltpa.training.fine_data import FineData
from ltpa.training.loop import EpochRow, Loop, Watch
from ltpa.training.precision import autocast
from ltpa.training.schedule import epoch_rate, step_rate
from ltpa.training.sgd import SGD
from ltpa.training.stepping import Stepping
from ltpa.training.two_stream_recipe import TwoStreamRecipe


@dataclasses.dataclass(frozen=True)
class TwoStreamRow(EpochRow):
    """One line of the history; `lr` is that of the global stream, errors are those of the joint prediction."""

    lr_local: float


class TwoStreamStepper(Stepping):
    """Takes the steps of a two-stream network on the images and boxes of `train`."""

    model: TwoStream
    recipe: TwoStreamRecipe

    def __init__(
        self, model: TwoStream, train: FineData, recipe: TwoStreamRecipe, seed: int, device: torch.device
    ) -> None:
        super().__init__(model.to(device), len(train.labels), recipe, seed, device, recipe.drop_last)
        self.train = train
        self.optimizers = [
            SGD(parameters, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
            for parameters in model.streams().values()
        ]

    def take(self, epoch: int, step: int) -> None:
        """Take step number `step`, counted from 0, of `epoch`."""
        done = (epoch - 1) * self.steps_per_epoch + step
        rates = stream_rates(self.recipe, step_rate(self.recipe, done, self.steps_per_epoch))
        self._compute(np.sort(self.batches[step]), self._stream("augment", epoch, step), rates)
        self._limit_lead()

    def rehearse(self, images: int) -> None:
        """Take a step on the first image so many times."""
        self._compute(np.zeros(images, dtype=np.int64), self._stream("augment"), (0.0, 0.0))

    def _compute(self, chosen: np.ndarray, rng: np.random.Generator, rates: tuple[float, float]) -> None:
        """One step on the images numbered `chosen`."""
        images, patches = self._inputs(chosen, rng)
        targets = torch.from_numpy(self.train.labels[chosen]).to(self.device)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        with autocast(self.recipe.precision, self.device):
            outputs = self.model.outputs(images, patches)
            loss = two_stream_loss(outputs, targets, self.model.options, self.recipe.label_smoothing)
        loss.backward()
        for optimizer, rate in zip(self.optimizers, rates, strict=True):
            optimizer.step(rate)
        local = None if outputs.local is None else outputs.local.logits
        joint = self.model.joint(outputs.global_logits, local)
        self._loss_sum.add_(loss.detach() * (len(chosen) / self.recipe.batch_size))
        self._wrong.add_((joint.detach().argmax(1) != targets).sum())

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


def stream_rates(recipe: TwoStreamRecipe, rate: float) -> tuple[float, float]:
    """Learning rates of the global and the local stream where the schedule gives the global one `rate`."""
    return rate, rate * recipe.lr_local / recipe.lr if recipe.lr else 0.0


class TwoStreamTrainer(Loop):
    """Trains `model` on `train`, and tests it by its joint prediction.

    Args:
        labels: true classes (N,) of the test images.
        predict: joint logits (B, C) float64 that the network as it is gives the test images of a slice.
        folder, watch, name, key: as in `Loop`.
    """

    row_type = TwoStreamRow
    model: TwoStream
    recipe: TwoStreamRecipe

    def __init__(
        self,
        model: TwoStream,
        train: FineData,
        labels: np.ndarray,
        predict: Callable[[TwoStream, slice], np.ndarray],
        recipe: TwoStreamRecipe,
        seed: int,
        folder: Path,
        device: torch.device,
        watch: Watch | None = None,
        name: str = "training",
        key: str = "",
    ) -> None:
        stepper = TwoStreamStepper(model, train, recipe, seed, device)
        super().__init__(model, stepper, recipe, len(labels), folder, watch or Watch(), name, key)
        self._labels, self._predict = torch.from_numpy(labels), predict

    def rates(self) -> dict[str, float]:
        """The learning rates of this epoch: of the global stream, and of the local one."""
        rate = epoch_rate(self.recipe, self.epoch)
        return dict(zip(("lr", "lr_local"), stream_rates(self.recipe, rate), strict=True))

    def wrong(self, part: slice) -> Tensor:
        """How many of these test images the network gets wrong; in the last epoch their logits are kept."""
        logits = torch.from_numpy(self._predict(self.model, part))
        self.keep(logits)
        return (logits.argmax(1) != self._labels[part]).sum()
