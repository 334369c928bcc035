"""What all ways to train by steps share: the order of images, the epoch's running sums, and what is saved of them."""

import abc
import collections
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ltpa.core.seeds import derive
from ltpa.models.scheduled import Scheduled
from ltpa.training.recipe import Routine

# Steps handed to a GPU ahead of the one it works on; a request to stop is honoured within so many.
IN_FLIGHT = 8


class Stepping(abc.ABC):
    """Takes the steps of one run, in order, on the network `model` and `images` training images.

    Everything random is drawn from streams named by (seed, purpose, epoch); what a step depends on besides them is in
    `state_dict`. `totals` and `finite` wait for the device.

    Attributes:
        device: where the network computes.
        images_per_epoch, steps_per_epoch: of one pass; with `drop_last` the images of a last short batch are left out.
        batches: the images of each step of the epoch that was entered, int64.
        optimizers: hold momentum, or what else updates remember (`velocities`). For the subclass to set.
        smallest_batch: fewest images that a step takes.
    """

    optimizers: Sequence[Any]
    smallest_batch = 1
    counts_errors: ClassVar[bool] = True  # whether `totals` counts wrong answers; else the history has no such column

    def __init__(
        self, model: nn.Module, images: int, recipe: Routine, seed: int, device: torch.device, drop_last: bool = True
    ) -> None:
        self.model, self.images, self.recipe, self.seed, self.device = model, images, recipe, seed, device
        self.images_per_epoch = images - images % recipe.batch_size if drop_last else images
        self.steps_per_epoch = -(-self.images_per_epoch // recipe.batch_size)
        if recipe.channels_last:
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.batches: Sequence[np.ndarray] = []
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=device)
        self._flying: collections.deque[torch.cuda.Event] = collections.deque()
        self._scheduled = [module for module in model.modules() if isinstance(module, Scheduled)]

    def enter_epoch(self, epoch: int, step: int) -> None:
        """Make ready for `epoch` from its step number `step` on; step 0 starts the epoch's sums and streams anew."""
        order = self._stream("order", epoch).permutation(self.images)
        starts = range(0, self.images_per_epoch, self.recipe.batch_size)
        self.batches = [order[start : start + self.recipe.batch_size] for start in starts]
        self.model.train()
        if step == 0:
            self._loss_sum.zero_()
            self._wrong.zero_()
            torch.manual_seed(derive(self.seed, "dropout", epoch))

    def advance(self, epoch: int, step: int) -> bool:
        """Tell the network's scheduled modules that step number `step` of `epoch` comes next.

        Returns whether the step is another computation than the one before.
        """
        share = ((epoch - 1) * self.steps_per_epoch + step) / (self.recipe.epochs * self.steps_per_epoch)
        changes = [module.advance(share) for module in self._scheduled]
        return any(changes)

    @abc.abstractmethod
    def take(self, epoch: int, step: int) -> None:
        """Take step number `step`, counted from 0, of `epoch`; `advance` first."""

    @abc.abstractmethod
    def rehearse(self, images: int) -> None:
        """Take a step on so many images, for the memory that a real one needs; what it leaves is of no further use."""

    def totals(self) -> tuple[float, int]:
        """Sum of the batches' losses and number of wrongly classified images of the epoch so far; waits for the device.

        A short batch counts by its share of a whole one.
        """
        return float(self._loss_sum), int(self._wrong)

    def finite(self) -> bool:
        """Whether the losses of the epoch so far and all of the network's state are finite. Waits for the device."""
        values = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        flags = [self._loss_sum.isfinite(), *(value.isfinite().all() for value in values)]
        return bool(torch.stack(flags).all())

    def state_dict(self) -> dict[str, Any]:
        """All that the remaining steps depend on, apart from the network's own state: tensors and plain values."""
        loss_sum, wrong = self.totals()
        return {
            "velocities": [optimizer.velocities for optimizer in self.optimizers],
            "rng": torch.get_rng_state(),
            "gpu_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "loss_sum": loss_sum,
            "wrong": wrong,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; the network's own state must have been put back before."""
        for optimizer, velocities in zip(self.optimizers, state["velocities"], strict=True):
            optimizer.load(velocities)
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["gpu_rng"], self.device)
        self._loss_sum.fill_(state["loss_sum"])
        self._wrong.fill_(state["wrong"])

    def _stream(self, purpose: str, *place: int) -> np.random.Generator:
        return np.random.default_rng(derive(self.seed, purpose, *place))

    def _limit_lead(self) -> None:
        """Wait until a GPU is no more than `IN_FLIGHT` steps behind."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        self._flying.append(event)
        if len(self._flying) > IN_FLIGHT:
            self._flying.popleft().synchronize()
