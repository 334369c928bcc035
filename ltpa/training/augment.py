"""Augmentation of whole batches, on the device the batch lives on.

An epoch's draws are made at once, from one stream, before its first step: a step then only reads its row of them, on
the device, so that it can be recorded as a graph, and an epoch taken up in the middle sees the same draws.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ltpa.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Draws:
    """What is drawn for the steps of an epoch, or of one step when indexed.

    Attributes:
        mirrored: (steps, batch) bool, the images to mirror.
        offset: (steps, 2) int64, top and left of the crop in the padded image, from 0 to twice the padding.
    """

    mirrored: Tensor
    offset: Tensor

    @classmethod
    def of_epoch(cls, recipe: Recipe, steps: int, generator: np.random.Generator, device: torch.device) -> "Draws":
        """Draw for `steps` steps of the recipe. `half` mirrors exactly half of each batch, rounded down."""
        mirrored = np.zeros((steps, recipe.batch_size), dtype=bool)
        if recipe.flip == "half":
            mirrored[:, : recipe.batch_size // 2] = True
            mirrored = generator.permuted(mirrored, axis=1)
        offset = generator.integers(0, 2 * recipe.crop + 1, (steps, 2))
        return cls(torch.from_numpy(mirrored).to(device), torch.from_numpy(offset).to(device))


def flip(batch: Tensor, mirrored: Tensor) -> Tensor:
    """`batch` (N, C, H, W) with the images marked in `mirrored` (N,) turned left to right.

    Source: cifar.torch's `BatchFlip`, the only augmentation of the paper's VGG routine.
    """
    return torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)


def crop(batch: Tensor, pad: int, offset: Tensor) -> Tensor:
    """Pad a batch (N, C, H, W) by reflection and cut it back at `offset` (2,), top and left, the same for all images.

    Source: the wide-resnet code the paper's ResNet routine follows.
    """
    rows, columns = (_reflected(size, pad, start) for size, start in zip(batch.shape[-2:], offset, strict=True))
    return batch.index_select(2, rows).index_select(3, columns)


def _reflected(size: int, pad: int, start: Tensor) -> Tensor:
    """Which of `size` pixels stand at `start`, `start` + 1, ... of a line padded by reflection."""
    position = (torch.arange(size, device=start.device) + start - pad).abs()
    return size - 1 - (size - 1 - position).abs()


def augment(batch: Tensor, recipe: Recipe, mirrored: Tensor, offset: Tensor) -> Tensor:
    """Apply the recipe's augmentation with one step's draws (see `Draws`)."""
    if recipe.flip == "half":
        batch = flip(batch, mirrored)
    return crop(batch, recipe.crop, offset) if recipe.crop else batch
