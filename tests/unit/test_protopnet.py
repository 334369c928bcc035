"""ProtoPNet: its layer and losses against plain float64 loops, the push by brute force, and that it learns."""

import numpy as np
import pytest
import torch

from ltpa.core.errors import ConfigError, ModelError
from ltpa.models.protopnet import PrototypeNetwork
from ltpa.training.protopnet import PrototypeTraining, distorted, losses, push, train

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


def test_it_learns_and_ends_pushed_the_same_each_time():
    images, labels = coloured(24)
    runs = [train(make_backbone(), images, labels, CLASSES, SHORT, seed, 14) for seed in (0, 0, 1)]
    (network, history), (again, _), (other, _) = runs
    assert len(history) == 16 and history[-1] < history[0] - 0.3
    torch.testing.assert_close(network.prototypes, again.prototypes, rtol=0, atol=0)
    assert (network.prototypes != other.prototypes).any()
    with torch.no_grad():
        pixels = network.backbone.preprocessing(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        assert (network(pixels)[0].argmax(dim=1).numpy() == labels).mean() > 0.8
        latent = network.latent(pixels).flatten(2)
    for j, prototype in enumerate(network.prototypes):
        own = latent[labels == j // 2].transpose(1, 2).reshape(-1, 8)
        assert ((own - prototype) ** 2).sum(dim=1).min() < 1e-6


def test_the_trunk_rests_while_warming_up():
    backbone = make_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    images, labels = coloured(12)
    train(backbone, images, labels, CLASSES, PrototypeTraining(
        per_class=1, width=4, epochs=1, warm_epochs=1, last_epochs=1, batch_size=6), 0, 14)  # fmt: skip
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


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


def test_large_maps_are_averaged_down():
    assert make_network(grid=3).similarity_maps(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 6, 3, 3)


@pytest.mark.parametrize("values", [{"epochs": 0}, {"trunk_lr": -1.0}, {"warm_epochs": 121}, {"per_class": 0}])
def test_bad_settings_are_refused(values):
    with pytest.raises(ConfigError, match=r"patches\.protopnet: "):
        PrototypeTraining(**values)


def test_one_class_and_unknown_layers_are_refused():
    with pytest.raises(ConfigError, match="two classes or more"):
        train(make_backbone(), *coloured(4), 1, SHORT, 0, 14)
    with pytest.raises(ModelError, match="no layer 'conv99'; use one of conv7"):
        PrototypeNetwork(make_backbone(), 3, 1, 4, 14, "conv99")
