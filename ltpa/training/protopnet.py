"""What ProtoPNet's training is made of (Chen et al. 2019): passes, losses, the push, and two named sets of settings.

First the trunk rests (warm-up), then all learns; from some epoch on prototypes are *pushed* onto the nearest cell of a
training image of their class, and the last layer is trained alone. Unlike ProtoPNet's code no image is cut out by its
object's box, and images are turned, sheared and mirrored as they come rather than in thirty copies made before.
`ltpa.training.prototypes` runs it.
"""

import dataclasses
import enum
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ltpa.core.errors import ConfigError
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


@dataclasses.dataclass(frozen=True)
class PrototypeTraining:
    """Settings of the training. The defaults are the set `st-protopnet` of `ROUTINES`.

    Attributes:
        per_class: prototypes of each class.
        width: length of a prototype.
        epochs: in all.
        warm_epochs: of them, those in which the trunk rests.
        freeze_norm: whether the trunk's normalisation and dropout rest, too, whenever its weights do.
        first_push: epoch after which prototypes are first pushed; they are after the last one in any case.
        push_every: epochs between pushes.
        last_epochs: passes of the last layer alone after each push.
        batch_size: images per step.
        trunk_lr: rate of the trunk, by Adam like all rates.
        add_on_lr: rate of the added convolutions and of the prototypes.
        last_lr: rate of the last layer.
        weight_decay: of trunk and added convolutions.
        decay_every: joint epochs after which the rates of trunk, convolutions and prototypes fall to a tenth.
        cluster: weight of the mean least distance to a prototype of the image's own class.
        separation: weight of the mean least distance to one of another class, which is to be large.
        sparsity: weight of the last layer's absolute weights between prototypes and other classes.
        rotation: most degrees an image is turned either way.
        shear: most degrees it is sheared either way.
        checkpoint_seconds: seconds between saved states; without effect on the result.
    """

    per_class: int = 10
    width: int = 128
    epochs: int = 120
    warm_epochs: int = 10
    freeze_norm: bool = True
    first_push: int = 100
    push_every: int = 10
    last_epochs: int = 20
    batch_size: int = 80
    trunk_lr: float = 1e-4
    add_on_lr: float = 3e-3
    last_lr: float = 1e-4
    weight_decay: float = 1e-3
    decay_every: int = 10
    cluster: float = 0.8
    separation: float = 0.08
    sparsity: float = 1e-4
    rotation: float = 25.0
    shear: float = 15.0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        counts = ("per_class", "width", "epochs", "push_every", "batch_size", "decay_every")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 0 or (field.name in counts and value < 1):
                raise ConfigError(f"patches.protopnet: {field.name} is {value}; it must be positive")
        if self.warm_epochs > self.epochs:
            raise ConfigError(f"patches.protopnet: warm_epochs is {self.warm_epochs} of {self.epochs} epochs")

    def pushes_after(self, epoch: int) -> bool:
        """Whether prototypes are pushed after `epoch`, the first of which is 1."""
        due = epoch >= self.first_push and (epoch - self.first_push) % self.push_every == 0
        return due or epoch == self.epochs

    def passes(self) -> list[Pass]:
        """All passes of the training, in order."""
        found = []
        for epoch in range(1, self.epochs + 1):
            found.append(Pass(Kind.WARM if epoch <= self.warm_epochs else Kind.JOINT, epoch))
            if self.pushes_after(epoch):
                found += [Pass(Kind.PUSH, epoch), *[Pass(Kind.LAST, epoch)] * self.last_epochs]
        return found

    def decay(self, epoch: int) -> float:
        """What the rates of trunk, convolutions and prototypes are multiplied with in a joint `epoch`."""
        return float(0.1 ** ((epoch - self.warm_epochs - 1) // self.decay_every))


# The sets that `protocols.patches.protopnet.routine` names: what each changes in the defaults.
# `st-protopnet`: epochs, warm-up, pushes, steps of the rate and distortions of ST-ProtoPNet (Wang et al. 2023) for
# whole images; losses, rates and passes of the last layer of ProtoPNet; `freeze_norm` is our own.
# `protopnet`: the settings of ProtoPNet's own code.
ROUTINES: dict[str, dict[str, Any]] = {
    "st-protopnet": {},
    "protopnet": {
        "epochs": 1000, "warm_epochs": 5, "freeze_norm": False, "first_push": 10, "decay_every": 5, "rotation": 15.0,
        "shear": 10.0,
    },
}  # fmt: skip


def routine_settings(routine: str = "st-protopnet", **changes: Any) -> dict[str, Any]:
    """The settings of a named set with `changes` laid over them, as `PrototypeTraining` takes them.

    Raises:
        ConfigError: there is no such set.
    """
    if routine not in ROUTINES:
        raise ConfigError(f"patches.protopnet: routine is {routine!r}; allowed: {', '.join(ROUTINES)}")
    return {**ROUTINES[routine], **changes}


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
