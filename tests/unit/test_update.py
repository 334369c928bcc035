"""Optimisers against torch's, rates and decay by name, clipping, resumed trainings, measures other than errors."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from ltpa.core.errors import ConfigError
from ltpa.models.scheduled import Scheduled
from ltpa.training.adaptive import Adam, RMSprop
from ltpa.training.arrays import Arrays
from ltpa.training.engine import Trainer
from ltpa.training.journal import describe
from ltpa.training.loop import EpochRow, Interrupted, Watch
from ltpa.training.recipe import Recipe
from ltpa.training.step import Stepper
from ltpa.training.update import Update

RECIPE = {"epochs": 2, "batch_size": 8, "lr": 0.01, "flip": "none", "weight_decay": 0.0}


def parameters(dtype):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in ((3, 4), (5,), (2, 2, 3, 3))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("ours", "usual", "settings"),
    [
        (Adam, torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1, "fused": True}),
        (Adam, torch.optim.Adam, {"weight_decay": 0.1}),
        (RMSprop, torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1}),
    ],
    ids=["adam-fused", "adam", "rmsprop"],
)
def test_the_bits_are_those_of_the_usual_class(ours, usual, settings, dtype):
    """Also where moments are handed to another optimiser, and where a parameter gets no gradient at first."""
    mine, theirs = parameters(dtype), parameters(dtype)
    optimizer, reference = ours(mine, **settings), usual(theirs, lr=0.1, **settings)
    for step in range(6):
        rate = 0.1 / (step + 1)
        reference.param_groups[0]["lr"] = rate
        for values, update in ((mine, optimizer), (theirs, reference)):
            update.zero_grad()
            sum((value**3).sum() for value in (values if step > 1 else values[:2])).backward()
        optimizer.step(rate)
        reference.step()
        if step == 3:
            before, optimizer = optimizer, ours(mine, **settings)
            optimizer.load(before.velocities)
            for moments in before.velocities:
                for moment in moments:
                    moment.fill_(torch.nan)  # copies were taken
        assert all(torch.equal(*pair) for pair in zip(mine, theirs, strict=True))
        assert mine[0].dtype == dtype


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def test_rates_and_decay_by_name_are_torchs_groups():
    """The longest prefix decides; a factor of 0 keeps a parameter as it is."""
    model, theirs = two_layers(), two_layers()
    rates = {"0": 0.5, "0.bias": 3.0, "1.bias": 0.0}
    recipe = Recipe.from_dict({**RECIPE, "weight_decay": 0.1, "rates": rates, "no_decay": ["0.w"]})
    update = Update(model, recipe)
    factors, decays = {"0.weight": 0.5, "0.bias": 3.0, "1.bias": 0.0}, {"0.weight": 0.0}
    reference = torch.optim.SGD(
        [
            {"params": [value], "lr": 0.01 * factors.get(name, 1), "weight_decay": decays.get(name, 0.1)}
            for name, value in theirs.named_parameters()
        ],
        momentum=0.9,
        fused=True,
    )
    x = torch.randn(5, 4)
    for _ in range(3):
        for network, optimizer in ((model, update), (theirs, reference)):
            optimizer.zero_grad()
            network(x).square().sum().backward()
        update.step(0.01)
        reference.step()
    for ours, usual in zip(model.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours, usual)
    assert torch.equal(model[1].bias, two_layers()[1].bias)


def test_a_recipe_without_names_has_one_group_in_the_networks_order():
    model = two_layers()
    (optimizer,) = Update(model, Recipe.from_dict(RECIPE)).optimizers
    assert [id(value) for value in optimizer._parameters] == [id(value) for value in model.parameters()]


def test_gradients_are_scaled_to_the_largest_norm_and_smaller_ones_left():
    moved = []
    for clip in (0.5, 0.0, 1e6):
        model = two_layers()
        update = Update(model, Recipe.from_dict({**RECIPE, "clip": clip, "momentum": 0.0}))
        before = [value.detach().clone() for value in model.parameters()]
        model(torch.full((5, 4), 3.0)).square().sum().backward()
        update.step(1.0)
        moved.append(torch.cat([(b - a.detach()).flatten() for a, b in zip(model.parameters(), before, strict=True)]))
    clipped, free, below = moved
    assert torch.equal(free, below) and float(free.norm()) > 5
    assert float(clipped.norm()) == pytest.approx(0.5, rel=1e-4)
    assert torch.allclose(clipped / clipped.norm(), free / free.norm(), atol=1e-6)


@pytest.mark.parametrize("key", ["rates", "no_decay"])
def test_a_prefix_that_fits_nothing_is_refused(key):
    values = {"2.": 1.0} if key == "rates" else ["2."]
    with pytest.raises(ConfigError, match=f"recipe key '{key}': no parameter's name begins with '2.'; names .* 0, 1$"):
        Update(two_layers(), Recipe.from_dict({**RECIPE, key: values}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adam", "nesterov": True}, "nesterov and dampening belong to optimizer sgd, not adam"),
        ({"optimizer": "adam", "reset_momentum": True}, "reset_momentum belongs to optimizer sgd, not adam"),
        ({"optimizer": "rmsprop", "cuda_graph": True}, "cuda_graph needs .* optimizer sgd or adam"),
        ({"optimizer": "lion"}, "'optimizer' is 'lion'"),
        ({"betas": [0.9]}, "betas"),
        ({"rates": {"0": -1.0}}, "rates"),
    ],
)
def test_what_cannot_go_together_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict({**RECIPE, **changes})


class Sampling(nn.Module, Scheduled):
    """Draws in its loss, by a scale that falls over the training."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))
        self.scale, self.told = 1.0, []

    def advance(self, share):
        self.scale = 1 - share
        self.told.append(share)

    def forward(self, x):
        return self.body(x)

    def loss_and_logits(self, x, targets):
        logits = self(x + self.scale * torch.randn_like(x))
        return nn.functional.cross_entropy(logits, targets), logits


