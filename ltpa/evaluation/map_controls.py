"""What stands beside a network's maps: maps of no network, of the network before training, and the mask itself."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.seeds import derive
from ltpa.data.arrays import Split
from ltpa.data.masks import OBJECT, squashed
from ltpa.evaluation.controls import CONTROLS
from ltpa.evaluation.maps import CAM, GIVEN, GRADCAM, network_maps
from ltpa.evaluation.saliency import COMBINED, Saliency
from ltpa.evaluation.untrained import settle, untrained_networks

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

RANDOM, ORACLE = "random", "oracle"


def random_map(indices: "Sequence[int] | np.ndarray", size: tuple[int, int], dataset: str, draw: int = 0) -> np.ndarray:
    """Uniform numbers (N, *size) of a stream for each image, by its place in the dataset."""
    key = derive(0, "random map", dataset, draw)
    return np.stack([np.random.default_rng((key, int(index))).random(size) for index in indices])


def mask_map(split: Split, indices: "Sequence[int] | np.ndarray", size: int) -> np.ndarray | None:
    """The objects' masks as maps (N, size, size) float64; None where the split has none."""
    if split.masks is None:
        return None
    masks = squashed([split.masks[int(index)] for index in indices], size)
    return (masks == OBJECT).astype(np.float64)


def control_maps(names: Sequence[str], images: np.ndarray, split: Split, dataset: str) -> dict[str, np.ndarray]:
    """Those of the named controls (`ltpa.evaluation.controls`, `random`, `oracle`) that `split` has, (N, S, S) each.

    `images` (N, S, S, 3) uint8 are those of the split at the size that networks see.
    """
    found: dict[str, np.ndarray] = {}
    every = np.arange(len(images))
    for name in names:
        if name == RANDOM:
            found[name] = random_map(every, images.shape[1:3], dataset)
        elif name == ORACLE:
            masks = mask_map(split, every, images.shape[1])
            if masks is not None:
                found[name] = masks
        else:
            found[name] = CONTROLS[name](images)
    return found


def own_map_of(kinds: "Mapping[str, np.ndarray]", combined: Saliency | None) -> str:
    """The kind that stands for the network where one map is shown: its attention, a given map, its activation map, or
    Grad-CAM.
    """
    return COMBINED if combined is not None else next(kind for kind in (GIVEN, CAM, GRADCAM) if kind in kinds)


def untrained_map(
    model: "AttentionClassifier", kind: str, images: np.ndarray, combined: Saliency | None, batch_size: int
) -> np.ndarray:
    """The map (N, h, w) of `kind` that the network has of `images` before training, one draw of weights."""
    (network,) = untrained_networks(model, draws=1)
    settle(network, images)
    if kind == COMBINED and combined is not None:
        return combined.at(combined.maps(network, images, batch_size), images.shape[1:3])[COMBINED]
    return network_maps(network, images, batch_size)[kind]
