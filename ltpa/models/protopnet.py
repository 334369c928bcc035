"""ProtoPNet (Chen et al. 2019): a layer of prototypes over a trunk's map, each belonging to one class."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltpa.core.errors import ModelError
from ltpa.models.blocks import in_full_precision, widened

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

_EPSILON = 1e-4


class PrototypeNetwork(nn.Module):
    """Trunk -> 1 x 1 convolutions with a sigmoid -> distances to prototypes -> one linear layer without bias.

    Prototype j belongs to class j // per_class. Maps of more than `grid` cells a side are averaged down to it. Images
    are (N, 3, S, S) as the trunk's own network takes them.

    Args:
        backbone: the network whose `local_features` are the trunk; it is used as it is, not copied.
        classes: number of classes.
        per_class: prototypes of each class.
        width: length of a prototype.
        grid: see above.
        level: layer that the prototypes look at; empty for the last.
    """

    def __init__(
        self, backbone: "AttentionClassifier", classes: int, per_class: int, width: int, grid: int, level: str = ""
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.level, self.grid, self.per_class = level, grid, per_class
        was_training = backbone.training
        with torch.no_grad():
            size, device = backbone.image_size, next(backbone.parameters()).device
            channels = self._maps(torch.zeros(2, 3, size, size, device=device)).shape[1]
        backbone.train(was_training)
        first, second = nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 1)
        for layer in (first, second):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.add_on = nn.Sequential(first, nn.ReLU(), second, nn.Sigmoid())
        self.prototypes = nn.Parameter(torch.rand(classes * per_class, width))
        self.last = nn.Linear(classes * per_class, classes, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(torch.where(self.own, 1.0, -0.5))
        self.to(device)

    @property
    def own(self) -> Tensor:
        """Which prototypes belong to which class, (classes, prototypes) bool."""
        classes, count = self.last.weight.shape
        numbers = torch.arange(count, device=self.last.weight.device)
        return numbers // self.per_class == torch.arange(classes, device=numbers.device)[:, None]

    def _maps(self, x: Tensor) -> Tensor:
        maps = self.backbone.local_features(x)
        if self.level and self.level not in maps:
            raise ModelError(
                f"protocols.patches.level: the network has no layer {self.level!r}; use one of {', '.join(maps)}"
            )
        chosen = maps[self.level or [*maps][-1]]
        return F.adaptive_avg_pool2d(chosen, self.grid) if max(chosen.shape[-2:]) > self.grid else chosen

    def latent(self, x: Tensor) -> Tensor:
        """The map that prototypes are compared with, (N, width, h, w), values in 0-1."""
        found: Tensor = self.add_on(self._maps(x))
        return found

    @in_full_precision
    def distances(self, latent: Tensor) -> Tensor:
        """Squared distance of every cell to every prototype, (N, prototypes, h, w), from `latent` maps."""
        prototypes = widened(self.prototypes)
        weights = prototypes[:, :, None, None]
        norms = latent.square().sum(dim=1, keepdim=True)
        own = prototypes.square().sum(dim=1)[None, :, None, None]
        return F.relu(norms - 2 * F.conv2d(latent, weights) + own)

    def similarity(self, distances: Tensor) -> Tensor:
        """log((d + 1) / (d + 1e-4)), which falls as the distance grows."""
        return torch.log((distances + 1) / (distances + _EPSILON))

    def similarity_maps(self, x: Tensor) -> Tensor:
        """Similarity of every cell to every prototype, (N, prototypes, h, w)."""
        return self.similarity(self.distances(self.latent(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, classes), and the least distance of each prototype in each image, (N, prototypes)."""
        least = self.distances(self.latent(x)).amin(dim=(2, 3))
        return self.last(self.similarity(least)), least
