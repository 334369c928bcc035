"""Steps of networks that learn from rows of tensors which stay on the device: no augmentation, nothing recorded."""

import abc

import numpy as np
import torch
from torch import Tensor, nn

from ltpa.training.precision import autocast
from ltpa.training.recipe import UpdateRoutine
from ltpa.training.schedule import step_rate
from ltpa.training.stepping import Stepping
from ltpa.training.update import Update


class EagerStepping(Stepping):
    """Takes the steps of `model`, one after the other; what a step computes is the subclass's `loss`."""

    recipe: UpdateRoutine

    def __init__(self, model: nn.Module, images: int, recipe: UpdateRoutine, seed: int, device: torch.device) -> None:
        super().__init__(model, images, recipe, seed, device)
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
        self.update.zero_grad()
        with autocast(self.recipe.precision, self.device):
            loss = self.loss(torch.from_numpy(chosen).to(self.device))
        loss.backward()
        self.update.step(rate)

    @abc.abstractmethod
    def loss(self, rows: Tensor) -> Tensor:
        """The loss of these images, (B,) int64. Adds what the epoch sums."""
