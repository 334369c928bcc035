"""Preprocessing as modules: raw RGB in, network input out, differentiable, statistics kept as buffers.

Every module takes float (N, 3, S, S) with values 0-255 and returns float of the same shape. Only fitted statistics are
in the state dict. Computation is never autocast to a lower precision.

Schemes: `none`, `meanstd`, `imagenet`, `yuv-lcn` (the cifar.torch provider, for the VGG family on CIFAR) and `gcn-zca`
(the pylearn2 whitening, for the residual networks on CIFAR).
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from ltpa.core.errors import ConfigError, ModelError
from ltpa.data.schemes import SCHEMES

_BATCH = 1024  # images held as float64 at a time while fitting


class Normaliser(nn.Module):
    """Base of all schemes.

    Attributes:
        scheme: the name recipes and model files use.
        pointwise: whether every value of the output depends on one value of the input alone. Such a scheme costs next
            to nothing, so that images may be kept as bytes and normalised a batch at a time.
    """

    scheme: ClassVar[str]
    pointwise: ClassVar[bool] = False

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map raw RGB (N, 3, S, S), float 0-255, to network input of the same shape and dtype.

        Raises:
            ModelError: the images have another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if images.shape[1:] != expected:
            raise ModelError(f"preprocessing takes images {expected}, got {tuple(images.shape[1:])}; resize them first")
        with torch.autocast(images.device.type, enabled=False):
            return self._normalise(images)

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        """The scheme's formula, shapes as in `forward`."""
        raise NotImplementedError

    def _fit(self, images: np.ndarray) -> None:
        """Set the statistics from training images (N, S, S, 3) uint8. A scheme without statistics ignores them."""


class UnitRange(Normaliser):
    """`none`: x / 255."""

    scheme = "none"
    pointwise = True

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images / 255


class MeanStd(Normaliser):
    """`meanstd`: per channel, minus the mean and divided by the (population) standard deviation of the train pixels."""

    scheme = "meanstd"
    pointwise = True
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__(image_size)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)

    def _fit(self, images: np.ndarray) -> None:
        pixels = images.reshape(-1, 3)
        _assign(self.mean, pixels.mean(axis=0, dtype=np.float64))
        _assign(self.std, np.maximum(pixels.std(axis=0, dtype=np.float64), 1e-8))


class ImageNet(Normaliser):
    """`imagenet`: the constant mean and deviation of ImageNet, as its published networks expect."""

    scheme = "imagenet"
    pointwise = True
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__(image_size)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]), persistent=False)

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return (images / 255 - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)


