"""Linear SVM on frozen features, in stratified folds (paper section 5.3 and appendix A.4).

The paper gives C = 1, five folds and the mean accuracy. Tool, multiclass scheme and scaling are our choice: liblinear's
one-vs-rest squared-hinge SVM on raw features, with L2-normalised features and libsvm's one-vs-one scheme as options.
"""

import dataclasses
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ltpa.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


MULTICLASS = ("ovr", "ovo")
NORMALISATIONS = ("raw", "l2")


@dataclasses.dataclass(frozen=True)
class SvmSettings:
    """Settings of the protocol.

    Attributes:
        folds: number of stratified folds.
        C: weight of the hinge losses against the margin.
        multiclass: `ovr` (liblinear, one problem per class) or `ovo` (libsvm, one per pair of classes; holds an
            N x N float64 matrix).
        normalise: feature scalings to report, of `raw` and `l2` (rows of length one); the first is the headline.
        seed: of the assignment to folds and of the solver.
        batch_size: images per forward pass.
    """

    folds: int = 5
    C: float = 1.0
    multiclass: str = "ovr"
    normalise: "Sequence[str]" = NORMALISATIONS
    seed: int = 0
    batch_size: int = 500

    def __post_init__(self) -> None:
        if self.multiclass not in MULTICLASS:
            raise ConfigError(f"transfer: multiclass is {self.multiclass!r}; use {' or '.join(MULTICLASS)}")
        if not self.normalise or any(name not in NORMALISATIONS for name in self.normalise):
            raise ConfigError(f"transfer: normalise is {self.normalise!r}; list {' or '.join(NORMALISATIONS)}, or both")
        if self.folds < 2 or not self.C > 0 or self.batch_size < 1:
            raise ConfigError("transfer: needs folds >= 2, C > 0 and batch_size >= 1")


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Accuracy of each fold in percent, and how many of the fits stopped at the solver's iteration limit."""

    fold_accuracies_pct: list[float]
    unconverged: int

    @property
    def accuracy_pct(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.fold_accuracies_pct))


def l2_normalise(features: np.ndarray) -> np.ndarray:
    """Rows (N, d) scaled to length one; rows of zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def cross_validate(
    features: np.ndarray, labels: np.ndarray, settings: SvmSettings, normalise: str, dataset: str
) -> CrossValidation:
    """Train and test a linear SVM in stratified, shuffled folds.

    Fits run one after the other: liblinear draws from one random generator per process, so threads would make results
    depend on timing.

    Args:
        features: (N, d), any float type; computed in float64.
        labels: (N,) integers.
        normalise: `raw` or `l2`.
        dataset: name for errors.

    Raises:
        DataError: fewer than two classes, a class with fewer images than folds, or features that are not finite.
    """
    from sklearn.model_selection import StratifiedKFold

    _check(features, labels, settings.folds, dataset)
    points = np.ascontiguousarray(features, dtype=np.float64)
    if normalise == "l2":
        points = l2_normalise(points)
    gram = points @ points.T if settings.multiclass == "ovo" else None
    accuracies, unconverged = [], 0
    folds = StratifiedKFold(settings.folds, shuffle=True, random_state=settings.seed)
    for train, test in folds.split(points, labels):
        if gram is None:
            predicted, converged = _one_vs_rest(points[train], labels[train], points[test], settings)
        else:
            predicted, converged = _one_vs_one(gram, labels, train, test, settings)
        accuracies.append(100 * float(np.mean(predicted == labels[test])))
        unconverged += not converged
    return CrossValidation(accuracies, unconverged)


def _check(features: np.ndarray, labels: np.ndarray, folds: int, dataset: str) -> None:
    if features.ndim != 2 or len(features) != len(labels):
        raise DataError(f"dataset {dataset}: features {features.shape} do not fit {len(labels)} labels")
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        raise DataError(f"dataset {dataset}: features of {bad} images are not finite; retrain the network")
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"dataset {dataset}: {len(classes)} class; a classifier needs images of at least two")
    if counts.min() < folds:
        raise DataError(
            f"dataset {dataset}: class {classes[counts.argmin()]} has {counts.min()} images for {folds} folds; "
            "use fewer folds or more images"
        )


def _one_vs_rest(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, settings: SvmSettings
) -> tuple[np.ndarray, bool]:
    """Predictions of liblinear, and whether it converged. The dual is many times faster than the primal here."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    classifier = LinearSVC(C=settings.C, dual=True, random_state=settings.seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(train, labels)
    return classifier.predict(test), not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)


def _one_vs_one(
    gram: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, settings: SvmSettings
) -> tuple[np.ndarray, bool]:
    """Predictions of libsvm on the Gram matrix that all folds share; it has no iteration limit, so it converges."""
    from sklearn.svm import SVC

    classifier = SVC(C=settings.C, kernel="precomputed").fit(gram[np.ix_(train, train)], labels[train])
    return classifier.predict(gram[np.ix_(test, train)]), True
