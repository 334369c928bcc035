"""The trunk of cells: five convolutions and two pools, a feature vector for every square of 4 pixels."""

from torch import Tensor, nn

from ltpa.models.families.cells import Options
from ltpa.models.plain import PlainClassifier

_CHANNELS = (16, 32, 32, 64, 64)
_POOLED = (0, 2)  # convolutions that a pool follows


class CellTrunk(nn.Module):
    """Images (N, 3, S, S) to `cells`, (N, C, S/4, S/4), under that name.

    Attributes:
        channels: C.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for index, full in enumerate(_CHANNELS):
            after = options.channels(full)
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after, options.bn_eps),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool2d(2)] if index in _POOLED else []
            before = after
        self.layers = nn.Sequential(*layers)
        self.channels = before

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The map by its name."""
        return {"cells": self.layers(x)}


def build_cells(options: Options, num_classes: int, image_size: int) -> PlainClassifier:
    """The classifier that `options` describe."""
    trunk, neck = CellTrunk(options), nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return PlainClassifier(options.plain(), num_classes, image_size, trunk, neck, trunk.channels)
