"""Training of networks over pixels: steps on -log p of whole images, one pass for all pixels."""

import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

from ltpa.models.pixels import PixelNetwork
from ltpa.training.eager import EagerStepping
from ltpa.training.loop import EpochRow, Loop, Watch
from ltpa.training.pixel_recipe import PixelRecipe

NATS_PER_BIT = math.log(2)


@dataclasses.dataclass(frozen=True)
class PixelRow(EpochRow):
    """A line of the history with bits per pixel of the test images. `train_loss` is in nats per pixel."""

    test_bits_per_dim: float

    def tested(self) -> str:
        """What the evaluation found, in words that follow others; empty where there was none."""
        return "" if math.isnan(self.test_bits_per_dim) else f", test {self.test_bits_per_dim:.3f} bits/dim"


class PixelStepper(EagerStepping):
    """Takes the steps of a network on the levels `train`, (N, H, W) int64. Sums -log p per pixel."""

    counts_errors = False
    model: PixelNetwork
    recipe: PixelRecipe

    def __init__(self, model: PixelNetwork, train: Tensor, recipe: PixelRecipe, seed: int) -> None:
        super().__init__(model, len(train), recipe, seed, train.device)
        self.train = train

    def loss(self, rows: Tensor) -> Tensor:
        """As in `EagerStepping`."""
        loss = self.model.nats(self.train[rows]).mean()
        self._loss_sum.add_(loss.detach())
        return loss


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
