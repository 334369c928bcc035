"""Training of networks over pixels: steps on -log p of whole images, one pass for all pixels."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltpa.models.pixels import PixelNetwork
from ltpa.training.loop import EpochRow, Loop, Watch
from ltpa.training.pixel_recipe import PixelRecipe
from ltpa.training.precision import autocast
from ltpa.training.schedule import epoch_rate, step_rate
from ltpa.training.stepping import Stepping
from ltpa.training.update import Update

NATS_PER_BIT = math.log(2)


@dataclasses.dataclass(frozen=True)
class PixelRow(EpochRow):
    """A line of the history with bits per pixel of the test images. `train_loss` is in nats per pixel."""

    test_bits_per_dim: float

    def tested(self) -> str:
        """What the evaluation found, in words that follow others; empty where there was none."""
        return "" if math.isnan(self.test_bits_per_dim) else f", test {self.test_bits_per_dim:.3f} bits/dim"


class PixelStepper(Stepping):
    """Takes the steps of a network on the levels `train`, (N, H, W) int64. Sums -log p per pixel."""

    counts_errors = False
    model: PixelNetwork
    recipe: PixelRecipe

    def __init__(self, model: PixelNetwork, train: Tensor, recipe: PixelRecipe, seed: int) -> None:
        super().__init__(model, len(train), recipe, seed, train.device)
        self.train = train
        self.update = Update(model, recipe)
        self.optimizers = self.update.optimizers

    def take(self, epoch: int, step: int) -> None:
        """Take step number `step`, counted from 0, of `epoch`."""
        self.advance(epoch, step)
        done = (epoch - 1) * self.steps_per_epoch + step
        self._compute(self.batches[step], step_rate(self.recipe, done, self.steps_per_epoch))
        self._limit_lead()

    def rehearse(self, images: int) -> None:
        """Take a step on the first image so many times."""
        self._compute(np.zeros(images, dtype=np.int64), 0.0)

    def _compute(self, chosen: np.ndarray, rate: float) -> None:
        pixels = self.train[torch.from_numpy(chosen).to(self.device)]
        self.update.zero_grad()
        with autocast(self.recipe.precision, self.device):
            loss = self.model.nats(pixels).mean()
        loss.backward()
        self.update.step(rate)
        self._loss_sum.add_(loss.detach())


class PixelTrainer(Loop):
    """Trains `model` on levels `train`, and measures bits per pixel of the levels `test`, both (N, H, W) int64.

    `outputs` are -log p (N, H W) in nats of the test images' pixels.

    Args:
        folder, watch, name, key: as in `Loop`.
    """

    row_type, measure = PixelRow, "test_bits_per_dim"
    model: PixelNetwork
    recipe: PixelRecipe

    def __init__(
        self,
        model: PixelNetwork,
        train: Tensor,
        test: Tensor,
        recipe: PixelRecipe,
        seed: int,
        folder: Path,
        watch: Watch | None = None,
        name: str = "training",
        key: str = "",
    ) -> None:
        stepper = PixelStepper(model, train, recipe, seed)
        super().__init__(model, stepper, recipe, len(test), folder, watch or Watch(), name, key)
        self.test = test

    def rates(self) -> dict[str, float]:
        """The learning rate of this epoch."""
        return {"lr": epoch_rate(self.recipe, self.epoch)}

    @torch.no_grad()
    def wrong(self, part: slice) -> Tensor:
        """The nats of these test images; in the last epoch those of their pixels are kept."""
        was_training = self.model.training
        nats = self.model.eval().nats(self.test[part]).flatten(1)
        self.model.train(was_training)
        self.keep(nats)
        return nats.double().sum()

    def measured(self, total: float) -> float:
        """Bits per pixel from the nats of all test images."""
        return total / NATS_PER_BIT / self.test.numel()
