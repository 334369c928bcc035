"""The declared recipes against the paper's routines, written out as tables (appendix A.3 and the released settings)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ltpa.core.declared import load_declaration
from ltpa.training.arrays import Arrays
from ltpa.training.augment import Draws, augment
from ltpa.training.engine import Trainer
from ltpa.training.loop import Watch
from ltpa.training.recipe import Recipe, read_recipe
from ltpa.training.schedule import epoch_rate, step_rate

RECIPES = {name: read_recipe(values, name) for name, values in load_declaration("recipes").items()}

# recipe: images, batch, steps per epoch, epochs, rate, dampening, Nesterov, decay per step, flip, crop, normalisation
PAPER = {
    "vgg-cifar": (50_000, 128, 390, 300, 1.0, 0.9, False, 1e-7, "half", 0, "yuv-lcn"),
    "vgg-svhn": (73_257, 128, 572, 300, 0.1, 0.9, False, 1e-7, "none", 0, "none"),
    "vgg-svhn-flip": (73_257, 128, 572, 300, 0.1, 0.9, False, 1e-7, "half", 0, "none"),
    "vgg-cub": (5_994, 128, 46, 320, 0.1, 0.9, False, 1e-7, "half", 0, "none"),
    "resnet-cifar": (50_000, 64, 781, 200, 0.1, 0.0, True, 0.0, "half", 4, "gcn-zca"),
}
# recipe: (first epoch, rate from it on), epochs counted from 1
RATES = {
    "vgg-cifar": [(1, 1.0), *((25 * k, 0.5**k) for k in range(1, 13))],
    "vgg-svhn": [(1, 0.1), *((25 * k, 0.1 * 0.5**k) for k in range(1, 13))],
    "vgg-svhn-flip": [(1, 0.1), *((25 * k, 0.1 * 0.5**k) for k in range(1, 13))],
    "vgg-cub": [
        (1, 0.1), (30, 0.2), (60, 0.4), (90, 0.2), (120, 0.1), (150, 0.05), (180, 0.025), (210, 0.0125),
        (240, 0.00625), (270, 0.003125), (300, 0.0015625),
    ],
    "resnet-cifar": [(1, 0.1), (60, 0.02), (120, 0.004), (160, 0.0008)],
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_settings_are_the_papers(name):
    images, batch, steps, epochs, rate, dampening, nesterov, decay, flip, crop, normalise = PAPER[name]
    recipe = RECIPES[name]
    assert (recipe.batch_size, recipe.epochs, recipe.lr) == (batch, epochs, rate)
    assert images // recipe.batch_size == steps, "the last short batch is dropped"
    assert (recipe.momentum, recipe.dampening, recipe.nesterov) == (0.9, dampening, nesterov)
    assert (recipe.weight_decay, recipe.lr_decay) == (5e-4, decay)
    assert (recipe.flip, recipe.crop, recipe.normalise) == (flip, crop, normalise)
    assert recipe.reset_momentum == name.startswith("resnet")
    assert recipe.initialise == ("cifar100" if name == "vgg-cub" else "")


def test_no_vgg_routine_of_the_paper_crops():
    assert not any(RECIPES[name].crop for name in PAPER if name.startswith("vgg"))


@pytest.mark.parametrize("name", RATES)
def test_the_rate_of_every_epoch_is_that_of_the_table(name):
    recipe, table = RECIPES[name], dict(RATES[name])
    expected = math.nan
    for epoch in range(1, recipe.epochs + 1):
        expected = table.get(epoch, expected)
        assert epoch_rate(recipe, epoch) == pytest.approx(expected, rel=1e-12), f"epoch {epoch}"


def test_torch7s_decay_takes_1_2_percent_off_over_the_whole_run():
    recipe = RECIPES["vgg-cifar"]
    last = 300 * 390 - 1
    assert step_rate(recipe, last, 390) / epoch_rate(recipe, 300) == pytest.approx(0.988, abs=5e-4)
    assert step_rate(recipe, 0, 390) == 1.0
    assert step_rate(RECIPES["resnet-cifar"], 200 * 781 - 1, 781) == pytest.approx(0.0008)


@pytest.mark.parametrize("family", ["vgg", "resnet"])
def test_every_family_has_a_recipe_for_every_role_it_trains_on(family):
    for role, normalise in (("cifar", None), ("svhn", "none"), ("cub", "none")):
        recipe = RECIPES[f"{family}-{role}"]
        assert normalise in (None, recipe.normalise)
        assert recipe.initialise == ("cifar100" if role == "cub" else "")
        assert (recipe.batch_size, recipe.nesterov) == ((128, False) if family == "vgg" else (64, True))


@given(st.sampled_from(sorted(PAPER)), st.integers(1, 13), st.integers(0, 10_000))
def test_augmentation_is_half_a_batch_mirrored_and_one_window_for_all(name, count, seed):
    """Each image is a window of its own padded or mirrored-then-padded self, all at one offset; half are mirrored."""
    recipe = RECIPES[name].model_copy(update={"batch_size": count})
    draws = Draws.of_epoch(recipe, 1, np.random.default_rng(seed), torch.device("cpu"))
    batch = torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    got = augment(batch, recipe, draws.mirrored[0], draws.offset[0]).numpy()
    pad = recipe.crop
    padded = np.pad(batch.numpy(), [(0, 0), (0, 0), (pad, pad), (pad, pad)], mode="reflect")
    mirrored = padded[..., ::-1]
    fitting = []
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            windows = [source[:, :, top : top + 6, left : left + 6] for source in (padded, mirrored)]
            plain, flipped = ((got == window).all(axis=(1, 2, 3)) for window in windows)
            if (plain | flipped).all():
                fitting.append(int(flipped.sum()))
    wanted = count // 2 if recipe.flip == "half" else 0
    assert wanted in fitting
    # A window across a reflected edge is the mirror image of another one, which then explains the batch as well.
    assert set(fitting) <= {wanted, count - wanted}


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 4, 2)

    def forward(self, x):
        return self.linear(x.flatten(1))

    def loss_and_logits(self, x, targets):
        logits = self(x)
        return nn.functional.cross_entropy(logits, targets), logits


@pytest.mark.parametrize("reset", [True, False])
def test_momentum_is_forgotten_where_the_rate_drops(tmp_path, reset):
    """A velocity that starts anew equals its first gradient."""
    values = {"epochs": 3, "batch_size": 4, "lr": 0.1, "weight_decay": 0.0, "reset_momentum": reset, "flip": "none"}
    values["evaluate_every"] = 3  # an evaluation asks whether to stop, too: once, at the end
    schedule = {"kind": "milestones", "milestones": [3], "factors": [0.2]}
    arrays = Arrays(torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)
    torch.manual_seed(0)
    model = OneLayer()
    fresh = []

    def look():
        velocity, weight = trainer.stepper.optimizers[0].velocities[0], model.linear.weight
        fresh.append(torch.equal(velocity, weight.grad))
        return False

    recipe = Recipe.from_dict({**values, "schedule": schedule})
    trainer = Trainer(model, arrays, arrays, recipe, 0, tmp_path, Watch(look))
    trainer.run()
    assert fresh[:6] == [True, False, False, False, reset, False]
