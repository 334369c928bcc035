"""Classification of another dataset by the network's own head (paper section 5.3, STL).

The paper calls the label sets of CIFAR-10 and STL the same, but one class differs and so does the order. All readings
are measured: classes mapped by name, and label numbers compared as they stand.
"""

from collections.abc import Sequence

import numpy as np

from ltpa.core.errors import ConfigError


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
