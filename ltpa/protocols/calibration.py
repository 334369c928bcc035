"""Whether networks are right as often as they say, on their own test split: beyond the paper."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ltpa.core.errors import DataError
from ltpa.core.records import Metric
from ltpa.protocols.base import ChosenVariants, Context, Measurement, MetricKind, Protocol, Seed

if TYPE_CHECKING:
    from ltpa.data.arrays import PreparedDataset
    from ltpa.evaluation.calibration import Calibration as Numbers
    from ltpa.models.base import AttentionClassifier


class CalibrationSettings(ChosenVariants):
    """Which networks, and the draws.

    Attributes:
        variants: null for all.
        batch_size: images per forward pass.
        seed: of the labels drawn for the nulls, and of the halves between which temperatures are exchanged.
    """

    seed: Seed = 0


class Calibration(Protocol):
    """Likelihood, scores and calibration errors with their nulls, as they are and after temperature scaling."""

    name = "calibration"
    title = "Calibration"
    about = "whether networks are right as often as they say"
    Settings = CalibrationSettings
    metrics = (
        MetricKind("accuracy_pct", "accuracy", "%", "higher", of_labels=True),
        MetricKind("confidence_pct", "mean confidence", "%", of_labels=True),
        MetricKind("nll", "negative log likelihood", "nats", "lower", "empty, `null` or `scaled`", True),
        MetricKind("brier", "Brier score, 0-2", "", "lower", "empty, `null` or `scaled`", True),
        MetricKind("ece_pct", "calibration error, 15 equal bins", "%", "lower", "empty, `null`, `scaled`...", True),
        MetricKind("adaptive_ece_pct", "calibration error, 15 equal counts", "%", "lower", "as `ece_pct`", True),
        MetricKind("classwise_ece_pct", "calibration error by class", "%", "lower", "as `ece_pct`", True),
        MetricKind("temperature", "temperature of two-fold cross-fitting", of_labels=True),
    )

    def measure(
        self,
        model: "AttentionClassifier",
        datasets: "Sequence[PreparedDataset]",
        settings: CalibrationSettings,
        context: Context,
    ) -> Measurement:
        """The record's facts hold for each dataset the two temperatures, and `bins`, of which the figure is drawn."""
        import numpy as np

        from ltpa.evaluation.calibration import BINS, calibration, cross_fitted, log_probabilities
        from ltpa.evaluation.inference import logits_of, true_classes

        metrics: list[Metric] = []
        facts = {}
        for dataset in datasets:
            test = dataset.split("test")
            if len(test) < 2 * BINS or model.num_classes < 2:
                raise DataError(
                    f"dataset {dataset.name}: {len(test)} images of {model.num_classes} classes; calibration needs "
                    f"{2 * BINS} images and two classes: take a larger set"
                )
            labels = true_classes(model, test.labels, dataset.name)
            logits = logits_of(model, test.images, settings.batch_size)
            own = calibration(log_probabilities(logits), labels, settings.seed)
            logs, temperatures = cross_fitted(logits, labels, settings.seed)
            scaled = calibration(logs, labels, settings.seed)
            found = [
                ("accuracy_pct", 100 * own.accuracy, ""),
                ("confidence_pct", 100 * own.confidence, ""),
                ("temperature", float(np.sqrt(np.prod(temperatures))), ""),
                *_numbers(own, "", "null"),
                *_numbers(scaled, "scaled", "scaled null"),
            ]
            metrics += [Metric(name, value, len(test), dataset.name, condition) for name, value, condition in found]
            facts[dataset.name] = {"temperatures": list(temperatures), "bins": own.bins}
        return Measurement(metrics, facts)


def _numbers(found: "Numbers", condition: str, null: str) -> list[tuple[str, float, str]]:
    """Metric name, value and condition of each number that has a null, and of its null."""
    pairs = [
        ("nll", found.nll, found.nll_null, 1),
        ("brier", found.brier, found.brier_null, 1),
        ("ece_pct", found.ece, found.ece_null, 100),
        ("adaptive_ece_pct", found.adaptive, found.adaptive_null, 100),
        ("classwise_ece_pct", found.classwise, found.classwise_null, 100),
    ]
    return [
        (name, scale * value, kind)
        for name, own, expected, scale in pairs
        for value, kind in ((own, condition), (expected, null))
        if value is not None
    ]
