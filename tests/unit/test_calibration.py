"""Calibration: against hand-made cases, what must not change, and torchmetrics."""

import numpy as np
import pytest
import torch
from libraries import library
from tables_support import record
from tiny_networks import linear_network, random_images

from ltpa.core.errors import DataError
from ltpa.core.records import Metric
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation.calibration import (
    BINS,
    TEMPERATURES,
    Classwise,
    calibration,
    calibration_error,
    cross_fitted,
    equal_count,
    equal_width,
    fit_temperature,
    log_probabilities,
)
from ltpa.protocols.base import Context, Target
from ltpa.protocols.registry import find
from ltpa.report.reliability import draw_reliability
from ltpa.stages.figures import reliability


def some_logits(rows: int = 400, classes: int = 5, scale: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (rows, classes)).astype(np.float32)


def drawn(logits: np.ndarray, temperature: float = 1.0, seed: int = 1) -> np.ndarray:
    """Labels drawn from softmax(logits / temperature): the network is calibrated at that temperature."""
    sums = np.exp(log_probabilities(logits, temperature)).cumsum(axis=1)
    return (np.random.default_rng(seed).random((len(logits), 1)) > sums[:, :-1]).sum(axis=1)


def test_numbers_of_a_case_worked_out_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.3, 0.7], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    found = calibration(np.log(probabilities), labels)
    assert found.accuracy == 0.75
    assert found.confidence == pytest.approx(0.725)
    assert found.nll == pytest.approx(-np.log([0.9, 0.3, 0.7, 0.6]).mean())
    assert found.brier == pytest.approx(2 * np.mean([0.01, 0.49, 0.09, 0.16]))
    assert found.ece == pytest.approx((0.1 + 0.4 + 0.4) / 4)  # 0.7 and 0.7 share a bin, right once
    assert found.adaptive == pytest.approx((0.1 + 0.7 + 0.3 + 0.4) / 4)  # each image has a bin of its own
    assert sum(count for count, _, _ in found.bins) == 4
    assert found.bins[10] == (2, pytest.approx(0.7), 0.5)


def test_every_null_is_what_labels_drawn_from_the_network_give():
    logits = some_logits()
    logs = log_probabilities(logits)
    null = calibration(logs, drawn(logits))
    draws = [calibration(logs, drawn(logits, seed=seed)) for seed in range(6)]
    for name in ("nll", "brier", "ece", "adaptive", "classwise"):
        values = np.array([getattr(each, name) for each in draws])
        assert abs(values.mean() - getattr(null, f"{name}_null")) < 4 * values.std() / np.sqrt(6)
    assert null.ece_null > 0.02  # no zero


def test_an_overconfident_network_is_found_and_mended():
    logits = some_logits(1000)
    labels = drawn(logits, temperature=3.0)
    before = calibration(log_probabilities(logits), labels)
    logs, temperatures = cross_fitted(logits, labels)
    after = calibration(logs, labels)
    assert before.ece - before.ece_null > 0.15
    assert after.ece - after.ece_null < 0.02
    assert temperatures == pytest.approx((3, 3), rel=0.15)
    assert after.nll < before.nll


def test_temperature_leaves_every_prediction_and_scales_with_the_logits():
    logits = some_logits(301)
    labels = drawn(logits, temperature=0.7)
    logs, temperatures = cross_fitted(logits, labels)
    assert (logs.argmax(axis=1) == logits.argmax(axis=1)).all()
    _, doubled = cross_fitted(2 * logits, labels)
    assert doubled == pytest.approx(tuple(2 * each for each in temperatures), rel=1e-6)


def test_no_image_has_a_part_in_its_own_temperature():
    logits = some_logits(100)
    labels = drawn(logits)
    first, _ = cross_fitted(logits, labels)
    worse = labels.copy()
    worse[7] = logits[7].argmin()
    second, _ = cross_fitted(logits, worse)
    assert (first[7] == second[7]).all()
    assert (first != second).any()


