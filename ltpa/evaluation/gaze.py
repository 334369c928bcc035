"""What the protocol `gaze` asks of a network besides its attention: plain activations, and what a block changes."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ltpa.evaluation.inference import pixel_batches
from ltpa.evaluation.maps import activation_map

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


def activation_maps(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> np.ndarray | None:
    """Mean squared activations (N, h, w) float32 of the layer that the last level reads; else of the first layer.

    None for networks without maps that have the image's places.
    """
    parts = []
    with torch.inference_mode():
        for pixels in pixel_batches(model, images, batch_size):
            found = model.local_features(model.preprocessing(pixels))
            if not found:
                return None
            last = model.attention_levels[-1] if model.attention_levels else ""
            parts.append(activation_map(found.get(last, next(iter(found.values())))).float().cpu().numpy())
    return np.concatenate(parts)


def block_change(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> float | None:
    """Root mean square of what the network's block adds to its input, divided by the input's; None without a block.

    0 means that the block is still the identity, and whatever the network does is not its doing.
    """
    measure = getattr(model, "block_change", None)
    if measure is None:
        return None
    changed = given = 0.0
    with torch.inference_mode():
        for pixels in pixel_batches(model, images, batch_size):
            added, before = measure(model.preprocessing(pixels))
            changed, given = changed + float(added.sum()), given + float(before.sum())
    return (changed / given) ** 0.5 if given else 0.0
