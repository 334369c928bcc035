"""Building blocks that several families share."""

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

_Given = ParamSpec("_Given")


class ConvBlock(nn.Sequential):
    """Conv 3x3 with bias, BatchNorm, ReLU and, where `dropout` > 0, element-wise dropout.

    Maps (N, in, h, w) to (N, out, h, w). The block of cifar.torch, from which the VGG networks of the paper derive.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float, bn_eps: float) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.add_module("norm", nn.BatchNorm2d(out_channels, eps=bn_eps))
        self.add_module("relu", nn.ReLU(inplace=True))
        if dropout:
            self.add_module("dropout", nn.Dropout(dropout))


def max_pool(size: int) -> nn.MaxPool2d:
    """Max pooling with stride equal to its window, rounding sizes up."""
    return nn.MaxPool2d(size, ceil_mode=True)


def normalised_vector(channels: int, dropout: float) -> nn.Sequential:
    """BatchNorm, ReLU, dropout on vectors (N, channels): what stands before the linear layers after attention."""
    return nn.Sequential(nn.BatchNorm1d(channels), nn.ReLU(inplace=True), nn.Dropout(dropout))


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant; 0 gives exact zeros, even of infinities."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        return gradient * ctx.factor if ctx.factor else torch.zeros_like(gradient), None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself; the gradient that flows back through it is multiplied by `factor`."""
    return x if factor == 1 else _ScaleGradient.apply(x, factor)


def widened(x: Tensor) -> Tensor:
    """`x` in float32 where its floating point has less precision than that, else `x` itself."""
    return x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x


def in_full_precision(compute: Callable[_Given, Tensor]) -> Callable[_Given, Tensor]:
    """Decorates a method that computes scores: its tensor arguments are `widened`, and autocast is off inside.

    A score is a sum over hundreds of channels. In float16 it overflows beyond 65,504, and its softmax is then not a
    number. Parameters that the method reads are for itself to widen.
    """

    @wraps(compute)
    def computed(*args: _Given.args, **kwargs: _Given.kwargs) -> Tensor:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        wide: Any = [widened(value) if isinstance(value, Tensor) else value for value in args]
        # The meta device, which has no numbers, has no autocast either.
        known = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if known else contextlib.nullcontext():
            return compute(*wide, **kwargs)

    return computed
