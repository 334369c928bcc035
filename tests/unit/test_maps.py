"""Other maps: Grad-CAM against finite differences and CAM, activations by formula, controls against plain writings."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import clear_border
from tiny_networks import linear_network, random_images

from ltpa.core.errors import ModelError, NotFiniteError
from ltpa.evaluation.controls import CONTROLS, boolean_maps, centre_prior, spectral_residual
from ltpa.evaluation.inference import attention_maps, class_activation_maps
from ltpa.evaluation.maps import KINDS, network_maps
from ltpa.models import create_model

IMAGES = random_images(5, 20)


def network(variant):
    torch.manual_seed(2)
    return create_model(variant, 4, image_size=20, width=1 / 16).eval()


def test_gradcam_of_a_network_that_averages_its_last_map_is_the_positive_class_activation_map():
    model = network("vgg-gap")
    maps = network_maps(model, IMAGES, 2)
    cam = class_activation_maps(model, IMAGES, 5)
    np.testing.assert_allclose(maps["cam_predicted"], cam, atol=1e-6)
    np.testing.assert_allclose(maps["gradcam"], np.maximum(cam, 0) / cam[0].size, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("variant", ["vgg", "vgg-pan", "vgg-att2-concat-dp", "rn164-att2"])
def test_gradcam_agrees_with_finite_differences(variant):
    """In double precision, the logit's derivatives by a constant added to each channel of the last layer's map."""
    size = 32 if variant == "vgg" else 20  # so that more than one cell is left of the last map
    options = {"blocks_per_stage": 1} if variant.startswith("rn") else {}
    torch.manual_seed(2)
    model = create_model(variant, 4, image_size=size, width=1 / 16, **options).eval().double()
    model.preprocessing = torch.nn.ReLU()  # no effect on pixels, keeps their type
    layer = model.trunk.stages["stage3"] if variant.startswith("rn") else model.trunk.section3
    pictures = random_images(1, size)
    images = torch.from_numpy(pictures.transpose(0, 3, 1, 2)).double()
    shift, kept = {"by": 0.0}, {}

    def hook(module, inputs, output):
        kept["map"] = output
        return output + shift["by"]

    handle = layer.register_forward_hook(hook)
    with torch.no_grad():
        predicted = model(images).argmax(dim=1)
        features = kept["map"]
        weights = torch.zeros(features.shape[:2], dtype=torch.float64)
        for channel in range(features.shape[1]):
            sides = []
            for step in (1e-5, -1e-5):
                shift["by"] = torch.zeros(1, features.shape[1], 1, 1, dtype=torch.float64)
                shift["by"][0, channel] = step
                sides.append(model(images).gather(1, predicted[:, None])[:, 0])
            weights[:, channel] = (sides[0] - sides[1]) / 2e-5 / features[0, 0].numel()
    handle.remove()
    expected = (weights[:, :, None, None] * features).sum(dim=1).relu()
    model.to(torch.float32)
    found = network_maps(model, pictures, 1)["gradcam"]
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected.numpy(), rtol=5e-3, atol=float(5e-3 * expected.max()))


def test_levels_alone_and_activations_are_those_of_the_layers():
    model = network("vgg-att3-concat-pc")
    maps = network_maps(model, IMAGES, 3)
    trained = attention_maps(model, IMAGES, 5)
    np.testing.assert_allclose(maps["attention_last"], trained["conv13"], rtol=1e-5)
    np.testing.assert_allclose(maps["attention_previous"], trained["conv10"], rtol=1e-5)
    with torch.no_grad():
        pixels = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2)).float()
        layers = model.local_features(model.preprocessing(pixels))
    for kind, level in (("activation_last", "conv13"), ("activation_previous", "conv10")):
        expected = (layers[level].double().numpy() ** 2).mean(axis=1)
        np.testing.assert_allclose(maps[kind], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("variant", "lacks"),
    [
        ("vgg", {"attention_last", "attention_previous", "cam_predicted"}),
        ("vgg-gap", {"attention_last", "attention_previous"}),
        ("vgg-att-pc", {"attention_previous", "cam_predicted"}),
        ("vgg-pan", {"cam_predicted"}),
    ],
)
def test_every_network_gives_the_maps_it_has(variant, lacks):
    model = network(variant)
    maps = network_maps(model, IMAGES, 4)
    assert list(maps) == [kind for kind in KINDS if kind not in lacks]
    assert all(each.shape[0] == 5 and each.dtype == np.float32 for each in maps.values())
    assert not model.trunk.section3._forward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_maps_that_are_not_finite_and_unknown_networks_are_refused():
    model = network("vgg-gap")
    model.head.weight.data.fill_(float("inf"))
    with pytest.raises(NotFiniteError, match="its cam_predicted maps"):
        network_maps(model, IMAGES, 4)
    with pytest.raises(ModelError, match="the maps of a LinearNetwork are is not known"):
        network_maps(linear_network(20), IMAGES, 4)


def disc(size=24, centre=(9, 14), radius=4):
    rows, columns = np.mgrid[:size, :size]
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    image = np.full((size, size, 3), (40, 90, 40), dtype=np.uint8)
    image[inside] = (220, 60, 60)
    return image, inside


def plain_boolean_map(image):
    """One threshold and channel at a time, with scikit-image's removal of regions at the border (8 neighbours)."""
    total = np.zeros(image.shape[:2])
    count = 0
    for channel in rgb2lab(image).transpose(2, 0, 1):
        span = np.ptp(channel)
        levels = 255 * (channel - channel.min()) / (span if span > 0 else 1)
        for threshold in range(0, 255, 8):
            for side in (levels > threshold, levels <= threshold):
                labels, _ = ndimage.label(side, structure=np.ones((3, 3)))
                surrounded = (clear_border(labels) > 0).astype(float)
                norm = np.linalg.norm(surrounded)
                total += surrounded / norm if norm else 0
                count += 1
    return ndimage.gaussian_filter(total / count, 0.03 * image.shape[0], mode="nearest")


