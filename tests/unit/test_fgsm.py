"""Fast gradient sign attack, against the gradient of a linear softmax network written out in NumPy."""

import numpy as np
import pytest
import torch
from protocol_values import one_step
from tiny_networks import LinearNetwork, linear_network, random_images
from torch.nn.functional import cross_entropy

from ltpa.evaluation.fgsm import AttackResult, ascent_signs, attack, perturb, worst_case
from ltpa.evaluation.inference import pixel_batches
from ltpa.models import create_model

SIZE = 4


def numpy_attack(network, images, labels, epsilon, loss, clip=True, rounded=False):
    """Fooling rate and robust accuracy in percent; grad of CE is W^T (softmax - onehot), of minus a logit -W_y."""
    weight, bias = network.weight.detach().numpy(), network.bias.detach().numpy()
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1).astype(np.float64)
    logits = pixels @ weight.T + bias
    before = logits.argmax(axis=1)
    if loss == "score":
        gradient = -weight[before]
    else:
        softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax /= softmax.sum(axis=1, keepdims=True)
        gradient = (softmax - np.eye(len(weight))[before if loss == "predicted" else labels]) @ weight
    moved = pixels + epsilon * np.sign(gradient)
    moved = np.round(moved) if rounded else moved
    moved = np.clip(moved, 0, 255) if clip else moved
    after = (moved @ weight.T + bias).argmax(axis=1)
    return 100 * np.mean(after != before), 100 * np.mean((before == labels) & (after == labels))


