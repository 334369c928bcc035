"""All numbers of the faithfulness of a network's maps, image by image."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.errors import ConfigError
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.faithfulness import GRADIENT, control_maps, gradient_map, maps_of
from ltpa.evaluation.inference import network_pixels
from ltpa.evaluation.perturbation import (
    area,
    baseline,
    curve,
    dropped_subsets,
    faithfulness_correlation,
    ranks,
    road,
    stimuli,
)
from ltpa.evaluation.saliency import Saliency
from ltpa.evaluation.subsets import fixed_subset

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@dataclasses.dataclass(frozen=True)
class FaithfulnessChoices:
    """What is measured; `ltpa.protocols.faithfulness.FaithfulnessSettings` explains the values."""

    images: int | None
    maps: Sequence[str] | None
    baselines: Sequence[str]
    steps: int
    removed: Sequence[float]
    random_maps: int
    subsets: int
    batch_size: int


def score_faithfulness(
    model: "AttentionClassifier", dataset: PreparedDataset, saliency: Saliency | None, chosen: FaithfulnessChoices
) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Per-image values (N,) by measure and by map or control, on the test split; and which kinds are the network's own.

    Raises:
        ConfigError: the network has none of the kinds of map that are asked for.
        NotFiniteError: the network gives maps or logits that are not finite.
    """
    split = dataset.split("test")
    indices = fixed_subset(len(split), chosen.images, dataset.name)
    images = network_pixels(model, np.asarray(split.images[indices]), chosen.batch_size)
    seen = stimuli(model, images, indices, chosen.batch_size)
    own = maps_of(model, images, saliency, chosen.batch_size)
    own[GRADIENT] = gradient_map(model, seen, chosen.batch_size).astype(np.float64)
    kinds = [kind for kind in own if chosen.maps is None or kind in chosen.maps]
    if not kinds:
        raise ConfigError(
            f"key 'protocols.faithfulness.maps': the network has none of {', '.join(chosen.maps or ())}; name one of "
            f"{', '.join(own)}"
        )
    controls = control_maps(
        model, split, images, indices, own, saliency, chosen.random_maps, dataset.name, chosen.batch_size
    )
    draws = [(kind, own[kind]) for kind in kinds] + [(kind, each) for kind, some in controls.items() for each in some]
    orders = [ranks(maps, indices) for _, maps in draws]
    mean = mean_colour(dataset)
    found: dict[str, dict[str, list[np.ndarray]]] = {}

    def note(measure: str, kind: str, values: np.ndarray) -> None:
        found.setdefault(measure, {}).setdefault(kind, []).append(values)

    for name in chosen.baselines:
        replacement = baseline(name, seen.pixels, mean)
        for (kind, _), order in zip(draws, orders, strict=True):
            for game in ("deletion", "insertion"):
                curves = curve(model, seen, order, replacement, game == "insertion", chosen.steps, chosen.batch_size)
                note(f"{game}_{name}_auc", kind, area(curves))
    stands = 100 * road(model, seen, orders, chosen.removed, chosen.batch_size)
    dropped = dropped_subsets(
        model, seen, baseline(chosen.baselines[0], seen.pixels, mean), chosen.subsets, chosen.batch_size
    )
    for (kind, maps), (most, least) in zip(draws, stands, strict=True):
        note("road_most_pct", kind, most)
        note("road_least_pct", kind, least)
        note("road_pct", kind, least - most)
        note("faithfulness_correlation", kind, faithfulness_correlation(maps, dropped))
    averaged = {
        measure: {kind: np.mean(values, axis=0) for kind, values in by_kind.items()}
        for measure, by_kind in found.items()
    }
    return averaged, kinds


def mean_colour(dataset: PreparedDataset) -> list[float]:
    """Mean of each channel (0-255) over the training images; over the test images where there are no others."""
    images = dataset.splits.get("train", dataset.split("test")).images
    totals = sum(np.asarray(block).sum(axis=(0, 1, 2), dtype=np.float64) for block in np.array_split(images, 100))
    return [float(total) / (images.size / images.shape[-1]) for total in np.asarray(totals)]
