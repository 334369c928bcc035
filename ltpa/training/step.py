"""One training step on the device: gather, augment, forward, backward, update, and the epoch's running sums.

Everything random is drawn from streams named by (seed, purpose, epoch); what a step depends on besides them is in
`Stepper.state_dict`. Nothing in a step waits for the device; `totals` and `finite` do.
"""

import contextlib
from typing import Any

import numpy as np
import torch

from ltpa.core.seeds import derive
from ltpa.models.base import AttentionClassifier
from ltpa.training.arrays import Arrays
from ltpa.training.augment import augment
from ltpa.training.recipe import Recipe
from ltpa.training.schedule import epoch_rate, step_rate


class Stepper:
    """Takes the steps of one run, in order, on the network `model` and the training images `train`.

    Attributes:
        optimizer: holds the momentum.
        steps_per_epoch: whole batches in one pass; the images of a last short batch are left out.
    """

    def __init__(self, model: AttentionClassifier, train: Arrays, recipe: Recipe, seed: int) -> None:
        self.model, self.train, self.recipe, self.seed = model, train, recipe, seed
        self.device = train.labels.device
        self.steps_per_epoch = len(train.labels) // recipe.batch_size
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            dampening=recipe.dampening,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=self.device)
        self._order = torch.empty(0, dtype=torch.int64)

    def enter_epoch(self, epoch: int, step: int) -> None:
        """Make ready for `epoch` from its step number `step` on; step 0 starts the epoch's sums and streams anew."""
        order = np.random.default_rng(derive(self.seed, "order", epoch)).permutation(len(self.train.labels))
        self._order = torch.from_numpy(order).to(self.device)
        self.model.train()
        if step == 0:
            self._loss_sum.zero_()
            self._wrong.zero_()
            torch.manual_seed(derive(self.seed, "dropout", epoch))
            changed = epoch > 1 and epoch_rate(self.recipe, epoch) != epoch_rate(self.recipe, epoch - 1)
            if self.recipe.reset_momentum and changed:
                self.optimizer.state.clear()

    def take(self, epoch: int, step: int) -> None:
        """Take step number `step`, counted from 0, of `epoch`."""
        for group in self.optimizer.param_groups:
            group["lr"] = step_rate(self.recipe, epoch, (epoch - 1) * self.steps_per_epoch + step)
        generator = torch.Generator().manual_seed(derive(self.seed, "augment", epoch, step))
        first = step * self.recipe.batch_size
        chosen = self._order[first : first + self.recipe.batch_size]
        inputs = augment(self.train.inputs[chosen], self.recipe, generator)
        targets = self.train.labels[chosen]
        self.optimizer.zero_grad(set_to_none=True)
        with precision(self.recipe.precision, self.device):
            loss, logits = self.model.loss_and_logits(inputs.contiguous(memory_format=torch.channels_last), targets)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self._loss_sum += loss
            self._wrong += (logits.argmax(1) != targets).sum()

    def totals(self) -> tuple[float, int]:
        """Sum of the losses and number of wrongly classified images of the epoch so far. Waits for the device."""
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
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "gpu_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "loss_sum": loss_sum,
            "wrong": wrong,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; the network's own state must have been put back before."""
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["gpu_rng"], self.device)
        self._loss_sum.fill_(state["loss_sum"])
        self._wrong.fill_(state["wrong"])


def precision(name: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Where the forward pass runs: `bf16` under autocast, `tf32` with tensor cores on float32, `fp32` without.

    Weights, losses, softmax and batch-normalisation statistics stay float32 in all of them.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    if name == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