def arrays(n=48):
    generator = torch.Generator().manual_seed(1)
    return Arrays(torch.randn(n, 3, 4, 4, generator=generator), torch.arange(n) % 3)


@dataclasses.dataclass(frozen=True)
class NatsRow(EpochRow):
    test_nats: float

    def tested(self):
        return "" if math.isnan(self.test_nats) else f", test {self.test_nats:.3f} nats"


class NatsTrainer(Trainer):
    row_type, measure = NatsRow, "test_nats"

    def wrong(self, part):
        logits = self.model.eval()(self.test_arrays.images[part])
        labels = self.test_arrays.labels[part]
        return nn.functional.cross_entropy(logits, labels, reduction="sum").detach().double()

    def measured(self, total):
        return total / self.test_images


def trained(folder, kind, stop_after=None, **changes):
    torch.manual_seed(0)
    asked = [0]

    def stop():
        asked[0] += 1
        return asked[0] == stop_after

    recipe = Recipe.from_dict({**RECIPE, "evaluation_batch": 20, **changes})
    found = kind(Sampling(), arrays(), arrays(50), recipe, 0, folder, Watch(stop))
    if stop_after is not None:
        with pytest.raises(Interrupted):
            found.run()
        return trained(folder, kind, **changes)
    found.run()
    return found


@pytest.mark.parametrize("stop_after", [2, 7, 8, 11])
@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adam", "clip": 0.5, "rates": {"body.3": 3.0}}, {"optimizer": "rmsprop", "no_decay": ["body.1"]}],
    ids=["adam", "rmsprop"],
)
def test_sampling_moments_and_totals_resume_to_the_same_bits(tmp_path, changes, stop_after):
    """Stopped within an epoch, and between pieces of an evaluation, whose sum is no whole number."""
    whole = trained(tmp_path / "whole", NatsTrainer, **changes)
    resumed = trained(tmp_path / "resumed", NatsTrainer, stop_after, **changes)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [row.test_nats for row in whole.history] == [row.test_nats for row in resumed.history]
    assert whole.model.told == [step / 12 for step in range(12)]
    assert resumed.model.told == whole.model.told[-len(resumed.model.told) :]


def test_a_task_without_classes_has_no_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(Stepper, "counts_errors", False)
    last = trained(tmp_path, NatsTrainer).history[-1]
    assert math.isnan(last.train_error_pct) and math.isnan(last.test_error_pct) and 0 < last.test_nats < 3
    assert describe(last, 48).partition(" loss")[2].partition(" nats")[0].endswith(f", test {last.test_nats:.3f}")
    assert "%" not in describe(last, 48)
