"""Sanity check of maps by randomised parameters (Adebayo et al., NeurIPS 2018), for networks with trained attention.

A map that says something of what a network has learnt must change when its weights are drawn anew. Parts are drawn anew
one after the other from the output back (cascading), and each alone (independent): the head, what computes the global
vector, the attention units, the trunk in four quarters.

Attention does not depend on the class, so the head cannot move it: that correlation is exactly 1. And so is that of the
global branch under pc scores and a softmax, in which the global vector cancels.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltpa.core.seeds import derive
from ltpa.evaluation.inference import log_attention_maps
from ltpa.evaluation.map_controls import own_map_of
from ltpa.evaluation.map_statistics import spearman
from ltpa.evaluation.maps import network_maps
from ltpa.models.foreign import Foreign, has_own, redraw
from ltpa.models.init import initialise

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

HEAD, BRANCH, UNITS, TRUNK = "head", "branch", "units", "trunk"
QUARTERS = 4
STEPS = (HEAD, BRANCH, UNITS, *(f"trunk{quarter}" for quarter in range(QUARTERS, 0, -1)))  # from the output back


class Layer(NamedTuple):
    """A module with parameters of its own, and the step in which it is drawn anew."""

    step: str
    module: nn.Module


def layers(model: "AttentionClassifier") -> list[Layer]:
    """The layers in the order in which images pass.

    A quarter of the trunk is a quarter of its convolutions with the layers after each.
    """
    parts = [
        (role, module)
        for role, part in model.flow()
        for module in ([part] if isinstance(model, Foreign) else part.modules())
        if has_own(module)
    ]
    convolutions = sum(role == TRUNK and isinstance(module, nn.Conv2d) for role, module in parts)
    found, passed = [], 0
    for role, module in parts:
        if role == TRUNK:
            passed += isinstance(module, nn.Conv2d)
            role = f"trunk{1 + QUARTERS * max(passed - 1, 0) // convolutions}"
        found.append(Layer(role, module))
    return found


def randomised(
    model: "AttentionClassifier", steps: Sequence[str], seed: int, images: np.ndarray, batch_size: int
) -> "AttentionClassifier":
    """A copy of `model` with the weights of `steps` drawn anew, each from a stream of its own, as before training.

    The statistics of batch normalisation that this changes, those from the first redrawn layer on, are estimated anew
    on `images` (N, H, W, 3) uint8; maps would saturate otherwise.
    """
    other = copy.deepcopy(model)
    found = layers(other)
    for step in steps:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "randomised", step))
            for layer in found:
                if layer.step != step:
                    continue
                if isinstance(model, Foreign):
                    redraw(layer.module)
                else:
                    initialise(layer.module, model.architecture["bn_weight"], model.architecture["u_std"])
    first = min((number for number, layer in enumerate(found) if layer.step in steps), default=len(found))
    norms = [layer.module for layer in found[first:] if layer.step != HEAD and isinstance(layer.module, _BatchNorm)]
    if norms:
        _estimate(other, norms, images, batch_size)
    return other


def _estimate(model: "AttentionClassifier", norms: Sequence[_BatchNorm], images: np.ndarray, batch_size: int) -> None:
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    compared_maps(model, images, batch_size)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()


def compared_maps(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """The maps (N, h, w) that are compared, by level: logarithms of attention, which are in the order of its weights.

    A network that is not of this package has one, that of a given function or Grad-CAM, by the name of its kind.
    """
    if not isinstance(model, Foreign):
        return log_attention_maps(model, images, batch_size)
    found = network_maps(model, images, batch_size)
    kind = own_map_of(found, None)
    return {kind: found[kind].astype(np.float64)}


def correlations(maps: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Spearman's rank correlation (N,) of maps (N, h, w) with others, by level; not a number for a constant map."""
    return {
        level: spearman(*(torch.from_numpy(each.reshape(len(each), -1)) for each in (own, others[level]))).numpy()
        for level, own in maps.items()
    }


def of_other_images(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The null: correlations (N,) of each map with that of the image half the set further on, by level."""
    return correlations(maps, {level: np.roll(own, -(len(own) // 2), axis=0) for level, own in maps.items()})


def of_randomised(
    model: "AttentionClassifier",
    maps: dict[str, np.ndarray],
    images: np.ndarray,
    statistics: np.ndarray,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Correlations (N,) by level of the maps of images with those of the network after each step.

    They are called `cascade_<step>`, everything from the output to that step drawn anew, and `alone_<step>`, which is
    left out where the network has no such layer.

    Args:
        maps: by level the logarithms of its own maps of `images`.
        images: (N, H, W, 3) uint8.
        statistics: training images for batch normalisation, (M, H, W, 3) uint8.
        batch_size: images per pass.
        seed: of the draw.
    """
    present = {layer.step for layer in layers(model)}
    for number, step in enumerate(STEPS):
        for mode, chosen in (("cascade", STEPS[: number + 1]), ("alone", (step,))):
            if mode == "cascade" or step in present:
                other = randomised(model, chosen, seed, statistics, batch_size)
                yield f"{mode}_{step}", correlations(maps, compared_maps(other, images, batch_size))
