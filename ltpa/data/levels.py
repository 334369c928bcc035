"""Small images of few levels: the stored 8 x 8 digits, and echo images, whose rows come back four rows below.

The digits are those of `load_digits` as they are, 17 levels. An echo image is four middle rows of a digit three times
over, 12 x 8 pixels of 8 levels: its repeated rows cost nothing to who sees four rows up.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ltpa.core.errors import ConfigError, DataError
from ltpa.core.schema import PlainData, read_plain
from ltpa.data.arrays import Split
from ltpa.data.corpus import pool

_ECHO_ROWS = slice(2, 6)
_TIMES = 3
_SIZES = {"digits": 8, "echo": 12}
_LEVELS = {"digits": 17, "echo": 8}
_EVERY = 10  # of the pool's digits one is for choices


class LevelStyle(PlainData):
    """What is shown: `form`."""

    form: Literal["digits", "echo"] = "digits"


class _SplitOptions(PlainData):
    pool: str
    tenth: Literal["with", "without", "only"] = "with"


def generate(name: str, declaration: Mapping[str, Any]) -> tuple[list[str], dict[str, Split], dict[str, Any]]:
    """Make the dataset that a declaration describes. Every digit of a split's pool gives one image.

    The classes are the levels, and labels are all 0: the images are not classified. `Split.more` has `pixels` (N, H, W)
    uint8, the levels, and `repeats` (N, H) uint8, 1 for rows that equal an earlier one. `images` show them in grey,
    with black beside them where W is less than H.

    Returns:
        Class names, splits, and facts for the manifest.

    Raises:
        ConfigError: an option is unknown, or classes or image size are not those of the form.
    """
    source = f"dataset {name}"
    style = read_plain(LevelStyle, declaration["style"], f"{source}: style")
    classes, size = list(declaration["classes"]), _SIZES[style.form]
    expected = [str(level) for level in range(_LEVELS[style.form])]
    if classes != expected:
        raise ConfigError(f"{source}: its classes must be {expected[0]} to {expected[-1]}, the levels of {style.form}")
    if declaration["image_size"] != size:
        raise ConfigError(f"{source}: image_size {declaration['image_size']}; it must be {size} for {style.form}")
    splits = {}
    for split, options in declaration["splits"].items():
        chosen = read_plain(_SplitOptions, options, f"{source}: splits.{split}")
        splits[split] = _split(style.form, chosen)
    return classes, splits, {"pools": {split: options["pool"] for split, options in declaration["splits"].items()}}


def _split(form: str, options: _SplitOptions) -> Split:
    from sklearn.datasets import load_digits

    numbers = np.sort(pool(options.pool).digits)
    kept = np.arange(len(numbers)) % _EVERY == 0
    numbers = {"with": numbers, "without": numbers[~kept], "only": numbers[kept]}[options.tenth]
    pixels = load_digits().images[numbers].astype(np.uint8)
    repeats = np.zeros(pixels.shape[:2], np.uint8)
    if form == "echo":
        pixels = np.tile(np.minimum(pixels[:, _ECHO_ROWS] // 2, 7), (1, _TIMES, 1))
        repeats = np.zeros(pixels.shape[:2], np.uint8)
        repeats[:, pixels.shape[1] // _TIMES :] = 1
    count, height, width = pixels.shape
    shown = np.zeros((count, height, height, 3), np.uint8)
    shown[:, :, :width] = np.rint(pixels[..., None] * (255 / (_LEVELS[form] - 1))).astype(np.uint8)
    ids = np.array([f"d{number:04d}" for number in numbers])
    return Split(shown, np.zeros(count, np.int64), ids, more={"pixels": pixels, "repeats": repeats})


def levels_of(split: Split, dataset: str) -> np.ndarray:
    """The levels (N, H, W) of a split.

    Raises:
        DataError: its images have none.
    """
    if "pixels" not in split.more:
        raise DataError(f"dataset {dataset}: its images have no levels; use a set of use pixels")
    return np.asarray(split.more["pixels"])
