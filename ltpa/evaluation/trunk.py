"""What patch extraction reads of a network: the map of one of its layers, and saliency maps made of it.

Any network will do that has `local_features` (`ltpa.models.base`). Rows are in the order of the images.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltpa.core.errors import ModelError
from ltpa.evaluation.inference import class_activation_maps, pixel_batches
from ltpa.evaluation.saliency import COMBINED, Saliency

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

MEAN, CAM, GRADCAM, ATTENTION = "mean", "cam", "gradcam", "attention"
MAPS = (MEAN, CAM, GRADCAM, ATTENTION)


def feature_maps(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int, grid: int, level: str = ""
) -> Iterator[np.ndarray]:
    """Batches of the map of layer `level` (default: the last), (B, C, h, w) float32; h and w are at most `grid`.

    Larger maps are averaged down to `grid` x `grid` cells.

    Raises:
        ModelError: the network has no such layer.
    """
    for pixels in pixel_batches(model, images, batch_size):
        with torch.inference_mode():
            maps = _layer(model.local_features(model.preprocessing(pixels)), level).float()
            if max(maps.shape[-2:]) > grid:
                maps = functional.adaptive_avg_pool2d(maps, grid)
        yield maps.cpu().numpy()


def _layer(maps: dict[str, Tensor], level: str) -> Tensor:
    if level and level not in maps:
        raise ModelError(
            f"protocols.patches.level: the network has no layer {level!r}; use one of {', '.join(maps)}, or none"
        )
    return maps[level or [*maps][-1]]


def saliency_maps(
    model: "AttentionClassifier",
    images: np.ndarray,
    batch_size: int,
    kind: str,
    declared: dict[str, Any] | None,
    level: str = "",
) -> np.ndarray:
    """One map per image, (N, h, w) float32 or float64.

    Args:
        model: the network.
        images: (N, H, W, 3) uint8.
        batch_size: images per pass.
        kind: `mean`: channel mean of layer `level` (default: the last). `cam`: class activation map of the predicted
            class. `gradcam`: Grad-CAM of the predicted class on that layer. `attention`: the network's trained maps
            combined as its variant declares, at the size of its largest.
        declared: the variant's `saliency`, read by `attention` alone.
        level: see `kind`.

    Raises:
        ConfigError: the variant declares no attention maps.
        ModelError: the network has no such map.
    """
    if kind == CAM:
        return class_activation_maps(model, images, batch_size)
    if kind == GRADCAM:
        return np.concatenate(
            [
                _grad_cam(model, model.preprocessing(pixels), level)
                for pixels in pixel_batches(model, images, batch_size)
            ]
        )
    if kind == ATTENTION:
        saliency = Saliency.from_declaration(declared, "patches")
        levels = saliency.maps(model, images, batch_size)
        largest = max((maps.shape[1:] for maps in levels.values()), key=lambda shape: shape[0] * shape[1])
        return saliency.at(levels, (largest[0], largest[1]))[COMBINED]
    batches = feature_maps(model, images, batch_size, max(images.shape[1:3]), level)
    return np.concatenate([maps.mean(axis=1) for maps in batches])


def _grad_cam(model: "AttentionClassifier", inputs: Tensor, level: str) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017) of the predicted class: channels weighted by their mean gradient, then ReLU.

    In eval mode no image's logits depend on another's, so one backward pass serves the batch.
    """
    seen: list[Tensor] = []
    trunk = getattr(model, "trunk", None)
    if trunk is None:
        raise ModelError(f"a {type(model).__name__} has no trunk to take gradients at; choose another map")
    handle = trunk.register_forward_hook(lambda _module, _inputs, maps: seen.append(_layer(maps, level)))
    try:
        logits = model(inputs)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ModelError(f"a {type(model).__name__} does not pass its trunk once; choose another map than {GRADCAM}")
    (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), seen[0])
    weighted = (gradient.mean(dim=(2, 3), keepdim=True) * seen[0]).sum(dim=1)
    return weighted.relu().detach().float().cpu().numpy()