@pytest.mark.parametrize("loss", ["predicted", "true", "score"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("rounded", [True, False])
def test_rates_are_those_of_the_formula(loss, clip, rounded):
    network, images = linear_network(SIZE, scale=0.001), random_images(60, SIZE)
    labels = np.random.default_rng(5).integers(0, 4, 60)
    settings = one_step([0.5, 2, 16, 60], loss, clip, rounded, batch_size=17)
    found = attack(network, images, labels, settings)
    for epsilon in settings.epsilons:
        fooled, robust = numpy_attack(network, images, labels, epsilon, loss, clip, rounded)
        assert found.fooling_rate_pct[epsilon] == pytest.approx(fooled)
        assert found.robust_accuracy_pct[epsilon] == pytest.approx(robust)
    assert found.fooling_rate_pct[60] > 0


def test_epsilon_zero_changes_nothing_and_more_fools_more():
    network, images = linear_network(SIZE, scale=0.001), random_images(80, SIZE)
    labels = np.zeros(80, dtype=np.int64)
    rates = attack(network, images, labels, one_step([0, 1, 4, 16, 64])).fooling_rate_pct
    assert rates[0] == 0
    assert list(rates.values()) == sorted(rates.values())
    assert rates[64] > rates[1]


@pytest.mark.parametrize("variant", ["vgg", "vgg-att2-concat-pc", "vgg-att2-indep-dp"])
def test_the_step_climbs_the_loss_of_real_networks(variant):
    torch.manual_seed(0)
    network = create_model(variant, 5, image_size=20, width=1 / 16).eval()
    images, labels = random_images(12, 20), np.arange(12) % 5
    (pixels,) = pixel_batches(network, images, 12)
    truth = torch.from_numpy(labels)
    signs, _ = ascent_signs(network, pixels, truth, "true")
    with torch.no_grad():
        losses = [cross_entropy(network(pixels + step * signs), truth).item() for step in (-0.5, 0, 0.5)]
    assert losses[0] < losses[1] < losses[2]
    assert attack(network, images, labels, one_step([0], batch_size=5)).fooling_rate_pct[0] == 0


def test_fooling_counts_every_image_right_or_wrong():
    weight = np.zeros((2, 3 * SIZE * SIZE))
    weight[0], weight[1] = 1e-4, -1e-4
    network = LinearNetwork(weight, np.array([0.0, 2.0]), SIZE)  # grey level 208.3 is the border between the classes
    images = np.stack([np.full((SIZE, SIZE, 3), value, dtype=np.uint8) for value in (200, 206, 211, 220)])
    labels = np.array([0, 0, 0, 0])  # the first two are wrong from the start
    found = attack(network, images, labels, one_step([4]))
    assert found.clean_accuracy_pct == 50
    assert found.fooling_rate_pct[4] == 50  # 206 and 211 cross the border
    assert found.robust_accuracy_pct[4] == 25  # 211 became wrong; 206 became right, which counts for nothing


def two_classes(rows: int) -> tuple[LinearNetwork, np.ndarray, np.ndarray]:
    """A linear network that sees either class in half of the pictures, which are near grey, and labels at random."""
    rng = np.random.default_rng(11)
    weight = rng.normal(0, 1e-3, (2, 3 * SIZE * SIZE))
    network = LinearNetwork(weight, -127.5 * weight.sum(axis=1), SIZE)
    return network, rng.integers(80, 176, (rows, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(0, 2, rows)


@pytest.mark.parametrize("loss", ["predicted", "true"])
def test_robust_accuracy_of_a_linear_network_has_a_closed_form(loss):
    """An image withstands an L-infinity norm below its margin over the L1 norm of the difference of the weights."""
    network, images, labels = two_classes(300)
    weight, bias = (values.detach().numpy().astype(np.float64) for values in (network.weight, network.bias))
    logits = images.transpose(0, 3, 1, 2).reshape(len(images), -1) @ weight.T + bias
    margins = np.where(labels == 0, 1, -1) * (logits[:, 0] - logits[:, 1])
    norms = margins / np.abs(weight[0] - weight[1]).sum()
    found = attack(network, images, labels, one_step([0, 0.5, 1, 2, 4, 8], loss))
    for epsilon, rate in found.robust_accuracy_pct.items():
        assert rate == pytest.approx(100 * np.mean(norms > epsilon), abs=100 / 300)
    assert found.clean_accuracy_pct > found.robust_accuracy_pct[1] > found.robust_accuracy_pct[8]


@pytest.mark.parametrize("loss", ["predicted", "score"])
def test_robust_accuracy_attacks_the_true_class(loss):
    """Images that are right are those whose predicted class is the true one, so that the loss of either is the same."""
    torch.manual_seed(0)
    network = create_model("vgg-att2-concat-dp", 3, 20, 1 / 16, bn_weight="one", u_std=0.2).eval()
    images = random_images(60, 20)
    (pixels,) = pixel_batches(network, images, 60)
    labels = network(pixels).argmax(dim=1).numpy()
    labels[::3] = (labels[::3] + 1) % 3
    found = attack(network, images, labels, one_step([0, 4, 32], loss))
    true = attack(network, images, labels, one_step([0, 4, 32], "true"))
    assert found.robust_accuracy_pct[0] == found.clean_accuracy_pct == pytest.approx(100 * 2 / 3)
    assert found.robust_accuracy_pct[32] < found.clean_accuracy_pct
    if loss == "predicted":
        for epsilon in (0, 4, 32):
            np.testing.assert_array_equal(found.robust[epsilon], true.robust[epsilon])


def test_neither_batches_nor_order_nor_the_layout_of_channels_change_who_withstands():
    torch.manual_seed(0)
    network = create_model("vgg-att2-concat-pc", 4, 20, 1 / 16, bn_weight="one", u_std=0.2).eval()
    images, labels = random_images(30, 20), np.arange(30) % 4
    settings = [one_step([2, 8], batch_size=size) for size in (30, 7)]
    whole, parts = (attack(network, images, labels, each) for each in settings)
    order = np.random.default_rng(0).permutation(30)
    shuffled = attack(network, images[order], labels[order], settings[1])
    columns = np.asfortranarray(images)  # channels outermost in memory
    layout = attack(network.to(memory_format=torch.channels_last), columns, labels, settings[0])
    for epsilon in (2, 8):
        for found in (parts, layout):
            np.testing.assert_array_equal(found.robust[epsilon], whole.robust[epsilon])
            np.testing.assert_array_equal(found.fooled[epsilon], whole.fooled[epsilon])
        np.testing.assert_array_equal(shuffled.robust[epsilon], whole.robust[epsilon][order])


def test_the_worst_case_is_over_the_attacks_of_an_epsilon():
    right = np.array([True, True, True, False])
    first = AttackResult(right, {}, {1: np.array([True, False, True, False]), 2: ~right}, 0)
    second = AttackResult(right, {}, {1: np.array([False, True, True, False]), 4: right}, 0)
    found = worst_case([first, second])
    assert {epsilon: each.tolist() for epsilon, each in found.items()} == {
        1: [False, False, True, False],
        2: [False] * 4,
        4: right.tolist(),
    }


def test_preprocessing_is_inside_the_graph():
    class Invert(torch.nn.Module):
        def forward(self, images):
            return 255 - images

    plain, inverted = linear_network(SIZE), linear_network(SIZE)
    inverted.preprocessing = Invert()
    pixels = torch.rand(3, 3, SIZE, SIZE) * 255
    truth = torch.zeros(3, dtype=torch.int64)
    signs, predicted = ascent_signs(plain, 255 - pixels, truth, "true")
    flipped, same = ascent_signs(inverted, pixels, truth, "true")
    assert torch.equal(predicted, same)
    assert torch.equal(flipped, -signs)


def test_perturbed_pixels_stay_near_and_within_range():
    pixels = torch.tensor([0.0, 3.0, 254.0, 100.0])
    signs = torch.tensor([-1.0, 1.0, 1.0, 0.0])
    settings = one_step()
    assert perturb(pixels, signs, 2.5, settings).tolist() == [0.0, 5.5, 255.0, 100.0]
    assert perturb(pixels, signs, 2.5, one_step(clip=False)).tolist() == [-2.5, 5.5, 256.5, 100.0]
    assert perturb(pixels, signs, 2.4, one_step(round=True)).tolist() == [0.0, 5.0, 255.0, 100.0]


def test_images_without_a_gradient_are_counted():
    network = LinearNetwork(np.zeros((2, 3 * SIZE * SIZE)), np.array([1.0, 0.0]), SIZE)
    found = attack(network, random_images(7, SIZE), np.zeros(7, dtype=np.int64), one_step([16], batch_size=3))
    assert found.zero_gradients == 7 and found.fooling_rate_pct[16] == 0


def test_the_attack_leaves_no_gradients_behind():
    network = linear_network(SIZE)
    attack(network, random_images(3, SIZE), np.zeros(3, dtype=np.int64), one_step([1]))
    assert network.weight.grad is None
