"""What networks err on corrupted images, alone and in relation to a reference (Hendrycks and Dietterich, ICLR 2019)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltpa.data.arrays import Split
from ltpa.evaluation.corruptions import KINDS, SEVERITIES, corrupt
from ltpa.evaluation.inference import network_pixels, predict, true_classes

if TYPE_CHECKING:
    from ltpa.models.base import AttentionClassifier


_ROUNDING = 1e-9  # of sums of shares


def corruption_errors(
    models: "Sequence[AttentionClassifier]", split: Split, chosen: np.ndarray, dataset: str, batch_size: int
) -> list[tuple[float, np.ndarray]]:
    """For each network its error on the `chosen` images of `split`, and (kinds, severities) those on corrupted ones.

    Errors are shares, 0-1. Images are corrupted once for all networks, at the size of the first's input.

    Raises:
        DataError: the images are of more classes than the network's.
    """
    truth = true_classes(models[0], split.labels, dataset)
    wrong = np.zeros((len(models), 1 + len(KINDS) * len(SEVERITIES)))
    for start in range(0, len(chosen), batch_size):
        rows = chosen[start : start + batch_size]
        labels = truth[rows]
        images = network_pixels(models[0], np.asarray(split.images[rows]), batch_size)
        versions = [images] + [corrupt(images, rows, kind, s, dataset) for kind in KINDS for s in SEVERITIES]
        for number, model in enumerate(models):
            for column, version in enumerate(versions):
                wrong[number, column] += (predict(model, version, batch_size) != labels).sum()
    shares = wrong / len(chosen)
    return [(float(row[0]), row[1:].reshape(len(KINDS), len(SEVERITIES))) for row in shares]


def relative_to(
    clean: float, errors: np.ndarray, reference_clean: float, reference: np.ndarray
) -> dict[str, float | None]:
    """`mce` and `relative_mce` as shares: means over kinds of sums over severities, divided by the reference's.

    Errors are (kinds, severities). Relative ones are increases over the error without corruption. None where the
    reference's sum of some kind is not above zero, and a ratio would mean nothing.
    """
    found: dict[str, float | None] = {}
    for name, own, other in (
        ("mce", errors, reference),
        ("relative_mce", errors - clean, reference - reference_clean),
    ):
        sums = other.sum(axis=1)
        found[name] = float((own.sum(axis=1) / sums).mean()) if (sums > _ROUNDING).all() else None
    return found