def test_a_half_without_errors_ends_at_the_limit():
    logits = some_logits(50)
    assert fit_temperature(logits, logits.argmax(axis=1)) == TEMPERATURES[0]
    assert fit_temperature(logits, logits.argmin(axis=1)) == TEMPERATURES[1]


def test_bins_hold_every_image_and_the_whole_range():
    confidence = np.array([0.0, 1 / 15, 0.5, 1.0])
    assert equal_width(confidence).tolist() == [0, 1, 7, 14]
    counts = np.bincount(equal_count(np.random.default_rng(0).random(64)), minlength=BINS)
    assert counts.sum() == 64
    assert counts.max() - counts.min() <= 1


def test_an_excluded_class_leaves_all_numbers_finite():
    logits = some_logits(40)
    logits[:, 0] = -np.inf
    found = calibration(log_probabilities(logits), np.arange(40) % 5)
    assert np.isfinite([found.nll, found.nll_null, found.brier, found.ece, found.classwise]).all()
    assert found.nll > 700 / 5
    assert np.isfinite(cross_fitted(logits, np.arange(40) % 5)[1]).all()


def dataset(rows: int, classes: int = 4) -> PreparedDataset:
    split = Split(random_images(rows, 4), np.arange(rows) % classes, np.array([f"{row}" for row in range(rows)]))
    return PreparedDataset("set", [f"c{number}" for number in range(classes)], {"test": split}, "", {})


def test_the_protocol_gives_its_metrics_for_a_network(tmp_path):
    protocol = find("calibration")
    context = Context([Target("set")], {}, 0, tmp_path)
    found = protocol.measure(linear_network(4), [dataset(60)], protocol.Settings(), context)
    assert {metric.name for metric in found.metrics} == {kind.name for kind in protocol.metrics}
    assert len(found.metrics) == 3 + 4 * 5
    assert sum(count for count, _, _ in found.extra["set"]["bins"]) == 60


@pytest.mark.parametrize(("rows", "classes"), [(20, 4), (60, 1)])
def test_too_few_images_or_classes_are_refused(tmp_path, rows, classes):
    protocol = find("calibration")
    network = linear_network(4, classes)
    context = Context([Target("set")], {}, 0, tmp_path)
    with pytest.raises(DataError, match=f"dataset set: {rows} images of {classes} classes"):
        protocol.measure(network, [dataset(rows, classes)], protocol.Settings(), context)


def test_the_diagram_has_a_panel_for_each_network(tmp_path):
    logits = some_logits(60)
    found = calibration(log_probabilities(logits), drawn(logits))
    metrics = [Metric("ece_pct", 100 * found.ece, 60, "set", "")]
    facts = {"set": {"bins": [list(each) for each in found.bins]}}
    records = [record("calibration", "set", "vgg", seed, metrics, extra=facts) for seed in range(5)]
    networks = reliability(records, {"vgg": "VGG"})
    assert list(networks) == [f"VGG, seed {seed}" for seed in range(5)]
    assert networks["VGG, seed 0"] == (found.bins, 100 * found.ece)
    draw_reliability(tmp_path / "reliability.png", networks, "Did not learn: x.")
    assert all((tmp_path / f"reliability.{suffix}").stat().st_size for suffix in ("png", "svg", "pdf"))


@pytest.mark.libraries
def test_calibration_error_equals_torchmetrics():
    functional = library("torchmetrics.functional.classification")

    logits = some_logits(700)
    labels = drawn(logits, 2.0)
    probabilities = np.exp(log_probabilities(logits))
    theirs = functional.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=5, n_bins=BINS, norm="l1"
    )
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    assert calibration_error(equal_width(confidence), confidence, hits) == pytest.approx(float(theirs), abs=1e-6)
    each = [calibration_error(equal_width(probabilities[:, k]), probabilities[:, k], labels == k) for k in range(5)]
    assert Classwise(probabilities).error(labels) == pytest.approx(np.mean(each))
