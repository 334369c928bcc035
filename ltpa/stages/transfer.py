"""Cross-domain classification (paper section 5.3, table 3): a linear SVM on frozen features, or the network's own head.

Targets are `{"name", "kind": "svm"}`, all of whose images are pooled and split into folds, and `{"name",
"kind": "direct", "splits": [...], "class_map": [...] or null}`. Protocol keys: `SvmSettings`.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltpa.core.errors import ConfigError
from ltpa.core.records import Metric
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.direct import direct_accuracies
from ltpa.evaluation.inference import extract_features, predict
from ltpa.evaluation.svm import SvmSettings, cross_validate
from ltpa.stages.common import Measurement, evaluate_each, read_settings

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Evaluate the network of each seed on every target and write its record.

    Raises:
        ConfigError: a target or setting is wrong.
        DataError: a target cannot be cross-validated.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Metrics of one network on all targets; the folds' accuracies go to the extra facts."""
    settings = read_settings(SvmSettings, "transfer", spec.protocol)
    metrics: list[Metric] = []
    folds: dict[str, list[float]] = {}
    unconverged: dict[str, int] = {}
    for target, dataset in zip(spec.targets, datasets, strict=True):
        if target.get("kind") == "direct":
            metrics += _direct(model, target, dataset, settings.batch_size)
        elif target.get("kind") == "svm":
            pooled = dataset.pooled()
            features = extract_features(model, pooled.images, settings.batch_size)
            for normalise in settings.normalise:
                found = cross_validate(features, pooled.labels, settings, normalise, dataset.name)
                metrics.append(Metric("svm_accuracy_pct", found.accuracy_pct, len(pooled), dataset.name, normalise))
                folds[f"{dataset.name}/{normalise}"] = found.fold_accuracies_pct
                unconverged[f"{dataset.name}/{normalise}"] = found.unconverged
        else:
            raise ConfigError(f"transfer: target {dataset.name} is of kind {target.get('kind')!r}; use svm or direct")
    return Measurement(metrics, {"fold_accuracies_pct": folds, "unconverged_fits": unconverged})


def _direct(
    model: "AttentionClassifier", target: dict[str, Any], dataset: PreparedDataset, batch_size: int
) -> list[Metric]:
    metrics = []
    for name in target["splits"]:
        split = dataset.split(name)
        predicted = predict(model, split.images, batch_size)
        accuracies = direct_accuracies(predicted, split.labels, target["class_map"], dataset.name)
        metrics += [
            Metric("direct_accuracy_pct", value, count, f"{dataset.name}/{name}", condition)
            for condition, (value, count) in accuracies.items()
        ]
    return metrics
