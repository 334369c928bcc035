"""Building blocks that several families share."""

from typing import Any

import torch
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """Conv 3x3 with bias, BatchNorm (eps 1e-3), ReLU and, where `dropout` > 0, element-wise dropout.

    Maps (N, in, h, w) to (N, out, h, w). The block of cifar.torch, from which the VGG networks of the paper derive.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.add_module("norm", nn.BatchNorm2d(out_channels, eps=1e-3))
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
