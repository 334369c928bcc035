"""Training of ProtoPNet's prototypes on whole images (Chen et al. 2019; settings of its released code).

First the trunk rests (warm-up), then all learns; from some epoch on prototypes are *pushed* onto the nearest cell of a
training image of their class, and the last layer is trained alone. Unlike the released code no image is cut out by its
object's box, and images are turned, sheared and mirrored as they come rather than in thirty copies made before.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ltpa.core.errors import ConfigError, TrainingError
from ltpa.core.seeds import derive
from ltpa.models.protopnet import PrototypeNetwork

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@dataclasses.dataclass(frozen=True)
class PrototypeTraining:
    """Settings of the training.

    Attributes:
        per_class: prototypes of each class.
        width: length of a prototype.
        epochs: in all.
        warm_epochs: of them, those in which the trunk rests.
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
    """

    per_class: int = 10
    width: int = 128
    epochs: int = 120
    warm_epochs: int = 10
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


def train(
    backbone: "AttentionClassifier", images: np.ndarray, labels: np.ndarray, classes: int,
    chosen: PrototypeTraining, seed: int, grid: int, level: str = "",
) -> tuple[PrototypeNetwork, list[float]]:  # fmt: skip
    """Prototypes over a trunk, trained on images (N, H, W, 3) uint8 with labels (N,), and the mean loss of each epoch.

    `backbone` itself is changed. Ends in eval mode, its prototypes pushed.

    Raises:
        ConfigError: there is only one class, so that no prototype is of another.
        TrainingError: the loss stopped being finite.
    """
    if classes < 2:
        raise ConfigError("patches: mode protopnet needs two classes or more; choose protolite")
    torch.manual_seed(derive(seed, "protopnet", "weights"))
    network = PrototypeNetwork(backbone, classes, chosen.per_class, chosen.width, grid, level)
    device = network.prototypes.device
    generator = torch.Generator().manual_seed(derive(seed, "protopnet", "images"))
    targets = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
    added = {"params": network.add_on.parameters(), "lr": chosen.add_on_lr, "weight_decay": chosen.weight_decay}
    prototypes = {"params": [network.prototypes], "lr": chosen.add_on_lr}
    trunk = {"params": backbone.parameters(), "lr": chosen.trunk_lr, "weight_decay": chosen.weight_decay}
    warm, joint = torch.optim.Adam([dict(added), dict(prototypes)]), torch.optim.Adam([trunk, added, prototypes])
    schedule = torch.optim.lr_scheduler.StepLR(joint, chosen.decay_every, 0.1)
    last = torch.optim.Adam([{"params": network.last.parameters(), "lr": chosen.last_lr}])
    history = []
    for epoch in range(1, chosen.epochs + 1):
        warming = epoch <= chosen.warm_epochs
        network.train()
        backbone.train(not warming)
        history.append(_pass(network, images, targets, chosen, warm if warming else joint, generator))
        if not warming:
            schedule.step()
        if chosen.pushes_after(epoch):
            push(network, images, labels, chosen.batch_size)
            for _ in range(chosen.last_epochs):
                network.eval()
                _pass(network, images, targets, chosen, last, generator)
    return network.eval(), history


def _pass(
    network: PrototypeNetwork,
    images: np.ndarray,
    targets: Tensor,
    chosen: PrototypeTraining,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    """One pass over all images in random order; only what the optimiser holds learns. Gives the mean loss."""
    held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in held)
    total = 0.0
    order = torch.randperm(len(images), generator=generator)
    for rows in order.split(chosen.batch_size):
        pixels = distorted(_pixels(network, images, rows.numpy()), chosen, generator)
        labels = targets[rows.to(targets.device)]
        logits, least = network(network.backbone.preprocessing(pixels))
        loss = losses(network, logits, least, labels, chosen)
        if not torch.isfinite(loss):
            raise TrainingError("patches: the loss of protopnet is not finite; lower protocols.patches.protopnet rates")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(rows)
    return total / len(images)


def _pixels(network: PrototypeNetwork, images: np.ndarray, rows: np.ndarray) -> Tensor:
    """Images as (B, 3, S, S) float32, 0-255, S the trunk's input size, on its device."""
    device = network.prototypes.device
    pixels = torch.from_numpy(np.array(images[rows])).to(device).permute(0, 3, 1, 2).float()
    size = network.backbone.image_size
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


@torch.no_grad()
def push(network: PrototypeNetwork, images: np.ndarray, labels: np.ndarray, batch_size: int) -> np.ndarray:
    """Set every prototype to the nearest cell of an image of its own class; gives the rows of these images, (P,).

    Images are taken as they are. A class without images keeps its prototypes, with row -1.
    """
    network.eval()
    count = len(network.prototypes)
    nearest = torch.full((count,), math.inf, device=network.prototypes.device)
    vectors, rows = network.prototypes.clone(), torch.full((count,), -1, device=nearest.device)
    own = network.own
    for start in range(0, len(images), batch_size):
        block = np.arange(start, min(start + batch_size, len(images)))
        latent = network.latent(network.backbone.preprocessing(_pixels(network, images, block)))
        distances = network.distances(latent).flatten(2)
        classes = torch.from_numpy(np.array(labels[block], dtype=np.int64)).to(nearest.device)
        distances = distances.masked_fill(~own[classes][:, :, None], math.inf)
        cells = distances.shape[2]
        least, place = distances.transpose(0, 1).flatten(1).min(dim=1)
        closer = least < nearest
        image, cell = place // cells, place % cells
        vectors[closer] = latent.flatten(2)[image[closer], :, cell[closer]]
        rows[closer] = image[closer] + start
        nearest = torch.where(closer, least, nearest)
    network.prototypes.copy_(vectors)
    return rows.cpu().numpy()
