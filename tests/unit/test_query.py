"""Query swaps: pairs, changes by hand, the invariance of pc, the effective rank."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from tiny_networks import random_images

from ltpa.core.errors import DataError
from ltpa.evaluation.inference import attention_maps
from ltpa.evaluation.query import (
    at_temperature,
    choose_pairs,
    compare_maps,
    effective_rank,
    match_temperature,
)
from ltpa.models import create_model


def test_pairs_follow_the_rule():
    targets, queries = choose_pairs(np.array([0, 1, 0, 1, 1, 0]), 6)
    assert targets.tolist() == [0, 1, 2, 3, 4, 5]
    assert queries.tolist() == [3, 5, 1, 0, 2, 3]  # i + 3; of the same class at 1 -> 4 and 5 -> 2, which move on


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=40).filter(lambda labels: len(set(labels)) > 1), st.integers(1, 50)
)
def test_pairs_are_of_two_classes_and_targets_differ(labels, pairs):
    labels = np.array(labels)
    targets, queries = choose_pairs(labels, pairs)
    assert len(targets) == len(queries) == min(pairs, len(labels))
    assert len(np.unique(targets)) == len(targets)
    assert (labels[targets] != labels[queries]).all()


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 50))
def test_the_first_image_queries_all_others_whatever_their_class(count, pairs):
    targets, queries = choose_pairs(np.zeros(count), pairs, "first")
    assert len(targets) == min(pairs, count - 1) and not queries.any() and queries.shape == targets.shape
    assert (np.diff(targets) > 0).all() and targets.min() == 1 and targets.max() < count


def test_one_class_is_refused():
    with pytest.raises(DataError, match="one class"):
        choose_pairs(np.zeros(5), 3)
    with pytest.raises(DataError, match="one image cannot query itself"):
        choose_pairs(np.zeros(1), 3, "first")


def test_changes_by_hand():
    own = np.array([[[0.5, 0.25], [0.125, 0.125]]])
    queried = np.array([[[0.25, 0.5], [0.2, 0.05]]])
    change = compare_maps(own, queried)
    assert change.relative_change == pytest.approx((0.5 + 1 + 0.6 + 0.6) / 4)
    assert change.kl_divergence == pytest.approx(entropy(own.ravel(), queried.ravel()))
    assert change.max_abs_change == 0.25
    assert change.moved_mass_pct == pytest.approx(32.5)


def test_equal_maps_do_not_change_at_all():
    maps = np.random.default_rng(0).dirichlet(np.ones(16), 5).reshape(5, 4, 4).astype(np.float32)
    change = compare_maps(maps, maps.copy())
    assert change.relative_change == change.kl_divergence == change.max_abs_change == change.moved_mass_pct == 0


def test_weights_of_zero_give_finite_numbers():
    own, queried = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    own[0, 0, 0] = queried[0, 1, 1] = 1
    change = compare_maps(own, queried)
    assert np.isfinite([change.relative_change, change.kl_divergence]).all()
    assert change.kl_divergence > 50 and change.moved_mass_pct == pytest.approx(100)


def test_a_mere_change_of_temperature_is_matched_whatever_its_sign():
    own = np.random.default_rng(1).dirichlet(np.ones(16), 6)
    exponents = np.array([0.2, 1, 3, -1, -0.5, 0])
    queried = at_temperature(own, exponents)
    np.testing.assert_allclose(match_temperature(own, queried), exponents, atol=1e-9)
    change = compare_maps(own.reshape(6, 4, 4), queried.reshape(6, 4, 4))
    assert change.moved_mass_pct > 10
    assert change.matched_moved_mass_pct < 1e-6 and abs(change.matched_kl_divergence) < 1e-9


def test_the_matched_temperature_is_the_best_and_leaves_what_is_no_temperature():
    own, queried = np.random.default_rng(2).dirichlet(np.ones(9), (2, 4))
    best = match_temperature(own, queried)

    def divergence(exponents):
        return (queried * np.log(queried / at_temperature(own, exponents))).sum(axis=1)

    for step in (-0.5, -1e-3, 1e-3, 0.5):
        assert (divergence(best + step) > divergence(best)).all()
    shuffled = compare_maps(own.reshape(4, 3, 3), own.reshape(4, 3, 3)[:, ::-1, ::-1])
    assert shuffled.matched_moved_mass_pct > 5


def test_matching_one_hot_and_constant_maps_stays_finite():
    one_hot, flat = np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.25)
    one_hot[0, 0, 0] = 1
    for own, queried in ((one_hot, flat), (flat, one_hot), (one_hot, one_hot[:, ::-1])):
        assert np.isfinite(list(dataclasses.asdict(compare_maps(own, queried)).values())).all()
    assert compare_maps(one_hot, flat).matched_moved_mass_pct == pytest.approx(0)


def test_pc_maps_do_not_change_at_all_in_double_precision():
    torch.manual_seed(3)
    network = create_model("vgg-att3-concat-pc", 5, image_size=20, width=1 / 16).eval().double()
    network.preprocessing = torch.nn.Identity()
    images, queries = torch.rand(2, 6, 3, 20, 20, dtype=torch.float64) * 255
    with torch.no_grad():
        own, queried = network.attention(images), network.attention(images, queries)
    for level in own:
        assert (own[level] - queried[level]).abs().max() < 1e-14


@pytest.mark.parametrize("bad", [np.nan, -0.1, np.inf])
def test_impossible_maps_are_refused(bad):
    maps = np.full((2, 2, 2), 0.25)
    broken = maps.copy()
    broken[1, 1, 1] = bad
    with pytest.raises(DataError, match="negative or not finite"):
        compare_maps(maps, broken)
    with pytest.raises(DataError, match="differ in shape"):
        compare_maps(maps, maps[:1])


@pytest.mark.parametrize(
    ("variant", "moves"),
    [("vgg-att2-concat-pc", False), ("vgg-att3-concat-pc", False), ("vgg-att2-concat-dp", True), ("vgg-pan", True)],
)
def test_the_query_moves_dot_product_and_sigmoid_maps_only(variant, moves):
    torch.manual_seed(3)
    network = create_model(variant, 5, image_size=20, width=1 / 16).eval()
    images = random_images(6, 20)
    own = attention_maps(network, images, 4)
    queried = attention_maps(network, images, 4, images[::-1])
    largest = max(compare_maps(own[level], queried[level]).relative_change for level in own)
    assert (largest > 1e-4) is moves


def test_effective_rank_of_known_spectra():
    generator = np.random.default_rng(0)
    basis, _ = np.linalg.qr(generator.normal(size=(40, 5)))
    basis, _ = np.linalg.qr(basis - basis.mean(axis=0))
    directions, _ = np.linalg.qr(generator.normal(size=(8, 5)))
    for spectrum in ([1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [2, 1, 1, 0, 0]):
        vectors = basis @ np.diag(spectrum) @ directions.T + 0.7
        assert effective_rank(vectors) == pytest.approx(np.exp(entropy(spectrum)), rel=1e-6)


def test_a_constant_plus_one_direction_has_rank_one_and_a_constant_none():
    generator = np.random.default_rng(0)
    line = generator.normal(size=(50, 1)) * generator.normal(size=(1, 6)) + generator.normal(size=(1, 6))
    assert effective_rank(line.astype(np.float32)) == pytest.approx(1)
    assert effective_rank(np.tile(generator.normal(size=(1, 6)).astype(np.float32), (50, 1))) == 0


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        effective_rank(np.array([[1.0, np.nan], [0, 1]]))
