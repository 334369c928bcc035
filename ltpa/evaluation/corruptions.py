"""Fifteen kinds of corruption at five severities (Hendrycks and Dietterich, ICLR 2019), made on the fly.

Kinds, steps and parameters are those of CIFAR-10-C, whose script differs from the one for ImageNet by factors of two to
four; lengths are in pixels of its 32 px images. Two things differ. Frost is laid on by a fractal, where the original
takes photographs. And every image has a random stream of its own for each kind and severity, so that neither order nor
batches matter. In `glass_blur` a pixel takes its neighbour's value: the original means to exchange the two, but
assigns views of one array.

Corruptions take images (N, S, S, 3) uint8 and give such images; fractions are cut off, as in the original.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from ltpa.core.seeds import derive

SEVERITIES = (1, 2, 3, 4, 5)
PARAMETERS = "CIFAR-10-C"
_GREY = np.array([0.299, 0.587, 0.114])
_FROST_TINT = np.array([0.85, 0.95, 1.0])


class Streams:
    """A random stream for each of N images, by the image's index and a key of what it is for."""

    def __init__(self, key: int, indices: "Sequence[int] | np.ndarray") -> None:
        self._generators = [np.random.default_rng((key, index)) for index in indices]

    def draw(self, number: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
        """`number` of each stream, stacked."""
        return np.stack([number(generator) for generator in self._generators])

    def normal(self, *shape: int) -> np.ndarray:
        """(N, *shape), deviation 1."""
        return self.draw(lambda generator: generator.normal(size=shape))

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """(N, *shape) in [low, high)."""
        return self.draw(lambda generator: generator.uniform(low, high, shape))


def corrupt(
    images: np.ndarray, indices: "Sequence[int] | np.ndarray", kind: str, severity: int, dataset: str
) -> np.ndarray:
    """Images (N, S, S, 3) uint8, at places `indices` of a dataset, under corruption `kind` at `severity` 1-5.

    Raises:
        KeyError: there is no such kind; `KINDS` lists them.
    """
    streams = Streams(derive(0, "corruptions", dataset, kind, severity), indices)
    return KINDS[kind](np.asarray(images), severity - 1, streams)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[level]
    return _to_bytes(images / 255 + deviation * streams.normal(*images.shape[1:]))


def _shot_noise(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    rate = (500, 250, 100, 75, 50)[level]
    left = iter(images / 255 * rate)
    return _to_bytes(streams.draw(lambda generator: generator.poisson(next(left))) / rate)


def _impulse_noise(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    numbers = streams.uniform(0, 1, *images.shape[1:])
    salted = np.where(numbers < share / 2, 255, images)
    return np.where(numbers >= 1 - share / 2, 0, salted).astype(np.uint8)


def _defocus_blur(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    radius, blur = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level]
    kernel = disk(radius, blur)
    return _to_bytes(ndimage.correlate(images / 255, kernel[None, :, :, None], mode="mirror"))


def disk(radius: float, blur: float) -> np.ndarray:
    """A disk of `radius` pixels with sum 1, blurred by three taps of a Gaussian with deviation `blur`."""
    reach = int(np.ceil(radius)) + 1
    across = np.arange(-reach, reach + 1)
    inside = (across[:, None] ** 2 + across**2 <= radius**2).astype(np.float64)
    taps = np.exp(-0.5 * (np.array([-1, 0, 1]) / blur) ** 2)
    taps /= taps.sum()
    blurred: np.ndarray = ndimage.correlate(inside / inside.sum(), np.outer(taps, taps), mode="constant")
    return blurred


def _blurred(values: np.ndarray, deviation: float) -> np.ndarray:
    found: np.ndarray = ndimage.gaussian_filter(values, (0, deviation, deviation, 0), mode="nearest")
    return found


def _glass_blur(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    deviation, times = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[level]
    mixed = _to_bytes(_blurred(images / 255, deviation))
    side = images.shape[1]
    inner = range(side - 1, 1, -1)
    places = [(row, column) for _ in range(times) for row in inner for column in inner]
    moves = streams.draw(lambda generator: generator.integers(-1, 1, (len(places), 2)))
    every = np.arange(len(images))
    for number, (row, column) in enumerate(places):
        mixed[:, row, column] = mixed[every, row + moves[:, number, 1], column + moves[:, number, 0]]
    return _to_bytes(_blurred(mixed / 255, deviation))


def _motion_blur(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    radius, deviation = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[level]
    return _to_bytes(along_lines(images / 255, radius, deviation, streams.uniform(-45, 45)))


def along_lines(values: np.ndarray, radius: int, deviation: float, degrees: np.ndarray) -> np.ndarray:
    """ImageMagick's motion blur of (N, H, W, C): half a Gaussian of 2 * radius + 1 taps, in direction `degrees` (N,).

    Edge pixels continue beyond the edges.
    """
    taps = np.exp(-0.5 * (np.arange(2 * radius + 1) / deviation) ** 2)
    taps /= taps.sum()
    every = np.arange(len(values))[:, None, None]
    rows, columns = (np.arange(side) for side in values.shape[1:3])
    angles = np.deg2rad(degrees)
    found = np.zeros_like(values)
    for step, weight in enumerate(taps):
        down, right = (np.ceil(step * along - 0.5).astype(int)[:, None] for along in (np.sin(angles), np.cos(angles)))
        seen_rows = np.clip(rows + down, 0, len(rows) - 1)[:, :, None]
        seen_columns = np.clip(columns + right, 0, len(columns) - 1)[:, None, :]
        found += weight * values[every, seen_rows, seen_columns]
    return found


def _zoom_blur(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[level], 0.01)
    values = images / 255
    return _to_bytes((values + sum(zoomed(values, factor) for factor in factors)) / (len(factors) + 1))


def zoomed(values: np.ndarray, factor: float) -> np.ndarray:
    """The middle of (N, S, S, C), enlarged by `factor` with linear interpolation to S x S."""
    side = values.shape[1]
    cut = int(np.ceil(side / factor))
    enlarged = round(cut * factor)
    trim = (enlarged - side) // 2
    places = np.arange(trim, trim + side) * ((cut - 1) / max(enlarged - 1, 1))
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(cut)), 0)
    start = (side - cut) // 2
    middle = values[:, start : start + cut, start : start + cut]
    rows = weights @ middle.reshape(len(values), cut, -1)
    found: np.ndarray = weights @ rows.reshape(len(values), side, cut, -1)
    return found


def _snow(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    mean, deviation, zoom, threshold, radius, blur, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[level]
    values = images / 255
    flakes = zoomed(mean + deviation * streams.normal(*images.shape[1:3], 1), zoom)
    flakes = _to_bytes(np.where(flakes < threshold, 0, flakes)) / 255
    flakes = along_lines(flakes, radius, blur, streams.uniform(-135, -45))
    white = np.maximum(values, (values @ _GREY)[..., None] * 1.5 + 0.5)
    return _to_bytes(kept * values + (1 - kept) * white + flakes + flakes[:, ::-1, ::-1])


def _frost(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    kept, laid = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[level]
    ridges = 1 - np.abs(2 * plasma(images.shape[1], 1.75, streams) - 1)
    return _to_bytes(kept * (images / 255) + laid * ridges[..., None] * _FROST_TINT)


def _fog(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    density, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[level]
    values = images / 255
    brightest = values.max(axis=(1, 2, 3), keepdims=True)
    clouds = density * plasma(images.shape[1], decay, streams)[..., None]
    return _to_bytes((values + clouds) * brightest / (brightest + density))


def plasma(side: int, decay: float, streams: Streams) -> np.ndarray:
    """Diamond-square fractals (N, side, side), 0-1 over the smallest power of two that holds `side`, and at least 32.

    Each level's noise is smaller than that of the level before by the square of `decay`.
    """
    size = max(32, 1 << (side - 1).bit_length())
    noise = streams.uniform(-1, 1, size * size)
    heights = np.zeros((len(noise), size, size))
    used = 0

    def settle(rows: slice, columns: slice, sums: np.ndarray) -> None:
        nonlocal used
        cells = sums[0].size
        heights[:, rows, columns] = sums / 4 + spread**2 * noise[:, used : used + cells].reshape(sums.shape)
        used += cells

    step, spread = size, 100.0
    while step >= 2:
        even, odd = slice(0, size, step), slice(step // 2, size, step)
        corners = heights[:, even, even]
        rows = corners + np.roll(corners, -1, axis=1)
        settle(odd, odd, rows + np.roll(rows, -1, axis=2))
        middles = heights[:, odd, odd]
        settle(even, odd, middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=2))
        settle(odd, even, middles + np.roll(middles, 1, axis=2) + corners + np.roll(corners, -1, axis=1))
        step, spread = step // 2, spread / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights[:, :side, :side] / heights.max(axis=(1, 2), keepdims=True)


def _brightness(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    added = (0.05, 0.1, 0.15, 0.2, 0.3)[level]
    values = images / 255
    value = values.max(axis=3, keepdims=True)
    raised = np.minimum(value + added, 1)
    return _to_bytes(np.where(value > 0, values * raised / np.where(value > 0, value, 1), raised))


def _contrast(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[level]
    values = images / 255
    means = values.mean(axis=(1, 2), keepdims=True)
    return _to_bytes((values - means) * kept + means)


def _elastic_transform(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    side = images.shape[1]
    length, smoothness, jitter = (
        side * np.array(((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)))
    )[level]
    middle, arm = side // 2, side // 3
    corners = np.array([[middle + arm, middle + arm], [middle + arm, middle - arm], [middle - arm, middle - arm]])
    moved = corners + streams.uniform(-jitter, jitter, 3, 2)
    # rows of `back` take (column, row, 1) of a pixel of the result to its place in the image
    back = np.linalg.solve(np.concatenate([moved, np.ones((len(images), 3, 1))], axis=2), corners[None].astype(float))
    rows, columns = np.mgrid[:side, :side]
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back[:, None]
    turned = bilinear(images / 255, places[..., 1], places[..., 0], "mirror")
    noise = streams.uniform(-1, 1, 2, side, side)
    bends = length * ndimage.gaussian_filter(noise, (0, 0, smoothness, smoothness), mode="reflect", truncate=3)
    return _to_bytes(bilinear(turned, rows + bends[:, 1], columns + bends[:, 0], "reflect"))


def bilinear(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, mode: str) -> np.ndarray:
    """Values (N, H, W, C) at places (N, h, w), by linear interpolation; `mode` as in SciPy, mirror or reflect."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    every = np.arange(len(values))[:, None, None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        inside = (_reflected(place, side, mode) for place, side in zip((row, column), values.shape[1:3], strict=True))
        return values[(every, *inside)]

    above = (1 - right) * at(top, left) + right * at(top, left + 1)
    below = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
    found: np.ndarray = (1 - down) * above + down * below
    return found


def _reflected(places: np.ndarray, side: int, mode: str) -> np.ndarray:
    """Whole places beyond 0 ... side - 1 folded back: at the edge pixel's centre (`mirror`) or border (`reflect`)."""
    period = 2 * side - 2 if mode == "mirror" else 2 * side
    folded = places % period
    return np.where(folded < side, folded, period - folded - (mode == "reflect"))


def _pixelate(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    from PIL import Image

    side = images.shape[1]
    small = max(1, int(side * (0.95, 0.9, 0.85, 0.75, 0.65)[level]))
    box = Image.Resampling.BOX
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((small,) * 2, box).resize((side,) * 2, box)) for each in images]
    )


def _jpeg_compression(images: np.ndarray, level: int, streams: Streams) -> np.ndarray:
    from PIL import Image

    quality = (80, 65, 58, 50, 40)[level]
    found = []
    for each in images:
        stream = io.BytesIO()
        Image.fromarray(each).save(stream, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(stream)))
    return np.stack(found)


KINDS: dict[str, Callable[[np.ndarray, int, Streams], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
