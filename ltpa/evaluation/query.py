"""Attention under another image's global vector (paper appendix A.5, figure 10), as numbers.

With pc scores the global vector adds the same amount to every cell of a level, which a softmax cancels: the paper's A.5
finds it redundant, and every change measured here must be rounding alone. With dp scores it must not be.
"""

import dataclasses

import numpy as np

from ltpa.core.errors import DataError, NotFiniteError

OTHER_CLASS, FIRST = "other_class", "first"
_TINY = float(np.finfo(np.float32).tiny)
_STEEPEST = 1000.0
_HALVINGS = 64  # of an interval of 2000: down to rounding
SMALLEST_SHARE = 1e-3  # of a uniform map's weight; a smaller divisor is never used


@dataclasses.dataclass(frozen=True)
class Change:
    """How far maps move when the query does, averaged over images.

    Attributes:
        relative_change: mean over cells of |a2 - a1| / a1 (as in figure 10); cells that hold less than a thousandth of
            a uniform map's weight are divided by that thousandth, or nothing would be left of the other cells.
        kl_divergence: of the queried map from the own one, in nats; maps are scaled to sum 1 first.
        max_abs_change: largest |a2 - a1| of any cell of any image.
        moved_mass_pct: half the sum of |a2 - a1| over maps scaled to sum 1, which no single small cell can dominate.
        matched_moved_mass_pct: the same, with the own map brought to the temperature at which it is nearest to the
            queried one (`match_temperature`): what of the change is no mere change of contrast.
        matched_kl_divergence: of the queried map from that one, in nats.
    """

    relative_change: float
    kl_divergence: float
    max_abs_change: float
    moved_mass_pct: float
    matched_moved_mass_pct: float
    matched_kl_divergence: float


def choose_pairs(labels: np.ndarray, pairs: int, query: str = OTHER_CLASS) -> tuple[np.ndarray, np.ndarray]:
    """Indices of target and query images, (K,) each with K = min(pairs, N), or N - 1 where the first is no target.

    Targets are spread evenly over the images. The query of image i is image i + N // 2 (cyclic), or the first after it
    that is of another class than i; with `first` it is image 0, and the others are targets, whatever their class.

    Raises:
        DataError: all images are of one class, or there is but one.
    """
    count = len(labels)
    if query == FIRST:
        if count < 2:
            raise DataError("one image cannot query itself; use a dataset with at least two")
        chosen = min(pairs, count - 1)
        return 1 + np.arange(chosen) * (count - 1) // chosen, np.zeros(chosen, dtype=np.int64)
    if len(np.unique(labels)) < 2:
        raise DataError("images of one class cannot query each other; use a dataset with at least two classes")
    chosen = min(pairs, count)
    targets = np.arange(chosen) * count // chosen
    queries = (targets + count // 2) % count
    while (same := labels[targets] == labels[queries]).any():
        queries = np.where(same, (queries + 1) % count, queries)
    return targets, queries


def compare_maps(own: np.ndarray, queried: np.ndarray) -> Change:
    """Compare maps (N, h, w) under the own and under the query's global vector.

    Arguments of the logarithm are kept at or above the smallest normal float32, below which softmax weights vanish.

    Raises:
        DataError: shapes differ.
        NotFiniteError: a map is negative or not finite.
    """
    if own.shape != queried.shape:
        raise DataError(f"maps {own.shape} and {queried.shape} differ in shape; compare maps of the same images")
    first, second = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (own, queried))
    for maps in (first, second):
        if not np.isfinite(maps).all() or (maps < 0).any():
            raise NotFiniteError("its attention maps are negative or not finite; retrain the network")
    change = np.abs(second - first)
    p, q = (_distributions(maps) for maps in (first, second))
    matched = _distributions(at_temperature(p, match_temperature(p, q)))
    return Change(
        float((change / np.maximum(first, SMALLEST_SHARE * first.mean(axis=1, keepdims=True))).mean()),
        _divergence(p, q),
        float(change.max()),
        _moved(p, q),
        _moved(matched, q),
        _divergence(matched, q),
    )


def match_temperature(own: np.ndarray, queried: np.ndarray) -> np.ndarray:
    """Exponents t (N,) at which `at_temperature(own, t)` has the least divergence from `queried`; rows (N, cells) > 0.

    The control for figure 10: where global vectors differ along one direction only, a query multiplies all dp scores of
    a map by one factor, of either sign. KL(queried || own^t) is convex in t, and its derivative, the difference of the
    mean logarithms, is halved down to its zero; t stays within -1000 to 1000.
    """
    logs = np.log(own)
    wanted = (queried * logs).sum(axis=1)
    low, high = np.full(len(own), -_STEEPEST), np.full(len(own), _STEEPEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        steep = (at_temperature(own, middle) * logs).sum(axis=1) > wanted
        low, high = np.where(steep, low, middle), np.where(steep, middle, high)
    return (low + high) / 2


def at_temperature(maps: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Rows (N, cells) > 0 to the power of their exponents (N,), scaled to sum 1."""
    scores = exponents[:, None] * np.log(maps)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _distributions(maps: np.ndarray) -> np.ndarray:
    kept = np.maximum(maps, _TINY)
    return kept / kept.sum(axis=1, keepdims=True)


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum(axis=1).mean())


def _moved(p: np.ndarray, q: np.ndarray) -> float:
    return 50 * float(np.abs(p - q).sum(axis=1).mean())


def effective_rank(descriptors: np.ndarray) -> float:
    """Exponential of the entropy of the normalised singular values of centred vectors (N, d); 1 to min(N, d).

    Close to 1 means that the vectors differ along one direction only. Singular values that float32 rounding alone
    explains count as zero; 0 where nothing is left, that is where all vectors are equal.

    Raises:
        NotFiniteError: a vector is not finite.
    """
    if not np.isfinite(descriptors).all():
        raise NotFiniteError("its global vectors are not finite; retrain the network")
    points = descriptors.astype(np.float64)
    centred = points - points.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    rounding = np.finfo(np.float32).eps * np.linalg.norm(points)
    values = values[values > rounding]
    if len(values) == 0:
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
