"""What networks err on corrupted images, alone and in relation to a reference (Hendrycks and Dietterich, ICLR 2019)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.arrays import PreparedDataset, Split
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


def errors_on(models: "Sequence[AttentionClassifier]", dataset: PreparedDataset, batch_size: int) -> list[np.ndarray]:
    """For each network the errors (kinds, severities), shares 0-1, on images that others have corrupted.

    Of the dataset each split is a kind of `KINDS`, the severities one after the other.

    Raises:
        DataError: a kind is missing, or its images do not divide into the severities.
    """
    found = [np.empty((len(KINDS), len(SEVERITIES))) for _ in models]
    for row, kind in enumerate(KINDS):
        split = dataset.split(kind)
        if len(split) % len(SEVERITIES):
            raise DataError(
                f"dataset {dataset.name}, split {kind}: {len(split)} images are not {len(SEVERITIES)} severities of "
                "the same ones; extract its archive anew"
            )
        truth = true_classes(models[0], split.labels, dataset.name)
        for model, errors in zip(models, found, strict=True):
            wrong = predict(model, split.images, batch_size) != truth
            errors[row] = wrong.reshape(len(SEVERITIES), -1).mean(axis=1)
    return found


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
