"""One training step on the device: gather, augment, forward, backward, update, and the epoch's running sums.

A step reads what changes from step to step (images chosen, draws, rate) from tensors that stay where they are, and
writes its sums into such tensors. The same code is therefore run directly, compiled, or recorded as a CUDA graph.
"""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltpa.core.errors import TrainingError
from ltpa.models.base import AttentionClassifier
from ltpa.training.arrays import Arrays
from ltpa.training.augment import Draws, augment
from ltpa.training.graph import StepGraph
from ltpa.training.precision import autocast, tensor_cores
from ltpa.training.recipe import Recipe
from ltpa.training.schedule import epoch_rate, step_rate
from ltpa.training.stepping import Stepping
from ltpa.training.update import Update


class Stepper(Stepping):
    """Takes the steps of a network of `ltpa.models` on the training images `train`.

    Attributes:
        update: changes the weights.
    """

    model: AttentionClassifier
    recipe: Recipe
    smallest_batch = 2  # batch normalisation of one vector is not defined

    def __init__(self, model: AttentionClassifier, train: Arrays, recipe: Recipe, seed: int) -> None:
        super().__init__(model, len(train.labels), recipe, seed, train.labels.device)
        self.train = train
        self._chosen = torch.zeros(recipe.batch_size, dtype=torch.int64, device=self.device)
        self._mirrored = torch.zeros(recipe.batch_size, dtype=torch.bool, device=self.device)
        self._offset = torch.zeros(2, dtype=torch.int64, device=self.device)
        self._rate = torch.zeros((), device=self.device)  # read by an update that reads it
        self._told_rate = 0.0
        self.update = Update(model, recipe)
        self.optimizers = self.update.optimizers
        if recipe.compile:
            require_compiler(self.device)
        self._losses = _compiled_losses() if recipe.compile else _losses
        graphed = recipe.cuda_graph and self.device.type == "cuda"
        self._graph = StepGraph(self.device) if graphed else None

    def enter_epoch(self, epoch: int, step: int) -> None:
        """Make ready for `epoch` from its step number `step` on; step 0 starts the epoch's sums and streams anew."""
        super().enter_epoch(epoch, step)
        self._order = torch.from_numpy(np.stack(self.batches)).to(self.device)
        self._draws = Draws.of_epoch(self.recipe, self.steps_per_epoch, self._stream("augment", epoch), self.device)
        if step == 0:
            changed = epoch > 1 and epoch_rate(self.recipe, epoch) != epoch_rate(self.recipe, epoch - 1)
            if self.recipe.reset_momentum and changed:
                self.update.reset()
                self._forget_graph()

    def take(self, epoch: int, step: int) -> None:
        """Take step number `step`, counted from 0, of `epoch`. Does not wait for the device to finish it."""
        if self.advance(epoch, step):
            self._forget_graph()
        self._chosen.copy_(self._order[step])
        self._mirrored.copy_(self._draws.mirrored[step])
        self._offset.copy_(self._draws.offset[step])
        # Rounded to float32 here, so that the rate is one number, read from a tensor or handed over.
        rate = float(
            np.float32(step_rate(self.recipe, (epoch - 1) * self.steps_per_epoch + step, self.steps_per_epoch))
        )
        if self.recipe.reads_rate:
            self._rate.fill_(rate)
        else:
            self._told_rate = rate
        if self._graph is None:
            self._compute()
        else:
            self._graph.run(self._compute)
        self._limit_lead()

    def rehearse(self, images: int) -> None:
        """Take a step on the first image so many times, directly: generated code of another size would take minutes."""
        self._forget_graph()
        self._chosen = torch.zeros(images, dtype=torch.int64, device=self.device)
        self._mirrored = torch.zeros(images, dtype=torch.bool, device=self.device)
        self._losses = _losses
        self._compute()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; the network's own state must have been put back before."""
        super().load_state_dict(state)
        self._forget_graph()

    def _compute(self) -> None:
        """The step itself. All it reads and writes stays in place, and nothing in it waits for the device."""
        self.update.zero_grad()
        with tensor_cores(self.recipe.precision == "tf32"):
            with autocast(self.recipe.precision, self.device):
                loss, wrong = self._losses(
                    self.model, self.recipe, self.train, self._chosen, self._mirrored, self._offset
                )
            loss.backward()
        self.update.step(self._rate if self.recipe.reads_rate else self._told_rate)
        self._loss_sum.add_(loss.detach())
        self._wrong.add_(wrong)

    def _forget_graph(self) -> None:
        """Velocities are new tensors from here on; the first update after a reset takes the gradient undampened."""
        if self._graph is not None:
            self._graph.forget()


def _losses(
    model: AttentionClassifier, recipe: Recipe, train: Arrays, chosen: Tensor, mirrored: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss on the augmented images `chosen` of `train`, and how many of them are classified wrongly."""
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    images = augment(train.images.index_select(0, chosen), recipe, mirrored, offset)
    inputs = train.inputs(images).contiguous(memory_format=layout)
    targets = train.labels.index_select(0, chosen)
    loss, logits = model.loss_and_logits(inputs, targets)
    return loss, (logits.detach().argmax(1) != targets).sum()


def require_compiler(device: torch.device) -> None:
    """Raise `TrainingError` unless what torch generates for `device` can be compiled here."""
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise TrainingError(
            f"compile: true needs a C++ compiler, and there is no {compiler}; install it, or leave it out"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise TrainingError("compile: true needs the package triton on a GPU; install it, or leave the key out")


@functools.cache
def _compiled_losses() -> Callable[..., tuple[Tensor, Tensor]]:
    """`_losses` as generated code; one for the process, so that a second seed of a network finds it ready."""
    return torch.compile(_losses, fullgraph=True, dynamic=False)
