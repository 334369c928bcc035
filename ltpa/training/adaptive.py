"""The updates of `torch.optim.Adam` and `RMSprop`, without the import of torch's compiler (see `sgd.py`)."""

import abc
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop

Moments = tuple[Tensor, ...]  # what one parameter's update remembers; the last one counts its updates, float32 scalar


class Adaptive(abc.ABC):
    """An update that remembers moments of each parameter's gradients.

    Args:
        weight_decay: this multiple of a parameter is added to its gradient, as torch's classes do (no decoupled decay).
        fused: one call of the device's own kernel; it reads the count of updates on the device.

    Attributes:
        velocities: the moments of each parameter; None until its first update.
    """

    shapes: int  # how many moments have the parameter's shape

    def __init__(
        self, parameters: Iterable[Tensor], eps: float = 1e-8, weight_decay: float = 0.0, fused: bool = False
    ) -> None:
        self._parameters = list(parameters)
        self._eps, self._weight_decay, self._fused = eps, weight_decay, fused
        self.velocities: list[Moments | None] = [None] * len(self._parameters)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float | Tensor) -> None:
        """Update every parameter that has a gradient, at a learning rate that is a number or is read from a tensor."""
        parameters, gradients, moments = [], [], []
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            held = self.velocities[index]
            if held is None:
                held = self.velocities[index] = self._fresh(parameter)
            parameters.append(parameter)
            gradients.append(parameter.grad)
            moments.append(held)
        if parameters:
            self._update(parameters, gradients, [list(kind) for kind in zip(*moments, strict=True)], rate)

    def reset(self) -> None:
        """Forget the moments."""
        self.velocities = [None] * len(self._parameters)

    def load(self, velocities: Sequence[Moments | None]) -> None:
        """Go on with copies of another optimiser's `velocities`."""
        self.velocities = [
            None
            if moments is None
            else (
                *(moment.detach().to(parameter.device, copy=True) for moment in moments[:-1]),
                moments[-1].detach().to(self._count_device(parameter), copy=True),
            )
            for moments, parameter in zip(velocities, self._parameters, strict=True)
        ]

    def _fresh(self, parameter: Tensor) -> Moments:
        count = torch.zeros((), dtype=torch.float32, device=self._count_device(parameter))
        return (*(torch.zeros_like(parameter) for _ in range(self.shapes)), count)

    def _count_device(self, parameter: Tensor) -> torch.device:
        return parameter.device if self._fused else torch.device("cpu")

    @abc.abstractmethod
    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], rate: float | Tensor
    ) -> None:
        """Update the parameters in place; `moments` by kind, as `Moments` orders them."""


class Adam(Adaptive):
    """Kingma and Ba 2015, as `torch.optim.Adam`.

    Args:
        betas: shares of the old means that are kept, of the gradient and of its square.
    """

    shapes = 2

    def __init__(
        self,
        parameters: Iterable[Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        super().__init__(parameters, eps, weight_decay, fused)
        self._betas = betas

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], rate: float | Tensor
    ) -> None:
        means, squares, counts = moments
        adam(
            parameters,
            gradients,
            means,
            squares,
            [],
            counts,
            foreach=False,
            fused=self._fused,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=rate,
            weight_decay=self._weight_decay,
            eps=self._eps,
            maximize=False,
        )


class RMSprop(Adaptive):
    """Tieleman and Hinton 2012, as `torch.optim.RMSprop` without momentum and without centring; rates are numbers.

    Args:
        alpha: share of the old mean of squares that is kept.
    """

    shapes = 1

    def __init__(
        self, parameters: Iterable[Tensor], alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, eps, weight_decay)
        self._alpha = alpha

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], rate: float | Tensor
    ) -> None:
        squares, counts = moments
        rmsprop(
            parameters,
            gradients,
            squares,
            [],
            [],
            counts,
            foreach=False,
            lr=cast(float, rate),
            alpha=self._alpha,
            eps=self._eps,
            weight_decay=self._weight_decay,
            momentum=0.0,
            centered=False,
            maximize=False,
        )
