"""Other maps than the attention of figure 9 against the same object masks: beyond the paper.

Targets are `{"name"}`, datasets whose classes are the subsets and all of whose images are scored. Protocol keys:
`MapSettings`.
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
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.controls import CONTROLS
from ltpa.evaluation.maps import network_maps
from ltpa.evaluation.segmentation import score_maps
from ltpa.stages.common import Measurement, evaluate_each, read_settings
from ltpa.stages.segmentation import pointing_metrics, subset_metrics

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


@dataclasses.dataclass(frozen=True)
class MapSettings:
    """The protocol's settings: controls that look at no network (`ltpa.evaluation.controls`), images per pass."""

    controls: Sequence[str] = ()
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError("maps: needs batch_size >= 1")
        for name in self.controls:
            if name not in CONTROLS:
                raise ConfigError(f"maps: control {name!r} is not known; use {', '.join(CONTROLS)}")


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Score the maps of the network of each seed and write its record.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a target lacks masks, or a map is not finite.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Jaccard by subset (`gradcam_jaccard_pct` ...) and pointing by kind of map, for each target."""
    settings = read_settings(MapSettings, "maps", spec.protocol)
    metrics: list[Metric] = []
    facts: dict[str, Any] = {}
    for dataset in datasets:
        pooled = dataset.pooled()
        if pooled.masks is None:
            raise DataError(f"dataset {dataset.name} has no masks; this stage needs one per image")
        maps = network_maps(model, pooled.images, settings.batch_size)
        maps |= {name: CONTROLS[name](pooled.images) for name in settings.controls}
        scored = []
        for subset in np.unique(pooled.labels).tolist():
            members = np.flatnonzero(pooled.labels == subset).tolist()
            chosen = {kind: each[members] for kind, each in maps.items()}
            scores = score_maps(chosen, [pooled.masks[row] for row in members], None)
            for kind in chosen:
                metrics += subset_metrics(scores, dataset.name, dataset.classes[subset], kind, f"{kind}_")
            scored.append(scores)
        metrics += pointing_metrics(scored, dataset.name)
        constant = {kind: int((np.ptp(each, axis=(1, 2)) == 0).sum()) for kind, each in maps.items()}
        facts[dataset.name] = {"constant_maps": constant}
    return Measurement(metrics, facts)
