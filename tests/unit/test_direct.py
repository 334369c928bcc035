"""Classification of another dataset by the network's own head, by hand."""

import numpy as np
import pytest

from ltpa.core.errors import ConfigError
from ltpa.evaluation.direct import direct_accuracies

LABELS = np.array([0, 0, 1, 1, 2, 2, 2, 2])
PREDICTED = np.array([2, 0, 1, 0, 0, 0, 1, 2])


def test_conditions_by_hand():
    found = direct_accuracies(PREDICTED, LABELS, [2, None, 0], "toy")
    assert found["mapped"] == (50.0, 6)  # of classes 0 and 2: rows 0, 4, 5
    assert found["mapped-all"] == (37.5, 8)
    assert found["identity"] == (37.5, 8)  # rows 1, 2, 7


def test_no_map_means_the_same_classes():
    found = direct_accuracies(PREDICTED, LABELS, None, "toy")
    assert found["mapped"] == found["mapped-all"] == found["identity"] == (37.5, 8)


def test_six_of_ten_classes_share_their_number_between_cifar10_and_stl10():
    stl_to_cifar = [0, 2, 1, 3, 4, 5, 7, None, 8, 9]
    perfect = np.array([-5 if known is None else known for known in stl_to_cifar])
    found = direct_accuracies(perfect, np.arange(10), stl_to_cifar, "stl10")
    assert found["mapped"] == (100.0, 9)
    assert found["mapped-all"] == (90.0, 10)
    assert found["identity"] == (60.0, 10)


def test_a_map_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="toy: class_map has 2 entries, labels go to 2"):
        direct_accuracies(PREDICTED, LABELS, [0, 1], "toy")
    with pytest.raises(ConfigError, match="toy: class_map knows none"):
        direct_accuracies(PREDICTED, LABELS, [None, None, None], "toy")
