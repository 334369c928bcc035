"""Object masks of images that differ in size, end to end in one flat array, so that they can be memory-mapped."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class RaggedMasks:
    """N masks, each of its own size. `masks[row]` is (height, width) uint8, 1 on the object, and copies nothing.

    Attributes:
        pixels: uint8, the masks one after the other, row by row.
        sizes: (N, 2) int64, height and width of each.
    """

    pixels: np.ndarray
    sizes: np.ndarray

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return self.sizes.prod(axis=1).cumsum()

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> np.ndarray:
        height, width = self.sizes[row]
        return self.pixels[self._ends[row] - height * width : self._ends[row]].reshape(height, width)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))


Masks = np.ndarray | RaggedMasks
"""Masks (N, M, M) of one size, or each of its own."""


def squashed(masks: Iterable[np.ndarray], size: int) -> np.ndarray:
    """Masks brought to `size` pixels a side like their images, (N, size, size) uint8: the nearest pixel counts."""
    from PIL import Image

    shapes = [Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST) for mask in masks]
    return np.stack([np.asarray(shape) for shape in shapes])
