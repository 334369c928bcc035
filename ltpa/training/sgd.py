"""The update of `torch.optim.SGD`, without the second of processor time that making one takes.

`torch.optim.SGD` imports torch's compiler when it is made; its arithmetic, `torch.optim.sgd.sgd`, does not. A process
that trains for a few seconds, as in the demo, would spend a noticeable part of them on that import.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class SGD:
    """Stochastic gradient descent with momentum on `parameters`; arguments mean what they mean to `torch.optim.SGD`.

    Attributes:
        velocities: the momentum buffer of each parameter; None until its first update.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        self._parameters = list(parameters)
        self._momentum, self._dampening, self._nesterov = momentum, dampening, nesterov
        self._weight_decay, self._fused = weight_decay, fused
        self.velocities: list[Tensor | None] = [None] * len(self._parameters)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float | Tensor) -> None:
        """Update every parameter that has a gradient, at a learning rate that is a number or is read from a tensor."""
        chosen = [index for index, parameter in enumerate(self._parameters) if parameter.grad is not None]
        velocities = [self.velocities[index] for index in chosen]
        sgd(
            [self._parameters[index] for index in chosen],
            [gradient for index in chosen if (gradient := self._parameters[index].grad) is not None],
            velocities,
            fused=self._fused,
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=cast(float, rate),  # a tensor is taken, too, if fused
            dampening=self._dampening,
            nesterov=self._nesterov,
            maximize=False,
        )
        for index, velocity in zip(chosen, velocities, strict=True):
            self.velocities[index] = velocity

    def reset(self) -> None:
        """Forget the velocities; the next update takes the gradient undampened, as the first one did."""
        self.velocities = [None] * len(self._parameters)

    def load(self, velocities: Sequence[Tensor | None]) -> None:
        """Go on with copies of another optimiser's `velocities`."""
        self.velocities = [
            None if velocity is None else velocity.detach().to(parameter.device, copy=True)
            for velocity, parameter in zip(velocities, self._parameters, strict=True)
        ]
