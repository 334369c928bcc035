"""Batched inference: pixels, resizing, order, features, maps."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_networks import linear_network, random_images

from ltpa.core.errors import DataError, ModelError
from ltpa.evaluation.inference import (
    attention_maps,
    class_activation_maps,
    extract_features,
    global_descriptors,
    pixel_batches,
    predict,
)
from ltpa.models import create_model

SIZE = 20


@pytest.fixture(scope="module")
def dp_network():
    torch.manual_seed(0)
    return create_model("vgg-att2-concat-dp", 5, image_size=SIZE, width=1 / 16).eval()


@pytest.fixture(scope="module")
def gap_network():
    torch.manual_seed(0)
    return create_model("vgg-gap", 5, image_size=SIZE, width=1 / 16).eval()


def test_pixels_of_the_right_size_are_the_stored_values_in_order():
    images = random_images(7, 4)
    batches = list(pixel_batches(linear_network(4), images, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(torch.cat(batches).numpy(), images.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize("size", [48, 20, 9])
def test_resizing_agrees_with_pillow(size):
    image = random_images(1, size)
    (resized,) = pixel_batches(linear_network(SIZE), image, 1)
    for channel in range(3):
        picture = Image.fromarray(image[0, :, :, channel].astype(np.float32))
        expected = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(resized[0, channel].numpy(), expected, atol=1e-3)


def test_predictions_match_numpy_whatever_the_batch_size():
    network, images = linear_network(4), random_images(11, 4)
    weight, bias = network.weight.detach().numpy(), network.bias.detach().numpy()
    expected = (images.transpose(0, 3, 1, 2).reshape(11, -1) @ weight.T + bias).argmax(axis=1)
    for batch_size in (1, 4, 100):
        np.testing.assert_array_equal(predict(network, images, batch_size), expected)


def test_read_only_memory_maps_are_read_and_left_alone(tmp_path):
    images = random_images(5, 4)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(predict(linear_network(4), mapped, 2), predict(linear_network(4), images, 2))


def test_preprocessing_is_applied():
    class Invert(torch.nn.Module):
        def forward(self, images):
            return 255 - images

    network, images = linear_network(4), random_images(6, 4)
    network.preprocessing = Invert()
    np.testing.assert_array_equal(predict(network, images, 4), predict(linear_network(4), 255 - images, 4))


def test_features_are_what_the_last_linear_layer_reads(gap_network):
    images = random_images(6, SIZE)
    features = extract_features(gap_network, images, 4)
    assert features.shape == (6, gap_network.feature_dim) and features.dtype == np.float32
    logits = features @ gap_network.head.weight.detach().numpy().T + gap_network.head.bias.detach().numpy()
    np.testing.assert_array_equal(logits.argmax(axis=1), predict(gap_network, images, 4))


def test_mean_of_a_class_activation_map_is_the_logit_without_bias(gap_network):
    images = random_images(6, SIZE)
    with torch.no_grad():
        logits = gap_network(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
    logits = logits - gap_network.head.bias.detach().numpy()
    chosen = class_activation_maps(gap_network, images, 4, class_id=2)
    np.testing.assert_allclose(chosen.mean(axis=(1, 2)), logits[:, 2], rtol=1e-4, atol=1e-4)
    own = class_activation_maps(gap_network, images, 4)
    predicted = predict(gap_network, images, 4)
    np.testing.assert_allclose(own.mean(axis=(1, 2)), logits[np.arange(6), predicted], rtol=1e-4, atol=1e-4)


def test_attention_maps_by_level_sum_to_one(dp_network):
    maps = attention_maps(dp_network, random_images(5, SIZE), 2)
    assert list(maps) == ["conv10", "conv13"]
    for each in maps.values():
        assert len(each) == 5
        np.testing.assert_allclose(each.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_queries_are_paired_row_by_row(dp_network):
    images = random_images(5, SIZE)
    own = attention_maps(dp_network, images, 2)
    same = attention_maps(dp_network, images, 2, images)
    swapped = attention_maps(dp_network, images, 2, images[[0, 2, 1, 3, 4]])
    for level in own:
        np.testing.assert_allclose(same[level], own[level], rtol=1e-5)
        np.testing.assert_allclose(swapped[level][[0, 3, 4]], own[level][[0, 3, 4]], rtol=1e-5)
        assert (np.abs(swapped[level] - own[level]).max(axis=(1, 2))[[1, 2]] > 0).all()


def test_global_descriptors_have_a_row_per_image(dp_network):
    found = global_descriptors(dp_network, random_images(5, SIZE), 2)
    assert found.shape == (5, 32) and np.isfinite(found).all()


def test_training_mode_is_refused():
    with pytest.raises(ModelError, match="eval"):
        predict(linear_network(4).train(), random_images(2, 4), 2)


@pytest.mark.parametrize("images", [random_images(2, 4).astype(np.float32), random_images(2, 4)[:0], np.zeros((2, 4))])
def test_wrong_images_are_refused(images):
    with pytest.raises(DataError, match="expected uint8"):
        predict(linear_network(4), images, 2)


def test_maps_a_network_does_not_have_are_refused(dp_network, gap_network):
    images = random_images(2, SIZE)
    with pytest.raises(ModelError, match="no attention maps"):
        attention_maps(gap_network, images, 2)
    with pytest.raises(ModelError, match="no class activation map"):
        class_activation_maps(dp_network, images, 2)
