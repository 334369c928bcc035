"""Cross-validated linear SVM, against scikit-learn used by hand."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_values import linear
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.preprocessing import normalize
from sklearn.svm import SVC, LinearSVC

from ltpa.core.errors import DataError
from ltpa.evaluation import active_set
from ltpa.evaluation.svm import cross_validate, l2_normalise, stratified_folds, stratified_group_folds


def blobs(count=90, classes=3, spread=1.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = generator.normal(0, 1, (classes, 6))
    return (centres[labels] + generator.normal(0, spread, (count, 6))).astype(np.float32), labels


@pytest.mark.parametrize(
    ("multiclass", "classifier"), [("ovr", LinearSVC(random_state=7)), ("ovo", SVC(kernel="linear"))]
)
def test_fold_accuracies_are_those_of_scikit_learn(multiclass, classifier):
    features, labels = blobs()
    found = cross_validate(features, labels, linear(multiclass=multiclass, seed=7), "raw", "toy")
    folds = StratifiedKFold(5, shuffle=True, random_state=7)
    expected = 100 * cross_val_score(classifier, features.astype(np.float64), labels, cv=folds)
    np.testing.assert_allclose(found.fold_accuracies_pct, expected)
    assert found.accuracy_pct == pytest.approx(expected.mean())
    assert 34 < found.accuracy_pct < 100  # neither chance nor trivial, so that agreement means something


def test_the_plain_hinge_loss_is_that_of_scikit_learn_and_another_problem():
    features, labels = blobs(spread=2.0, count=300)
    chosen = linear(solver="liblinear", loss="hinge", seed=7)
    found = cross_validate(features, labels, chosen, "raw", "toy")
    classifier = LinearSVC(loss="hinge", random_state=7)
    folds = StratifiedKFold(5, shuffle=True, random_state=7)
    expected = 100 * cross_val_score(classifier, features.astype(np.float64), labels, cv=folds)
    np.testing.assert_allclose(found.fold_accuracies_pct, expected)
    squared = cross_validate(features, labels, linear(solver="liblinear", seed=7), "raw", "toy")
    assert squared.fold_accuracies_pct != found.fold_accuracies_pct


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(5, 12), min_size=2, max_size=6), st.integers(2, 5), st.integers(0, 99))
def test_folds_are_those_of_scikit_learn(counts, folds, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    tested = stratified_folds(labels, folds, seed)
    theirs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    for fold, (_, test) in enumerate(theirs):
        np.testing.assert_array_equal(np.flatnonzero(tested == fold), test)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=5, max_size=12), st.integers(2, 4), st.integers(2, 5), st.integers(0, 99))
def test_grouped_folds_are_those_of_scikit_learn(sizes, classes, folds, seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)) * 2, sizes)
    labels = np.append(np.arange(classes), rng.integers(0, classes, len(groups)))[: len(groups)]
    tested = stratified_group_folds(labels, groups, folds, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some classes have fewer images than folds
        theirs = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups))
    for fold, (_, test) in enumerate(theirs):
        np.testing.assert_array_equal(np.flatnonzero(tested == fold), test)


def test_accuracy_in_grouped_folds_is_that_of_scikit_learn_and_lower_where_groups_leak():
    generator = np.random.default_rng(3)
    groups, labels = np.repeat(np.arange(40), 6), np.repeat(np.arange(40) % 4, 6)
    features = np.repeat(generator.normal(0, 1, (40, 30)), 6, axis=0) + generator.normal(0, 0.1, (240, 30))
    found = cross_validate(features, labels, linear(seed=7), "raw", "toy", groups=groups)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=7)
    expected = 100 * cross_val_score(LinearSVC(random_state=7), features, labels, cv=folds, groups=groups)
    np.testing.assert_allclose(found.fold_accuracies_pct, expected)
    assert cross_validate(features, labels, linear(seed=7), "raw", "toy").accuracy_pct > 99 > found.accuracy_pct


def test_groups_that_fill_no_folds_are_refused():
    features, labels = blobs()
    with pytest.raises(DataError, match=r"toy: .* its 3 groups do not fill 5 folds; lower protocols"):
        cross_validate(features, labels, linear(), "raw", "toy", groups=np.arange(90) % 3)
    with pytest.raises(DataError, match=r"toy: .* one fold has all images of class 0"):
        cross_validate(features, labels, linear(), "raw", "toy", groups=np.where(labels == 0, 9, np.arange(90) % 9))


@pytest.mark.parametrize("normalise", ["raw", "l2"])
def test_both_solvers_of_one_problem_agree_and_ours_says_how_exact_it_is(normalise):
    features, labels = blobs(spread=1.5)
    ours = cross_validate(features, labels, linear(), normalise, "toy")
    theirs = cross_validate(features, labels, linear(solver="liblinear"), normalise, "toy")
    assert ours.fold_accuracies_pct == theirs.fold_accuracies_pct
    assert ours.largest_gap < 1e-8 and theirs.largest_gap is None
    assert ours.unconverged == ours.fallbacks == 0


def test_liblinear_steps_in_for_what_our_solver_cannot_certify(monkeypatch):
    features, labels = blobs()
    expected = cross_validate(features, labels, linear(), "raw", "toy")
    solve = active_set.fit

    def spoilt(*given):
        fits = solve(*given)
        fits.gaps[1, 2] = np.inf
        fits.weights[1, 2] = np.nan
        return fits

    monkeypatch.setattr(active_set, "fit", spoilt)
    found = cross_validate(features, labels, linear(), "raw", "toy")
    assert found.fallbacks == 1
    assert found.fold_accuracies_pct == expected.fold_accuracies_pct


def test_separable_classes_are_all_found_and_two_classes_work():
    features, labels = blobs(classes=2, spread=0.01)
    assert cross_validate(features, labels, linear(), "raw", "toy").accuracy_pct == 100


def test_same_seed_same_folds_and_another_seed_others():
    features, labels = blobs(spread=2)
    first, again, other = (
        cross_validate(features, labels, linear(seed=seed), "raw", "toy").fold_accuracies_pct for seed in (1, 1, 2)
    )
    assert first == again != other


def test_l2_normalisation_matches_scikit_learn_and_keeps_zero_rows():
    features, _ = blobs()
    features[3] = 0
    np.testing.assert_allclose(l2_normalise(features), normalize(features), rtol=1e-6)


def test_normalised_accuracy_ignores_the_length_of_rows_and_raw_does_not():
    features, labels = blobs(spread=1.5)
    lengths = np.random.default_rng(3).uniform(0.01, 100, (len(features), 1))
    settings = linear()
    same = [cross_validate(each, labels, settings, "l2", "toy").accuracy_pct for each in (features, features * lengths)]
    assert same[0] == pytest.approx(same[1])
    raw = [cross_validate(each, labels, settings, "raw", "toy").accuracy_pct for each in (features, features * lengths)]
    assert raw[0] != raw[1]


def test_fits_that_do_not_converge_are_counted_without_a_warning():
    features, labels = blobs(spread=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cross_validate(1000 * features, labels, linear(C=1000, solver="liblinear"), "raw", "toy")
        easy = cross_validate(*blobs(spread=0.1), linear(solver="liblinear"), "raw", "toy")
    assert found.unconverged == 5
    assert easy.unconverged == 0


def test_bad_data_names_the_dataset():
    features, labels = blobs()
    settings = linear()
    with pytest.raises(DataError, match="toy: 1 class;"):
        cross_validate(features, np.zeros_like(labels), settings, "raw", "toy")
    few = np.where(np.arange(90) < 4, 3, labels)
    with pytest.raises(DataError, match="toy: class 3 has 4 images for 5 folds"):
        cross_validate(features, few, settings, "raw", "toy")
    with pytest.raises(DataError, match=r"toy: features .* do not fit"):
        cross_validate(features, labels[:-1], settings, "raw", "toy")
    for bad in (np.nan, np.inf):
        broken = features.copy()
        broken[5, 2] = bad
        with pytest.raises(DataError, match="toy: features of 1 images are not finite"):
            cross_validate(broken, labels, settings, "raw", "toy")
        names = np.array([f"{i}.jpg" for i in range(90)])
        with pytest.raises(DataError, match=r"of 1 images are not finite \(the first is 5.jpg\)"):
            cross_validate(broken, labels, settings, "raw", "toy", ids=names)
    with pytest.raises(DataError, match="toy: no images"):
        cross_validate(features[:0], labels[:0], settings, "raw", "toy")
