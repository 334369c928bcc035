"""Augmentation of whole batches, on the device the batch lives on."""

import torch
from torch import Tensor
from torch.nn import functional

from ltpa.training.recipe import Recipe


def flip_half(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror exactly half (rounded down) of a batch (N, C, H, W) left to right, images chosen at random.

    Source: cifar.torch's `BatchFlip`, the only augmentation of the paper's VGG routine.
    """
    chosen = torch.randperm(len(batch), generator=generator)[: len(batch) // 2].to(batch.device)
    batch[chosen] = batch[chosen].flip(-1)
    return batch


def crop_batch(batch: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Pad a batch (N, C, H, W) by reflection and cut it back at one random offset for all images.

    Source: the wide-resnet code the paper's ResNet routine follows.
    """
    top, left = torch.randint(0, 2 * pad + 1, (2,), generator=generator).tolist()
    height, width = batch.shape[-2:]
    padded = functional.pad(batch, (pad, pad, pad, pad), mode="reflect")
    return padded[..., top : top + height, left : left + width]


def augment(batch: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Apply the recipe's augmentation to a batch that the caller owns (it may be changed in place)."""
    if recipe.flip == "half":
        batch = flip_half(batch, generator)
    if recipe.crop:
        batch = crop_batch(batch, recipe.crop, generator)
    return batch
