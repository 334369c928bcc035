"""Classification of another dataset by the network's own head (paper section 5.3, STL).

The paper calls the label sets of CIFAR-10 and STL the same, but one class differs and so does the order. All readings
are measured: classes mapped by name, and label numbers compared as they stand.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.errors import ConfigError, DataError
from ltpa.core.records import Metric
from ltpa.data.arrays import PreparedDataset
from ltpa.evaluation.features import View, seen_through
from ltpa.evaluation.inference import predict

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


def direct_metrics(
    model: "AttentionClassifier",
    dataset: PreparedDataset,
    splits: Sequence[str],
    class_map: Sequence[int | None] | None,
    view: View,
) -> list[Metric]:
    """`direct_accuracy_pct` of every split, by condition of `direct_accuracies`.

    Raises:
        ConfigError: the map does not fit the dataset's classes.
        DataError: a split is empty.
    """
    metrics = []
    for name in splits:
        split = dataset.split(name)
        if len(split) == 0:
            raise DataError(f"dataset {dataset.name}, split {name}: no images; prepare it again")
        with seen_through(model, split.images, view):
            predicted = predict(model, split.images, view.batch_size)
        accuracies = direct_accuracies(predicted, split.labels, class_map, dataset.name)
        metrics += [
            Metric("direct_accuracy_pct", value, count, f"{dataset.name}/{name}", condition)
            for condition, (value, count) in accuracies.items()
        ]
    return metrics


def direct_accuracies(
    predicted: np.ndarray, labels: np.ndarray, class_map: Sequence[int | None] | None, dataset: str
) -> dict[str, tuple[float, int]]:
    """Accuracy in percent and number of images, by condition.

    `mapped` leaves out images whose class the network does not know, `mapped-all` counts them as wrong, `identity`
    compares label numbers unmapped.

    Args:
        predicted: (N,) the network's classes.
        labels: (N,) the dataset's classes.
        class_map: for each class of the dataset the network's class, None where it has no such class. None in place of
            the list means that both number their classes alike; the three conditions then agree.
        dataset: name for errors.

    Raises:
        ConfigError: the map is shorter than the labels need, or none of the images' classes is known.
    """
    if class_map is None:
        class_map = range(int(labels.max()) + 1)
    if labels.max() >= len(class_map):
        raise ConfigError(f"dataset {dataset}: class_map has {len(class_map)} entries, labels go to {labels.max()}")
    unknown = -1
    mapped = np.array([unknown if known is None else known for known in class_map])[labels]
    known = mapped != unknown
    if not known.any():
        raise ConfigError(f"dataset {dataset}: class_map knows none of its classes; map at least one")
    correct = predicted == mapped
    return {
        "mapped": (100 * float(correct[known].mean()), int(known.sum())),
        "mapped-all": (100 * float(correct.mean()), len(labels)),
        "identity": (100 * float((predicted == labels).mean()), len(labels)),
    }
