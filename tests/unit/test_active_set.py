"""The exact linear SVM solver against liblinear at a tight tolerance, and against its own optimality condition."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from ltpa.evaluation import active_common, active_dual, active_primal, active_set
from ltpa.evaluation.active_set import fit


def problem(count, features, classes, spread=1.0, seed=0, scale=1.0):
    """Non-negative features, as after a rectifier, of overlapping classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = random.normal(0, 1, (classes, features))
    points = scale * np.maximum(centres[labels] + random.normal(0, spread, (count, features)), 0)
    train = torch.from_numpy(random.permutation(count) % 3 != np.arange(3)[:, None])
    return torch.from_numpy(points), torch.from_numpy(labels), train


def objective_and_gradient(weights, points, signs, C):
    """P and ∇P of one problem, as the formula has them, float64."""
    rows = np.hstack([points, np.ones((len(points), 1))])
    margins = np.maximum(0, 1 - signs * (rows @ weights))
    return weights @ weights / 2 + C * margins @ margins, weights - 2 * C * rows.T @ (signs * margins)


def worst_gap(fits, points, labels, train, C):
    """Largest |∇P|²/2P, a bound on the relative distance to the optimum, since P is 1-strongly convex."""
    found = []
    for fold, rows in enumerate(train.numpy()):
        for number in range(int(labels.max()) + 1):
            signs = np.where(labels.numpy() == number, 1.0, -1.0)[rows]
            value, gradient = objective_and_gradient(fits.weights[fold, number].numpy(), points.numpy()[rows], signs, C)
            found.append(gradient @ gradient / 2 / value)
    return max(found)


CASES = {  # a problem, and how many of its classes the primal form solves
    "few features": (problem(240, 20, 4, spread=2), 4),
    "many features, few active rows": (problem(400, 300, 5, spread=3), 0),
    "more active rows than many features": (problem(1500, 260, 3, spread=12), 3),
    "more features than rows": (problem(60, 400, 4), 0),
    "long rows": (problem(240, 20, 3, spread=2, scale=100), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_the_optimum_is_that_of_liblinear(name):
    (points, labels, train), primal = CASES[name]
    fits = fit(points, labels, train, 1.0)
    assert fits.primal == primal
    assert fits.gaps.max() <= active_common.TOLERANCE
    assert worst_gap(fits, points, labels, train, 1.0) < 1e-8
    for fold, rows in enumerate(train.numpy()):
        reference = LinearSVC(dual=points.shape[1] > rows.sum(), tol=1e-9, max_iter=200_000, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference.fit(points.numpy()[rows], labels.numpy()[rows])
        expected = reference.decision_function(points.numpy())
        ours = (points @ fits.weights[fold, :, :-1].T + fits.weights[fold, :, -1]).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-3 * np.abs(expected).mean())
        for number in range(ours.shape[1]):
            signs = np.where(labels.numpy() == number, 1.0, -1.0)[rows]
            theirs = np.append(reference.coef_[number], reference.intercept_[number])
            least, _ = objective_and_gradient(theirs, points.numpy()[rows], signs, 1.0)
            mine, _ = objective_and_gradient(fits.weights[fold, number].numpy(), points.numpy()[rows], signs, 1.0)
            assert mine <= least * (1 + 1e-6)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(6, 60),
    features=st.integers(1, 30),
    classes=st.integers(2, 4),
    C=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 1000),
    dual=st.booleans(),
)
def test_every_solution_meets_its_optimality_condition(count, features, classes, C, seed, dual):
    points, labels, train = problem(count, features, classes, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(active_set, "SMALL", 0 if dual else 256)
        patch.setattr(active_dual, "FIRST_ROWS", 5)
        fits = fit(points, labels, train, C)
    assert worst_gap(fits, points, labels, train, C) < 1e-8


@pytest.mark.parametrize("small", [0, 256])
def test_cut_steps_reach_the_same_optimum(monkeypatch, small):
    points, labels, train = problem(200, 40, 3, spread=2)
    whole = fit(points, labels, train, 1.0)
    for form in (active_dual, active_primal):
        monkeypatch.setattr(form, "WHOLE_STEPS", 0)
    monkeypatch.setattr(active_set, "SMALL", small)
    cut = fit(points, labels, train, 1.0)
    np.testing.assert_allclose(cut.weights, whole.weights, rtol=1e-6, atol=1e-9)


def test_lanes_groups_and_threads_change_nothing(monkeypatch):
    points, labels, train = problem(300, 40, 6, spread=3)
    monkeypatch.setattr(active_set, "SMALL", 0)
    alone = fit(points, labels, train, 1.0)
    monkeypatch.setattr(active_common, "LANES", {"cpu": 7})
    monkeypatch.setattr(active_set, "GROUP", {"cpu": 4})
    together = fit(points, labels, train, 1.0, threads=2)
    np.testing.assert_allclose(together.weights, alone.weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        fit(points, labels, train, 1.0, only=[4, 1]).weights, alone.weights[:, [4, 1]], rtol=1e-9, atol=1e-12
    )


def test_two_classes_are_one_problem():
    points, labels, train = problem(90, 10, 2)
    weights = fit(points, labels, train, 1.0).weights
    np.testing.assert_array_equal(weights[:, 0], -weights[:, 1])


def test_what_float64_cannot_hold_is_not_certified():
    points, labels, train = problem(60, 10, 3)
    points[:, 0] *= 1e160
    assert not (fit(points, labels, train, 1.0).gaps <= 1e-6).all()


def test_the_number_of_torch_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    fit(*problem(30, 5, 3), 1.0)
    assert torch.get_num_threads() == before