class YuvContrast(Normaliser):
    """`yuv-lcn`: the provider of cifar.torch, which the paper calls colour normalisation.

    RGB to YUV. Y: Torch's `SpatialContrastiveNormalization(1, gaussian1D(7))`, per image. U and V: minus the mean of
    all train pixels, divided by their (sample) standard deviation. Y is not standardised over the train set.
    """

    scheme = "yuv-lcn"
    matrix: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__(image_size)
        yuv = [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
        self.register_buffer("matrix", torch.tensor(yuv), persistent=False)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("std", torch.ones(2))

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        red, green, blue = images.unbind(1)
        y, u, v = (row[0] * red + row[1] * green + row[2] * blue for row in self.matrix)
        chroma = (torch.stack([u, v], dim=1) - self.mean.view(2, 1, 1)) / self.std.view(2, 1, 1)
        return torch.cat([local_contrast(y).unsqueeze(1), chroma], dim=1)

    def _fit(self, images: np.ndarray) -> None:
        rows = self.matrix[1:].double().numpy()
        values = np.concatenate([batch.reshape(-1, 3) @ rows.T for batch in _batches(images)])
        _assign(self.mean, values.mean(axis=0))
        _assign(self.std, np.maximum(values.std(axis=0, ddof=1), 1e-8))


class GcnZca(Normaliser):
    """`gcn-zca`: global contrast normalisation to length 55, then ZCA whitening with 0.1 added to the variances.

    Per image x: x - mean(x), divided by its L2 norm / 55 (images without contrast are only centred); then
    (x - train mean) P with P = V diag((lambda + 0.1)^-1/2) V^T of the train covariance (divisor N). Fitted in float64.
    """

    scheme = "gcn-zca"
    scale = 55.0
    bias = 0.1
    min_divisor = 1e-8
    mean: torch.Tensor
    whitening: torch.Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__(image_size)
        size = 3 * image_size**2
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("whitening", torch.zeros(size, size))

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return ((self._contrast(images.flatten(1)) - self.mean) @ self.whitening).view_as(images)

    def _fit(self, images: np.ndarray) -> None:
        size = self.mean.numel()
        total, products = np.zeros(size), np.zeros((size, size))
        for batch in _batches(images):
            flat = self._contrast(torch.from_numpy(batch.transpose(0, 3, 1, 2).reshape(len(batch), -1))).numpy()
            total += flat.sum(axis=0)
            products += flat.T @ flat
        mean = total / len(images)
        variances, vectors = np.linalg.eigh(products / len(images) - np.outer(mean, mean) + self.bias * np.eye(size))
        _assign(self.mean, mean)
        _assign(self.whitening, (vectors / np.sqrt(variances)) @ vectors.T)

    def _contrast(self, flat: torch.Tensor) -> torch.Tensor:
        centred = flat - flat.mean(dim=1, keepdim=True)
        squares = centred.square().sum(dim=1, keepdim=True)
        flat_image = squares < (self.min_divisor * self.scale) ** 2
        # The square root of zero has no finite gradient, so it must not be taken even where its result is unused.
        norms = torch.where(flat_image, self.scale**2, squares).sqrt() / self.scale
        return centred / norms


def local_contrast(y: torch.Tensor, threshold: float = 1e-4) -> torch.Tensor:
    """Torch's contrastive normalisation of (N, S, S), 7 x 7 Gaussian window with a deviation of 1.75 pixels.

    The local mean is subtracted, then the local deviation divided out, both over zero-padded windows corrected by the
    window's own weight; as in Torch the deviation is corrected by the weight itself, not by its root. Deviations up to
    `threshold` are replaced by it.

    The windows are applied as products with a banded matrix on either side. That is S / 7 times the multiplications of
    a separable convolution, and yet several times faster: small matrix products are what processors do best.

    What rounding left of a flat region would be divided by 1e-4. So the mean is not computed to be subtracted: with
    rows of A that sum to 1, Y - A Y A^T = (I - A) Y + A Y (I - A)^T, and (I - A) Y is a product of running sums of
    I - A with the differences of neighbouring pixels, which are exactly zero where a region is flat.
    """
    window = _window(y.shape[-1])
    weight = window.sum(axis=1, keepdims=True)
    mean = window / weight
    rest = np.tril(np.triu(np.cumsum(mean - np.eye(len(mean)), axis=1)[:, :-1], -3), 2)  # 0 outside the window
    mean_weights, rest_weights, variance_weights = (
        torch.from_numpy(matrix).to(y) for matrix in (mean, rest, window / weight**2)
    )
    operators = _Operators(rest_weights, mean_weights, variance_weights, threshold)
    if (torch.is_grad_enabled() and y.requires_grad) or torch.compiler.is_compiling():
        return _differentiable_contrast(y, operators)
    return _buffered_contrast(y, operators)


class _Operators(NamedTuple):
    """What `local_contrast` multiplies with from the left, and transposed from the right."""

    rest: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    threshold: float


def _differentiable_contrast(y: torch.Tensor, by: _Operators) -> torch.Tensor:
    count, size = y.shape[:2]
    # Products along rows as one product of a tall matrix, and the sum of two products as one call: fewer arrays.
    along_rows = (y.diff(dim=2).reshape(-1, size - 1) @ by.rest.T).view(y.shape)
    centred = torch.baddbmm(by.rest @ y.diff(dim=1), by.mean.expand(count, -1, -1), along_rows)
    variance = by.variance @ (centred.square().view(-1, size) @ by.variance.T).view(y.shape)
    # Clamped before the root is taken: the root of zero has no finite gradient.
    return centred * variance.clamp_min(by.threshold**2).rsqrt()


def _buffered_contrast(y: torch.Tensor, by: _Operators, chunk: int = 256) -> torch.Tensor:
    """The same operations on a chunk of images at a time, into arrays that stay in the cache: bit for bit the same.

    New arrays for every step cost more than the arithmetic, because the system hands out each of their pages anew.
    """
    count, size = y.shape[:2]
    result = torch.empty_like(y, memory_format=torch.contiguous_format)
    first, second = (y.new_empty(min(chunk, count), size, size) for _ in range(2))
    across, down = y.new_empty(len(first), size, size - 1), y.new_empty(len(first), size - 1, size)
    for images, centred in zip(y.split(chunk), result.split(chunk), strict=True):
        a, b, dx, dy = (buffer[: len(images)] for buffer in (first, second, across, down))
        torch.sub(images[:, :, 1:], images[:, :, :-1], out=dx)
        torch.sub(images[:, 1:], images[:, :-1], out=dy)
        torch.mm(dx.view(-1, size - 1), by.rest.T, out=a.view(-1, size))
        torch.matmul(by.rest, dy, out=b)
        torch.baddbmm(b, by.mean.expand(len(images), -1, -1), a, out=centred)
        torch.mul(centred, centred, out=a)
        torch.mm(a.view(-1, size), by.variance.T, out=b.view(-1, size))
        torch.matmul(by.variance, b, out=a)
        centred.mul_(a.clamp_min_(by.threshold**2).rsqrt_())
    return result


def _window(size: int) -> np.ndarray:
    """Row i weighs the pixels of a line around pixel i, (size, size) float64. Rows at the border sum to less than 1."""
    offsets = np.arange(size)[:, None] - np.arange(size)
    gaussian = np.exp(-0.5 * (offsets / 1.75) ** 2)
    taps = np.exp(-0.5 * (np.arange(-3, 4) / 1.75) ** 2)
    return np.where(np.abs(offsets) <= 3, gaussian, 0.0) / taps.sum()


_SCHEMES: dict[str, type[Normaliser]] = {
    module.scheme: module for module in (UnitRange, MeanStd, ImageNet, YuvContrast, GcnZca)
}


def build_normaliser(scheme: str, image_size: int) -> Normaliser:
    """A module of the given scheme for square images, its statistics unset: fill them with `load_state_dict`.

    Raises:
        ConfigError: no such scheme.
    """
    if scheme not in _SCHEMES:
        raise ConfigError(f"unknown normalisation {scheme!r}; choose one of {', '.join(SCHEMES)}")
    return _SCHEMES[scheme](image_size)


def fit_normaliser(scheme: str, images: np.ndarray) -> Normaliser:
    """A module of the given scheme with statistics from training images (N, S, S, 3) uint8.

    Raises:
        ConfigError: no such scheme.
    """
    module = build_normaliser(scheme, images.shape[1])
    module._fit(images)
    return module


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH].astype(np.float64)


def _assign(buffer: torch.Tensor, values: np.ndarray) -> None:
    buffer.copy_(torch.from_numpy(values))
