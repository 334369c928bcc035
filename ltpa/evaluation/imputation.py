"""Removed pixels as weighted means of their neighbours (Rong et al., ICML 2022, ROAD).

Each removed pixel solves (sum of the weights of its neighbours) v_i = sum_j w_j v_j over its up to 8 neighbours,
removed or not, with weights 1/6 beside and 1/12 across. Then noise is added, so that no network can tell imputed pixels
by their smoothness.
"""

import functools

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ltpa.core.errors import DataError

DIRECT, DIAGONAL = 1 / 6, 1 / 12
NOISE = 0.01  # deviation on the 0-1 scale


def impute(pixels: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Images (B, H, W, C) of any scale whose `removed` pixels (B, H, W) bool are imputed, float64, without noise.

    One sparse system is solved for all B, so that their number may change the last bits.

    Raises:
        DataError: all pixels of an image are removed, and there is nothing to impute from.
    """
    count, height, width, channels = pixels.shape
    if removed.reshape(count, -1).all(axis=1).any():
        raise DataError("all pixels of an image are removed, and none is left to impute them from; remove fewer")
    found = pixels.reshape(-1, channels).astype(np.float64)
    rows = np.flatnonzero(removed)
    if len(rows) == 0:
        return found.reshape(pixels.shape)
    kept = np.flatnonzero(~removed)
    weights = _weights(height, width)
    chosen = sparse.kron(sparse.identity(count, format="csr"), weights, format="csr")[rows]
    sums = sparse.diags(np.asarray(chosen.sum(axis=1)).ravel())
    system = (sums - chosen[:, rows]).tocsc()
    solved = spsolve(system, chosen[:, kept] @ found[kept], permc_spec="MMD_AT_PLUS_A")
    found[rows] = solved.reshape(len(rows), channels)
    return found.reshape(pixels.shape)


@functools.lru_cache(maxsize=8)
def _weights(height: int, width: int) -> "sparse.csr_matrix":
    """(P, P): the weight of each pixel's neighbours, P = height * width."""
    numbers = np.arange(height * width).reshape(height, width)
    rows, columns, values = [], [], []
    for down, right, weight in ((0, 1, DIRECT), (1, 0, DIRECT), (1, 1, DIAGONAL), (1, -1, DIAGONAL)):
        first = numbers[: height - down, max(0, -right) : width - max(0, right)].ravel()
        second = first + down * width + right
        rows += [first, second]
        columns += [second, first]
        values.append(np.full(2 * len(first), weight))
    places = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix((np.concatenate(values), places), shape=(height * width,) * 2)
