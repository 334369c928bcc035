"""Each scheme against its formula written independently in float64 NumPy and SciPy."""

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage
from sklearn.datasets import load_sample_image

from ltpa.core.errors import ConfigError, ModelError
from ltpa.data.normalise import Normaliser, build_normaliser, fit_normaliser, local_contrast
from ltpa.data.schemes import SCHEMES


def photo_patches(count, size, seed=0):
    """Natural patches: local statistics matter here, which random noise does not have."""
    photo = load_sample_image("flower.jpg")
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, 400, count), rng.integers(0, 600, count)
    return np.stack([photo[r : r + size, c : c + size] for r, c in zip(rows, cols, strict=True)])


TRAIN, TEST = photo_patches(60, 12, 0), photo_patches(9, 12, 1)


def raw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))


def yuv(images):
    matrix = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
    return np.einsum("cd,nhwd->nchw", matrix, images.astype(np.float64))


def lcn(plane):
    """Torch7's SpatialContrastiveNormalization(1, gaussian1D(7)) of one (S, S) plane, from the published taps."""
    half = [0.054781, 0.123924, 0.202241]
    taps = np.array([*half, 0.238109, *half[::-1]])
    kernel = np.outer(taps, taps) / taps.sum() ** 2

    def window(values):
        return ndimage.convolve(values, kernel, mode="constant", cval=0.0)

    weight = window(np.ones_like(plane))
    centred = plane - window(plane) / weight
    deviation = np.sqrt(window(centred**2)) / weight
    return centred / np.where(deviation > 1e-4, deviation, 1e-4)


def gcn(images):
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1).astype(np.float64)
    flat = flat - flat.mean(1, keepdims=True)
    return 55 * flat / np.linalg.norm(flat, axis=1, keepdims=True)


def expected(scheme, train, test):
    channels = test.transpose(0, 3, 1, 2).astype(np.float64)
    if scheme == "none":
        return channels / 255
    if scheme == "meanstd":
        pixels = train.reshape(-1, 3).astype(np.float64)
        return (channels - pixels.mean(0).reshape(3, 1, 1)) / pixels.std(0).reshape(3, 1, 1)
    if scheme == "imagenet":
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        return ((test / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    if scheme == "yuv-lcn":
        fitted, result = yuv(train), yuv(test)
        result[:, 0] = [lcn(plane) for plane in result[:, 0]]
        for channel in (1, 2):
            values = fitted[:, channel]
            result[:, channel] = (result[:, channel] - values.mean()) / values.std(ddof=1)
        return result
    fitted, result = gcn(train), gcn(test)
    covariance = np.cov(fitted, rowvar=False, bias=True) + 0.1 * np.eye(fitted.shape[1])
    whitening = linalg.inv(linalg.sqrtm(covariance)).real
    return ((result - fitted.mean(0)) @ whitening).reshape(channels.shape)


def test_recipes_may_name_every_scheme_and_no_other():
    assert all(build_normaliser(scheme, 8).scheme == scheme for scheme in SCHEMES)
    assert {module.scheme for module in Normaliser.__subclasses__()} == set(SCHEMES)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_matches_formula(scheme):
    ours = fit_normaliser(scheme, TRAIN)(raw(TEST)).numpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected(scheme, TRAIN, TEST), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_state_dict_restores_and_name_is_kept(scheme):
    fitted = fit_normaliser(scheme, TRAIN)
    restored = build_normaliser(scheme, 12)
    restored.load_state_dict(fitted.state_dict())
    assert restored.scheme == scheme
    assert torch.equal(restored(raw(TEST)), fitted(raw(TEST)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradient_is_right(scheme):
    module = fit_normaliser(scheme, TRAIN[:, :5, :5]).double()
    images = raw(TEST[:2, :5, :5]).double().requires_grad_()
    assert torch.autograd.gradcheck(module, (images,), eps=1e-3, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_stay_finite(scheme, value):
    images = torch.full((2, 3, 12, 12), float(value), requires_grad=True)
    output = fit_normaliser(scheme, TRAIN)(images)
    output.square().sum().backward()
    assert torch.isfinite(output).all() and torch.isfinite(images.grad).all()
    assert output.abs().max() < 100


def test_flat_regions_of_a_photograph_come_out_flat():
    """What rounding leaves of them would be divided by 1e-4."""
    images = photo_patches(8, 32)
    images[:, 8:24, 8:] = np.array([253, 254, 251])
    ours = fit_normaliser("yuv-lcn", images)(raw(images)).numpy()[:, 0]
    reference = np.stack([lcn(plane) for plane in yuv(images)[:, 0]])
    assert np.abs(reference[:, 14:18, 14:26]).max() < 1e-8
    assert not ours[:, 14:18, 14:26].any()
    np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=2e-5)


def test_zca_whitens_the_training_set():
    images = photo_patches(4000, 4)
    output = fit_normaliser("gcn-zca", images)(raw(images)).flatten(1).double().numpy()
    kept = linalg.eigvalsh(np.cov(gcn(images), rowvar=False, bias=True))
    np.testing.assert_allclose(
        linalg.eigvalsh(np.cov(output, rowvar=False, bias=True)), np.sort(kept / (kept + 0.1)), atol=1e-3
    )


def test_fitting_in_batches_changes_nothing(monkeypatch):
    whole = fit_normaliser("gcn-zca", TRAIN[:, :4, :4])
    monkeypatch.setattr("ltpa.data.normalise._BATCH", 7)
    torch.testing.assert_close(fit_normaliser("gcn-zca", TRAIN[:, :4, :4]).whitening, whole.whitening)


def test_autocast_does_not_lower_precision():
    module = fit_normaliser("gcn-zca", TRAIN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = module(raw(TEST))
    assert torch.equal(inside, module(raw(TEST)))


def test_unknown_scheme_and_wrong_size():
    with pytest.raises(ConfigError, match="unknown normalisation 'zca'; choose one of none, meanstd"):
        build_normaliser("zca", 32)
    with pytest.raises(ModelError, match=r"takes images \(3, 16, 16\), got \(3, 12, 12\)"):
        build_normaliser("meanstd", 16)(raw(TEST))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_local_contrast_has_the_same_bits_with_and_without_a_graph(dtype: torch.dtype):
    """More images than one chunk, not a multiple of it, and not contiguous."""
    images = torch.rand(24, 24, 300, dtype=dtype, generator=torch.Generator().manual_seed(0)).permute(2, 0, 1) * 255
    with_graph = local_contrast(images.clone().requires_grad_())
    assert with_graph.requires_grad
    np.testing.assert_array_equal(local_contrast(images).numpy(), with_graph.detach().numpy())
    assert local_contrast(images[:0]).shape == (0, 24, 24)
