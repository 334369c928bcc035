"""Scenes of one or two digits, and of two digits their caption (`ltpa.data.grammar`) with the object of every word.

Digits are small or large and darker or lighter than the ground, which is of middle tone. Two digits stand above or
beside each other and do not overlap; the relation is that of the axis along which they lie farther apart. Sizes count
when room is made for them, so that either digit fits where the other stands.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ltpa.core.errors import ConfigError
from ltpa.core.schema import PlainData, read_plain
from ltpa.core.seeds import derive
from ltpa.data import grammar, textures
from ltpa.data.arrays import Split
from ltpa.data.compose import choose
from ltpa.data.corpus import Pool, digits, pool
from ltpa.data.glyphs import bounding_boxes, render

_OPAQUE = 0.5  # stroke coverage from which a pixel counts as digit
_ASIDE = 0.6  # of the distance along the axis: how far the digits may be apart across it
Level = Annotated[float, Field(ge=0, le=255)]
Range = Annotated[list[Level], Field(min_length=2, max_length=2)]


class SceneStyle(PlainData):
    """How scenes look.

    Attributes:
        objects: digits in a scene; of one digit, the class says digit and tone.
        small, large: sides of the digits' squares in pixels, from and to.
        dark, light: luminance of the digits.
        ground, roughness: mean and deviation of the luminance of the ground.
        gap: least distance of two digits' squares, in pixels.
    """

    objects: Literal[1, 2] = 2
    small: Range = [9.0, 10.0]
    large: Range = [14.5, 15.5]
    dark: Range = [12.0, 45.0]
    light: Range = [205.0, 240.0]
    ground: Range = [115.0, 140.0]
    roughness: Range = [6.0, 14.0]
    gap: Annotated[float, Field(ge=0, le=8)] = 1.0


class _SplitOptions(PlainData):
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    pool: str


def generate(name: str, declaration: Mapping[str, Any]) -> tuple[list[str], dict[str, Split], dict[str, Any]]:
    """Make the dataset that a declaration of `config/datasets.yaml` describes.

    Scenes of two digits have the words as classes; the label is the first digit's word. In `Split.more` they have
    `captions` (N, T) int16 and `referents` (N, T) int8 as in `ltpa.data.grammar`, `objects` (N, 2, 4) float32 boxes,
    `exchanged` (N, S, S, 3) uint8, the same scene with its two digits in each other's place, `exchanged_objects`, their
    boxes there, and `blanked` (N, 2, S, S, 3) uint8, the scene without its first and without its second digit.

    Returns:
        Class names, splits, and facts for the manifest.

    Raises:
        ConfigError: an option is unknown, classes are not those of the style, or digits do not fit into the image.
    """
    source = f"dataset {name}"
    style = read_plain(SceneStyle, declaration["style"], f"{source}: style")
    size, classes = int(declaration["image_size"]), list(declaration["classes"])
    expected = list(grammar.WORDS) if style.objects == 2 else _single_classes()
    if classes != expected:
        raise ConfigError(f"{source}: its classes must be {', '.join(expected)}")
    widest = (style.objects - 1) * (style.large[1] + style.gap) + style.large[1]
    if size < widest:
        raise ConfigError(f"{source}: image_size {size}; large digits need {widest:g} pixels in this style")
    splits = {}
    for split, options in declaration["splits"].items():
        chosen = read_plain(_SplitOptions, options, f"{source}: splits.{split}")
        rng = np.random.default_rng(derive(declaration["seed"], name, split))
        splits[split] = _split(style, pool(chosen.pool), chosen.count, size, rng)
    facts = {"pools": {split: options["pool"] for split, options in declaration["splits"].items()}}
    return classes, splits, facts


def _single_classes() -> list[str]:
    return [f"{tone} {digit}" for digit in grammar.DIGITS for tone in grammar.TONES]


def _split(style: SceneStyle, source: Pool, count: int, size: int, rng: np.random.Generator) -> Split:
    shape = (count, style.objects)
    value, tone, large = rng.integers(10, size=shape), rng.integers(2, size=shape), rng.integers(2, size=shape)
    if style.objects == 1:  # each class as often as can be
        labels = rng.permutation(np.arange(count) % 20)
        value, tone = (part[:, None] for part in divmod(labels, 2))
    side = np.where(large == 1, _between(style.large, shape, rng), _between(style.small, shape, rng))
    level = np.where(tone == 1, _between(style.light, shape, rng), _between(style.dark, shape, rng))
    ink = textures.colours(level, 20.0, rng)
    ground, cuts = _grounds(style, source, count, size, rng)
    glyphs, targets = digits()
    chosen = choose(value.ravel(), source, targets, rng).reshape(shape)
    ids = np.array([text + "".join(f"+d{each:04d}" for each in row) for text, row in zip(cuts, chosen, strict=True)])
    if style.objects == 1:
        centre = rng.uniform(0, 1, (count, 1, 2)) * (size - side[..., None]) + side[..., None] / 2
        coverage = _draw(glyphs[chosen], centre, side, size)
        masks = (coverage[:, 0] >= _OPAQUE).astype(np.uint8)
        return Split(_paint(ground, coverage, ink), labels.astype(np.int64), ids, masks, bounding_boxes(masks))
    upright = rng.integers(2, size=count)
    centre = _centres(style, side, upright, size, rng)
    coverage = _draw(glyphs[chosen], centre, side, size)
    swapped = _draw(glyphs[chosen], centre[:, ::-1], side, size)
    named = [
        [grammar.Thing(grammar.SIZES[s], grammar.TONES[t], grammar.DIGITS[d]) for s, t, d in zip(*row, strict=True)]
        for row in zip(large, tone, value, strict=True)
    ]
    captions = [
        grammar.Scene(first, grammar.RELATIONS[1 - along], second).words()
        for (first, second), along in zip(named, upright, strict=True)
    ]
    words = grammar.encode(captions)
    spoken = np.full(words.shape, -1, np.int8)
    for row, caption in zip(spoken, captions, strict=True):
        row[: len(caption)] = grammar.referents(caption)
    return Split(
        _paint(ground, coverage, ink),
        words[:, 3].astype(np.int64),
        ids,
        more={
            "captions": words,
            "referents": spoken,
            "objects": _boxes(coverage),
            "exchanged": _paint(ground, swapped, ink),
            "exchanged_objects": _boxes(swapped),
            "blanked": np.stack([_paint(ground, _only(coverage, 1 - gone), ink) for gone in (0, 1)], axis=1),
        },
    )


def _between(span: list[float], shape: int | tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(span[0], span[1], shape)


def _grounds(
    style: SceneStyle, source: Pool, count: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Grounds (N, S, S, 3) float64 of photographs, and what each is cut from."""
    which = rng.choice(textures.usable(source.regions, size, textured=True), count)
    canvas, cuts = textures.patches(source.regions, which, size, rng, textured=True)
    canvas = textures.set_tone(canvas, _between(style.ground, count, rng), _between(style.roughness, count, rng))
    return canvas, [f"{source.regions[index].photo}-x{left}-y{top}-s{side}" for index, left, top, side in cuts.tolist()]