def test_boolean_maps_agree_with_a_plain_writing():
    images = np.stack([random_images(1, 24)[0], disc()[0]])
    for image, found in zip(images, boolean_maps(images), strict=True):
        np.testing.assert_allclose(found, plain_boolean_map(image), atol=1e-12)


def test_a_surrounded_region_stands_out_and_one_at_the_border_does_not():
    image, inside = disc()
    found = boolean_maps(image[None])[0]
    assert found[inside].min() > 3 * found[ndimage.binary_dilation(inside, iterations=3) ^ True].max()
    assert boolean_maps(disc(centre=(2, 14))[0][None]).max() == 0


def test_the_spectral_residual_agrees_with_the_formula_and_finds_the_odd_patch():
    generator = np.random.default_rng(0)
    grid = np.tile(np.array([[60, 180], [180, 60]], dtype=np.uint8), (16, 16))
    image = np.repeat(grid[..., None], 3, axis=2)
    image[10:14, 20:24] = generator.integers(0, 256, (4, 4, 1), dtype=np.uint8)
    found = spectral_residual(image[None])[0]
    grey = image @ np.array([0.299, 0.587, 0.114])
    spectrum = np.fft.fft2(grey)
    logs = np.log(np.abs(spectrum) + np.finfo(np.float32).eps)
    mean = sum(np.roll(logs, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    back = np.abs(np.fft.ifft2(np.exp(logs - mean) * spectrum / np.maximum(np.abs(spectrum), 1e-300))) ** 2
    np.testing.assert_allclose(found, ndimage.gaussian_filter(back, 0.04 * 32, mode="nearest"), rtol=1e-6, atol=1e-9)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 9 <= row <= 14 and 19 <= column <= 24


def test_the_centre_prior_is_highest_in_the_middle_whatever_the_image():
    maps = centre_prior(random_images(3, 9))
    assert maps.shape == (3, 9, 9) and (maps == maps[0]).all()
    assert np.unravel_index(maps[0].argmax(), (9, 9)) == (4, 4)
    np.testing.assert_allclose(maps[0], maps[0][::-1, ::-1])


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_of_a_blank_image_are_finite(name):
    for value in (0, 255):
        found = CONTROLS[name](np.full((2, 16, 16, 3), value, dtype=np.uint8))
        assert np.isfinite(found).all() and (found >= 0).all() and found.shape == (2, 16, 16)
