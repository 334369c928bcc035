"""Calibration: whether a network is right as often as it says (Guo et al., ICML 2017), beside what chance gives.

Functions take predicted distributions (N, C), or their logarithms, in float64 and true classes (N,). Every number has a
null, its expected value for a network that is right exactly as often as it says: a calibration error of a perfectly
calibrated network is not zero, because few images stand in each bin.
"""

import dataclasses

import numpy as np
from scipy.optimize import brentq

from ltpa.core.seeds import derive

BINS = 15
CLASSWISE_UP_TO = 100  # classes; with more, nearly all probabilities of a class are near zero
NULL_DRAWS = 200
TEMPERATURES = (0.01, 100.0)  # where the search ends; half a test set without an error has no best temperature
_LEAST = -700.0  # of a logarithm: a class that a network excludes has e^-700, so that every number stays finite


def log_probabilities(logits: np.ndarray, temperature: "float | np.ndarray" = 1.0) -> np.ndarray:
    """Logarithms (N, C) float64 of softmax(logits / temperature), at least -700; one temperature, or (N, 1) of them."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = np.maximum(scaled - scaled.max(axis=1, keepdims=True), _LEAST)
    return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))


def equal_width(confidence: np.ndarray) -> np.ndarray:
    """Bin (int64, 0-14) of each confidence, bins of equal width; a bin holds its lower edge, the last one both."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def equal_count(confidence: np.ndarray) -> np.ndarray:
    """Bin (N,) int64 of each confidence (N,), bins of equal count; of equal confidences in the order of the images."""
    bins = np.empty(len(confidence), np.int64)
    bins[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * BINS // len(confidence)
    return bins


def calibration_error(bins: np.ndarray, confidence: np.ndarray, hits: np.ndarray) -> float:
    """Mean over images of |share right - mean confidence| of their bin, 0-1; all arguments are (N,)."""
    gaps = np.bincount(bins, weights=hits - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(bins))


class Classwise:
    """Classwise calibration error: of each class's own probability, in bins of equal width, mean over classes.

    Kull et al. (NeurIPS 2019). Made once for a network's distributions, it scores any number of labels.
    """

    def __init__(self, probabilities: np.ndarray) -> None:
        self._classes = probabilities.shape[1]
        self._cells = equal_width(probabilities) + BINS * np.arange(self._classes)
        self._sums = np.bincount(self._cells.ravel(), weights=probabilities.ravel(), minlength=BINS * self._classes)

    def error(self, labels: np.ndarray) -> float:
        """The error (0-1) under true classes `labels` (N,)."""
        cells = self._cells[np.arange(len(labels)), labels]
        found = np.bincount(cells, minlength=len(self._sums))
        return float(np.abs(found - self._sums).sum() / len(labels) / self._classes)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Numbers of one network, each beside its null; shares are 0-1, `nll` is in nats, `brier` 0-2.

    `classwise` and its null are None with more than `CLASSWISE_UP_TO` classes. The null of the accuracy is the mean
    confidence. `bins` holds for each bin of equal width its number of images, mean confidence and share right.
    """

    accuracy: float
    confidence: float
    nll: float
    nll_null: float
    brier: float
    brier_null: float
    ece: float
    ece_null: float
    adaptive: float
    adaptive_null: float
    classwise: float | None
    classwise_null: float | None
    bins: list[tuple[int, float, float]]


def calibration(logs: np.ndarray, labels: np.ndarray, seed: int = 0) -> Calibration:
    """How well distributions with logarithms `logs` fit `labels`; `seed` is that of the labels drawn for the nulls."""
    probabilities = np.exp(logs)
    rows = np.arange(len(labels))
    predicted = logs.argmax(axis=1)
    confidence = probabilities[rows, predicted]
    hits = predicted == labels
    width, count = equal_width(confidence), equal_count(confidence)
    classwise = Classwise(probabilities) if probabilities.shape[1] <= CLASSWISE_UP_TO else None
    squares = (probabilities**2).sum(axis=1)
    nulls = []
    generator = np.random.default_rng(derive(seed, "calibration"))
    sums = probabilities.cumsum(axis=1)
    for _ in range(NULL_DRAWS):
        drawn = _draw(sums, generator)
        right = drawn == predicted
        error = classwise.error(drawn) if classwise else 0.0
        nulls.append((calibration_error(width, confidence, right), calibration_error(count, confidence, right), error))
    ece_null, adaptive_null, classwise_null = np.mean(nulls, axis=0).tolist()
    return Calibration(
        accuracy=float(hits.mean()),
        confidence=float(confidence.mean()),
        nll=float(-logs[rows, labels].mean()),
        nll_null=float(-(probabilities * logs).sum(axis=1).mean()),
        brier=float((squares - 2 * probabilities[rows, labels] + 1).mean()),
        brier_null=float((1 - squares).mean()),
        ece=calibration_error(width, confidence, hits),
        ece_null=ece_null,
        adaptive=calibration_error(count, confidence, hits),
        adaptive_null=adaptive_null,
        classwise=classwise.error(labels) if classwise else None,
        classwise_null=classwise_null if classwise else None,
        bins=_bins(width, confidence, hits),
    )


def _draw(sums: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A class for each row of cumulated probabilities (N, C)."""
    drawn: np.ndarray = (generator.random((len(sums), 1)) * sums[:, -1:] >= sums).sum(axis=1)
    return drawn


def _bins(bins: np.ndarray, confidence: np.ndarray, hits: np.ndarray) -> list[tuple[int, float, float]]:
    counts = np.bincount(bins, minlength=BINS)
    means = [np.bincount(bins, weights=each, minlength=BINS) / np.maximum(counts, 1) for each in (confidence, hits)]
    return [(int(n), float(sure), float(right)) for n, sure, right in zip(counts, *means, strict=True)]


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in `TEMPERATURES` that gives logits (N, C) the smallest negative log likelihood."""
    scores = np.asarray(logits, np.float64)
    scores = np.maximum(scores - scores.max(axis=1, keepdims=True), _LEAST)
    own = scores[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        """Of the likelihood over the inverse temperature, in which it is convex."""
        weights = np.exp(log_probabilities(scores, np.exp(log_temperature)))
        return float(((weights * scores).sum(axis=1) - own).mean())

    low, high = np.log(TEMPERATURES)
    if slope(low) <= 0:
        return TEMPERATURES[0]
    if slope(high) >= 0:
        return TEMPERATURES[1]
    return float(np.exp(brentq(slope, low, high, xtol=1e-10)))


def cross_fitted(logits: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, tuple[float, float]]:
    """Logarithms (N, C) after temperature scaling, and the two temperatures.

    The images are halved at random; the temperature fitted on either half is that of the other half, so that no image
    has a part in its own. No predicted class changes.
    """
    first = np.zeros(len(labels), bool)
    first[np.random.default_rng(derive(seed, "halves")).permutation(len(labels))[: len(labels) // 2]] = True
    of_second, of_first = (fit_temperature(logits[half], labels[half]) for half in (first, ~first))
    temperatures = np.where(first, of_first, of_second)[:, None]
    return log_probabilities(logits, temperatures), (of_first, of_second)
