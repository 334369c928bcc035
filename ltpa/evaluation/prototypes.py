"""Prototypes without labels: spherical k-means on the cells of a network's map, and their maps (`protolite`).

It stands in for ProtoPNet's trained prototypes at the price of a forward pass. What makes a cell worth looking at is
its mean activation, as in MMAL-Net's object localisation.
"""

from collections.abc import Iterable

import numpy as np

from ltpa.core.errors import DataError

_TINY = 1e-12


def foreground_cells(
    batches: Iterable[np.ndarray], per_image: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of maps (B, C, h, w) whose mean activation exceeds their image's, scaled to unit length.

    At most `per_image` of each image, drawn at random; none of a constant map.

    Returns:
        The cells, (M, C) float32, and the row of the image that each is of, (M,) int64.

    Raises:
        DataError: a map is not finite, or no image has such a cell.
    """
    cells, owners, image = [], [], 0
    for batch in batches:
        if not np.isfinite(batch).all():
            raise DataError("patches: feature maps are not finite; retrain the network")
        for maps in batch:
            columns = maps.reshape(len(maps), -1)
            activation = columns.mean(axis=0)
            inside = np.flatnonzero((activation > activation.mean()) & (np.linalg.norm(columns, axis=0) > _TINY))
            if len(inside) > per_image:
                inside = np.sort(generator.permutation(inside)[:per_image])
            cells.append(unit_rows(columns[:, inside].T))
            owners.append(np.full(len(inside), image))
            image += 1
    joined = np.concatenate(cells) if cells else np.empty((0, 0), np.float32)
    if not len(joined):
        raise DataError("patches: the network's map is constant on every image; train the network, or take another")
    return joined, np.concatenate(owners)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length; zero rows stay zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)


def spherical_kmeans(
    rows: np.ndarray, clusters: int, iterations: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids of unit length that maximise the sum of cosines of unit rows (M, C) with their nearest.

    Seeding follows k-means++ with 1 - cosine as the squared distance. A cluster that loses all its rows restarts at the
    row least like its own centroid. Ends when no row changes cluster, at the latest after `iterations`.

    Returns:
        Centroids (K, C) float32 with K the lesser of `clusters` and M, and the cluster of each row, (M,) int64.
    """
    centroids = rows[_seeds(rows, min(clusters, len(rows)), generator)].copy()
    assigned = (rows @ centroids.T).argmax(axis=1)
    for _ in range(iterations):
        centroids = _means(rows, assigned, centroids)
        closeness = rows @ centroids.T
        nearest = closeness.argmax(axis=1)
        if (nearest == assigned).all():
            break
        assigned = nearest
    return centroids, assigned


def _seeds(rows: np.ndarray, clusters: int, generator: np.random.Generator) -> list[int]:
    chosen = [int(generator.integers(len(rows)))]
    distance = np.maximum(1 - rows @ rows[chosen[0]], 0).astype(np.float64)
    while len(chosen) < clusters:
        total = distance.cumsum()
        draw = generator.random() * total[-1]
        chosen.append(int(min(np.searchsorted(total, draw, side="right"), len(rows) - 1)))
        distance = np.minimum(distance, np.maximum(1 - rows @ rows[chosen[-1]], 0))
    return chosen


def _means(rows: np.ndarray, assigned: np.ndarray, before: np.ndarray) -> np.ndarray:
    from scipy import sparse

    members = sparse.csr_matrix(
        (np.ones(len(rows), rows.dtype), (assigned, np.arange(len(rows)))), shape=(len(before), len(rows))
    )
    sums = members @ rows
    empty = np.flatnonzero(np.bincount(assigned, minlength=len(before)) == 0)
    if len(empty):
        fit = (rows * before[assigned]).sum(axis=1)
        sums[empty] = rows[np.argsort(fit, kind="stable")[: len(empty)]]
    return unit_rows(sums)


def common(centroids: np.ndarray, assigned: np.ndarray, owners: np.ndarray, images: int, share: float) -> np.ndarray:
    """The centroids whose cells come from at least this share of all images; all of them where none is so common."""
    pairs = np.unique(np.stack([assigned, owners], axis=1), axis=0)
    present = np.bincount(pairs[:, 0], minlength=len(centroids))
    kept = present >= share * images
    return centroids[kept] if kept.any() else centroids


def similarity_maps(maps: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Cosine of every cell of maps (B, C, h, w) with every centroid, times the cell's mean activation: (B, K, h, w).

    Negative cosines count as zero; the mean activation is brought to 0-1 within each image.
    """
    norms = np.maximum(np.linalg.norm(maps, axis=1, keepdims=True), _TINY)
    cosine = np.einsum("bchw,kc->bkhw", maps / norms, centroids, optimize=True)
    activation = maps.mean(axis=1, keepdims=True)
    low, high = activation.min(axis=(2, 3), keepdims=True), activation.max(axis=(2, 3), keepdims=True)
    weight = (activation - low) / np.maximum(high - low, _TINY)
    found: np.ndarray = np.maximum(cosine, 0) * weight
    return found
