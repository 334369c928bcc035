"""Codes of small images that need no network: what every network over pixels must beat.

Each is fitted to training images alone and gives bits of every pixel of others. Counts are smoothed by a tenth of
a pixel per level, so that no level costs infinitely many bits.
"""

import lzma

import numpy as np

CONTEXTS = ("uniform", "histogram", "position", "left", "left-upper")
_SMOOTHING = 0.1


def context_bits(train: np.ndarray, test: np.ndarray, levels: int, context: str) -> np.ndarray:
    """Bits (N, H, W) float64 of the pixels of `test` (N, H, W), under counts of `train` by `context`.

    The context of a pixel is nothing (`histogram`), its place (`position`), its left neighbour (`left`), or that and
    the upper one (`left-upper`); beyond the border stands a level of its own. `uniform` counts nothing.
    """
    if context == "uniform":
        return np.full(test.shape, np.log2(levels))
    keys, found = _contexts(train, levels, context), _contexts(test, levels, context)
    counts = np.zeros((int(max(keys.max(), found.max())) + 1, levels))
    np.add.at(counts, (keys, train), 1)
    counts += _SMOOTHING
    return np.asarray(-np.log2(counts / counts.sum(1, keepdims=True))[found, test])


def _contexts(pixels: np.ndarray, levels: int, context: str) -> np.ndarray:
    height, width = pixels.shape[1:]
    if context == "position":
        return np.broadcast_to(np.arange(height * width).reshape(height, width), pixels.shape)
    if context == "histogram":
        return np.zeros(pixels.shape, np.int64)
    padded = np.pad(pixels.astype(np.int64), ((0, 0), (1, 0), (1, 0)), constant_values=levels)
    left, upper = padded[:, 1:, :-1], padded[:, :-1, 1:]
    return left if context == "left" else left * (levels + 1) + upper


def lzma_bits_per_dim(pixels: np.ndarray) -> float:
    """Bits per pixel of all images as one LZMA stream of bytes without headers, dictionary of 1 MiB."""
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**20}]
    data = np.ascontiguousarray(pixels, dtype=np.uint8).tobytes()
    return 8 * len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)) / pixels.size
