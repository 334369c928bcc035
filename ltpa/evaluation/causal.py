"""The maps of an attention network replaced inside it: what depends on where it looks, and what would without it.

Each image passes the trunk once. What follows, g_a = sum_i a'_i l_i and the head, is computed again for every
replacement a' of the own weights a, which always has their sum. At a gate (VGG-PAN's conv10), whose map multiplies
features, the layers behind it are computed again, too.

* `uniform`: the same weight for every cell
* `permuted`: the own weights at random cells, several draws
* `other_class`, `same_class`: the map of another image
* `mean`: the mean map of training images
* `inverse`: the own weights, the smallest where the largest was
* `peak`: all weight on the cell with the largest
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ltpa.core.seeds import derive
from ltpa.evaluation.inference import decided, pixel_batches
from ltpa.evaluation.map_statistics import normalised_entropy, total_variation

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

UNIFORM, PERMUTED, OTHER_CLASS, SAME_CLASS = "uniform", "permuted", "other_class", "same_class"
MEAN, INVERSE, PEAK = "mean", "inverse", "peak"
REPLACEMENTS = (UNIFORM, PERMUTED, OTHER_CLASS, SAME_CLASS, MEAN, INVERSE, PEAK)
ALL, OWN = "all", "own"
GROUP = 256  # images that give each other their maps; their features are in memory together

Maps = dict[str, tuple[Tensor, Tensor]]  # by level the map that is weighed (N, C, h, w) and its weights (N, h, w)


@dataclasses.dataclass(frozen=True)
class Effect:
    """What one replacement does to the output of a network, for N images and D draws of it.

    Attributes:
        predicted: (D, N) classes.
        distance: (D, N) total variation distance from the own output.
        known: (N,) bool, false for images without another one to take the map from.
    """

    predicted: np.ndarray
    distance: np.ndarray
    known: np.ndarray


@dataclasses.dataclass(frozen=True)
class Replaced:
    """The outcome for N images, in their order.

    Attributes:
        predicted: (N,) classes under the own maps.
        entropy: by level (N,) normalised entropy of the own map.
        effects: by scope (`all` or a level) and replacement.
        vectors: (N, d) attended vectors of all levels side by side: `own`, and by scope those under uniform weights.
    """

    predicted: np.ndarray
    entropy: dict[str, np.ndarray]
    effects: dict[tuple[str, str], Effect]
    vectors: dict[str, np.ndarray]


def scopes(model: "AttentionClassifier") -> dict[str, tuple[str, ...]]:
    """The levels whose maps are replaced together: `all`, and each alone where there are several."""
    levels = model.attention_levels
    return {ALL: levels, **({level: (level,) for level in levels} if len(levels) > 1 else {})}


def training_vectors(
    model: "AttentionClassifier", images: np.ndarray, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
    """Vectors of images as in `Replaced.vectors`, and their mean map (h, w) by level."""
    parts: dict[str, list[np.ndarray]] = {}
    sums: dict[str, Tensor] = {}
    with torch.inference_mode():
        for pixels in pixel_batches(model, images, batch_size):
            maps = model.weighted_maps(model.preprocessing(pixels))
            for name, vectors in _own_and_uniform(model, maps):
                parts.setdefault(name, []).append(vectors)
            for level, (_, weights) in maps.items():
                sums[level] = sums.get(level, 0) + weights.double().sum(dim=0)
    return _joined(parts), {level: total / len(images) for level, total in sums.items()}


def replace_maps(
    model: "AttentionClassifier",
    images: np.ndarray,
    labels: np.ndarray,
    mean_maps: Mapping[str, Tensor],
    batch_size: int,
    draws: int,
    seed: int,
) -> Replaced:
    """Put every replacement in the place of the maps of images (N, H, W, 3) uint8.

    Args:
        model: a network with attention, in evaluation mode.
        labels: (N,) classes.
        mean_maps: by level (h, w), from `training_vectors`.
        batch_size: images per pass of the trunk; changes nothing.
        draws: of the random cells of `permuted`.
        seed: of these draws.

    Raises:
        NotFiniteError: a logit is not finite.
    """
    order = groups(labels)
    parts = []
    with torch.inference_mode():
        for number, rows in enumerate(order):
            maps = _maps(model, images[rows], batch_size)
            seeds = [derive(seed, PERMUTED, number, draw) for draw in range(draws)]
            parts.append(_of_group(model, maps, labels[rows], mean_maps, seeds))
    back = np.argsort(np.concatenate(order))
    return Replaced(
        np.concatenate([part.predicted for part in parts])[back],
        {level: np.concatenate([part.entropy[level] for part in parts])[back] for level in parts[0].entropy},
        {
            key: Effect(
                np.concatenate([part.effects[key].predicted for part in parts], axis=1)[:, back],
                np.concatenate([part.effects[key].distance for part in parts], axis=1)[:, back],
                np.concatenate([part.effects[key].known for part in parts])[back],
            )
            for key in parts[0].effects
        },
        {name: np.concatenate([part.vectors[name] for part in parts])[back] for name in parts[0].vectors},
    )


def _of_group(
    model: "AttentionClassifier",
    maps: Maps,
    labels: np.ndarray,
    mean_maps: Mapping[str, Tensor],
    seeds: Sequence[int],
) -> Replaced:
    logits = model.classify(model.vectors_under(maps, {}))
    others = partners(labels)
    effects: dict[tuple[str, str], Effect] = {}
    for kind in REPLACEMENTS:
        known = others[kind] >= 0 if kind in others else np.ones(len(labels), dtype=bool)
        drawn = [
            {
                level: _replacement(kind, own, mean_maps[level], others.get(kind), derive(each, level))
                for level, (_, own) in maps.items()
            }
            for each in (seeds if kind == PERMUTED else seeds[:1])
        ]
        for scope, levels in scopes(model).items():
            predicted, distance = zip(
                *(_output(model, maps, {level: new[level] for level in levels}, logits) for new in drawn), strict=True
            )
            effects[scope, kind] = Effect(np.stack(predicted), np.stack(distance), known)
    return Replaced(
        decided(logits).cpu().numpy(),
        {level: normalised_entropy(own.flatten(1)).cpu().numpy() for level, (_, own) in maps.items()},
        effects,
        dict(_own_and_uniform(model, maps)),
    )


def groups(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of images by group: all in turn, two of each class at a time, so that each finds another of its class."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    order = np.lexsort((rank, labels, rank // 2))
    return np.array_split(order, -(-len(labels) // GROUP))


def partners(labels: np.ndarray) -> dict[str, np.ndarray]:
    """For each image of a group, (N,), the one whose map it gets; -1 where there is none.

    It is the next of the same class, and the first of another class from the image half the group further on.
    """
    count = len(labels)
    places = np.arange(count)
    same = labels[:, None] == labels
    found = {}
    for kind, allowed, start in (
        (SAME_CLASS, same & ~np.eye(count, dtype=bool), 1),
        (OTHER_CLASS, ~same, count // 2),
    ):
        distance = np.where(allowed, (places - places[:, None] - start) % count, count)
        found[kind] = np.where(allowed.any(axis=1), distance.argmin(axis=1), -1)
    return found


def uniform(weights: Tensor) -> Tensor:
    """Maps (N, h, w) with every cell at the mean of its map."""
    return weights.mean(dim=(1, 2), keepdim=True).expand_as(weights)


def permuted(weights: Tensor, seed: int) -> Tensor:
    """The weights (N, h, w) of each map at cells drawn from `seed`."""
    flat = weights.flatten(1)
    cells = np.random.default_rng(seed).random(flat.shape).argsort(axis=1)
    return flat.gather(1, torch.from_numpy(cells).to(flat.device)).view_as(weights)


def inverse(weights: Tensor) -> Tensor:
    """The weights (N, h, w) of each map with ranks reversed: the largest where the smallest was."""
    values, cells = weights.flatten(1).sort(dim=1, stable=True)
    return torch.empty_like(values).scatter(1, cells, values.flip(1)).view_as(weights)


def peak(weights: Tensor) -> Tensor:
    """The sum of each map (N, h, w) at the cell of its largest weight, zero elsewhere."""
    flat = weights.flatten(1)
    return torch.zeros_like(flat).scatter(1, flat.argmax(dim=1, keepdim=True), 1).view_as(weights) * _sums(weights)


_OF_OWN: dict[str, Callable[[Tensor], Tensor]] = {UNIFORM: uniform, INVERSE: inverse, PEAK: peak}


def _replacement(kind: str, own: Tensor, mean_map: Tensor, others: np.ndarray | None, seed: int) -> Tensor:
    """Maps (N, h, w) with the sums of the own ones; `others` (N,) are the images whose maps they are, if any."""
    if kind in _OF_OWN:
        return _OF_OWN[kind](own)
    if kind == PERMUTED:
        return permuted(own, seed)
    other = mean_map.to(own.dtype).expand_as(own) if others is None else own[torch.from_numpy(others).to(own.device)]
    return other * (_sums(own) / _sums(other))


def _sums(weights: Tensor) -> Tensor:
    return weights.sum(dim=(1, 2), keepdim=True)


def _output(
    model: "AttentionClassifier", maps: Maps, weights: Mapping[str, Tensor], own: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N,) under other weights, and how far (N,) the output is from that of the `own` logits."""
    logits = model.classify(model.vectors_under(maps, weights))
    distance = total_variation(logits.double().softmax(dim=1), own.double().softmax(dim=1))
    return decided(logits).cpu().numpy(), distance.cpu().numpy()


def _maps(model: "AttentionClassifier", images: np.ndarray, batch_size: int) -> Maps:
    parts = [model.weighted_maps(model.preprocessing(pixels)) for pixels in pixel_batches(model, images, batch_size)]
    return {
        level: (torch.cat([part[level][0] for part in parts]), torch.cat([part[level][1] for part in parts]))
        for level in model.attention_levels
    }


def _own_and_uniform(model: "AttentionClassifier", maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
    yield OWN, _side_by_side(model.vectors_under(maps, {}))
    for scope, levels in scopes(model).items():
        weights = {level: uniform(maps[level][1]) for level in levels}
        yield scope, _side_by_side(model.vectors_under(maps, weights))


def _side_by_side(vectors: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(vectors), dim=1).float().cpu().numpy()


def _joined(parts: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(each) for name, each in parts.items()}
