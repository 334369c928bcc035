"""Attention maps against object masks (paper section 5.4, figure 9), and the pointing game.

Targets are `{"name", "kind": "masks", "class_ids": [...] or null}`, a dataset whose classes are the subsets and all of
whose images are scored, and `{"name", "kind": "pointing", "split"}`, whose split is scored in the pointing game alone
and passed over where it has neither masks nor boxes. Where boxes are known, peaks and mass inside them are counted too.
`class_ids` gives for each subset the network's class, null where it has none; only class activation maps need it.
Beside attention stand references of the pointing game that nothing was learnt for: a centre prior, and the same network
untrained. Protocol keys: `SegmentationSettings`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpa.core.errors import ConfigError, DataError
from ltpa.core.records import Metric
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation.controls import centre_prior
from ltpa.evaluation.saliency import CAM, COMBINED, Masking, Saliency
from ltpa.evaluation.segmentation import Scores, box_masks, score_maps
from ltpa.evaluation.untrained import untrained_networks
from ltpa.stages.common import Measurement, evaluate_each, read_settings

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier

MASK_METRICS = ("pointing_pct", "pointing_chance_pct", "mass_in_mask_pct")
CENTRE, UNTRAINED = "centre", "untrained-"  # conditions of `pointing_pct`; a draw's number follows the latter
REFERENCE_IMAGES = 100  # at most so many are shown to each untrained network
BOX_METRICS = ("pointing_in_box_pct", "box_chance_pct", "mass_in_box_pct")


@dataclasses.dataclass(frozen=True)
class SegmentationSettings:
    """The protocol's settings.

    Attributes:
        saliency: how the variant's map is made (`ltpa.models.variants.chosen_saliency`).
        upsampling, threshold: those of `Masking`.
        cam_class: class activation maps of the `annotated` class of a subset, or of each image's `predicted` one.
        batch_size: images per forward pass.
    """

    saliency: dict[str, Any] | None
    upsampling: str = "bilinear"
    threshold: float | None = None
    cam_class: str = "annotated"
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError("segmentation: needs batch_size >= 1")
        if self.cam_class not in ("annotated", "predicted"):
            raise ConfigError(f"segmentation: cam_class is {self.cam_class!r}; use annotated or predicted")
        self.masking()

    def masking(self) -> Masking:
        """How maps become binary."""
        return Masking(self.upsampling, self.threshold)


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Score the maps of the network of each seed and write its record.

    Raises:
        ConfigError: the variant declares no saliency map, or a target or setting is wrong.
        DataError: a target lacks masks, or a map is not finite.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Jaccard by subset and pointing by level for each target."""
    settings = read_settings(SegmentationSettings, "segmentation", spec.protocol)
    saliency = Saliency.from_declaration(settings.saliency, "segmentation")
    metrics: list[Metric] = []
    facts: dict[str, Any] = {}
    for target, dataset in zip(spec.targets, datasets, strict=True):
        if target.get("kind") == "pointing":
            found, facts[dataset.name] = _pointing(model, saliency, target, dataset, settings)
        elif target.get("kind") == "masks":
            found, facts[dataset.name] = _masks(model, saliency, target, dataset, settings)
        else:
            kind = target.get("kind")
            raise ConfigError(f"segmentation: target {dataset.name} is of kind {kind!r}; use masks or pointing")
        metrics += found
    return Measurement(metrics, facts)


def _pointing(
    model: "AttentionClassifier",
    saliency: Saliency,
    target: dict[str, Any],
    dataset: PreparedDataset,
    settings: SegmentationSettings,
) -> tuple[list[Metric], dict[str, Any]]:
    split = dataset.split(target["split"])
    if split.masks is None and split.boxes is None:
        return [], {"skipped": "no masks or boxes"}
    maps = saliency.maps(model, split.images, settings.batch_size)
    metrics: list[Metric] = []
    facts: dict[str, Any] = {}
    if split.masks is not None:
        scores = score_maps(maps, split.masks, saliency, masking=settings.masking())
        metrics += pointing_metrics([scores], dataset.name)
        metrics += reference_metrics(model, saliency, split, dataset.name, settings.masking())
        facts = _facts([scores])
    return metrics + box_metrics([(maps, split.boxes)], dataset, saliency, settings.masking()), facts


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


def _masks(
    model: "AttentionClassifier",
    saliency: Saliency,
    target: dict[str, Any],
    dataset: PreparedDataset,
    settings: SegmentationSettings,
) -> tuple[list[Metric], dict[str, Any]]:
    pooled = dataset.pooled()
    if pooled.masks is None:
        raise DataError(f"dataset {dataset.name} has no masks; segmentation needs one per image")
    metrics, scored, boxed, left_out = [], [], [], []
    for subset in np.unique(pooled.labels).tolist():
        class_id = None
        if saliency.source == CAM and settings.cam_class == "annotated":
            class_id = _class_id(target, subset, dataset)
            if class_id is None:
                left_out.append(dataset.classes[subset])
                continue
        members = np.flatnonzero(pooled.labels == subset).tolist()
        maps = saliency.maps(model, pooled.images[members], settings.batch_size, class_id)
        scores = score_maps(maps, [pooled.masks[row] for row in members], saliency, masking=settings.masking())
        metrics += subset_metrics(scores, dataset.name, dataset.classes[subset])
        scored.append(scores)
        boxed.append((maps, None if pooled.boxes is None else pooled.boxes[members]))
    if scored:
        metrics += pointing_metrics(scored, dataset.name) + box_metrics(boxed, dataset, saliency, settings.masking())
        metrics += reference_metrics(model, saliency, pooled, dataset.name, settings.masking())
    return metrics, {**_facts(scored), "subsets_without_class": left_out}


def _class_id(target: dict[str, Any], subset: int, dataset: PreparedDataset) -> int | None:
    class_ids = target.get("class_ids")
    if class_ids is None:
        return None
    if len(class_ids) != len(dataset.classes):
        raise ConfigError(
            f"segmentation: target {dataset.name}: class_ids has {len(class_ids)} entries for "
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
