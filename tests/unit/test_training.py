"""The engine, its schedules and augmentations, and resuming to the same bits."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ltpa.core.errors import ConfigError, TrainingError
from ltpa.data.normalise import fit_normaliser
from ltpa.data.schemes import SCHEMES
from ltpa.training import loop
from ltpa.training.arrays import Arrays, evaluation_logits
from ltpa.training.augment import Draws, crop, flip
from ltpa.training.engine import Trainer
from ltpa.training.loop import Diverged, Interrupted, Watch
from ltpa.training.recipe import Recipe
from ltpa.training.schedule import epoch_rate, step_rate
from ltpa.training.sgd import SGD


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(256, 3),
        )

    def forward(self, x):
        return self.body(x)

    def loss_and_logits(self, x, targets):
        logits = self(x)
        return nn.functional.cross_entropy(logits, targets), logits


def arrays(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    inputs = torch.randn(n, 3, 8, 8, generator=generator)
    inputs[:, 0] += labels.float().view(-1, 1, 1) - 1
    return Arrays(inputs, labels)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_images_kept_as_bytes_train_to_the_same_bits(scheme, tmp_path):
    """A scheme of single pixels is applied to batches after augmentation, any other one once to all images."""
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(64) % 3
    normaliser = fit_normaliser(scheme, images)
    kept = Arrays.prepare(images, labels, normaliser, torch.device("cpu"))
    assert kept.images.dtype == (torch.uint8 if normaliser.pointwise else torch.float32)
    inputs = normaliser(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    once = Arrays(inputs, kept.labels)
    weights = []
    for number, data in enumerate((kept, once)):
        torch.manual_seed(0)
        trained = Trainer(SmallNet(), data, data, recipe(flip="half"), 0, tmp_path / str(number))
        trained.run()
        weights.append([*trained.model.state_dict().values(), torch.tensor(trained.history[-1].test_error_pct)])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def recipe(**changes):
    values = {"epochs": 3, "batch_size": 16, "lr": 0.05, "schedule": {"kind": "every", "period": 2}, "crop": 1}
    return Recipe.from_dict({**values, **changes})


def trainer(folder, stop_after=None, seed=0, **changes):
    torch.manual_seed(seed)
    steps = [0]

    def should_stop():
        steps[0] += 1
        return steps[0] == stop_after

    return Trainer(SmallNet(), arrays(), arrays(30, 1), recipe(**changes), seed, folder, Watch(should_stop))


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        t = trainer(tmp_path / name, seed=seed)
        t.run()
        runs[name] = weights(t.model)
    assert equal(runs["a"], runs["b"])
    assert not equal(runs["a"], runs["c"])


@pytest.mark.parametrize("stop_after", [1, 3, 4, 5, 11, 12])
def test_interrupted_training_resumes_to_the_same_bits(tmp_path, stop_after):
    whole = trainer(tmp_path / "whole")
    history = whole.run()
    with pytest.raises(Interrupted, match="resumes"):
        trainer(tmp_path / "cut", stop_after).run()
    torch.manual_seed(99)  # whatever happened to the process in between
    resumed = trainer(tmp_path / "cut")
    rows = resumed.run()
    assert equal(weights(whole.model), weights(resumed.model))
    assert [(r.epoch, r.lr, r.train_loss, r.test_error_pct) for r in rows] == [
        (r.epoch, r.lr, r.train_loss, r.test_error_pct) for r in history
    ]


def test_every_start_gets_further_however_short(tmp_path):
    """Asked to stop all the time a training takes one step, or one piece of an evaluation, and keeps it."""
    whole = trainer(tmp_path / "whole", evaluation_batch=8, epochs=2)
    history, starts = whole.run(), 0
    while True:
        torch.manual_seed(99 if starts else 0)
        t = Trainer(SmallNet(), arrays(), arrays(30, 1), whole.recipe, 0, tmp_path / "cut", Watch(lambda: True))
        try:
            rows = t.run()
            break
        except Interrupted:
            starts += 1
    assert starts == 2 * (4 + 4), "steps and pieces of two epochs"
    assert equal(weights(whole.model), weights(t.model))
    assert [(r.train_loss, r.test_error_pct) for r in rows] == [(r.train_loss, r.test_error_pct) for r in history]
    assert torch.equal(t.test_logits(), whole.test_logits())


def test_the_logits_of_the_last_evaluation_are_kept_and_no_others(tmp_path):
    t = trainer(tmp_path, evaluation_batch=8)
    error = t.run()[-1].test_error_pct
    logits = t.test_logits()
    assert (logits.shape, logits.dtype) == ((30, 3), torch.float32)
    assert torch.allclose(logits, evaluation_logits(t.model, t.test_arrays, slice(None)), atol=1e-5)
    assert error == pytest.approx(100 * float((logits.argmax(1) != t.test_arrays.labels).float().mean()))
    assert trainer(tmp_path / "new").test_logits().shape == (0, 0)


def test_training_learns(tmp_path):
    t = trainer(tmp_path, epochs=8)
    untrained = evaluation_logits(t.model, t.test_arrays, slice(None)).argmax(1)
    before = 100 * float((untrained != t.test_arrays.labels).float().mean())
    assert t.run()[-1].test_error_pct < before / 2


def test_half_precision_follows_single_precision_and_is_not_it(tmp_path):
    single, half = trainer(tmp_path / "fp32"), trainer(tmp_path / "bf16", precision="bf16")
    losses = [t.run()[-1].train_loss for t in (single, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert not equal(weights(single.model), weights(half.model))
    assert all(value.dtype == torch.float32 for name, value in weights(half.model).items() if "tracked" not in name)


def test_diverging_loss_names_epoch_and_rate(tmp_path):
    with pytest.raises(TrainingError, match=r"(not finite|rose to .*) in epoch \d at learning rate 1e\+06"):
        trainer(tmp_path, lr=1e6, schedule={"kind": "constant"}).run()


@pytest.mark.parametrize("spoil", ["weight", "loss"])
def test_what_is_not_finite_is_never_saved(tmp_path, spoil):
    t = trainer(tmp_path)

    def should_stop():
        if spoil == "weight":
            t.model.body[1].running_var[0] = math.inf
        else:
            t.train_arrays.images.fill_(math.nan)
        return t.step > 1

    t.train_arrays, t.watch = t.stepper.train, Watch(should_stop)
    with pytest.raises(Interrupted, match="not finite"):
        t.run()
    assert not list(tmp_path.glob("step-*"))


def test_a_loss_beyond_all_sense_counts_as_diverged(tmp_path, monkeypatch):
    monkeypatch.setattr(SmallNet, "loss_and_logits", lambda self, x, targets: (self(x).sum() * 0 + 2e4, self(x)))
    with pytest.raises(Diverged, match=r"rose to 20000 in epoch 1 at learning rate 0\.05"):
        trainer(tmp_path).run()


@pytest.mark.parametrize(
    ("loss", "step", "what"),
    [
        (math.nan, 2, "is not finite"),
        (-math.inf, 2, "is not finite"),
        (1e9, 2, "rose to 1e\\+09"),
        (1.5e4, 4, "rose to"),
    ],
)
def test_a_lost_epoch_is_not_trained_to_its_end(tmp_path, monkeypatch, loss, step, what):
    """Looked at every so many steps; what the rest of an epoch could still make good waits for its end."""
    monkeypatch.setattr(SmallNet, "loss_and_logits", lambda self, x, targets: (self(x).sum() * 0 + loss, self(x)))
    monkeypatch.setattr(loop, "JUDGED_EVERY", 2)
    t = trainer(tmp_path)
    with pytest.raises(Diverged, match=f"{what}.* in epoch 1"):
        t.run()
    assert t.step == step


def test_too_few_images_for_a_batch(tmp_path):
    with pytest.raises(TrainingError, match="64 training images do not fill one batch of 100"):
        trainer(tmp_path, batch_size=100)


def test_paper_schedule_halves_at_the_start_of_every_25th_epoch():
    r = recipe(epochs=300, lr=1.0, schedule={"kind": "every", "period": 25, "factor": 0.5})
    assert [epoch_rate(r, e) for e in (1, 24, 25, 49, 50, 300)] == [1, 1, 0.5, 0.5, 0.25, 0.5**12]


def test_cub_schedule_rises_twice_then_halves():
    from ltpa.core.declared import load_declaration

    r = Recipe.from_dict(load_declaration("recipes")["vgg-cub"])
    rates = [epoch_rate(r, e) for e in (1, 29, 30, 59, 60, 89, 90, 120, 150, 300, 320)]
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.2, 0.1, 0.05, 0.4 * 0.5**8, 0.4 * 0.5**8])


@given(st.integers(0, 200_000), st.integers(1, 1000), st.floats(0, 1e-3))
def test_step_decay_is_torch7s(step, steps_per_epoch, decay):
    r = recipe(lr_decay=decay, schedule={"kind": "every", "period": 3})
    assert step_rate(r, step, steps_per_epoch) == pytest.approx(
        epoch_rate(r, step // steps_per_epoch + 1) / (1 + step * decay)
    )


@given(st.integers(2, 60))
def test_cosine_falls_from_the_base_rate_towards_zero(epochs):
    r = recipe(epochs=epochs, schedule={"kind": "cosine"})
    rates = [epoch_rate(r, e) for e in range(1, epochs + 1)]
    assert rates[0] == r.lr
    assert all(a > b > 0 for a, b in itertools.pairwise(rates))


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_a_rate_per_step_rises_evenly_and_then_follows_the_cosine(kind):
    r = recipe(epochs=4, lr=0.2, schedule={"kind": kind, "warmup": 1.5, "per": "step"})
    rates = [step_rate(r, step, 10) for step in range(40)]
    course = [(1 + math.cos(math.pi * (step + 1) / 40)) / 2 if kind == "cosine" else 1 for step in range(40)]
    risen = [min(1, (step + 1) / 15) for step in range(40)]
    assert rates == pytest.approx([0.2 * a * b for a, b in zip(risen, course, strict=True)])
    assert epoch_rate(r, 3) == pytest.approx(rates[24])  # half-way through the third epoch


@given(st.integers(2, 17), st.integers(1, 5), st.integers(0, 1000))
def test_flip_mirrors_exactly_half(n, steps, seed):
    batch = torch.arange(n * 2 * 3 * 4, dtype=torch.float32).view(n, 2, 3, 4)
    draws = Draws.of_epoch(recipe(batch_size=n), steps, np.random.default_rng(seed), torch.device("cpu"))
    for mirrored in draws.mirrored:
        flipped = flip(batch, mirrored)
        turned = [torch.equal(f, b.flip(-1)) for f, b in zip(flipped, batch, strict=True)]
        kept = [torch.equal(f, b) for f, b in zip(flipped, batch, strict=True)]
        assert sum(turned) == n // 2 and sum(kept) == n - n // 2


@given(st.integers(0, 4), st.integers(0, 1000), st.integers(8, 9))
def test_crop_is_the_named_window_of_numpys_reflection(pad, seed, width):
    batch = torch.randn(2, 3, 8, width, generator=torch.Generator().manual_seed(seed))
    offsets = Draws.of_epoch(recipe(crop=pad), 1, np.random.default_rng(seed), torch.device("cpu")).offset
    padded = np.pad(batch.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    for offset in (*offsets, torch.tensor([0, 2 * pad]), torch.tensor([2 * pad, 0])):
        top, left = offset.tolist()
        window = padded[:, :, top : top + 8, left : left + width]
        assert np.array_equal(crop(batch, pad, offset).numpy(), window)


def test_every_offset_of_a_crop_is_drawn_about_as_often():
    draws = Draws.of_epoch(recipe(crop=4), 5000, np.random.default_rng(0), torch.device("cpu"))
    counts = np.bincount((draws.offset[:, 0] * 9 + draws.offset[:, 1]).numpy(), minlength=81)
    assert len(counts) == 81 and counts.min() > 30 and counts.max() < 100  # 62 expected, deviation 8


def test_dampened_rate_one_follows_torch7_over_500_steps():
    """Torch7's `optim.sgd`: v <- 0.9 v + 0.1 d (first step v = d), d = grad + decay * w; w <- w - rate * v."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(6, 6)) / 10
    w = generator.normal(size=6)
    weight = nn.Parameter(torch.tensor(w))
    optimizer = SGD([weight], momentum=0.9, dampening=0.9, weight_decay=5e-4)
    r = recipe(lr=1.0, lr_decay=1e-7, schedule={"kind": "constant"})
    v = None
    for step in range(500):
        rate = step_rate(r, step, 500)
        d = matrix.T @ (matrix @ w) + 5e-4 * w
        v = d if v is None else 0.9 * v + 0.1 * d
        w = w - rate * v
        optimizer.zero_grad()
        (0.5 * (torch.tensor(matrix) @ weight).square().sum()).backward()
        optimizer.step(rate)
    assert np.abs(weight.detach().numpy() - w).max() < 1e-14


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'"),
        ({"lr": -1.0}, "'lr' is -1.0"),
        ({"lr": math.nan}, "'lr' is nan"),
        ({"epochs": 0}, "'epochs' is 0"),
        ({"epochs": 2.5}, "'epochs' is 2.5"),
        ({"flip": "all"}, "must be 'half' or 'none'"),
        ({"cuda_graph": True, "fused": False}, "cuda_graph needs fused"),
        ({"compile": "no"}, "'compile' is 'no': must be true or false"),
        ({"evaluation_batch": 0}, "'evaluation_batch' is 0"),
        ({"precision": "fp16"}, "must be 'fp32', 'tf32' or 'bf16'"),
        ({"schedule": {"kind": "cosine", "warmup": -1}}, "'schedule.warmup' is -1"),
        ({"nesterov": True, "dampening": 0.9}, "nesterov goes with dampening 0"),
        ({"schedule": {"kind": "milestones", "milestones": [3], "factors": []}}, "differ in length"),
        (
            {"schedule": {"kind": "milestones", "milestones": [3], "factors": [-1]}},
            "'schedule.factors.0' is -1: must be greater than 0",
        ),
        (
            {"schedule": {"kind": "milestones", "milestones": [5, 3], "factors": [1, 1]}},
            r"'schedule': milestones .5, 3. must be epochs, each after",
        ),
        ({"schedule": {"kind": "milestones", "milestones": [3, 3], "factors": [1, 1]}}, "milestones .3, 3. must be"),
        ({"schedule": {"kind": "milestones", "milestones": [0], "factors": [1]}}, "'schedule.milestones.0' is 0"),
        (
            {"schedule": {"kind": "milestones", "milestones": [2.5], "factors": [1]}},
            "'schedule.milestones.0' is 2.5: must be a whole",
        ),
        ({"schedule": {"warmup": True}}, "'schedule.warmup' is True"),
        ({"schedule": {"warmup": 1.5}}, "warmup is 1.5; it must be whole, but for per: step"),
        ({"schedule": {"per": "image"}}, "'schedule.per' is 'image': must be 'epoch' or 'step'"),
        ({"schedule": {"kind": "every", "per": "step"}}, "per step goes with kind cosine or constant, not every"),
        (
            {"schedule": {"kind": "cosine", "per": "step"}, "reset_momentum": True},
            "reset_momentum would forget it at every",
        ),
        ({"momentum": 1.5}, "'momentum' is 1.5: must be less than 1"),
        ({"momentum": 1}, "'momentum' is 1:"),
        ({"momentum": -0.1}, "'momentum' is -0.1:"),
        ({"dampening": 1.1}, "'dampening' is 1.1: must be at most 1"),
        ({"nesterov": True, "momentum": 0}, "nesterov needs momentum above 0"),
        ({"normalise": "yuv"}, "'normalise' is 'yuv': must be one of none, meanstd, imagenet, yuv-lcn, gcn-zca"),
        ({"crop": True}, "'crop' is True"),
        ({"batch_size": 1}, "'batch_size' is 1: must be at least 2"),
        ({"schedule": {"steps": 3}}, "unknown key 'steps'"),
    ],
)
def test_bad_recipes_name_the_key(change, message):
    with pytest.raises(ConfigError, match=message):
        recipe(**change)


def test_missing_recipe_key_is_named():
    with pytest.raises(ConfigError, match="lr"):
        Recipe.from_dict({"epochs": 1, "batch_size": 2})
