"""Linear SVM on frozen features, in stratified folds (paper section 5.3 and appendix A.4).

The paper gives C = 1, five folds and the mean accuracy. Where a dataset says which images share sources, folds keep
them together. Tool, multiclass scheme and scaling are our choice: one class
against the rest with liblinear's default loss, penalty and bias, on raw features. L2-normalised features and libsvm's
one-against-one scheme are options. scikit-learn is imported only where its solvers are asked for, or have to step in.
"""

import dataclasses
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from ltpa.core.errors import DataError
from ltpa.evaluation import active_set

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC


EXACT_ENOUGH = 1e-6  # relative duality gap above which liblinear takes over from our solver


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The classifier and its folds; `ltpa.protocols.transfer.TransferSettings` explains the values."""

    folds: int
    C: float
    multiclass: str
    solver: str
    loss: str
    seed: int


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Accuracy of each fold in percent, and how it was come by.

    Attributes:
        fold_accuracies_pct: one per fold.
        unconverged: folds of which a fit stopped at its solver's iteration limit.
        fallbacks: one-against-the-rest problems that liblinear solved in place of our solver.
        largest_gap: of our solver's problems the largest relative duality gap; None where it was not asked.
    """

    fold_accuracies_pct: list[float]
    unconverged: int
    fallbacks: int = 0
    largest_gap: float | None = None

    @property
    def accuracy_pct(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.fold_accuracies_pct))


def l2_normalise(features: np.ndarray) -> np.ndarray:
    """Rows (N, d) scaled to length one; rows of zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold, 0 to folds - 1, in which each image is tested, (N,) int64; as scikit-learn's `StratifiedKFold`.

    The images of all classes in a row, classes in order of appearance, are dealt to the folds one by one, which fixes
    how many of a class each fold tests; which ones is drawn class by class.
    """
    _, first, classes = np.unique(labels, return_index=True, return_inverse=True)
    classes = np.argsort(np.argsort(first))[classes]
    random = np.random.RandomState(seed)
    dealt = np.sort(classes)
    tested = np.empty(len(labels), dtype=np.int64)
    for each in range(len(first)):
        own = np.repeat(np.arange(folds), [int((dealt[fold::folds] == each).sum()) for fold in range(folds)])
        random.shuffle(own)
        tested[classes == each] = own
    return tested


