"""Facts about a network that need no weights: parameters, multiply-accumulates, sizes."""

import functools
import json
from typing import Any

import torch

from ltpa.models.base import AttentionClassifier
from ltpa.models.prune import pruned_architecture
from ltpa.models.registry import build_model
from ltpa.models.variants import get_variant, sized_architecture


def count_parameters(model: AttentionClassifier) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: AttentionClassifier) -> int:
    """Multiply-accumulates of one image's forward pass; `model` may be on the meta device.

    Counted are convolutions, linear layers, and attention's scores and weighted sums. Normalisation, activations,
    pooling and element-wise products (the gate of VGG-PAN) are not.
    """
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*model.example())
    model.train(training)
    return counter.get_total_flops() // 2


@functools.cache
def network_size(architecture: str, num_classes: int, image_size: int) -> tuple[int, int]:
    """Multiply-accumulates per image and parameters of the network whose resolved options are given as JSON."""
    with torch.device("meta"):
        model = build_model(json.loads(architecture), num_classes, image_size)
    return count_macs(model), count_parameters(model)


def describe(
    variant: str, num_classes: int, image_size: int = 32, width: float = 1.0, **options: Any
) -> dict[str, Any]:
    """Facts about a variant's network, from shapes alone.

    Returns:
        Plain JSON data: `variant`, `label`, `extension`, `parameters` and of these `live_parameters` and
        `dead_parameters` (the ones `ltpa.models.prune` removes), `macs` per image, `feature_dim`, `map_sizes` (level ->
        [channels, height, width] of the maps attention reads or, without attention, could read), `architecture`.

    Raises:
        ModelError: unknown variant, or options that are not possible.
    """
    declared = get_variant(variant)
    architecture = sized_architecture(variant, image_size, width, **options)
    with torch.device("meta"):
        model = build_model(architecture, num_classes, image_size).eval()
        live = count_parameters(build_model(pruned_architecture(architecture), num_classes, image_size))
        with torch.no_grad():
            maps = model.local_features(torch.empty(1, 3, image_size, image_size))
    total = count_parameters(model)
    attends = bool(set(model.attention_levels) & maps.keys())  # maps of words or steps are no layers
    return {
        "variant": variant,
        "label": declared.label,
        "extension": declared.extension,
        "parameters": total,
        "live_parameters": live,
        "dead_parameters": total - live,
        "macs": count_macs(model),
        "feature_dim": model.feature_dim,
        "map_sizes": {
            level: list(maps[level].shape[1:]) for level in maps if level in model.attention_levels or not attends
        },
        "architecture": architecture,
    }
