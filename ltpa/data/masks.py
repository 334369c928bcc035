"""Object masks: what a mask image marks, and masks that differ in size, end to end in one flat array.

A mask has `OBJECT` on the object, 0 beside it, and `VOID` where the annotation says nothing, as at the rims of PASCAL
VOC's objects. Void pixels count neither as object nor as background.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

OBJECT, VOID = 1, 255
_VOID_COLOUR = (224, 224, 192)  # of index 255 in VOC's palette, for masks saved in full colour
_MOST_LABELS = 20  # VOC's classes; a grey mask with higher values below 255 has soft edges and no labels


@dataclasses.dataclass(frozen=True, eq=False)
class RaggedMasks:
    """N masks, each of its own size. `masks[row]` is (height, width) uint8 and copies nothing.

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


def marks(picture: "Image.Image") -> np.ndarray:
    """What a mask image marks, (H, W) uint8 of `OBJECT`, `VOID` and 0.

    Object is every pixel that is neither black nor fully transparent: in 1-bit and grey images, with alpha or without,
    with a palette, in colour. Void is index 255 of a palette with colours, VOC's colour for it (224, 224, 192) in a
    colour image, and 255 in a grey image whose other values are labels, that is from 1 to 20, and at least one of them.
    A grey image of 0 and 255, or with soft edges, has no void pixels.
    """
    if picture.mode in ("P", "PA") and not _grey_palette(picture):
        return _indexed(picture) if picture.mode == "P" else _coloured(picture.convert("RGBA"))
    if picture.mode in ("P", "PA") or picture.mode not in ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"):
        picture = picture.convert("RGBA")
        red = picture.getchannel("R")
        if any(red.tobytes() != picture.getchannel(other).tobytes() for other in "GB"):
            return _coloured(picture)
        return _seen(_grey(red), picture)
    grey = picture.getchannel("L") if picture.mode == "LA" else picture
    return _seen(_grey(grey), picture)


def _grey_palette(picture: "Image.Image") -> bool:
    colours = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _indexed(picture: "Image.Image") -> np.ndarray:
    picture.load()
    picture.apply_transparency()
    colours = np.zeros((256, 4), np.uint8)
    known = np.asarray(picture.getpalette("RGBA")).reshape(-1, 4)
    colours[: len(known)] = known
    table = (colours[:, :3].any(axis=1) & (colours[:, 3] > 0)).astype(np.uint8)
    table[255] = VOID
    return table[np.asarray(picture)]


def _coloured(picture: "Image.Image") -> np.ndarray:
    red, green, blue = (np.asarray(picture.getchannel(name)) for name in "RGB")
    marked = ((red > 0) | (green > 0) | (blue > 0)).astype(np.uint8)
    void = (red == _VOID_COLOUR[0]) & (green == _VOID_COLOUR[1]) & (blue == _VOID_COLOUR[2])
    marked[void] = VOID
    return _seen(marked, picture)


def _grey(picture: "Image.Image") -> np.ndarray:
    marked = (np.asarray(picture) > 0).astype(np.uint8)
    if picture.mode == "L":
        counts = picture.histogram()
        if counts[255] and any(counts[1 : _MOST_LABELS + 1]) and not any(counts[_MOST_LABELS + 1 : 255]):
            marked[np.asarray(picture) == 255] = VOID
    return marked


def _seen(marked: np.ndarray, picture: "Image.Image") -> np.ndarray:
    """Nothing where the picture is fully transparent."""
    if "A" in picture.getbands():
        marked[np.asarray(picture.getchannel("A")) == 0] = 0
    return marked


def squashed(masks: Iterable[np.ndarray], size: int) -> np.ndarray:
    """Masks brought to `size` pixels a side like their images, (N, size, size) uint8 of `OBJECT` and 0."""
    from PIL import Image

    shapes = [
        Image.fromarray((mask == OBJECT).astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
        for mask in masks
    ]
    return np.stack([np.asarray(shape) for shape in shapes])
