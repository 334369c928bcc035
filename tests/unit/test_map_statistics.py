"""Distances and rank correlations against SciPy, and against definitions written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon

from ltpa.evaluation.map_statistics import (
    jensen_shannon,
    kendall_tau,
    mean_ranks,
    normalised_entropy,
    spearman,
    total_variation,
)

RANDOM = np.random.default_rng(0)
FIRST, SECOND = RANDOM.dirichlet(np.ones(12), 40), RANDOM.dirichlet(np.full(12, 0.3), 40)
TIED = st.integers(2, 9).flatmap(lambda cells: arrays(np.float64, (2, cells), elements=st.sampled_from([0, 0.5, 2, 7])))


def of(function, *rows):
    return function(*map(torch.from_numpy, rows)).numpy()


def test_total_variation_is_the_largest_difference_of_any_event():
    few, others = FIRST[:, :4], SECOND[:, :4]
    events = np.array([[event >> cell & 1 for cell in range(4)] for event in range(16)])
    few, others = few / few.sum(1, keepdims=True), others / others.sum(1, keepdims=True)
    np.testing.assert_allclose(of(total_variation, few, others), ((few - others) @ events.T).max(axis=1), atol=1e-14)


def test_jensen_shannon_is_the_square_of_scipys_distance():
    wanted = [jensenshannon(p, q) ** 2 for p, q in zip(FIRST, SECOND, strict=True)]
    np.testing.assert_allclose(of(jensen_shannon, FIRST, SECOND), wanted, rtol=1e-12)
    ends = np.eye(3)[:2]
    assert of(jensen_shannon, ends, ends[::-1].copy()) == pytest.approx([np.log(2)] * 2)
    assert of(jensen_shannon, ends, ends).tolist() == [0, 0]


def test_entropy_is_a_share_of_that_of_uniform_weights():
    wanted = stats.entropy(FIRST, axis=1) / np.log(12)
    np.testing.assert_allclose(of(normalised_entropy, FIRST * 7), wanted, rtol=1e-12)
    assert of(normalised_entropy, np.array([[0.25] * 4, [0, 1, 0, 0]])) == pytest.approx([1, 0])


@settings(deadline=None, max_examples=60)
@given(TIED)
def test_rank_correlations_are_scipys_ties_included(rows):
    first, second = rows
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert np.isnan(of(kendall_tau, rows[:1], rows[1:]))[0] and np.isnan(of(spearman, rows[:1], rows[1:]))[0]
        return
    assert of(kendall_tau, rows[:1], rows[1:])[0] == pytest.approx(stats.kendalltau(first, second).statistic)
    assert of(spearman, rows[:1], rows[1:])[0] == pytest.approx(stats.spearmanr(first, second).statistic)
    np.testing.assert_array_equal(of(mean_ranks, rows), stats.rankdata(rows, axis=1))


def test_the_same_ranks_correlate_by_exactly_one():
    assert of(spearman, FIRST, np.exp(5 * FIRST)).tolist() == [1.0] * len(FIRST)
    assert of(spearman, FIRST, -FIRST) == pytest.approx([-1] * len(FIRST))
