"""The iterated and the transferred attack, against a float64 writing of both for linear softmax networks."""

import numpy as np
import pytest
import torch
from protocol_values import many_steps, one_step
from tiny_networks import linear_network, random_images

from ltpa.core.errors import ModelError
from ltpa.evaluation.fgsm import attack
from ltpa.evaluation.pgd import attack_iterated, project, start_directions
from ltpa.models import create_model

SIZE = 4
IMAGES = random_images(60, SIZE)
LABELS = np.random.default_rng(5).integers(0, 4, 60)


def numpy_network(network):
    """Logits and the sign of the gradient of a loss, both float64 functions of flat pixels."""
    weight, bias = network.weight.detach().numpy(), network.bias.detach().numpy()

    def logits(pixels):
        return pixels @ weight.T + bias

    def signs(pixels, loss, predicted):
        if loss == "score":
            return np.sign(-weight[predicted])
        odds = np.exp(logits(pixels) - logits(pixels).max(axis=1, keepdims=True))
        reference = np.eye(len(weight))[LABELS if loss == "true" else predicted]
        return np.sign((odds / odds.sum(axis=1, keepdims=True) - reference) @ weight)

    return logits, signs


def assert_same(first, second):
    for one, other in ((first.fooled, second.fooled), (first.robust, second.robust)):
        assert list(one) == list(other)
        assert all(np.array_equal(one[epsilon], other[epsilon]) for epsilon in one)


def flat(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1).astype(np.float64)


def numpy_iterated(network, settings, pgd, epsilon):
    logits, signs = numpy_network(network)
    clean = flat(IMAGES)
    low, high = clean - epsilon, clean + epsilon
    if settings.clip:
        low, high = np.maximum(low, 0), np.minimum(high, 255)
    before = logits(clean).argmax(axis=1)
    moved = clean.copy()
    if pgd.random_start:
        draws = [np.random.default_rng((pgd.seed, i)).random((3, SIZE, SIZE), np.float32) for i in range(len(clean))]
        moved = np.clip(clean + epsilon * (2 * np.stack(draws).reshape(len(clean), -1) - 1), low, high)
    for _ in range(pgd.steps):
        moved = np.clip(moved + pgd.step_size * epsilon * signs(moved, settings.loss, before), low, high)
    after = logits(np.round(moved) if settings.round else moved).argmax(axis=1)
    return 100 * np.mean(after != before), 100 * np.mean((before == LABELS) & (after == LABELS))


@pytest.mark.parametrize("loss", ["predicted", "true", "score"])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize(("clip", "rounded"), [(True, False), (False, False), (True, True)])
def test_rates_are_those_of_the_formula(loss, random_start, clip, rounded):
    network = linear_network(SIZE, scale=0.001)
    settings = one_step(loss=loss, clip=clip, round=rounded, batch_size=17)
    pgd = many_steps([0.5, 4, 16, 60], steps=4, step_size=0.4, random_start=random_start, seed=3)
    found = attack_iterated(network, IMAGES, LABELS, settings, pgd)
    for epsilon in pgd.epsilons:
        fooled, robust = numpy_iterated(network, settings, pgd, epsilon)
        assert found.fooling_rate_pct[epsilon] == pytest.approx(fooled)
        assert found.robust_accuracy_pct[epsilon] == pytest.approx(robust)
    assert found.fooling_rate_pct[60] > found.fooling_rate_pct[0.5]


@pytest.mark.parametrize("loss", ["predicted", "true", "score"])
def test_transferred_rates_are_those_of_the_formula(loss):
    """The gradient is the source's; the class it refers to and the one that counts are the attacked network's."""
    network, source = linear_network(SIZE, scale=0.001), linear_network(SIZE, scale=0.001, seed=9)
    settings = one_step([2, 16, 60], loss, batch_size=17)
    found = attack(network, IMAGES, LABELS, settings, source)
    (logits, _), (_, source_signs) = numpy_network(network), numpy_network(source)
    clean = flat(IMAGES)
    before = logits(clean).argmax(axis=1)
    steps = source_signs(clean, loss, before)
    for epsilon in settings.epsilons:
        after = logits(np.clip(clean + epsilon * steps, 0, 255)).argmax(axis=1)
        assert found.fooling_rate_pct[epsilon] == pytest.approx(100 * np.mean(after != before))
        robust = 100 * np.mean((before == LABELS) & (after == LABELS))
        assert found.robust_accuracy_pct[epsilon] == pytest.approx(robust)
    own = attack(network, IMAGES, LABELS, settings)
    assert own.clean_accuracy_pct == found.clean_accuracy_pct
    assert own.fooling_rate_pct != found.fooling_rate_pct
    assert_same(attack(network, IMAGES, LABELS, settings, network), own)


def test_one_whole_step_is_the_fast_gradient_sign_attack():
    network = linear_network(SIZE, scale=0.001)
    settings = one_step([1, 16, 60])
    pgd = many_steps([1, 16, 60], steps=1, step_size=1, random_start=False)
    assert_same(attack_iterated(network, IMAGES, LABELS, settings, pgd), attack(network, IMAGES, LABELS, settings))


def test_epsilon_zero_changes_nothing_in_any_attack():
    torch.manual_seed(0)
    network, source = (create_model(name, 4, 20, 1 / 16).eval() for name in ("vgg", "vgg-att2-concat-pc"))
    images = random_images(8, 20)
    settings = one_step([0], batch_size=5)
    assert attack(network, images, LABELS[:8], settings, source).fooling_rate_pct == {0: 0}
    assert attack_iterated(network, images, LABELS[:8], settings, many_steps([0], 2)).fooling_rate_pct == {0: 0}


def test_more_steps_climb_at_least_as_high_as_one():
    torch.manual_seed(1)
    network = create_model("vgg-att2-concat-pc", 4, 20, 1 / 16, bn_weight="one", u_std=0.2).eval()
    images = random_images(40, 20)
    one = attack(network, images, LABELS[:40], one_step([4]))
    many = attack_iterated(network, images, LABELS[:40], one_step(), many_steps([4], 10, random_start=False))
    assert many.fooling_rate_pct[4] >= one.fooling_rate_pct[4] > 0


def test_a_start_belongs_to_its_image_and_its_seed():
    whole = start_directions((6, 3, 4, 4), 0, seed=1)
    assert torch.equal(whole[2:5], start_directions((3, 3, 4, 4), 2, seed=1))
    assert not torch.equal(whole, start_directions((6, 3, 4, 4), 0, seed=2))
    assert whole.min() >= -1 and whole.max() < 1 and abs(whole.mean()) < 0.2


def test_projection_keeps_to_ball_and_range():
    pixels = torch.tensor([2.0, 100.0, 254.0])
    moved = torch.tensor([-9.0, 103.0, 300.0])
    assert project(moved, pixels, 5, clip=True).tolist() == [0, 103, 255]
    assert project(moved, pixels, 5, clip=False).tolist() == [-3, 103, 259]


def test_networks_of_two_sizes_are_refused():
    with pytest.raises(ModelError, match="5 px does not fit a network of 4 px"):
        attack(linear_network(4), IMAGES, LABELS, one_step(), linear_network(5))
