"""The options of an embedded dataset: what its images look like and what their classes mean."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ltpa.core.declared import near_matches
from ltpa.core.errors import ConfigError

MARK_COLOURS = {"red": (235, 30, 40), "yellow": (250, 220, 20), "green": (30, 190, 60), "blue": (40, 70, 245)}
_BANDS = (" over ", " beside ")  # between the colours of a mark, by the axis along which they follow each other
MIN_SIDE = 9.0  # pixels; a digit's strokes then span at least eight


@dataclasses.dataclass(frozen=True)
class Style:
    """How images are composed. Lengths are shares of the image's side, colours lie on the 0-255 scale.

    Attributes:
        labels: what a class is: the digit; digit and polarity (`0 light`, `0 dark`, `1 light`, ...); digit and mark
            (digit-major); or the photograph region behind (`ltpa.data.corpus.SCENES`).
        digits: the digits that occur.
        marks: what the mark at the digit looks like: a colour of `MARK_COLOURS`, or bands of them (`red over blue`,
            `red beside blue beside red`, the outer two of three half as thick); only with `labels: digit-mark`.
        decoys: fewest and most marks of any kind away from the digit, which mean nothing; only with `digit-mark`.
        polarity: `light` digits on darker ground, `dark` digits on lighter ground, or `both`.
        background: `texture` (photograph patches, set to even tone), `gradient`, or `scene` (patches as they are).
        scale: smallest and largest side of a digit; never under `MIN_SIDE` pixels.
        rotation: largest rotation in degrees, either way.
        centred: digits in the middle, up to one pixel off; else anywhere in the image with equal probability.
        clutter: fewest and most fragments of other digits around the digit.
        neighbours: whole digits to the left and right, in the digit's colour.
        contrast: smallest and largest luminance distance between digit and background.
        roughness: smallest and largest luminance deviation of the background.
        saturation: colour of the background, 1 as photographed.
        recolour: swap the colour channels of the background.
        blur: weight of each neighbour in a three-pixel smoothing of the finished image; 0 for none, at most 1/3.
        noise: deviation of Gaussian pixel noise on the finished image.
        empty: share of images without any digit (mask empty).
    """

    labels: Literal["digit", "digit-polarity", "digit-mark", "scene"] = "digit"
    digits: tuple[int, ...] = tuple(range(10))
    marks: tuple[str, ...] = ()
    decoys: tuple[int, int] = (0, 0)
    polarity: Literal["light", "dark", "both"] = "light"
    background: Literal["texture", "gradient", "scene"] = "texture"
    scale: tuple[float, float] = (0.45, 0.5)
    rotation: float = 10.0
    centred: bool = False
    clutter: tuple[int, int] = (0, 1)
    neighbours: bool = False
    contrast: tuple[float, float] = (140.0, 170.0)
    roughness: tuple[float, float] = (12.0, 24.0)
    saturation: float = 1.0
    recolour: bool = False
    blur: float = 0.0
    noise: float = 0.0
    empty: float = 0.0

    def class_count(self, regions: int) -> int:
        """Number of classes; `regions` is the number of scene regions."""
        counts = {
            "digit": len(self.digits),
            "digit-polarity": 2 * len(self.digits),
            "digit-mark": len(self.digits) * len(self.marks),
            "scene": regions,
        }
        return counts[self.labels]


def mark_colours(mark: str) -> tuple[list[tuple[int, int, int]], int]:
    """Colours of a mark's bands, and the axis along which they follow each other: 0 downwards, 1 to the right.

    Raises:
        KeyError: a colour that is not known.
    """
    axis = next((axis for axis, word in enumerate(_BANDS) if word in mark), 0)
    return [MARK_COLOURS[colour] for colour in mark.split(_BANDS[axis])], axis


def _is_mark(mark: str) -> bool:
    try:
        mark_colours(mark)
    except KeyError:
        return False
    return True


def _ordered(values: tuple[float, ...], low: float, high: float) -> bool:
    first, last = values
    return low <= first <= last <= high


_ALLOWED: dict[str, Callable[[Style], bool]] = {
    "labels": lambda style: style.labels in ("digit", "digit-polarity", "digit-mark", "scene"),
    "digits": lambda style: bool(style.digits) and set(style.digits) <= set(range(10)),
    "marks": lambda style: all(map(_is_mark, style.marks)) and bool(style.marks) == (style.labels == "digit-mark"),
    "decoys": lambda style: _ordered(style.decoys, 0, 10) and (style.labels == "digit-mark" or style.decoys == (0, 0)),
    "polarity": lambda style: style.polarity in ("light", "dark", "both"),
    "background": lambda style: (
        style.background in ("texture", "gradient", "scene")
        and (style.background == "scene") == (style.labels == "scene")
    ),
    "scale": lambda style: _ordered(style.scale, 0.1, 0.9),
    "rotation": lambda style: 0 <= style.rotation <= 180,
    "clutter": lambda style: _ordered(style.clutter, 0, 10),
    "contrast": lambda style: _ordered(style.contrast, 0, 255),
    "roughness": lambda style: _ordered(style.roughness, 0, 127),
    "saturation": lambda style: 0 <= style.saturation <= 2,
    "blur": lambda style: 0 <= style.blur <= 1 / 3,
    "noise": lambda style: 0 <= style.noise <= 127,
    "empty": lambda style: 0 <= style.empty < 1,
}


def read_style(values: Mapping[str, Any], source: str) -> Style:
    """A style from the `style` mapping of a declaration; errors name `source` as its origin.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    fields = {field.name for field in dataclasses.fields(Style)}
    for key in values:
        if key not in fields:
            raise ConfigError(f"{source}: unknown style option {key!r}; {near_matches(key, fields)}")
    options: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    style = Style(**options)
    for key, allowed in _ALLOWED.items():
        try:
            fine = allowed(style)
        except (TypeError, ValueError):
            fine = False
        if not fine:
            raise ConfigError(f"{source}: style option {key} cannot be {getattr(style, key)!r}; see ltpa.data.style")
    return style
