"""Networks small enough to check by hand, and images for them."""

import numpy as np
import torch
from torch import Tensor

from ltpa.models.base import AttentionClassifier


class LinearNetwork(AttentionClassifier):
    """logits = W x + b on the flattened raw pixels; its maps are the red and the green channel."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, size: int) -> None:
        super().__init__({"family": "linear"}, len(weight), size)
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.bias = torch.nn.Parameter(torch.tensor(bias))
        self.feature_dim = weight.shape[1]
        self.attention_levels = ("red", "green")
        self.eval()

    def local_features(self, x: Tensor) -> dict[str, Tensor]:
        return {"pixels": x}

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).to(self.weight.dtype) @ self.weight.T + self.bias

    def attention(self, x: Tensor, query: Tensor | None = None) -> dict[str, Tensor]:
        shift = 0 if query is None else query.mean(dim=(1, 2, 3))[:, None, None]
        return {"red": x[:, 0] + shift, "green": x[:, 1] + shift}


def random_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """(count, size, size, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def linear_network(size: int, classes: int = 4, seed: int = 1, scale: float = 0.01) -> LinearNetwork:
    """Random float64 weights of the given scale."""
    generator = np.random.default_rng(seed)
    return LinearNetwork(
        generator.normal(0, scale, (classes, 3 * size * size)), generator.normal(0, scale, classes), size
    )
