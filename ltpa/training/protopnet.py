"""What ProtoPNet's training is made of (Chen et al. 2019): passes, losses and the push.

First the trunk rests (warm-up), then all learns; from some epoch on prototypes are *pushed* onto the nearest cell of a
training image of their class, and the last layer is trained alone. Unlike ProtoPNet's code no image is cut out by its
object's box, and images are turned, sheared and mirrored as they come rather than in thirty copies made before.
`ltpa.core.patches` has its settings, `ltpa.training.prototypes` runs it.
"""

import enum
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ltpa.core.patches import PrototypeTraining
from ltpa.models.protopnet import PrototypeNetwork


class Kind(enum.Enum):
    """What a pass over the training images does."""

    WARM = "warm"  # added convolutions and prototypes learn
    JOINT = "joint"  # the trunk, too
    PUSH = "push"  # prototypes are set to cells of images
    LAST = "last"  # the last layer learns


class Pass(NamedTuple):
    """One pass over the training images, within an epoch counted from 1."""

    kind: Kind
    epoch: int


def passes(chosen: PrototypeTraining) -> list[Pass]:
    """All passes of a training, in order."""
    found = []
    for epoch in range(1, chosen.epochs + 1):
        found.append(Pass(Kind.WARM if epoch <= chosen.warm_epochs else Kind.JOINT, epoch))
        if chosen.pushes_after(epoch):
            found += [Pass(Kind.PUSH, epoch), *[Pass(Kind.LAST, epoch)] * chosen.last_epochs]
    return found


def losses(
    network: PrototypeNetwork, logits: Tensor, least: Tensor, labels: Tensor, chosen: PrototypeTraining
) -> Tensor:
    """Cross-entropy, cluster cost, separation cost (less is worse) and sparsity, weighed and added: a scalar."""
    own = network.own[labels]
    cluster = least.masked_fill(~own, math.inf).amin(dim=1).mean()
    separation = least.masked_fill(own, math.inf).amin(dim=1).mean()
    sparsity = network.last.weight.masked_fill(network.own, 0).abs().sum()
    crossed = F.cross_entropy(logits, labels)
    return crossed + chosen.cluster * cluster - chosen.separation * separation + chosen.sparsity * sparsity


def scaled(images: np.ndarray, size: int, device: torch.device) -> Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, size, size) float32, 0-255, on the device."""
    pixels = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float()
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return pixels


def distorted(pixels: Tensor, chosen: PrototypeTraining, generator: torch.Generator) -> Tensor:
    """Images each turned, sheared and, half of them, mirrored; bilinear, black beyond the edges."""
    count = len(pixels)
    draws = torch.rand(3, count, generator=generator, dtype=torch.float64)
    angle, shear = (2 * draws[0] - 1) * math.radians(chosen.rotation), (2 * draws[1] - 1) * math.radians(chosen.shear)
    mirror = torch.where(draws[2] < 0.5, -1.0, 1.0)
    cos, sin, slope = angle.cos(), angle.sin(), shear.tan()
    zero = torch.zeros(count, dtype=torch.float64)
    first = torch.stack([mirror * cos, mirror * (cos * slope - sin), zero], dim=1)
    second = torch.stack([sin, sin * slope + cos, zero], dim=1)
    matrices = torch.stack([first, second], dim=1).to(pixels)
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class Push:
    """Looks for the nearest cell of an image of its own class for every prototype, block by block of images.

    Images are taken as they are, by a network in eval mode. A class without images keeps its prototypes.

    Attributes:
        nearest: squared distance of the nearest cell so far, (P,).
        vectors: that cell, (P, width).
        rows: the row of its image, (P,) int64; -1 where there was none.
    """

    def __init__(self, network: PrototypeNetwork) -> None:
        self.network = network
        count, device = len(network.prototypes), network.prototypes.device
        self.nearest = torch.full((count,), math.inf, device=device)
        self.vectors = network.prototypes.detach().clone()
        self.rows = torch.full((count,), -1, device=device)

    @torch.no_grad()
    def look(self, pixels: Tensor, labels: Tensor, first: int) -> None:
        """Look at images (B, 3, S, S), 0-255, of classes `labels` (B,), which are the rows from `first` on."""
        latent = self.network.latent(self.network.backbone.preprocessing(pixels))
        distances = self.network.distances(latent).flatten(2)
        distances = distances.masked_fill(~self.network.own[labels][:, :, None], math.inf)
        cells = distances.shape[2]
        least, place = distances.transpose(0, 1).flatten(1).min(dim=1)
        closer = least < self.nearest
        image, cell = place // cells, place % cells
        self.vectors[closer] = latent.flatten(2)[image[closer], :, cell[closer]]
        self.rows[closer] = image[closer] + first
        self.nearest = torch.where(closer, least, self.nearest)

    @torch.no_grad()
    def finish(self) -> None:
        """Set the prototypes to what was found."""
        self.network.prototypes.copy_(self.vectors)

    def state_dict(self) -> dict[str, Tensor]:
        """What was found so far."""
        return {"nearest": self.nearest, "vectors": self.vectors, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what was found."""
        device = self.network.prototypes.device
        self.nearest, self.vectors, self.rows = (state[key].to(device) for key in ("nearest", "vectors", "rows"))
