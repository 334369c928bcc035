"""Label-free prototypes: k-means against plain float64 loops, the choice of cells, and the maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from ltpa.core.errors import DataError
from ltpa.evaluation.prototypes import common, foreground_cells, similarity_maps, spherical_kmeans, unit_rows


def groups(count, centres, spread, seed=0):
    generator = np.random.default_rng(seed)
    true = generator.integers(0, len(centres), count)
    return unit_rows(centres[true] + spread * generator.normal(size=(count, centres.shape[1]))), true


def test_well_separated_groups_are_found():
    rows, true = groups(600, np.eye(5, 8), 0.1)
    centroids, assigned = spherical_kmeans(rows, 5, 50, np.random.default_rng(0))
    assert len({(a, b) for a, b in zip(assigned, true, strict=True)}) == 5
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-6)
    assert ((centroids @ np.eye(5, 8).T).max(axis=1) > 0.99).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 60))
def test_it_ends_where_lloyds_steps_change_nothing(seed, clusters, count):
    rows = unit_rows(np.random.default_rng(seed).normal(size=(count, 4)))
    centroids, assigned = spherical_kmeans(rows, clusters, 200, np.random.default_rng(seed))
    assert len(centroids) == min(clusters, count)
    np.testing.assert_array_equal((rows @ centroids.T).argmax(axis=1), assigned)
    for number in range(len(centroids)):
        if (assigned == number).any():
            mean = rows[assigned == number].sum(axis=0)
            if np.linalg.norm(mean) > 1e-9:
                np.testing.assert_allclose(centroids[number], mean / np.linalg.norm(mean), atol=1e-9)


def test_the_objective_is_about_that_of_scikit_learn():
    """On unit rows Euclidean k-means asks for nearly the same partition; restarts give it the better optimum."""
    rows, _ = groups(800, np.random.default_rng(1).normal(size=(12, 16)), 0.4)
    centroids, assigned = spherical_kmeans(rows, 12, 100, np.random.default_rng(0))
    other = KMeans(12, n_init=5, random_state=0).fit(rows)
    best = (rows * unit_rows(other.cluster_centers_)[other.labels_]).sum()
    assert (rows * centroids[assigned]).sum() >= 0.97 * best


def test_the_seed_decides():
    rows, _ = groups(200, np.random.default_rng(1).normal(size=(6, 5)), 0.8)
    first, again, other = (spherical_kmeans(rows, 6, 3, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_cells_are_those_above_their_images_mean():
    maps = np.random.default_rng(0).random((3, 4, 5, 5)).astype(np.float32)
    maps[1] = 0.5  # constant: no cell exceeds the mean
    cells, owners = foreground_cells([maps[:2], maps[2:]], 99, np.random.default_rng(0))
    expected = [
        column / np.linalg.norm(column)
        for image in (0, 2)
        for column in maps[image].reshape(4, -1).T
        if column.mean() > maps[image].mean()
    ]
    np.testing.assert_allclose(cells, expected, rtol=1e-5)
    assert set(owners) == {0, 2}
    few, owners = foreground_cells([maps], 3, np.random.default_rng(0))
    assert np.bincount(owners).tolist() == [3, 0, 3]
    assert all((cell == cells).all(axis=1).any() for cell in few)


@pytest.mark.parametrize(
    ("maps", "message"), [(np.ones((2, 3, 4, 4)), "constant on every image"), (np.full((1, 3, 4, 4), np.nan), "finite")]
)
def test_maps_without_cells_are_refused(maps, message):
    with pytest.raises(DataError, match=message):
        foreground_cells([maps], 3, np.random.default_rng(0))


def test_rare_prototypes_are_dropped_unless_all_are():
    centroids = np.eye(3)
    assigned, owners = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 0, 1, 9])
    np.testing.assert_array_equal(common(centroids, assigned, owners, 10, 0.15), centroids[1:2])
    np.testing.assert_array_equal(common(centroids, assigned, owners, 10, 0.1), centroids)
    np.testing.assert_array_equal(common(centroids, assigned, owners, 10, 0.9), centroids)


def test_similarity_is_cosine_times_relative_activation():
    generator = np.random.default_rng(0)
    maps, centroids = generator.normal(size=(2, 6, 3, 4)), unit_rows(generator.normal(size=(5, 6)))
    found = similarity_maps(maps, centroids)
    for image in range(2):
        activation = maps[image].mean(axis=0)
        weight = (activation - activation.min()) / np.ptp(activation)
        for k in range(5):
            for y in range(3):
                for x in range(4):
                    cell = maps[image, :, y, x]
                    cosine = cell @ centroids[k] / np.linalg.norm(cell)
                    assert found[image, k, y, x] == pytest.approx(max(cosine, 0) * weight[y, x])
    assert not similarity_maps(np.zeros((1, 6, 2, 2)), centroids).any()
