"""Other maps than the attention of figure 9 against object masks and boxes: beyond the paper.

Targets are `{"name", "kind": "masks"}`, datasets whose classes are the subsets and all of whose images are scored, and
`{"name", "kind": "pointing"}`, whose images, those of `split` where it is given, are scored in the pointing game alone,
inside their masks and boxes, and which are passed over where they have neither. Protocol keys: `MapSettings`.
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
from ltpa.data.masks import Masks
from ltpa.evaluation.controls import CONTROLS
from ltpa.evaluation.inference import network_pixels
from ltpa.evaluation.maps import network_maps
from ltpa.evaluation.saliency import CAM, Masking, Saliency
from ltpa.evaluation.segmentation import Scores, score_maps
from ltpa.stages.common import Measurement, evaluate_each, read_settings
from ltpa.stages.segmentation import box_metrics, pointing_metrics, subset_metrics

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@dataclasses.dataclass(frozen=True)
class MapSettings:
    """The protocol's settings.

    Attributes:
        controls: maps that look at no network (`ltpa.evaluation.controls`).
        saliency: how figure 9's map of the variant is made, which stands beside the others as `combined`.
        upsampling, threshold: those of `Masking`, for every kind of map.
        batch_size: images per pass.
    """

    controls: Sequence[str] = ()
    saliency: dict[str, Any] | None = None
    upsampling: str = "bilinear"
    threshold: float | None = None
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError("maps: needs batch_size >= 1")
        self.masking()
        for name in self.controls:
            if name not in CONTROLS:
                raise ConfigError(f"maps: control {name!r} is not known; use {', '.join(CONTROLS)}")

    def masking(self) -> Masking:
        """How maps become binary."""
        return Masking(self.upsampling, self.threshold)


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Score the maps of the network of each seed and write its record.

    Raises:
        ConfigError: a setting or target is wrong.
        DataError: a target of kind `masks` lacks them, or a map is not finite.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Jaccard by subset (`gradcam_jaccard_pct` ...) and pointing by kind of map, for each target."""
    settings = read_settings(MapSettings, "maps", spec.protocol)
    saliency, masking = _combined(settings), settings.masking()
    metrics: list[Metric] = []
    facts: dict[str, Any] = {}
    for target, dataset in zip(spec.targets, datasets, strict=True):
        if target.get("kind") not in ("masks", "pointing"):
            raise ConfigError(f"maps: target {dataset.name} is of kind {target.get('kind')!r}; use masks or pointing")
        pooled = dataset.split(target["split"]) if "split" in target else dataset.pooled()
        if target["kind"] == "masks" and pooled.masks is None:
            raise DataError(f"dataset {dataset.name} has no masks; name one that has, one mask per image")
        if pooled.masks is None and pooled.boxes is None:
            facts[dataset.name] = {"skipped": "no masks or boxes"}
            continue
        maps = network_maps(model, pooled.images, settings.batch_size)
        seen = network_pixels(model, pooled.images, settings.batch_size) if settings.controls else pooled.images
        maps |= {name: CONTROLS[name](seen) for name in settings.controls}
        metrics += _scores(maps, None, target["kind"], pooled, dataset, masking)
        if saliency is not None:
            levels = saliency.maps(model, pooled.images, settings.batch_size)
            combined = _scores(levels, saliency, target["kind"], pooled, dataset, masking)
            metrics += [metric for metric in combined if metric.condition not in levels]
        constant = {kind: int((np.ptp(each, axis=(1, 2)) == 0).sum()) for kind, each in maps.items()}
        facts[dataset.name] = {"constant_maps": constant}
    return Measurement(metrics, facts)


def _combined(settings: MapSettings) -> Saliency | None:
    """How the variant's combined map is made; None where it is one of the maps measured here already."""
    if settings.saliency is None or settings.saliency["source"] == CAM or len(settings.saliency["levels"]) < 2:
        return None
    return Saliency.from_declaration(settings.saliency, "maps")


def _scores(
    levels: dict[str, np.ndarray],
    saliency: Saliency | None,
    kind: str,
    pooled: Split,
    dataset: PreparedDataset,
    masking: Masking,
) -> list[Metric]:
    """Jaccard by subset where the target asks for it, and pointing inside masks and boxes where there are any."""
    metrics: list[Metric] = []
    if pooled.masks is not None:
        if kind == "masks":
            metrics += _by_subset(levels, pooled.labels, pooled.masks, dataset, saliency, masking)
        else:
            metrics += pointing_metrics([score_maps(levels, pooled.masks, saliency, masking=masking)], dataset.name)
    return metrics + box_metrics([(levels, pooled.boxes)], dataset, saliency, masking)


def _by_subset(
    maps: dict[str, np.ndarray],
    labels: np.ndarray,
    masks: Masks,
    dataset: PreparedDataset,
    saliency: Saliency | None,
    masking: Masking,
) -> list[Metric]:
    """Jaccard of every kind of map by subset, and pointing over all of them."""
    metrics: list[Metric] = []
    scored: list[Scores] = []
    for subset in np.unique(labels).tolist():
        members = np.flatnonzero(labels == subset).tolist()
        chosen = {kind: each[members] for kind, each in maps.items()}
        scores = score_maps(chosen, [masks[row] for row in members], saliency, saliency is None, masking)
        for kind in scores.jaccard:
            metrics += subset_metrics(scores, dataset.name, dataset.classes[subset], kind, f"{kind}_")
        scored.append(scores)
    return metrics + pointing_metrics(scored, dataset.name)
