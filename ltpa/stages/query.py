"""Attention under another image's global vector, on the test split of each target (paper appendix A.5).

Targets are `{"name"}`. Protocol keys: `QuerySettings`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.core.records import Metric
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.inference import attention_maps, global_descriptors
from ltpa.evaluation.query import QuerySettings, choose_pairs, compare_maps, effective_rank
from ltpa.stages.common import Measurement, evaluate_each, read_settings

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Swap queries for the network of each seed and write its record.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a target has one class only, or maps or global vectors are not finite.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Change of each level's maps over the chosen pairs, and the effective rank of g over the whole test split."""
    settings = read_settings(QuerySettings, "query", spec.protocol)
    metrics: list[Metric] = []
    for dataset in datasets:
        test = dataset.split("test")
        targets, queries = choose_pairs(test.labels, settings.pairs, settings.query)
        images = test.images[targets]
        own = attention_maps(model, images, settings.batch_size)
        queried = attention_maps(model, images, settings.batch_size, test.images[queries])
        for level, maps in own.items():
            change = dataclasses.asdict(compare_maps(maps, queried[level]))
            metrics += [Metric(name, value, len(targets), dataset.name, level) for name, value in change.items()]
        rank = effective_rank(global_descriptors(model, test.images, settings.batch_size))
        metrics.append(Metric("effective_rank", rank, len(test), dataset.name))
    return Measurement(metrics)
