"""The test bed with a known "where": grey digits on black, alone or among pieces of others (Mnih et al. 2014).

Glyphs, pieces and their places are drawn from a stored seed. Train and test images are made of pools that share no
glyph. The mask is the digit's own ink, the box its tight frame, both before any clutter. A piece and what it meets are
blended by their maximum; the paper does not say how.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ltpa.core.errors import ConfigError
from ltpa.core.schema import ListOf, PlainData, read_plain
from ltpa.core.seeds import derive
from ltpa.data.arrays import Split
from ltpa.data.corpus import digits, pool
from ltpa.data.glyphs import bounding_boxes, render

LARGEST = 128  # side of the images in pixels
_OPAQUE = 0.5  # ink from which a pixel counts as digit
_KEYS = ("classes", "image_size", "seed", "style", "splits")


class SceneStyle(PlainData):
    """How images are composed.

    Attributes:
        glyph: side of a digit's square in pixels.
        place: of that square: in the `centre`, or `uniform` over all whole pixels at which it lies inside the image.
        pieces: number and side in pixels of square pieces of other digits of the same size, each put at a place drawn
            uniformly over the image. 8 of 28 pixels in the paper, so 5 for digits of 16.
    """

    glyph: Annotated[int, Field(ge=8, le=LARGEST)]
    place: Literal["centre", "uniform"] = "uniform"
    pieces: Annotated[ListOf[Annotated[int, Field(ge=0, le=LARGEST)]], Field(min_length=2, max_length=2)] = (0, 0)


def generate(name: str, declaration: Mapping[str, Any]) -> tuple[list[str], dict[str, Split], dict[str, Any]]:
    """Make the dataset that a declaration of `config/datasets` describes: class names, splits, facts.

    Raises:
        ConfigError: keys are missing, or sizes do not fit together.
    """
    where = f"dataset {name}"
    if missing := [key for key in _KEYS if key not in declaration]:
        raise ConfigError(f"{where}: its declaration lacks {', '.join(missing)}; add it to config/datasets")
    style = read_plain(SceneStyle, declaration["style"], f"{where}: style")
    size, classes = declaration["image_size"], list(declaration["classes"])
    count, side = style.pieces
    if not style.glyph <= size <= LARGEST:
        raise ConfigError(f"{where}: image_size {size}; it must be from {style.glyph} (the glyph) to {LARGEST} pixels")
    if count and not 1 <= side <= style.glyph:
        raise ConfigError(f"{where}: pieces of {side} pixels; they are cut from glyphs, so 1 to {style.glyph}")
    if len(classes) != 10:
        raise ConfigError(f"{where}: {len(classes)} class names; there are 10 digits")
    splits = {}
    for split, options in declaration["splits"].items():
        if options.keys() != {"count", "pool"} or options["count"] < len(classes):
            raise ConfigError(f"{where}, split {split}: needs a pool, and a count of at least {len(classes)}")
        members = pool(options["pool"]).digits
        rng = np.random.default_rng(derive(declaration["seed"], name, split))
        splits[split] = compose(style, members, options["count"], size, rng)
    return classes, splits, {"pools": {split: options["pool"] for split, options in declaration["splits"].items()}}


def compose(style: SceneStyle, members: np.ndarray, count: int, size: int, rng: np.random.Generator) -> Split:
    """`count` images of `size` pixels, made of the digits `members` of `load_digits`; classes as equal as can be."""
    targets = digits()[1]
    labels = rng.permutation(np.arange(count) % 10)
    chosen = np.empty(count, np.int64)
    for digit in range(10):
        wanted = np.flatnonzero(labels == digit)
        chosen[wanted] = np.resize(rng.permutation(members[targets[members] == digit]), len(wanted))
    corners = np.full((count, 2), (size - style.glyph) // 2)
    if style.place == "uniform":
        corners = rng.integers(0, size - style.glyph + 1, (count, 2))
    glyphs = _raster(chosen, style.glyph)
    canvas = np.zeros((count, size, size), np.float32)
    _blend(canvas, glyphs, corners)
    masks = (canvas >= _OPAQUE).astype(np.uint8)
    ids = [f"d{digit:04d}-x{x}-y{y}" for digit, (x, y) in zip(chosen.tolist(), corners.tolist(), strict=True)]
    pieces, side = style.pieces
    for _ in range(pieces):
        others = rng.choice(members, count)
        cut = rng.integers(0, style.glyph - side + 1, (count, 2))
        at = rng.integers(0, size - side + 1, (count, 2))
        _blend(canvas, _windows(_raster(others, style.glyph), cut, side), at)
        ids = [f"{text}+d{other:04d}" for text, other in zip(ids, others.tolist(), strict=True)]
    grey = np.rint(255 * canvas).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    return Split(images, labels, np.array(ids), masks, bounding_boxes(masks))


def _raster(chosen: np.ndarray, side: int) -> np.ndarray:
    """Glyphs (N, side, side) float32, ink in 0-1."""
    count = len(chosen)
    middle = np.full((count, 2), side / 2)
    return render(digits()[0][chosen], middle, np.full(count, float(side)), np.zeros(count), side)


def _windows(images: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """Squares (N, side, side) of images (N, H, W); corners (N, 2) are x and y."""
    reach = np.arange(side)
    rows, columns = corners[:, 1, None] + reach, corners[:, 0, None] + reach
    found: np.ndarray = images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return found


def _blend(canvas: np.ndarray, squares: np.ndarray, corners: np.ndarray) -> None:
    """Put squares (N, s, s) on the canvas (N, S, S) at corners (N, 2), x and y; the larger value stays."""
    reach = np.arange(squares.shape[1])
    rows, columns = corners[:, 1, None] + reach, corners[:, 0, None] + reach
    place = (np.arange(len(canvas))[:, None, None], rows[:, :, None], columns[:, None, :])
    canvas[place] = np.maximum(canvas[place], squares)
