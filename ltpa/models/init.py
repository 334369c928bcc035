"""Initial weights as the Torch7 networks had them."""

import math

from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def initialise(module: nn.Module, bn_weight: str, u_std: float) -> None:
    """Draw all weights of `module` anew from torch's global random stream.

    Convolutions: N(0, sqrt(2 / (k^2 C_out))), bias 0; u, a 1x1 convolution to one channel: N(0, u_std), bias 0. Linear:
    weight and bias U(-1, 1) / sqrt(fan_in). BatchNorm: weight U(0, 1) where `bn_weight` is `uniform`, else 1; bias 0.

    The rule for convolutions would give u a standard deviation of sqrt 2, and so it is in the published code: initial
    maps are nearly one-hot.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            if part.out_channels == 1:
                nn.init.normal_(part.weight, std=u_std)
            else:
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound)
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound)
        elif isinstance(part, _NORMS):
            if bn_weight == "uniform":
                nn.init.uniform_(part.weight, 0, 1)
            else:
                nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
