"""A linear classifier fitted to vectors of a network: what they say of the class, whatever its head makes of them."""

import dataclasses

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltpa.core.errors import NotFiniteError

_STEPS = 2000
_SMALL_ENOUGH = 1e-4  # largest entry of the gradient of the summed loss at which a fit counts as converged
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
    standard = torch.from_numpy((points - mean) / scale)
    rows = torch.cat([standard, standard.new_ones(len(standard), 1)], dim=1)
    truth = torch.from_numpy(labels)
    weights = torch.zeros(rows.shape[1], classes, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights], max_iter=_STEPS, tolerance_grad=_SMALL_ENOUGH, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        found = functional.cross_entropy(rows @ weights, truth, reduction="sum") + weights[:-1].square().sum() / 2
        found.backward()
        return found

    search.step(loss)
    loss()
    assert weights.grad is not None
    converged = bool(weights.grad.abs().max() <= 10 * _SMALL_ENOUGH)
    return Readout(mean, scale, weights.detach().numpy(), converged)
