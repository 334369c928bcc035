"""Other maps of a trained network than the attention that it is scored by: single levels, activations, Grad-CAM.

All are for comparison with the paper's figure 9; none needs further training. Maps are (N, h, w) float32.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltpa.core.errors import ModelError, NotFiniteError
from ltpa.evaluation.inference import attention_maps, class_activation_maps, pixel_batches
from ltpa.models.foreign import Foreign

if TYPE_CHECKING:
    from torch import nn

    from ltpa.models.base import AttentionClassifier

LAST, PREVIOUS = "attention_last", "attention_previous"
ACTIVATION_LAST, ACTIVATION_PREVIOUS = "activation_last", "activation_previous"
CAM, GRADCAM, GIVEN = "cam_predicted", "gradcam", "given"
KINDS = (LAST, PREVIOUS, ACTIVATION_LAST, ACTIVATION_PREVIOUS, CAM, GRADCAM)  # of networks of this package


def network_maps(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """Every kind of map that `model` has of images (N, H, W, 3) uint8, `given` first, in the order of `KINDS`.

    * `given`: what a function of the user makes of a network that is not of this package.
    * `attention_last`, `attention_previous`: the trained attention of its last two levels, each alone.
    * `activation_last`, `activation_previous`: mean over channels of the squared local features of the last two layers
      that attention can read (Zagoruyko and Komodakis, ICLR 2017).
    * `cam_predicted`: class activation map of the predicted class (Zhou et al., CVPR 2016), of VGG-GAP alone.
    * `gradcam`: positive part of the sum over the last such layer's channels, each weighted by the mean gradient of the
      predicted class's logit (Selvaraju et al., ICCV 2017).

    A network that is not of this package has the last three where its layers have such maps.

    Raises:
        NotFiniteError: a map is not finite.
    """
    from ltpa.models.plain import GapClassifier

    found: dict[str, np.ndarray] = {}
    if isinstance(model, Foreign) and model.maps is not None:
        found[GIVEN] = np.concatenate([model.maps_of(each) for each in pixel_batches(model, images, batch_size)])
    if model.attention_levels:
        levels = attention_maps(model, images, batch_size)
        found |= dict(zip((LAST, PREVIOUS), reversed([*levels.values()][-2:]), strict=False))
    layers = _layers(model)
    if layers:
        activations, gradients = _activations_and_gradcam(model, layers, images, batch_size)
        found |= dict(zip((ACTIVATION_LAST, ACTIVATION_PREVIOUS), reversed(activations[-2:]), strict=False))
    if isinstance(model, GapClassifier):
        found[CAM] = class_activation_maps(model, images, batch_size)
    if layers:
        found[GRADCAM] = gradients
    for kind, maps in found.items():
        if not np.isfinite(maps).all():
            raise NotFiniteError(f"its {kind} maps of these images are not finite; retrain the network")
    return found


def shows_maps(model: "AttentionClassifier") -> bool:
    """Whether there is a map for the whole network; those that are not of this package may have none."""
    return not isinstance(model, Foreign) or model.shows_maps


def activation_map(features: torch.Tensor) -> torch.Tensor:
    """Mean over channels of squared features (N, C, h, w), as (N, h, w)."""
    return features.square().mean(dim=1)


def gradcam_map(features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (N, h, w) from features (N, C, h, w) and the logit's gradients with respect to them, same shape."""
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * features).sum(dim=1).relu()


def _activations_and_gradcam(
    model: "AttentionClassifier", layers: "list[nn.Module]", images: np.ndarray, batch_size: int
) -> tuple[list[np.ndarray], np.ndarray]:
    activations: list[list[np.ndarray]] = [[] for _ in layers]
    gradcams = []
    for features, gradients in _last_gradients(model, layers, images, batch_size):
        for parts, maps in zip(activations, features, strict=True):
            parts.append(activation_map(maps.detach()).float().cpu().numpy())
        gradcams.append(gradcam_map(features[-1].detach(), gradients).float().cpu().numpy())
    return [np.concatenate(parts) for parts in activations], np.concatenate(gradcams)


def _last_gradients(
    model: "AttentionClassifier", layers: "list[nn.Module]", images: np.ndarray, batch_size: int
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """For each batch the outputs of `layers`, and the gradients of the predicted logits with respect to the last."""
    kept: dict[int, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, number=number: kept.update({number: output}))
        for number, layer in enumerate(layers)
    ]
    try:
        for pixels in pixel_batches(model, images, batch_size):
            logits = model(model.preprocessing(pixels))
            features = [kept[number] for number in range(len(layers))]
            (gradients,) = torch.autograd.grad(logits.max(dim=1).values.sum(), features[-1])
            yield features, gradients
    finally:
        for hook in hooks:
            hook.remove()


def _layers(model: "AttentionClassifier") -> "list[nn.Module]":
    """The modules whose outputs are the maps of the layers that attention can read, from input to output.

    Raises:
        ModelError: the network's trunk is of a kind that is not known here.
    """
    from ltpa.models.resnet import ResNetTrunk
    from ltpa.models.vgg import VggTrunk

    if isinstance(model, Foreign):
        return [layer for _, layer in model.named_map_layers()]
    trunk = getattr(model, "trunk", None)
    if isinstance(trunk, VggTrunk):
        return [trunk.section1, trunk.section2, trunk.section3]
    if isinstance(trunk, ResNetTrunk):
        return [trunk.stages["stage2"], trunk.stages["stage3"]]
    raise ModelError(
        f"where the maps of a {type(model).__name__} are is not known; leave its variant out of this stage"
    )
