"""A linear classifier fitted to vectors of a network: what they say of the class, whatever its head makes of them."""

import dataclasses

import numpy as np
from scipy.optimize import minimize

from ltpa.core.errors import NotFiniteError

_STEPS = 2000
_SMALL_ENOUGH = 1e-3  # largest entry of the gradient of the summed loss at which a fit counts as converged
_NOISE = float(np.finfo(np.float32).eps)


@dataclasses.dataclass(frozen=True)
class Readout:
    """Multinomial logistic regression on standardised vectors.

    Attributes:
        mean, scale: (d,) of the training vectors; columns that only rounding moves are not scaled.
        weights: (d + 1, classes) float64, the bias last.
        converged: whether the fit ended at its minimum.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    converged: bool

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Classes (N,) of vectors (N, d)."""
        scores = (vectors - self.mean) / self.scale @ self.weights[:-1] + self.weights[-1]
        predicted: np.ndarray = scores.argmax(axis=1)
        return predicted


def fit_readout(vectors: np.ndarray, labels: np.ndarray, classes: int) -> Readout:
    """Fit to training vectors (N, d) and labels (N,), 0 to classes - 1.

    Minimises |W|^2 / 2 + sum of cross-entropies, biases free, as scikit-learn's `LogisticRegression` does by default.
    The problem is convex, so the result depends on no seed.

    Raises:
        NotFiniteError: a vector is not finite.
    """
    if not np.isfinite(vectors).all():
        raise NotFiniteError("its attended vectors are not finite; retrain the network")
    points = vectors.astype(np.float64)
    mean, spread = points.mean(axis=0), points.std(axis=0)
    scale = np.where(spread > _NOISE * np.abs(points).max(axis=0), spread, 1)
    rows = np.concatenate([(points - mean) / scale, np.ones((len(points), 1))], axis=1)
    truth = np.zeros((len(points), classes))
    truth[np.arange(len(points)), labels] = 1

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and its gradient at weights (d + 1, classes)."""
        weights = flat.reshape(-1, classes)
        penalised = np.concatenate([weights[:-1], np.zeros((1, classes))])
        scores = rows @ weights
        scores -= scores.max(axis=1, keepdims=True)
        sums = np.exp(scores).sum(axis=1, keepdims=True)
        value = (np.log(sums[:, 0]) - (scores * truth).sum(axis=1)).sum() + (penalised**2).sum() / 2
        return float(value), (rows.T @ (np.exp(scores) / sums - truth) + penalised).ravel()

    limits = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "gtol": _SMALL_ENOUGH, "ftol": 0.0}
    found = minimize(loss, np.zeros(rows.shape[1] * classes), jac=True, method="L-BFGS-B", options=limits)
    converged = bool(np.abs(found.jac).max() <= 10 * _SMALL_ENOUGH)
    return Readout(mean, scale, found.x.reshape(-1, classes), converged)
