"""Trained networks on stored images, in batches: predictions, features, attention maps, global vectors.

Images are (N, H, W, 3) uint8 RGB and may be memory-mapped. Where they differ from the network's input size they are
resized; then they go through the network's own preprocessing, so every target is normalised as the network's training
set was (paper appendix A.4). Rows of every result are in the order of the images. No gradients are kept.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ltpa.core.errors import DataError, ModelError, NotFiniteError

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


def pixel_batches(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> Iterator[torch.Tensor]:
    """Yield the images as raw pixels: (B, 3, S, S) float32, 0-255, on the network's device; S is its input size.

    Another size is brought to S x S by antialiased bilinear interpolation, without keeping the aspect. Channels lie
    innermost in memory, which convolutions on processors are faster with.

    Raises:
        ModelError: the network is in training mode, where dropout and batch statistics would blur every result.
        DataError: there are no images, or they are not (N, H, W, 3) uint8.
    """
    if model.training:
        raise ModelError("network is in training mode; call eval() before evaluating it")
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise DataError(f"images to evaluate are {images.dtype} {images.shape}, expected uint8 (N, H, W, 3) with N > 0")
    device = next(model.parameters()).device
    size = model.image_size
    for start in range(0, len(images), batch_size):
        block = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        pixels = block.permute(0, 3, 1, 2).float()
        if pixels.shape[-2:] != (size, size):
            pixels = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        yield pixels.contiguous(memory_format=torch.channels_last)


def spread(total: int, count: int) -> np.ndarray:
    """Rows of at most `count` of `total` images, spread evenly over them."""
    chosen = min(count, total)
    return np.arange(chosen) * total // chosen


def network_pixels(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> np.ndarray:
    """The images at the network's input size, (N, S, S, 3) uint8; resized ones are rounded."""
    if images.shape[1:3] == (model.image_size, model.image_size):
        return images
    batches = pixel_batches(model, images, batch_size)
    return np.concatenate([pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy() for pixels in batches])


def _collect(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int, measure: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """`measure` of every batch of network inputs, joined along the first axis."""
    with torch.inference_mode():
        parts = [
            measure(model.preprocessing(pixels)).cpu().numpy() for pixels in pixel_batches(model, images, batch_size)
        ]
    return np.concatenate(parts)


def decided(logits: torch.Tensor) -> torch.Tensor:
    """Predicted classes (B,) of logits (B, classes). Minus infinity is a logit: that of a class without probability.

    Raises:
        NotFiniteError: a logit is no number, or infinite; some class would be highest all the same.
    """
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise NotFiniteError("its logits of these images are not finite; retrain the network")
    return logits.argmax(dim=1)


def predict(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Predicted classes, (N,) int64.

    Raises:
        NotFiniteError: a logit is not finite.
    """
    return _collect(model, images, batch_size, lambda inputs: decided(model(inputs)))


def true_classes(model: "AttentionClassifier", labels: np.ndarray, dataset: str) -> np.ndarray:
    """The labels (N,) int64 of images of a dataset, which are classes of the network.

    Raises:
        DataError: the dataset has more classes than the network.
    """
    found = np.asarray(labels)
    if int(found.max()) >= model.num_classes:
        raise DataError(
            f"dataset {dataset} has class {int(found.max())}, and the network classes 0 to {model.num_classes - 1}; "
            "take images of the network's own classes"
        )
    return found


def logits_of(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Logits, (N, classes) float32; minus infinity for a class without probability.

    Raises:
        NotFiniteError: another logit is not finite.
    """

    def measure(inputs: torch.Tensor) -> torch.Tensor:
        logits = model(inputs)
        decided(logits)
        return logits.float()

    return _collect(model, images, batch_size, measure)


def class_probabilities(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Predicted distributions, (N, classes) float32."""
    return _collect(model, images, batch_size, lambda inputs: model(inputs).softmax(dim=1).float())


def extract_features(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Inputs of the last linear layer, (N, d) float32 (paper section 5.3)."""
    return _collect(model, images, batch_size, lambda inputs: model.features(inputs).float())


def global_descriptors(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> np.ndarray:
    """Global vectors g, (N, d) float32."""
    return _collect(model, images, batch_size, lambda inputs: model.global_descriptor(inputs).float())


def class_activation_maps(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int, class_id: int | None = None
) -> np.ndarray:
    """Class activation maps, (N, h, w) float32, of one class, or of each image's predicted class for None.

    Raises:
        ModelError: the network is not one that classifies by the mean of its last map.
    """
    from ltpa.models.plain import GapClassifier

    if not isinstance(model, GapClassifier):
        raise ModelError(f"a {type(model).__name__} has no class activation map; only VGG-GAP networks do")

    def measure(inputs: torch.Tensor) -> torch.Tensor:
        classes = None
        if class_id is not None:
            classes = torch.full((len(inputs),), class_id, dtype=torch.int64, device=inputs.device)
        return model.class_activation_map(inputs, classes).float()

    return _collect(model, images, batch_size, measure)


def attention_maps(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int, queries: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Attention maps by level, each (N, h, w) float32, levels in the order of depth.

    With `queries` (N, H, W, 3) uint8, image i is attended under the global vector of query i (paper appendix A.5).

    Raises:
        ModelError: the network has no trained attention.
    """
    levels = _by_level(model, model.attention, images, batch_size, queries)
    return {level: maps.astype(np.float32, copy=False) for level, maps in levels.items()}


def log_attention_maps(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int, queries: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The logarithms of `attention_maps`, each (N, h, w) float64, computed from scores: no weight underflows.

    Raises:
        ModelError: the network has no trained attention.
    """
    return _by_level(model, model.log_attention, images, batch_size, queries)


def _by_level(
    model: "AttentionClassifier",
    measure: Callable[[torch.Tensor, torch.Tensor | None], dict[str, torch.Tensor]],
    images: np.ndarray,
    batch_size: int,
    queries: np.ndarray | None,
) -> dict[str, np.ndarray]:
    if not model.attention_levels:
        raise ModelError(f"a {type(model).__name__} has no attention maps; leave its variant out of this stage")
    parts: dict[str, list[np.ndarray]] = {}
    with torch.inference_mode():
        asking = iter(()) if queries is None else pixel_batches(model, queries, batch_size)
        for pixels in pixel_batches(model, images, batch_size):
            query = None if queries is None else model.preprocessing(next(asking))
            for level, maps in measure(model.preprocessing(pixels), query).items():
                parts.setdefault(level, []).append(maps.cpu().numpy())
    return {level: np.concatenate(maps) for level, maps in parts.items()}
