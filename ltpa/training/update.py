"""One update of a network's weights as its recipe wants it: optimiser, rates and decay by name, largest gradient."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ltpa.core.errors import ConfigError
from ltpa.training.adaptive import Adam, RMSprop
from ltpa.training.recipe import UpdateRoutine
from ltpa.training.sgd import SGD


class Optimizer(Protocol):
    """What updates some parameters; `velocities` is what it remembers of each, None at first."""

    velocities: list[Any]

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def step(self, rate: float | Tensor) -> None:
        """Update every parameter that has a gradient, at this rate."""

    def reset(self) -> None:
        """Forget all velocities."""

    def load(self, velocities: Sequence[Any]) -> None:
        """Go on with copies of another optimiser's `velocities`."""


class Update:
    """The update of all parameters of `model` by `recipe`.

    Attributes:
        optimizers: one for each pair of rate and decay; a single one over all parameters, in the network's order, where
            the recipe names none.

    Raises:
        ConfigError: a prefix of the recipe fits no parameter.
    """

    def __init__(self, model: nn.Module, recipe: UpdateRoutine) -> None:
        self._recipe = recipe
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        named = dict(model.named_parameters())
        for key, prefixes in (("rates", recipe.rates), ("no_decay", recipe.no_decay)):
            for prefix in prefixes:
                if not any(name.startswith(prefix) for name in named):
                    known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in named))
                    raise ConfigError(
                        f"recipe key '{key}': no parameter's name begins with {prefix!r}; names begin with {known}"
                    )
        for name, parameter in named.items():
            fitting = [prefix for prefix in recipe.rates if name.startswith(prefix)]
            factor = recipe.rates[max(fitting, key=len)] if fitting else 1.0
            decays = not name.startswith(recipe.no_decay)
            groups.setdefault((factor, decays), []).append(parameter)
        self._parameters = list(named.values())
        self._factors = [factor for factor, _ in groups]
        self.optimizers = [
            _optimizer(parameters, recipe, recipe.weight_decay if decays else 0.0)
            for (_, decays), parameters in groups.items()
        ]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self, rate: float | Tensor) -> None:
        """Update all parameters that have a gradient; `rate` is that of parameters without a factor.

        Does not wait for the device.
        """
        if self._recipe.clip:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip)
        for optimizer, factor in zip(self.optimizers, self._factors, strict=True):
            optimizer.step(rate if factor == 1 else rate * factor)

    def reset(self) -> None:
        """Forget all velocities."""
        for optimizer in self.optimizers:
            optimizer.reset()


def _optimizer(parameters: list[nn.Parameter], recipe: UpdateRoutine, weight_decay: float) -> Optimizer:
    if recipe.optimizer == "adam":
        first, second = recipe.betas
        return Adam(parameters, (first, second), recipe.eps, weight_decay, recipe.fused)
    if recipe.optimizer == "rmsprop":
        return RMSprop(parameters, recipe.alpha, recipe.eps, weight_decay)
    return SGD(
        parameters,
        momentum=recipe.momentum,
        dampening=recipe.dampening,
        nesterov=recipe.nesterov,
        weight_decay=weight_decay,
        fused=recipe.fused,
    )
