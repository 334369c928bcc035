"""ProtoPNet: its layer and losses against plain float64 loops, the push by brute force, that it learns and resumes."""

import dataclasses

import numpy as np
import pytest
import torch

from ltpa.core.errors import ConfigError, ModelError, TrainingError
from ltpa.core.patches import PrototypeTraining
from ltpa.core.schema import read_plain
from ltpa.models.protopnet import PrototypeNetwork
from ltpa.training.loop import Interrupted
from ltpa.training.protopnet import (
    Kind,
    Push,
    distorted,
    losses,
    passes,
    scaled,
)
from ltpa.training.prototypes import PrototypeTrainer

SIZE, CLASSES, PER_CLASS, WIDTH = 16, 3, 2, 5
SHORT = PrototypeTraining(
    per_class=2, width=8, epochs=16, warm_epochs=2, first_push=12, push_every=4, last_epochs=2, batch_size=8,
    decay_every=20, trunk_lr=3e-3, add_on_lr=1e-2, last_lr=1e-2, rotation=5.0, shear=5.0,
)  # fmt: skip


class Backbone(torch.nn.Module):
    """As little of a network as prototypes need: one convolution and a pool."""

    image_size = SIZE

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(6)

    def preprocessing(self, pixels):
        return pixels / 255

    def local_features(self, x):
        return {"conv7": torch.nn.functional.avg_pool2d(self.norm(self.conv(x)).relu(), 4)}


def make_backbone():
    torch.manual_seed(0)
    return Backbone().eval()


def make_network(grid=14):
    torch.manual_seed(1)
    return PrototypeNetwork(make_backbone(), CLASSES, PER_CLASS, WIDTH, grid).eval()


def trainer(folder, images, labels, chosen=SHORT, seed=0, classes=CLASSES, **more):
    backbone = more.pop("backbone", None) or make_backbone()
    return PrototypeTrainer(backbone, images, labels, classes, chosen, seed, 14, "", folder, **more)


def push(network, images, labels, size):
    """All of a push; gives the rows of the images."""
    found = Push(network)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        found.look(scaled(images[part], SIZE, torch.device("cpu")), torch.from_numpy(labels[part]), start)
    found.finish()
    return found.rows.numpy()