def _centres(
    style: SceneStyle, side: np.ndarray, upright: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Centres (N, 2 objects, x and y) of two digits; `upright` says where the first stands above the second."""
    count = len(side)
    margin = side.max(1) / 2
    apart = side.mean(1) + style.gap
    slack = size - 2 * margin - apart
    start, end = np.sort(rng.uniform(0, 1, (2, count)), axis=0) * slack
    along = np.stack([margin + start, margin + apart + end], axis=1)
    across = rng.uniform(margin, size - margin)
    aside = across + rng.uniform(-_ASIDE, _ASIDE, count) * (along[:, 1] - along[:, 0])
    across = np.stack([across, np.clip(aside, margin, size - margin)], axis=1)
    return np.where(upright[:, None, None] == 1, np.stack([across, along], 2), np.stack([along, across], 2))


def _draw(glyphs: np.ndarray, centre: np.ndarray, side: np.ndarray, size: int) -> np.ndarray:
    """Coverage (N, K, S, S) of K glyphs (N, K, G, G) each on a canvas of its own."""
    count, objects = side.shape
    flat = render(glyphs.reshape(-1, *glyphs.shape[2:]), centre.reshape(-1, 2), side.ravel(), np.zeros(side.size), size)
    return flat.reshape(count, objects, size, size)


def _only(coverage: np.ndarray, kept: int) -> np.ndarray:
    """Coverage (N, 2, S, S) without the other digit than `kept`."""
    return coverage * (np.arange(2) == kept)[:, None, None]


def _paint(ground: np.ndarray, coverage: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Digits of colours (N, K, 3) on the grounds, as uint8 images (N, S, S, 3)."""
    canvas = ground.copy()
    for index in range(coverage.shape[1]):
        canvas += coverage[:, index, ..., None] * (ink[:, index, None, None] - canvas)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _boxes(coverage: np.ndarray) -> np.ndarray:
    """Boxes (N, K, 4) float32 of the digits' opaque pixels."""
    count, objects = coverage.shape[:2]
    flat = bounding_boxes((coverage >= _OPAQUE).reshape(-1, *coverage.shape[2:]))
    return flat.reshape(count, objects, 4)
