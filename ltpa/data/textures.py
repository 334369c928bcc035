"""Backgrounds: patches of photographs, and plain gradients."""

import functools

import numpy as np

from ltpa.data.corpus import Region, photograph

LUMINANCE = np.array([0.299, 0.587, 0.114])
MIN_DEVIATION = 10.0  # of a patch's luminance, 0-255; flatter patches are not textured
MIN_PLACES = 200  # different patches that a region must hold at a zoom, to be used at it
_ZOOMS = (1, 2)  # photograph pixels per image pixel


def luminance(colours: np.ndarray) -> np.ndarray:
    """Luminance (BT.601) of RGB values (..., 3), on their scale."""
    return (colours * LUMINANCE).sum(axis=-1)


def usable(regions: tuple[Region, ...], size: int, textured: bool) -> list[int]:
    """Indices of the regions that hold enough different patches of `size` pixels."""
    return [index for index, region in enumerate(regions) if _zooms(region, size, textured)]


def _zooms(region: Region, size: int, textured: bool) -> list[int]:
    return [factor for factor in _ZOOMS if len(_places(region, factor, size, textured)) >= MIN_PLACES]


def patches(
    regions: tuple[Region, ...], which: np.ndarray, size: int, rng: np.random.Generator, textured: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one square patch from region `which[i]` for each i, at one or two photograph pixels a pixel, some mirrored.

    No patch is cut twice before every patch of its region and size has been cut.

    Returns:
        Patches (N, size, size, 3) float64, 0-255; and (N, 4) int64: region index, left, top and side in the photograph.
    """
    cut = np.empty((len(which), size, size, 3))
    sources = np.empty((len(which), 4), dtype=np.int64)
    for index, region in enumerate(regions):
        wanted = np.flatnonzero(which == index)
        zoom = rng.choice(_zooms(region, size, textured), len(wanted)) if len(wanted) else wanted
        for factor in _ZOOMS:
            chosen = wanted[zoom == factor]
            if not len(chosen):
                continue
            places = _places(region, factor, size, textured)
            drawn = np.resize(rng.permutation(2 * len(places)), len(chosen))
            top, left = places[drawn // 2].T
            windows = np.lib.stride_tricks.sliding_window_view(_scaled(region, factor), (size, size), axis=(0, 1))
            pieces = windows[top, left].transpose(0, 2, 3, 1)
            mirrored = (drawn % 2 == 1)[:, None, None, None]
            cut[chosen] = np.where(mirrored, pieces[:, :, ::-1], pieces)
            side = np.full(len(chosen), size * factor)
            sources[chosen] = np.stack(
                [np.full(len(chosen), index), region.left + factor * left, region.top + factor * top, side], axis=1
            )
    return cut, sources


@functools.cache
def _scaled(region: Region, factor: int) -> np.ndarray:
    """The region alone, `factor` x `factor` pixels averaged into one; (h, w, 3) float64."""
    cut = photograph(region.photo)[region.top : region.bottom, region.left : region.right].astype(np.float64)
    height, width = cut.shape[0] // factor, cut.shape[1] // factor
    return cut[: height * factor, : width * factor].reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


@functools.cache
def _places(region: Region, factor: int, size: int, textured: bool) -> np.ndarray:
    """Top and left of the usable patches, (M, 2): all, or those whose luminance varies enough."""
    values = luminance(_scaled(region, factor))
    if min(values.shape) < size:
        return np.empty((0, 2), dtype=np.int64)
    mean, square = _window_means(values, size), _window_means(values**2, size)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return np.argwhere(deviation >= (MIN_DEVIATION if textured else 0.0))


def _window_means(values: np.ndarray, size: int) -> np.ndarray:
    """Mean of every size x size window of (h, w), from running sums."""
    sums = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    windows = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    return windows / size**2


def set_tone(images: np.ndarray, level: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Shift and stretch images (N, S, S, 3) to the given mean luminance (N,) and luminance deviation (N,)."""
    values = luminance(images)
    mean, spread = (statistic[:, None, None, None] for statistic in (values.mean((1, 2)), values.std((1, 2))))
    gain = deviation[:, None, None, None] / np.maximum(spread, 1.0)
    return np.clip(level[:, None, None, None] + gain * (images - mean), 0, 255)


def gradients(level: np.ndarray, deviation: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Linear gradients between two colours in a random direction, (N, size, size, 3) float64, 0-255.

    The colours' luminances lie `deviation` (N,) above and below `level` (N,).
    """
    ends = colours(level[:, None] + deviation[:, None] * [-1, 1], 50.0, rng)
    angle = rng.uniform(0, 2 * np.pi, len(level))[:, None, None]
    grid = np.linspace(-0.7, 0.7, size)
    along = np.clip(0.5 + 0.5 * (np.cos(angle) * grid[None, None, :] + np.sin(angle) * grid[None, :, None]), 0, 1)
    return ends[:, None, None, 0] * (1 - along[..., None]) + ends[:, None, None, 1] * along[..., None]


def colours(level: np.ndarray, chroma: float, rng: np.random.Generator) -> np.ndarray:
    """Random colours (..., 3) of the given luminance (...), with up to `chroma` of colour; clipped to 0-255."""
    tint = rng.uniform(-1, 1, (*level.shape, 3))
    tint -= luminance(tint)[..., None]
    return np.clip(level[..., None] + chroma * tint, 0, 255)