def stratified_group_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold in which each image is tested, (N,) int64, groups undivided; as scikit-learn's `StratifiedGroupKFold`.

    Groups, shuffled and then the unevenest first, go one by one to the fold that leaves the classes most evenly spread
    over the folds.
    """
    _, classes, per_class = np.unique(labels, return_inverse=True, return_counts=True)
    names, numbers = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(per_class)))
    np.add.at(counts, (numbers, classes), 1)
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    spread = np.zeros((folds, len(per_class)))
    fold_of = np.empty(len(names), dtype=np.int64)
    for group in order:
        best, least, fewest = 0, np.inf, np.inf
        for fold in range(folds):
            tried = spread.copy()
            tried[fold] += counts[group]
            unevenness, size = (tried / per_class).std(axis=0).mean(), spread[fold].sum()
            if unevenness < least or (np.isclose(unevenness, least) and size < fewest):
                best, least, fewest = fold, unevenness, size
        spread[best] += counts[group]
        fold_of[group] = best
    tested: np.ndarray = fold_of[numbers]
    return tested


def cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    settings: Classifier,
    normalise: str,
    dataset: str,
    *,
    ids: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> CrossValidation:
    """Train and test a linear SVM in stratified, shuffled folds.

    Computes with as many threads as torch is set to.

    Args:
        features: (N, d), any float type; computed in float64.
        labels: (N,) integers.
        normalise: `raw` or `l2`.
        dataset: name for errors.
        ids: (N,) names of the images, for errors.
        groups: (N,) integers; images of one group stay in one fold. None where each image stands for itself.
        device: that our solver computes on; those of scikit-learn know the CPU only.

    Raises:
        DataError: no images, fewer than two classes, a class with fewer images than folds, too few groups for the
            folds, or features that are not finite.
    """
    _check(features, labels, settings.folds, dataset, ids)
    points = np.ascontiguousarray(features, dtype=np.float64)
    if normalise == "l2":
        points = l2_normalise(points)
    if groups is None:
        tested = stratified_folds(labels, settings.folds, settings.seed)
    else:
        tested = stratified_group_folds(labels, groups, settings.folds, settings.seed)
        _check_grouped(labels, groups, tested, settings.folds, dataset)
    if settings.multiclass == "ovo":
        return _one_against_one(points, labels, tested, settings)
    if settings.solver == "liblinear":
        return _liblinear(points, labels, tested, settings)
    return _exact(points, labels, tested, settings, device)


def _check(features: np.ndarray, labels: np.ndarray, folds: int, dataset: str, ids: np.ndarray | None) -> None:
    if features.ndim != 2 or len(features) != len(labels):
        raise DataError(f"dataset {dataset}: features {features.shape} do not fit {len(labels)} labels")
    if len(labels) == 0:
        raise DataError(f"dataset {dataset}: no images; check its manifest and prepare it again")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        first = "" if ids is None else f" (the first is {ids[bad[0]]})"
        raise DataError(f"dataset {dataset}: features of {len(bad)} images are not finite{first}; retrain the network")
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise DataError(f"dataset {dataset}: {len(classes)} class; a classifier needs images of at least two")
    if counts.min() < folds:
        rarest = classes[counts.argmin()]
        first = "" if ids is None else f" (the first is {ids[labels == rarest][0]})"
        raise DataError(
            f"dataset {dataset}: class {rarest} has {counts.min()} images for {folds} folds{first}; "
            "use fewer folds or more images"
        )


def _check_grouped(labels: np.ndarray, groups: np.ndarray, tested: np.ndarray, folds: int, dataset: str) -> None:
    rule = f"dataset {dataset}: a fold holds whole groups of images"
    if len(np.unique(tested)) < folds:
        found = len(np.unique(groups))
        raise DataError(f"{rule}, and its {found} groups do not fill {folds} folds; lower protocols.transfer.folds")
    for label in np.unique(labels):
        if len(np.unique(tested[labels == label])) < 2:
            raise DataError(f"{rule}, and one fold has all images of class {label}; divide them into more groups")


def _accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float(np.mean(predicted == labels))


def _exact(
    points: np.ndarray, labels: np.ndarray, tested: np.ndarray, settings: Classifier, device: torch.device | str
) -> CrossValidation:
    """One against the rest by our solver; problems it could not certify are left to liblinear, and counted."""
    classes, numbers = np.unique(labels, return_inverse=True)
    train = tested != np.arange(settings.folds)[:, None]
    fits = active_set.fit(
        torch.from_numpy(points).to(device),
        torch.from_numpy(numbers).to(device),
        torch.from_numpy(train).to(device),
        settings.C,
        torch.get_num_threads(),
    )
    weights, gaps = fits.weights.cpu().numpy(), fits.gaps.cpu().numpy()
    unsolved = ~(gaps <= EXACT_ENOUGH)
    accuracies, unconverged = [], 0
    for fold in range(settings.folds):
        stopped = False
        for number in np.flatnonzero(unsolved[fold]):
            sign = np.where(numbers == number, 1, -1)
            classifier, converged = _fit_liblinear(points[train[fold]], sign[train[fold]], settings)
            weights[fold, number] = np.append(classifier.coef_[0], classifier.intercept_)
            stopped |= not converged
        test = ~train[fold]
        scores = points[test] @ weights[fold, :, :-1].T + weights[fold, :, -1]
        accuracies.append(_accuracy(classes[scores.argmax(axis=1)], labels[test]))
        unconverged += stopped
    solved = gaps[~unsolved]
    return CrossValidation(accuracies, unconverged, int(unsolved.sum()), float(solved.max()) if solved.size else None)


def _liblinear(points: np.ndarray, labels: np.ndarray, tested: np.ndarray, settings: Classifier) -> CrossValidation:
    """One against the rest by liblinear.

    Fits run one after the other: liblinear draws from one random generator per process, so threads would make results
    depend on timing.
    """
    accuracies, unconverged = [], 0
    for fold in range(settings.folds):
        test = tested == fold
        classifier, converged = _fit_liblinear(points[~test], labels[~test], settings)
        accuracies.append(_accuracy(classifier.predict(points[test]), labels[test]))
        unconverged += not converged
    return CrossValidation(accuracies, unconverged)


def _fit_liblinear(points: np.ndarray, labels: np.ndarray, settings: Classifier) -> "tuple[LinearSVC, bool]":
    """A fitted classifier and whether it converged. The dual form is many times faster than the primal one here."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    classifier = LinearSVC(C=settings.C, loss=settings.loss, dual=True, random_state=settings.seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(points, labels)
    return classifier, not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)


def _one_against_one(
    points: np.ndarray, labels: np.ndarray, tested: np.ndarray, settings: Classifier
) -> CrossValidation:
    """One against one by libsvm, on inner products that all folds share; it has no iteration limit, so it converges."""
    from sklearn.svm import SVC

    gram = points @ points.T
    accuracies = []
    for fold in range(settings.folds):
        train, test = np.flatnonzero(tested != fold), np.flatnonzero(tested == fold)
        classifier = SVC(C=settings.C, kernel="precomputed").fit(gram[np.ix_(train, train)], labels[train])
        accuracies.append(_accuracy(classifier.predict(gram[np.ix_(test, train)]), labels[test]))
    return CrossValidation(accuracies, unconverged=0)
