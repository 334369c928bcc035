"""Metrics of maps against masks and boxes: Jaccard by subset, the pointing game, and its references."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpa.core.errors import ConfigError, DataError
from ltpa.core.records import Metric
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation.controls import centre_prior
from ltpa.evaluation.saliency import CAM, COMBINED, Masking, Saliency
from ltpa.evaluation.segmentation import Scores, box_masks, score_maps
from ltpa.evaluation.untrained import untrained_networks

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

MASK_METRICS = ("pointing_pct", "pointing_chance_pct", "mass_in_mask_pct")
CENTRE, UNTRAINED = "centre", "untrained-"  # conditions of `pointing_pct`; a draw's number follows the latter
REFERENCE_IMAGES = 100  # at most so many are shown to each untrained network
BOX_METRICS = ("pointing_in_box_pct", "box_chance_pct", "mass_in_box_pct")


def point_at_split(
    model: "AttentionClassifier",
    saliency: Saliency,
    split: Split,
    dataset: PreparedDataset,
    masking: Masking,
    batch_size: int,
) -> tuple[list[Metric], dict[str, Any]]:
    """The pointing game on one split of a dataset, its references, and facts; nothing without masks and boxes."""
    if split.masks is None and split.boxes is None:
        return [], {"skipped": "no masks or boxes"}
    maps = saliency.maps(model, split.images, batch_size)
    metrics: list[Metric] = []
    facts: dict[str, Any] = {}
    if split.masks is not None:
        scores = score_maps(maps, split.masks, saliency, masking=masking)
        metrics += pointing_metrics([scores], dataset.name)
        metrics += reference_metrics(model, saliency, split, dataset.name, masking)
        facts = _facts([scores])
    return metrics + box_metrics([(maps, split.boxes)], dataset, saliency, masking), facts


def box_metrics(
    parts: list[tuple[dict[str, np.ndarray], np.ndarray | None]],
    dataset: PreparedDataset,
    saliency: Saliency | None,
    masking: Masking,
) -> list[Metric]:
    """Pointing and mass inside the boxes (N, 4) of maps by level, over all parts; nothing where boxes are not known."""
    scored = [
        score_maps(maps, box_masks(boxes, dataset.image_size), saliency, masking=masking)
        for maps, boxes in parts
        if boxes is not None
    ]
    return pointing_metrics(scored, dataset.name, BOX_METRICS) if scored else []


def score_by_subset(
    model: "AttentionClassifier",
    saliency: Saliency,
    dataset: PreparedDataset,
    masking: Masking,
    batch_size: int,
    class_ids: Sequence[int | None] | None,
    annotated: bool,
) -> tuple[list[Metric], dict[str, Any]]:
    """Jaccard by class of a dataset with masks, the pointing game, its references, and facts.

    `class_ids` gives for each class of the dataset the network's class, null where it has none; only class activation
    maps of the `annotated` class need it, and classes without one are left out of those.

    Raises:
        ConfigError: `class_ids` does not fit the dataset.
        DataError: the dataset has no masks.
    """
    pooled = dataset.pooled()
    if pooled.masks is None:
        raise DataError(f"dataset {dataset.name} has no masks; segmentation needs one per image")
    metrics, scored, boxed, left_out = [], [], [], []
    for subset in np.unique(pooled.labels).tolist():
        class_id = None
        if saliency.source == CAM and annotated:
            class_id = _class_id(class_ids, subset, dataset)
            if class_id is None:
                left_out.append(dataset.classes[subset])
                continue
        members = np.flatnonzero(pooled.labels == subset).tolist()
        maps = saliency.maps(model, pooled.images[members], batch_size, class_id)
        scores = score_maps(maps, [pooled.masks[row] for row in members], saliency, masking=masking)
        metrics += subset_metrics(scores, dataset.name, dataset.classes[subset])
        scored.append(scores)
        boxed.append((maps, None if pooled.boxes is None else pooled.boxes[members]))
    if scored:
        metrics += pointing_metrics(scored, dataset.name) + box_metrics(boxed, dataset, saliency, masking)
        metrics += reference_metrics(model, saliency, pooled, dataset.name, masking)
    return metrics, {**_facts(scored), "subsets_without_class": left_out}


def _class_id(class_ids: Sequence[int | None] | None, subset: int, dataset: PreparedDataset) -> int | None:
    if class_ids is None:
        return None
    if len(class_ids) != len(dataset.classes):
        raise ConfigError(
            f"dataset {dataset.name}: class_ids has {len(class_ids)} entries for "
            f"{len(dataset.classes)} classes; give one per class, null where the network has none"
        )
    return class_ids[subset]


def subset_metrics(scores: Scores, dataset: str, subset: str, level: str = COMBINED, prefix: str = "") -> list[Metric]:
    """Mean Jaccard x 100 of one subset: over images with an object, and over all (an empty mask wants an empty one).

    The metrics are called `<prefix>jaccard_pct` and `<prefix>jaccard_all_pct`, of the map of `level`.

    Raises:
        DataError: no image of the subset has an object.
    """
    seen, values = scores.area > 0, scores.jaccard[level]
    if not seen.any():
        raise DataError(f"dataset {dataset}: no image of {subset} has a mask with an object; prepare the dataset again")
    return [
        Metric(f"{prefix}jaccard_pct", 100 * float(values[seen].mean()), int(seen.sum()), dataset, subset),
        Metric(f"{prefix}jaccard_all_pct", 100 * float(values.mean()), len(seen), dataset, subset),
    ]


def pointing_metrics(parts: list[Scores], dataset: str, names: tuple[str, str, str] = MASK_METRICS) -> list[Metric]:
    """Pointing game and mass over all images with an object, for each level and `combined`, beside what chance gives.

    `names` are those of the metrics: share of peaks on the object, chance, share of the map on the object.

    Raises:
        DataError: no image has an object.
    """
    seen = np.concatenate([scores.area for scores in parts]) > 0
    count = int(seen.sum())
    if count == 0:
        raise DataError(f"dataset {dataset}: no mask or box holds an object; prepare the dataset again")
    chance = 100 * float(np.concatenate([scores.area for scores in parts])[seen].mean())
    metrics = []
    for level in parts[0].pointing:
        pointing = np.concatenate([scores.pointing[level] for scores in parts])[seen]
        mass = np.concatenate([scores.mass[level] for scores in parts])[seen]
        metrics += [
            Metric(names[0], 100 * float(pointing.mean()), count, dataset, level),
            Metric(names[1], chance, count, dataset, level),
            Metric(names[2], 100 * float(mass.mean()), count, dataset, level),
        ]
    return metrics


def reference_metrics(
    model: "AttentionClassifier", saliency: Saliency, split: Split, dataset: str, masking: Masking
) -> list[Metric]:
    """The pointing game of maps that nothing was learnt for, over images with an object; none beside other maps.

    Conditions of `pointing_pct` are `centre`, a Gaussian in the middle of every image, and `untrained-0` ..., combined
    maps of draws of the same network before training. The latter are of `REFERENCE_IMAGES` images, spread evenly.
    """
    if saliency.source == CAM or split.masks is None:
        return []
    centre = score_maps({CENTRE: centre_prior(split.images)}, split.masks, None, masking=masking)
    seen = np.flatnonzero(centre.area > 0)
    metrics = [_pointing_metric(centre.pointing[CENTRE][seen], dataset, CENTRE)]
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, REFERENCE_IMAGES).round().astype(int))]
    images, masks = split.images[chosen], [split.masks[row] for row in chosen.tolist()]
    for draw, network in enumerate(untrained_networks(model)):
        levels = saliency.maps(network, images, len(images))
        hits = score_maps(levels, masks, saliency, masking=masking).pointing[COMBINED]
        metrics.append(_pointing_metric(hits, dataset, f"{UNTRAINED}{draw}"))
    return metrics


def _pointing_metric(hits: np.ndarray, dataset: str, condition: str) -> Metric:
    return Metric(MASK_METRICS[0], 100 * float(hits.mean()), len(hits), dataset, condition)


def _facts(parts: list[Scores]) -> dict[str, Any]:
    return {
        "empty_masks": sum(int((scores.area == 0).sum()) for scores in parts),
        "constant_maps": sum(int(scores.constant.sum()) for scores in parts),
    }


def map_metrics(
    maps: dict[str, np.ndarray],
    saliency: Saliency | None,
    by_subset: bool,
    pooled: Split,
    dataset: PreparedDataset,
    masking: Masking,
) -> list[Metric]:
    """Metrics of maps (N, h, w) of all images of `pooled` by kind, and with a `saliency` of `combined`.

    Jaccard by subset where that is asked for, and pointing inside masks and boxes where there are any.
    """
    metrics: list[Metric] = []
    if pooled.masks is not None:
        scored = [score_maps(maps, pooled.masks, saliency, masking=masking)] if not by_subset else []
        for subset in np.unique(pooled.labels).tolist() if by_subset else ():
            members = np.flatnonzero(pooled.labels == subset).tolist()
            chosen = {kind: each[members] for kind, each in maps.items()}
            masks = [pooled.masks[row] for row in members]
            scores = score_maps(chosen, masks, saliency, saliency is None, masking)
            for kind in scores.jaccard:
                metrics += subset_metrics(scores, dataset.name, dataset.classes[subset], kind, f"{kind}_")
            scored.append(scores)
        metrics += pointing_metrics(scored, dataset.name)
    return metrics + box_metrics([(maps, pooled.boxes)], dataset, saliency, masking)