def coloured(count, seed=0):
    """Images of which a bright square in one colour channel tells the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = generator.integers(0, 60, (count, SIZE, SIZE, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = generator.integers(2, 8, 2)
        image[y : y + 6, x : x + 6, label] = 255
    return images, labels


def test_distances_similarities_and_logits_by_loops():
    network = make_network()
    images = torch.rand(4, 3, SIZE, SIZE)
    with torch.no_grad():
        latent = network.latent(images)
        maps = network.similarity_maps(images).double().numpy()
        logits, least = network(images)
    z, p = latent.double().numpy(), network.prototypes.detach().double().numpy()
    assert maps.shape == (4, CLASSES * PER_CLASS, *z.shape[2:]) and z.min() >= 0 and z.max() <= 1
    scores = np.empty(maps.shape[:2])
    for image in range(4):
        for j in range(len(p)):
            d = ((z[image] - p[j][:, None, None]) ** 2).sum(axis=0)
            np.testing.assert_allclose(maps[image, j], np.log((d + 1) / (d + 1e-4)), rtol=1e-4)
            assert least[image, j].item() == pytest.approx(d.min(), rel=1e-4)
            scores[image, j] = np.log((d.min() + 1) / (d.min() + 1e-4))
    weights = np.array([[1.0 if j // PER_CLASS == c else -0.5 for j in range(len(p))] for c in range(CLASSES)])
    np.testing.assert_allclose(logits.numpy(), scores @ weights.T, rtol=1e-3)


def test_losses_by_loops():
    network, chosen = make_network(), PrototypeTraining(sparsity=0.3)
    least, labels = torch.rand(4, 6, dtype=torch.float64), [2, 0, 1, 2]
    logits = torch.randn(4, CLASSES, dtype=torch.float64)
    found = losses(network, logits, least, torch.tensor(labels), chosen).item()
    d, z = least.numpy(), logits.numpy()
    own = [[j for j in range(6) if j // 2 == label] for label in labels]
    cluster = np.mean([min(d[i, j] for j in own[i]) for i in range(4)])
    separation = np.mean([min(d[i, j] for j in range(6) if j not in own[i]) for i in range(4)])
    crossed = np.mean([np.log(np.exp(z[i]).sum()) - z[i, labels[i]] for i in range(4)])
    l1 = 0.5 * 4 * CLASSES  # -0.5 between each class and the four prototypes of the others
    assert found == pytest.approx(crossed + 0.8 * cluster - 0.08 * separation + 0.3 * l1, rel=1e-6)


def test_push_takes_the_nearest_cell_of_an_image_of_the_class():
    network = make_network()
    images, labels = coloured(10)
    before = network.prototypes.detach().clone()
    rows = push(network, images, labels, 4)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        cells = network.latent(network.backbone.preprocessing(pixels)).flatten(2)
    for j, row in enumerate(rows):
        distances = {
            (i, c): ((cells[i, :, c] - before[j]) ** 2).sum().item()
            for i in range(10) if labels[i] == j // PER_CLASS for c in range(cells.shape[2])
        }  # fmt: skip
        image, cell = min(distances, key=distances.get)
        assert distances[row, cell] == pytest.approx(distances[image, cell], abs=1e-6)
        np.testing.assert_allclose(network.prototypes[j].detach(), cells[image, :, cell], atol=1e-6)
    only_first = labels == 0
    kept = network.prototypes.detach()[2:].clone()
    assert push(network, images[only_first], labels[only_first], 4).tolist()[2:] == [-1] * 4
    torch.testing.assert_close(network.prototypes.detach()[2:], kept)


def test_it_learns_and_ends_pushed_the_same_each_time(tmp_path):
    images, labels = coloured(24)
    runs = [trainer(tmp_path / str(run), images, labels, seed=seed) for run, seed in enumerate((0, 0, 1))]
    network, again, other = (run.run() for run in runs)
    history = runs[0].history
    assert [row.epoch for row in history] == list(range(1, 17))
    assert history[-1].train_loss < history[0].train_loss - 0.3 and history[-1].train_error_pct < 25
    torch.testing.assert_close(network.prototypes, again.prototypes, rtol=0, atol=0)
    assert (network.prototypes != other.prototypes).any()
    with torch.no_grad():
        pixels = network.backbone.preprocessing(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        assert (network(pixels)[0].argmax(dim=1).numpy() == labels).mean() > 0.8
        latent = network.latent(pixels).flatten(2)
    for j, prototype in enumerate(network.prototypes):
        own = latent[labels == j // 2].transpose(1, 2).reshape(-1, 8)
        assert ((own - prototype) ** 2).sum(dim=1).min() < 1e-6


class Cut(Exception):
    """The process is gone."""


SMALL = SHORT.model_copy(
    update={"epochs": 3, "warm_epochs": 1, "first_push": 2, "push_every": 1, "last_epochs": 1, "decay_every": 1}
)


def equal_states(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_stopped_after_every_single_step_it_ends_with_the_same_bits(tmp_path):
    """Warm-up, joint epochs, pushes and passes of the last layer are each cut between all their steps."""
    images, labels = coloured(20)
    whole = trainer(tmp_path / "whole", images, labels, SMALL)
    whole.run()
    assert [current.kind.value for current in whole.passes] == [
        "warm",
        "joint",
        "push",
        "last",
        "joint",
        "push",
        "last",
    ]
    stops = 0
    while True:
        cut = trainer(tmp_path / "cut", images, labels, SMALL, should_stop=lambda: True)
        try:
            cut.run()
            break
        except Interrupted as error:
            assert "the same command resumes it" in str(error)
            stops += 1
    assert stops == len(whole.passes) * 3  # 20 images in batches of 8
    equal_states(whole.network, cut.network)
    seconds = {"seconds": 0.0, "test_error_pct": 0.0}
    assert [dataclasses.replace(row, **seconds) for row in cut.history] == [
        dataclasses.replace(row, **seconds) for row in whole.history
    ]


@pytest.mark.parametrize("steps", [4, 7, 8, 11])
def test_killed_anywhere_it_ends_with_the_same_bits(tmp_path, steps):
    """A state is saved after each step; the process dies between a step and the saving of its state."""
    images, labels = coloured(20)
    every = SMALL.model_copy(update={"checkpoint_seconds": 0.0})
    whole = trainer(tmp_path / "whole", images, labels, every)
    whole.run()
    asked = iter(range(steps))

    def die():
        if next(asked) == steps - 1:
            raise Cut
        return False

    with pytest.raises(Cut):
        trainer(tmp_path / "cut", images, labels, every, should_stop=die).run()
    left = []
    resumed = trainer(tmp_path / "cut", images, labels, every, should_stop=lambda: bool(left.append(1)))
    resumed.run()
    assert len(left) == len(whole.passes) * 3 - (steps - 1)
    equal_states(whole.network, resumed.network)


def test_what_is_trained_is_taken_up_and_states_of_others_are_not(tmp_path):
    images, labels = coloured(20)
    trainer(tmp_path, images, labels, SMALL, key="this").run()
    asked = []
    trainer(tmp_path, images, labels, SMALL, key="this", should_stop=lambda: bool(asked.append(1))).run()
    assert not asked
    trainer(tmp_path, images, labels, SMALL, key="that", should_stop=lambda: bool(asked.append(1))).run()
    assert asked


def test_dropout_in_the_trunk_is_the_same_again(tmp_path):
    def backbone():
        found = make_backbone()
        found.norm = torch.nn.Sequential(found.norm, torch.nn.Dropout(0.5))
        return found

    images, labels = coloured(16)
    whole = trainer(tmp_path / "whole", images, labels, SMALL, backbone=backbone())
    whole.run()
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        trainer(tmp_path / "cut", images, labels, SMALL, backbone=backbone(), should_stop=lambda: next(asked)).run()
    torch.rand(7)
    cut = trainer(tmp_path / "cut", images, labels, SMALL, backbone=backbone())
    cut.run()
    equal_states(whole.network, cut.network)


def test_rates_fall_and_runaway_losses_are_named(tmp_path):
    chosen = PrototypeTraining(warm_epochs=10, decay_every=10)
    assert [chosen.decay(epoch) for epoch in (11, 20, 21, 31)] == pytest.approx([1, 1, 0.1, 0.01])
    images, labels = coloured(8)
    wild = SMALL.model_copy(update={"warm_epochs": 0, "trunk_lr": 1e30})
    with pytest.raises(TrainingError, match=r"not finite; lower the rates of protocols\.patches\.protopnet"):
        trainer(tmp_path, images, labels, wild).run()


def test_the_trunk_rests_while_warming_up(tmp_path):
    backbone = make_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    images, labels = coloured(12)
    warm = PrototypeTraining(per_class=1, width=4, epochs=1, warm_epochs=1, last_epochs=1, batch_size=6)
    trainer(tmp_path, images, labels, warm, backbone=backbone).run()
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["warm", "last"])
def test_the_statistics_of_a_resting_trunk_move_where_that_is_asked_for(tmp_path, kind):
    """As in the code of ProtoPNet, whose passes all run in training mode."""
    backbone = make_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    images, labels = coloured(12)
    counts = {"warm_epochs": 1, "last_epochs": 0} if kind == "warm" else {"warm_epochs": 0, "last_epochs": 1}
    small = {"per_class": 1, "width": 4, "epochs": 1, "batch_size": 6, "trunk_lr": 0.0}
    run = trainer(tmp_path, images, labels, PrototypeTraining(**small, **counts, freeze_norm=False), backbone=backbone)
    if kind == "last":
        run.passes = [current for current in run.passes if current.kind is Kind.LAST]
    run.run()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]) == ("running" not in name and "tracked" not in name), name


def test_the_named_settings_are_those_of_their_authors():
    own, whole = (PrototypeTraining(routine=name) for name in ("protopnet", "st-protopnet"))
    assert (own.epochs, own.warm_epochs, own.first_push, own.push_every, own.decay_every) == (1000, 5, 10, 10, 5)
    assert (own.rotation, own.shear, own.freeze_norm) == (15, 10, False)
    assert (whole.epochs, whole.warm_epochs, whole.first_push, whole.push_every) == (120, 10, 100, 10)
    assert (whole.decay_every, whole.rotation, whole.shear, whole.freeze_norm) == (10, 25, 15, True)
    assert PrototypeTraining().model_dump() == whole.model_dump()
    changed = PrototypeTraining(routine="protopnet", epochs=40)
    assert (changed.epochs, changed.first_push) == (40, 10)
    assert PrototypeTraining.model_validate(changed.model_dump(mode="json")) == changed
    with pytest.raises(ConfigError, match="'routine' is 'protonet': must be 'st-protopnet' or 'protopnet'"):
        read_plain(PrototypeTraining, {"routine": "protonet"}, "patches.protopnet")


def test_undistorted_images_are_only_mirrored():
    pixels = torch.rand(16, 3, 8, 8)
    found = distorted(pixels, PrototypeTraining(rotation=0.0, shear=0.0), torch.Generator().manual_seed(0))
    as_they_are = torch.isclose(found, pixels, atol=1e-5).flatten(1).all(dim=1)
    turned = torch.isclose(found, pixels.flip(-1), atol=1e-5).flatten(1).all(dim=1)
    assert (as_they_are ^ turned).all() and 0 < turned.sum() < 16


def test_a_turned_image_has_its_centre_kept_and_its_edge_moved():
    pixels = torch.zeros(1, 1, 33, 33)
    pixels[..., 16, 16], pixels[..., 16, 31] = 1, 1
    found = distorted(pixels, PrototypeTraining(rotation=25.0, shear=0.0), torch.Generator().manual_seed(3))
    assert found[0, 0, 16, 16] > 0.9 and found[0, 0, 16, 31] < 0.5
    ys, xs = torch.nonzero(found[0, 0] > 0.2, as_tuple=True)
    far = ((ys - 16.0) ** 2 + (xs - 16.0) ** 2).sqrt().max()
    assert far == pytest.approx(15, abs=1.2)


def test_pushes_come_when_they_are_due():
    chosen = PrototypeTraining(epochs=25, first_push=10, push_every=10)
    assert [epoch for epoch in range(1, 26) if chosen.pushes_after(epoch)] == [10, 20, 25]
    found = passes(chosen)
    assert [current.epoch for current in found if current.kind is Kind.PUSH] == [10, 20, 25]
    assert [current.kind for current in found[:11]] == [Kind.WARM] * 10 + [Kind.PUSH]
    assert sum(current.kind is Kind.LAST for current in found) == 3 * chosen.last_epochs


def test_large_maps_are_averaged_down():
    assert make_network(grid=3).similarity_maps(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 6, 3, 3)


@pytest.mark.parametrize("values", [{"epochs": 0}, {"trunk_lr": -1.0}, {"warm_epochs": 121}, {"per_class": 0}])
def test_bad_settings_are_refused(values):
    with pytest.raises(ConfigError, match=r"patches\.protopnet: "):
        read_plain(PrototypeTraining, values, "patches.protopnet")


def test_one_class_and_unknown_layers_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="two classes or more"):
        trainer(tmp_path, *coloured(4), classes=1)
    with pytest.raises(ModelError, match="no layer 'conv99'; use one of conv7"):
        PrototypeNetwork(make_backbone(), 3, 1, 4, 14, "conv99")
