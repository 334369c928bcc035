"""Robust accuracy: against the closed form of a linear network, what must not decide, and the optional attacks."""

import importlib.util

import numpy as np
import pytest
import torch
from libraries import library
from tiny_networks import LinearNetwork, random_images

from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation import autoattack
from ltpa.evaluation.robustness import (
    double_precision_agreement,
    fast_gradient_sign,
    nested,
    projected_gradient_descent,
    tolerance,
    victims,
    weaker,
    zero_gradients,
)
from ltpa.models import create_model
from ltpa.protocols.base import Context, Target
from ltpa.protocols.registry import find

SIZE, EPSILONS = 4, (1.0, 2.0, 4.0, 8.0)


def two_classes(rows: int) -> tuple[LinearNetwork, np.ndarray, np.ndarray]:
    """A linear network that sees either class in half of the pictures, which are near grey, and labels at random."""
    rng = np.random.default_rng(11)
    weight = rng.normal(0, 1e-3, (2, 3 * SIZE * SIZE)).astype(np.float32)
    network = LinearNetwork(weight, (-127.5 * weight.sum(axis=1)).astype(np.float32), SIZE)
    return network, rng.integers(80, 176, (rows, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(0, 2, rows)


def closed_form(network: LinearNetwork, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The norm at which each image falls: margin over the L1 norm of the difference of the weights."""
    weight, bias = (values.detach().numpy().astype(np.float64) for values in (network.weight, network.bias))
    logits = images.transpose(0, 3, 1, 2).reshape(len(images), -1) @ weight.T + bias
    margins = np.where(labels == 0, 1, -1) * (logits[:, 0] - logits[:, 1])
    return margins / np.abs(weight[0] - weight[1]).sum()


def test_descent_on_a_linear_network_has_the_closed_form():
    network, images, labels = two_classes(200)
    norms = closed_form(network, images, labels)
    attacked = victims(network, images, labels, np.arange(200), 64)
    assert (attacked.right == (norms > 0)).all()
    one_step = fast_gradient_sign(network, attacked, EPSILONS, 64)
    for epsilon in EPSILONS:
        stands = projected_gradient_descent(network, attacked, epsilon, 40, 64)
        assert (stands != (norms > epsilon)).sum() <= 1
        assert (one_step[epsilon] != (norms > epsilon)).sum() <= 1
    assert 0.05 < (norms > 8.0).mean() < (norms > 0).mean() - 0.05


def real_network(seed: int = 0):
    torch.manual_seed(seed)
    return create_model("vgg-att2-concat-pc", 4, image_size=20, width=1 / 16).eval()


def predicted_by(network, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2)).float()).argmax(dim=1).numpy()


def test_neither_batches_nor_order_decide():
    network, images = real_network(), random_images(9, 20)
    labels = predicted_by(network, images)
    indices = np.arange(30, 39)
    whole = projected_gradient_descent(network, victims(network, images, labels, indices, 9), 6, 8, 9)
    order = np.random.default_rng(0).permutation(9)
    shuffled = victims(network, images[order], labels[order], indices[order], 4)
    assert (projected_gradient_descent(network, shuffled, 6, 8, 2) == whole[order]).all()
    assert 0 < whole.sum() < 9


def test_no_perturbation_changes_nothing_and_images_that_are_wrong_stay_out():
    network, images = real_network(), random_images(6, 20)
    labels = predicted_by(network, images)
    labels[:2] = (labels[:2] + 1) % 4
    attacked = victims(network, images, labels, np.arange(6), 4)
    assert attacked.right.tolist() == [False] * 2 + [True] * 4
    assert (projected_gradient_descent(network, attacked, 0, 4, 4) == attacked.right).all()
    assert not projected_gradient_descent(network, attacked, 255, 8, 4)[:2].any()


def test_what_falls_at_a_small_norm_has_fallen_at_larger_ones():
    found = nested({4.0: np.array([True, True, False]), 1.0: np.array([True, False, True])})
    assert list(found) == [1.0, 4.0]
    assert found[4.0].tolist() == [True, False, False]


def test_checks_see_hidden_gradients_and_weak_attacks():
    network, images, labels = two_classes(40)
    attacked = victims(network, images, labels, np.arange(40), 40)
    assert zero_gradients(network, attacked, 16) == 0
    assert double_precision_agreement(network, attacked, 16) > 0.99
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
    flat = victims(network, images, np.zeros(40, np.int64), np.arange(40), 40)
    assert zero_gradients(network, flat, 16) == flat.right.sum() > 0
    many, few = np.arange(100) < 60, np.arange(100) < 30
    assert weaker(few, many) == "60.0 % stand, 30.0 % expected"
    assert weaker(many, few) == weaker(many, many) == ""
    assert tolerance(many, few) == pytest.approx(200 * np.sqrt(0.24 / 100 + 0.21 / 100))


def dataset(images: np.ndarray, labels: np.ndarray) -> PreparedDataset:
    split = Split(images, labels, np.array([f"{row}" for row in range(len(labels))]))
    return PreparedDataset("set", ["a", "b"], {"test": split}, "", {})


def measured(tmp_path, **settings):
    network, images, labels = two_classes(120)
    protocol = find("robustness")
    chosen = protocol.Settings(images=80, epsilons=[4, 1, 2], batch_size=50, **settings)
    context = Context([Target("set")], {}, 0, tmp_path)
    return protocol.measure(network, [dataset(images, labels)], chosen, context)


def test_the_worst_case_is_below_each_attack_and_falls_with_the_norm(tmp_path):
    found = measured(tmp_path, attacks=["fgsm", "pgd"])
    values = {(metric.name, metric.condition): metric.value for metric in found.metrics}
    worst = [values["robust_accuracy_pct", f"eps={eps}"] for eps in (1, 2, 4)]
    assert worst == sorted(worst, reverse=True)
    assert worst[0] < values["clean_accuracy_pct", ""]
    for eps, bound in zip((1, 2, 4), worst, strict=True):
        for attack in ("fgsm", "pgd"):
            assert bound <= values[f"{attack}_accuracy_pct", f"eps={eps}"] <= values["clean_accuracy_pct", ""]
    assert values["failed_checks", ""] == 0
    assert {metric.n for metric in found.metrics} == {80}


def test_attacks_whose_package_is_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = measured(tmp_path, attacks=["fgsm", "apgd-ce", "square"])
    assert list(found.extra["set"]["skipped"]) == ["apgd-ce", "square"]
    assert "pip install 'ltpa[robust]'" in found.extra["set"]["skipped"]["square"]
    assert not [metric for metric in found.metrics if metric.name.startswith(("apgd", "square"))]


def test_targeted_attacks_need_four_classes(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "needs 4 classes, and the network has 3" in autoattack.unavailable("apgd-t", 3)
    assert autoattack.unavailable("apgd-t", 4) == autoattack.unavailable("square", 3) == ""


@pytest.mark.libraries
def test_adaptive_descent_and_square_on_a_linear_network(tmp_path):
    library("pyautoattack")
    found = measured(tmp_path, attacks=["pgd", "apgd-ce", "apgd-t", "square"], queries=200, square_images=40)
    assert list(found.extra["set"]["skipped"]) == ["apgd-t"]
    values = {(metric.name, metric.condition): metric.value for metric in found.metrics}
    for eps in (1, 2, 4):
        gap = values["apgd_ce_accuracy_pct", f"eps={eps}"] - values["pgd_accuracy_pct", f"eps={eps}"]
        assert abs(gap) <= 100 / 80
        assert values["square_accuracy_pct", f"eps={eps}"] >= 0
    assert found.extra["set"]["failed_checks"] == []


@pytest.mark.libraries
def test_adaptive_descent_takes_real_networks():
    library("pyautoattack")
    network, images = real_network(), random_images(4, 20)
    attacked = victims(network, images, predicted_by(network, images), np.arange(4), 4)
    for attack in autoattack.ATTACKS:
        stands = autoattack.run(attack, network, attacked, 2.0, 5, 4)
        assert stands.shape == (4,)
    assert (autoattack.run("apgd-ce", network, attacked, 0, 5, 4) == attacked.right).all()
