"""Fast gradient sign attack on the test split of each target (paper section 5.2, figure 6).

Targets are `{"name"}`. Protocol keys: `FgsmSettings`.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltpa.core.records import Metric
from ltpa.core.specs import EvaluationSpec
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.fgsm import FgsmSettings, attack
from ltpa.stages.common import Measurement, evaluate_each, read_settings

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


def run(spec: EvaluationSpec, results: Path, seeds: Sequence[int]) -> None:
    """Attack the network of each seed and write its record.

    Raises:
        ConfigError: a setting is wrong.
    """
    evaluate_each(__name__, spec, results, seeds, functools.partial(measure, spec))


def measure(
    spec: EvaluationSpec, model: "AttentionClassifier", datasets: list[PreparedDataset], folder: Path
) -> Measurement:
    """Fooling rate over all test images, and accuracy, for each epsilon (condition `eps=1`)."""
    settings = read_settings(FgsmSettings, "fgsm", spec.protocol)
    metrics: list[Metric] = []
    clean: dict[str, float] = {}
    zero: dict[str, int] = {}
    for dataset in datasets:
        test = dataset.split("test")
        found = attack(model, test.images, test.labels, settings)
        for epsilon in settings.epsilons:
            condition = f"eps={epsilon:g}"
            fooled, correct = found.fooling_rate_pct[epsilon], found.accuracy_pct[epsilon]
            metrics.append(Metric("fooling_rate_pct", fooled, len(test), dataset.name, condition))
            metrics.append(Metric("adversarial_accuracy_pct", correct, len(test), dataset.name, condition))
        clean[dataset.name], zero[dataset.name] = found.clean_accuracy_pct, found.zero_gradients
    return Measurement(metrics, {"clean_accuracy_pct": clean, "zero_gradient_images": zero})
