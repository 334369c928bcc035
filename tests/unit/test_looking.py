"""RAM and readers: the sensor, score-function gradients by enumeration, who learns from what, ways of looking."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ltpa.core.errors import ModelError
from ltpa.evaluation.looking import inside, read_all, walk_all
from ltpa.models import create_model, load, save_model
from ltpa.models.describe import count_macs
from ltpa.models.glimpse import Sensor, tent
from ltpa.models.policy import MovingBaseline, categorical_sample, gaussian_log_density, leave_one_out, score_loss
from ltpa.models.reader import even_penalty
from ltpa.models.registry import build_model
from ltpa.training.arrays import Arrays
from ltpa.training.engine import Trainer
from ltpa.training.loop import Interrupted, Watch
from ltpa.training.recipe import Recipe

SMALL = {"hidden": 16, "what": 8, "where": 8}
TINY = {"width": 0.05, "dropout": 0.0, "bn_weight": "one", "u_std": 0.5}


def ram(size=20, **options):
    return build_model({"family": "ram", **SMALL, **options}, 4, size)


def reader(size=16, **options):
    return build_model({"family": "reader", **TINY, "hidden": 6, "score": 5, **options}, 4, size)


@pytest.mark.parametrize(
    ("glimpse", "scales", "size", "count"), [(8, 1, 28, 209_677), (12, 3, 60, 256_781), (12, 4, 100, 275_213)]
)
def test_parameters_of_the_papers_sizes(glimpse, scales, size, count):
    model = build_model({"family": "ram", "glimpse": glimpse, "scales": scales}, 10, size)
    assert sum(each.numel() for each in model.parameters()) == count


@pytest.mark.parametrize("size", [9, 20])
@pytest.mark.parametrize("place", [(0, 0), (-1, -1), (1, 1), (1, -1), (0.3, -0.77), (3, -3)])
def test_the_sensor_is_slices_and_means(place, size):
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    found = Sensor(4, 3)(images, torch.tensor([place, place], dtype=torch.float64))
    x, y = np.clip(place, -1, 1)
    column, row = (int(np.floor((each + 1) * size / 2)) for each in (x, y))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (40, 40), (40, 40)))
    patches = []
    for scale in range(3):
        half = 4 * 2**scale // 2
        patch = padded[:, :, row - half + 40 : row + half + 40, column - half + 40 : column + half + 40]
        patches.append(patch.reshape(2, 3, 4, 2**scale, 4, 2**scale).mean((3, 5)).reshape(2, -1))
    np.testing.assert_allclose(found.numpy(), np.concatenate(patches, 1), atol=1e-12)


def test_pixels_outside_all_windows_do_not_matter():
    images = torch.rand(2, 3, 20, 20, requires_grad=True)
    Sensor(4, 2)(images, torch.tensor([[0.0, 0.0], [-0.5, 0.5]])).sum().backward()
    seen = images.grad.abs().sum(1) > 0
    assert seen[0].sum() == seen[1].sum() == 64
    assert seen[0, 6:14, 6:14].all() and seen[1, 11:19, 1:9].all()


def test_a_tent_peaks_at_its_centre_and_sums_to_one():
    maps = tent(torch.tensor([[0.0, 0.0], [1.0, -1.0]]), 4, 20)
    assert maps.flatten(1).argmax(1).tolist() == [10 * 20 + 10, 19]
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(2))
    assert (maps[0] > 0).sum() == 25  # a patch of 4, as far as its edges


def _expected(logits, reward):
    """Expected reward of all paths of choices, and each path with its probability. `logits` (steps, L)."""
    steps, cells = logits.shape
    log_p = logits.log_softmax(1)
    total = logits.new_zeros(())
    for path in itertools.product(range(cells), repeat=steps):
        total = total + sum(log_p[t, c] for t, c in enumerate(path)).exp() * reward[path]
    return total


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_score_function_gradient_is_that_of_the_expected_reward(baseline):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    reward = torch.rand(4, 4, 4, dtype=torch.float64)
    (exact,) = torch.autograd.grad(_expected(logits, reward), logits)

    def by_paths(credited):
        log_p = logits.log_softmax(1)
        loss = logits.new_zeros(())
        for path in itertools.product(range(4), repeat=3):
            density = torch.stack([log_p[t, c] for t, c in enumerate(path)])[None]
            weight = density.detach().sum().exp()
            advantage = torch.full_like(density, reward[path].item() - baseline) * credited
            loss = loss + weight * score_loss(density, advantage)
        return -torch.autograd.grad(loss, logits)[0]

    torch.testing.assert_close(by_paths(torch.ones(1, 3)), exact, rtol=0, atol=1e-12)
    without_last = by_paths(torch.tensor([[1.0, 1.0, 0.0]]))
    assert (without_last - exact).abs().max() > 1e-3  # a step without credit is a wrong gradient


def test_gaussian_policy_gradient_by_quadrature_and_the_two_wrong_ones():
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = torch.from_numpy(weights / weights.sum())
    std = torch.tensor(0.3, dtype=torch.float64)

    def estimate(density, reward):
        mean = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
        sample = mean + std * torch.from_numpy(nodes)
        advantage = reward(sample.detach().clamp(-1, 1))
        loss = (weights * -(advantage * density(sample, mean))).sum()
        return -torch.autograd.grad(loss, mean)[0].item() if loss.requires_grad else 0.0

    def own(sample, mean):
        return gaussian_log_density(sample[:, None], mean.expand(len(sample), 1), std)

    def attached(sample, mean):
        return -0.5 * ((sample - mean) / std).square()

    def clipped(sample, mean):
        return own(sample.clamp(-1, 1), mean)

    def reward(place):
        return (place - 0.3) ** 2

    step = 1e-5
    exact = np.diff(
        [
            float((weights * reward((0.9 + shift + std * torch.from_numpy(nodes)).clamp(-1, 1))).sum())
            for shift in (-step, step)
        ]
    )[0] / (2 * step)
    assert estimate(own, reward) == pytest.approx(exact, rel=0.03)  # the kink at 1 limits quadrature
    assert estimate(attached, reward) == pytest.approx(0, abs=1e-12)
    assert abs(estimate(clipped, reward) - exact) > 0.15


def test_classes_teach_no_place_and_rewards_teach_nothing_else():
    model = ram(glimpses=3)
    x, y = torch.rand(6, 3, 20, 20), torch.arange(6) % 4
    model.eval()
    torch.manual_seed(0)
    F.cross_entropy(model(x), y).backward()
    assert model.location.weight.grad is None and model.baseline.weight.grad is None
    assert model.what.weight.grad.abs().sum() > 0
    model.zero_grad()
    model.train()
    states = [torch.rand(6, 16, requires_grad=True) for _ in range(3)]
    rewards = model._rewards(states, y)
    assert not rewards.requires_grad
    model._baseline(states, rewards)[1].backward()
    assert all(each.grad is None for each in states) and model.baseline.weight.grad.any()
    model.zero_grad()
    model.advance(0.0)
    torch.manual_seed(0)
    weighted = ram(glimpses=3, policy_weight=5.0)
    weighted.load_state_dict(model.state_dict())
    for each in (model, weighted):
        torch.manual_seed(1)
        each.train().loss(x, y).backward()
    for (name, ours), theirs in zip(model.named_parameters(), weighted.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad) != name.startswith("location"), name


@pytest.mark.parametrize("credit", ["last", "next"])
def test_a_walk_of_t_glimpses_draws_t_minus_one_places(credit, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "ltpa.models.glimpse.gaussian_log_density",
        lambda sample, mean, std: drawn.append(sample) or gaussian_log_density(sample, mean, std),
    )
    loss, logits = ram(glimpses=4, credit=credit, supervise="every", samples=2).loss_and_logits(
        torch.rand(5, 3, 20, 20), torch.arange(5) % 4
    )
    assert len(drawn) == 3 and logits.shape == (5, 4) and torch.isfinite(loss)
    assert not any(each.requires_grad for each in drawn)


def test_random_gaze_first_and_a_falling_deviation():
    model = ram(policy_warmup=0.5, std=[0.2, 0.1])
    changed = []
    for share, chooses, std in ((0.0, False, 0.2), (0.49, False, 0.2), (0.5, True, 0.2), (0.9, True, 0.12)):
        changed.append(model.advance(share))
        assert model.chooses == chooses and float(model._std) == pytest.approx(std)
    assert changed == [False, False, True, False]
    model.advance(0.0)
    model.train()
    x, y = torch.rand(6, 3, 20, 20), torch.arange(6) % 4
    model.loss(x, y).backward()
    assert model.location.weight.grad is None  # the policy does not learn from places that it did not choose
    assert model.baseline.weight.grad.any()  # or the first rewards would meet a baseline that knows nothing of them


@pytest.mark.parametrize("build", [lambda: ram(policy="random"), ram, reader, lambda: reader(attention="hard")])
def test_evaluation_draws_nothing_and_does_not_depend_on_the_batch(build):
    model = build().eval()
    x = torch.rand(7, 3, model.image_size, model.image_size)
    before = torch.get_rng_state()
    whole, maps = model(x), model.attention(x)
    assert torch.equal(before, torch.get_rng_state())
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(model(x[order]), whole[order], rtol=0, atol=1e-6)
    for level, found in maps.items():
        torch.testing.assert_close(model.attention(x[order[:2]])[level], found[order[:2]], rtol=0, atol=1e-6)
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(7))


@pytest.mark.parametrize("variant", ["ram-6", "ram-6-random", "reader-hard"])
def test_a_network_from_a_file_is_the_one_that_was_saved(variant, tmp_path):
    small = {"width": 0.05} if variant.startswith("reader") else SMALL
    model = create_model(variant, 4, image_size=20, **small).eval()
    path = tmp_path / "model.safetensors"
    facts = {"num_classes": 4, "image_size": 20, "classes": ["ant", "bee", "cat", "dog"], "extra": {"seed": 0}}
    save_model(path, model, variant=variant, architecture=model.architecture, **facts)
    again, x = load(path).to("cpu"), torch.rand(3, 3, 20, 20)
    assert torch.equal(again(x), model(x))
    assert all(torch.equal(maps, again.attention(x)[level]) for level, maps in model.attention(x).items())


def test_places_by_the_pixels_are_uniform():
    model = ram(policy="random", glimpses=2)
    places = model._pixel_hash((torch.rand(4000, 3, 20, 20) * 255).round() / 255)
    counts = np.histogram2d(*places.numpy().T, bins=4, range=[[-1, 1]] * 2)[0]
    assert ((counts - 250) ** 2 / 250).sum() < 45  # chi-square of 15 degrees, p 1e-4


def test_reader_against_loops_in_float64():
    torch.manual_seed(1)
    model = reader(size=32, steps=2, gate=True).double().eval()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    logits, weights = model.read(x, "expectation")
    p = {name: each.detach().numpy() for name, each in model.named_parameters()}
    maps = model.local_features(x)["conv7"].detach().numpy()
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    for image in range(2):
        cells = maps[image].reshape(maps.shape[1], -1).T
        h, c = (np.tanh(p[f"first_{k}.weight"] @ cells.mean(0) + p[f"first_{k}.bias"]) for k in ("state", "memory"))
        for step in range(2):
            scores = [
                p["attend.score.weight"][0]
                @ np.tanh(p["attend.of_cells.weight"] @ a + p["attend.of_state.weight"] @ h + p["attend.of_state.bias"])
                for a in cells
            ]
            alpha = np.exp(scores - np.max(scores))
            alpha /= alpha.sum()
            z = sigmoid(p["attend.gate.weight"] @ h + p["attend.gate.bias"]) * (alpha @ cells)
            gates = p["core.weight_ih"] @ z + p["core.bias_ih"] + p["core.weight_hh"] @ h + p["core.bias_hh"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            np.testing.assert_allclose(weights[image, step].detach().numpy().ravel(), alpha, atol=1e-12)
            np.testing.assert_allclose(
                logits[image, step].detach().numpy(), p["action.weight"] @ h + p["action.bias"], atol=1e-12
            )


def test_hard_is_soft_where_one_cell_has_all_the_weight():
    model = reader(size=32).eval()
    model.attend.score.weight.data.mul_(1e4)
    x, noise = torch.rand(3, 3, 32, 32), torch.full((3, 3, 64), 0.5)
    soft = model.read(x, "expectation")[0]
    for way in ("argmax", "sample"):
        torch.testing.assert_close(model.read(x, way, noise)[0], soft, rtol=0, atol=1e-5)


def test_drawn_cells_follow_the_weights():
    log_weights = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20_000, 4)
    torch.manual_seed(0)
    counts = torch.bincount(categorical_sample(log_weights), minlength=4).numpy()
    expected = np.array([10_000, 6_000, 3_000, 1_000])
    assert ((counts - expected) ** 2 / expected).sum() < 21  # 3 degrees, p 1e-4


def test_the_penalty_is_least_for_even_weights():
    even = torch.full((1, 6, 64), 1 / 64, dtype=torch.float64)
    assert float(even_penalty(even)) == pytest.approx((64 - 6) ** 2 / 64)
    one = torch.zeros_like(even)
    one[:, :, 0] = 1
    assert float(even_penalty(one)) == 88


def test_baselines():
    rewards = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]])
    torch.testing.assert_close(leave_one_out(rewards), torch.tensor([[4.0, 3.5], [3.0, 1.5], [2.0, 4.0]]))
    moving = MovingBaseline()
    assert float(moving(torch.tensor([1.0, 3.0]))) == 0 and float(moving(torch.tensor([0.0]))) == pytest.approx(0.2)
    assert float(moving.state_dict()["value"]) == pytest.approx(0.18)


def test_led_walks_and_ways_of_reading():
    images = np.random.default_rng(0).integers(0, 256, (9, 20, 20, 3), dtype=np.uint8)
    model = ram(glimpses=3).eval()
    torch.nn.init.normal_(model.location.weight)
    answers, places = walk_all(model, images, 4, 0)
    again, same = walk_all(model, images, 9, 0)
    assert list(answers) == ["closed loop", "open loop", "random", "centre"]
    assert all((answers[way] == again[way]).all() for way in answers)
    np.testing.assert_allclose(places, same, atol=1e-6)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    led = model.walk(x, torch.zeros(9, 3, 2))
    assert (led.logits[:, -1].argmax(1).numpy() == answers["centre"]).all() and not led.locations.any()
    answers, places = read_all(reader(size=20).eval(), images, 4, 0)
    assert list(answers) == ["expectation", "argmax", "sample"] and places.shape == (9, 3, 2)
    assert (np.abs(places) < 1).all()


def test_places_inside_boxes():
    boxes = np.array([[2, 4, 6, 8]] * 4, np.float32)
    pixels = np.array([[4, 8], [2.01, 4.01], [6, 7], [4, 7.9]])
    assert inside(pixels / 10 - 1, boxes, 20).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"glimpses": 1}, "nothing is left for policy 'learned'"),
        ({"glimpse": 7}, "glimpse"),
        ({"std": [0.2, 0.0]}, "std"),
        ({"baseline": "leave-one-out"}, "samples must be 2 or more"),
        ({"policy_warmup": 1.0}, "policy_warmup"),
        ({"scales": 5}, "fewer scales or a smaller glimpse"),
    ],
)
def test_impossible_options_are_refused(options, told):
    with pytest.raises(ModelError, match=told):
        ram(**options)


def test_readers_refuse_what_they_cannot_do():
    with pytest.raises(ModelError, match="noise"):
        reader().eval().read(torch.rand(1, 3, 16, 16), "sample")
    for model in (reader(), ram(size=16)):
        with pytest.raises(ModelError, match="no global vector"):
            model.eval().attention(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("stop_after", [1, 3, 5])
@pytest.mark.parametrize(
    "build",
    [
        lambda: ram(8, glimpse=4, policy_warmup=0.5, std=[0.3, 0.1], credit="next", supervise="every"),
        lambda: reader(attention="hard", coin=0.5, entropy=0.01),
    ],
    ids=["ram", "hard reader"],
)
def test_a_resumed_training_has_the_same_bits(tmp_path, build, stop_after):
    """Cut off while places are random, at the switch to the policy, and after it."""

    def trained(folder, stop_at=None):
        torch.manual_seed(0)
        model = build()
        asked = [0]

        def stop():
            asked[0] += 1
            return asked[0] == stop_at

        generator = torch.Generator().manual_seed(1)
        side = model.image_size
        train, test = (
            Arrays(torch.randn(count, 3, side, side, generator=generator), torch.arange(count) % 4) for count in (24, 8)
        )
        recipe = Recipe(epochs=2, batch_size=8, lr=0.01, optimizer="adam", clip=5.0, flip="none")
        trainer = Trainer(model, train, test, recipe, 0, folder, Watch(stop))
        if stop_at is not None:
            with pytest.raises(Interrupted):
                trainer.run()
            return trained(folder)
        trainer.run()
        return model

    whole, resumed = trained(tmp_path / "whole").state_dict(), trained(tmp_path / "resumed", stop_after).state_dict()
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(("glimpse", "scales", "glimpses", "size"), [(8, 1, 6, 28), (12, 3, 8, 60), (12, 4, 8, 100)])
def test_multiply_accumulates_of_the_papers_sizes(glimpse, scales, glimpses, size):
    model = build_model({"family": "ram", "glimpse": glimpse, "scales": scales, "glimpses": glimpses}, 10, size).eval()
    each = scales * glimpse**2 * 128 + 2 * 128 + (128 + 128) * 256 + 2 * 256**2
    assert count_macs(model) == glimpses * each + (glimpses - 1) * 2 * 256 + 256 * 10


def test_images_that_are_no_numbers_end_in_logits_that_are_none():
    model = ram().eval()
    torch.nn.init.ones_(model.location.weight)
    assert model(torch.full((2, 3, 20, 20), torch.nan)).isnan().all()
