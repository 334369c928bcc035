"""Composing images: background, neighbours and clutter, the target digit, its mark, blur and noise."""

import dataclasses

import numpy as np

from ltpa.data import textures
from ltpa.data.arrays import Split
from ltpa.data.corpus import Pool, digits
from ltpa.data.glyphs import bounding_boxes, inside_boxes, render
from ltpa.data.style import MIN_SIDE, Style, mark_colours

_OPAQUE = 0.5  # stroke coverage from which a pixel counts as digit


@dataclasses.dataclass
class _Scene:
    """Images under construction. `canvas` is (N, S, S, 3) float64; `trace` collects the ids."""

    canvas: np.ndarray
    labels: np.ndarray
    digit: np.ndarray
    light: np.ndarray
    trace: list[str]

    @property
    def size(self) -> int:
        return self.canvas.shape[1]


def compose(style: Style, source: Pool, count: int, size: int, seed: int) -> Split:
    """`count` images of `size` pixels in the given style, made of one pool; classes as equally frequent as can be."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % style.class_count(len(source.scenes)))
    scene = _start(style, source, labels, size, rng)
    present = rng.permutation(count) >= round(style.empty * count)
    coverage = _place_digits(scene, style, source, present, rng)
    masks = (coverage >= _OPAQUE).astype(np.uint8)
    parts = _place_marks(scene, style, masks, rng) if style.marks else None
    images = _finish(scene.canvas, style, rng)
    ids = np.array(scene.trace)
    if style.labels == "scene":
        return Split(images, labels, ids)
    return Split(images, labels, ids, masks, bounding_boxes(masks), parts)


def _start(style: Style, source: Pool, labels: np.ndarray, size: int, rng: np.random.Generator) -> _Scene:
    """Backgrounds, and which digit in which polarity each image gets."""
    count = len(labels)
    light = rng.random(count) < {"light": 1.0, "dark": 0.0, "both": 0.5}[style.polarity]
    if style.labels == "digit-polarity":
        position, light = labels // 2, labels % 2 == 0
    elif style.labels == "scene":
        position = rng.integers(len(style.digits), size=count)
    else:
        position = labels // max(1, len(style.marks))
    canvas, trace = _backgrounds(style, source, labels, light, size, rng)
    return _Scene(canvas, labels, np.array(style.digits)[position], light, trace)


def _backgrounds(
    style: Style, source: Pool, labels: np.ndarray, light: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Backgrounds (N, size, size, 3), dark behind light digits and the other way round; and what they are cut from."""
    count = len(labels)
    level = np.where(light, rng.uniform(45, 105, count), rng.uniform(150, 210, count))
    deviation = rng.uniform(*style.roughness, count)
    if style.background == "gradient":
        return textures.gradients(level, deviation, size, rng), ["gradient"] * count
    scenes = style.background == "scene"
    regions = source.scenes if scenes else source.regions
    which = labels if scenes else rng.choice(textures.usable(regions, size, textured=True), count)
    canvas, cuts = textures.patches(regions, which, size, rng, textured=not scenes)
    if not scenes:
        grey = textures.luminance(canvas)[..., None]
        canvas = textures.set_tone(grey + style.saturation * (canvas - grey), level, deviation)
    if style.recolour:
        canvas = canvas[..., [1, 2, 0]]
    return canvas, [f"{regions[index].photo}-x{left}-y{top}-s{side}" for index, left, top, side in cuts.tolist()]


def _place_digits(
    scene: _Scene, style: Style, source: Pool, present: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the target digits and clutter around them; return the targets' coverage (N, S, S)."""
    count, size = len(scene.labels), scene.size
    glyphs, targets = digits()
    chosen = choose(scene.digit, source, targets, rng)
    side = np.maximum(rng.uniform(*style.scale, count) * size, MIN_SIDE)
    centre = _centres(style, side, size, rng)
    angle = np.radians(rng.uniform(-style.rotation, style.rotation, count))
    coverage = render(glyphs[chosen], centre, side, angle, size) * present[:, None, None]
    ink = _ink(scene, style, coverage, rng)
    for index, digit in enumerate(chosen):
        scene.trace[index] += f"+d{digit:04d}" if present[index] else "+-"
    target_box = inside_boxes(bounding_boxes(coverage >= _OPAQUE), size, margin=1)
    if style.neighbours:
        for direction in (-1, 1):
            beside = centre + np.stack([direction * side * rng.uniform(0.8, 1.0, count), np.zeros(count)], axis=1)
            _draw_other(scene, source, beside, side, angle, ink, ~target_box, None, rng)
    _place_clutter(scene, style, source, side, ~target_box, rng)
    _paint(scene.canvas, coverage, ink)
    return coverage


def _centres(style: Style, side: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Centres (N, 2) of the target digits, x and y in pixels.

    Unless `centred`, they fall evenly over the whole frame, and a digit that would stick out is pushed back to the
    edge. The pixel in the middle of the frame then lies on a digit of up to half the frame's side exactly as often as
    the average pixel does: whatever is pushed lies too far away to cover it.
    """
    count = len(side)
    if style.centred:
        return size / 2 + rng.uniform(-1, 1, (count, 2))
    half = side[:, None] / 2
    return np.clip(rng.uniform(0, size, (count, 2)), half, size - half)


def choose(digit: np.ndarray, source: Pool, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A glyph of the pool for each wanted digit; every one is used before any is used again."""
    chosen = np.empty(len(digit), dtype=np.int64)
    for value in np.unique(digit):
        wanted = np.flatnonzero(digit == value)
        members = rng.permutation(source.digits[targets[source.digits] == value])
        chosen[wanted] = np.resize(members, len(wanted))
    return chosen


def _ink(scene: _Scene, style: Style, coverage: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Digit colours (N, 3): the wanted distance lighter or darker than the background behind the digit."""
    weight = coverage.sum(axis=(1, 2))
    behind = (textures.luminance(scene.canvas) * coverage).sum(axis=(1, 2)) / np.maximum(weight, 1e-6)
    distance = rng.uniform(*style.contrast, len(behind))
    if style.background == "scene":
        scene.light = behind < 128
    level = np.where(scene.light, behind + distance, behind - distance)
    return textures.colours(np.clip(level, 12, 243), 20.0 if style.marks else 60.0, rng)


def _place_clutter(
    scene: _Scene, style: Style, source: Pool, side: np.ndarray, allowed: np.ndarray, rng: np.random.Generator
) -> None:
    """Draw halves and quarters of other digits wherever the target is not."""
    count, size = len(scene.labels), scene.size
    wanted = rng.integers(style.clutter[0], style.clutter[1] + 1, count)
    for turn in range(style.clutter[1]):
        centre = rng.uniform(0, size, (count, 2))
        low = rng.choice([0.0, 0.5], (count, 2))
        window = np.concatenate([low, low + np.where(rng.random((count, 2)) < 0.3, 1.0, 0.5)], axis=1)
        level = np.where(scene.light, rng.uniform(150, 230, count), rng.uniform(25, 105, count))
        ink = textures.colours(level, 60.0, rng)
        angle = rng.uniform(-np.pi, np.pi, count)
        _draw_other(scene, source, centre, side, angle, ink, allowed & (turn < wanted)[:, None, None], window, rng)


def _draw_other(
    scene: _Scene,
    source: Pool,
    centre: np.ndarray,
    side: np.ndarray,
    angle: np.ndarray,
    ink: np.ndarray,
    allowed: np.ndarray,
    window: np.ndarray | None,
    rng: np.random.Generator,
) -> None:
    """Draw one random digit of the pool (or the windowed part of it) into each image, where allowed (N, S, S)."""
    chosen = rng.choice(source.digits, len(scene.labels))
    coverage = render(digits()[0][chosen], centre, side, angle, scene.size, window) * allowed
    _paint(scene.canvas, coverage, ink)
    for index in np.flatnonzero(coverage.any(axis=(1, 2))):
        scene.trace[index] += f"+d{chosen[index]:04d}"


def _paint(canvas: np.ndarray, coverage: np.ndarray, ink: np.ndarray) -> None:
    canvas += coverage[..., None] * (ink[:, None, None, :] - canvas)


def _mark_side(size: int) -> int:
    return max(3, round(0.2 * size))


def mark_square(mark: str, side: int) -> np.ndarray:
    """A mark's pixels, (side, side, 3). Of three bands and more the outer two are half as thick as the others, so that
    two colours by turns cover the same area; a pixel on a border has the mean of both by area.
    """
    colours, axis = mark_colours(mark)
    thick = np.ones(len(colours))
    if len(colours) > 2:
        thick[[0, -1]] = 0.5
    edges = np.concatenate([[0], thick.cumsum() / thick.sum() * side])
    pixels = np.arange(side)[:, None]
    shares = np.clip(np.minimum(pixels + 1, edges[1:]) - np.maximum(pixels, edges[:-1]), 0, None)
    line = shares @ np.array(colours, dtype=np.float64)
    square: np.ndarray = np.repeat(np.expand_dims(line, 1 - axis), side, axis=1 - axis)
    return square


def _paint_squares(canvas: np.ndarray, corners: np.ndarray, squares: np.ndarray, chosen: np.ndarray) -> None:
    """Put squares (N, side, side, 3), with upper left corners (N, 2) of rows and columns, on the `chosen` images."""
    index = np.flatnonzero(chosen)
    reach = np.arange(squares.shape[1])
    rows, columns = (corners[index, k, None].astype(np.int64) + reach for k in range(2))
    canvas[index[:, None, None], rows[:, :, None], columns[:, None, :]] = squares[index]


def _place_marks(scene: _Scene, style: Style, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the square that tells sibling classes apart, touching the digit's box; adds it to `masks`.

    Returns:
        The squares' boxes, (N, 4) float32.
    """
    count, size, side = len(scene.labels), scene.size, _mark_side(scene.size)
    x0, y0, x1, y1 = bounding_boxes(masks).astype(np.int64).T
    along = rng.random(count)
    slide_x, slide_y = x0 + np.floor(along * (x1 - x0 - side + 1)), y0 + np.floor(along * (y1 - y0 - side + 1))
    room = np.stack([x0, size - x1, y0, size - y1]) >= side  # to the left, right, top and bottom of the digit
    liking = rng.random((4, count))
    liking[first := rng.integers(4, size=count), np.arange(count)] += 1
    liking[first ^ 1, np.arange(count)] -= 1  # across the digit last: it leads to the middle of the frame
    direction = np.where(room, liking, -2).argmax(axis=0)
    left = np.choose(direction, [x0 - side, x1, slide_x, slide_x])
    top = np.choose(direction, [slide_y, slide_y, y0 - side, y1])
    parts = np.stack([left, top, left + side, top + side], axis=1).astype(np.float32)
    coverage = inside_boxes(parts, size)
    squares = np.stack([mark_square(mark, side) for mark in style.marks])
    everywhere = np.ones(count, dtype=bool)
    _paint_squares(scene.canvas, np.stack([top, left], axis=1), squares[scene.labels % len(squares)], everywhere)
    if style.decoys[1]:
        _place_decoys(scene, style, np.stack([x0, y0, x1, y1], axis=1), coverage, rng)
    masks |= coverage.astype(np.uint8)
    return parts


def _place_decoys(scene: _Scene, style: Style, digit: np.ndarray, mark: np.ndarray, rng: np.random.Generator) -> None:
    """Draw squares like the mark, of any kind, two pixels and more off the digit's box (N, 4), and off the mark."""
    count, size, side = len(scene.labels), scene.size, _mark_side(scene.size)
    taken = inside_boxes(digit.astype(np.float32), size, margin=2) | mark
    wanted = rng.integers(style.decoys[0], style.decoys[1] + 1, count)
    squares = np.stack([mark_square(mark, side) for mark in style.marks])
    for _ in range(4 * style.decoys[1]):
        corner = rng.integers(0, size - side + 1, (count, 2))
        square = inside_boxes(np.concatenate([corner, corner + side], axis=1).astype(np.float32), size)
        chosen = squares[rng.integers(len(squares), size=count)]
        free = (wanted > 0) & ~(square & taken).any(axis=(1, 2))
        _paint_squares(scene.canvas, corner[:, ::-1], chosen, free)
        taken |= square & free[:, None, None]
        wanted -= free


def _finish(canvas: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Blur, noise, bytes."""
    for axis in (1, 2) if style.blur else ():
        padded = np.pad(canvas, [(1, 1) if dimension == axis else (0, 0) for dimension in range(4)], mode="edge")
        before, after = (
            padded.take(range(canvas.shape[axis]), axis),
            padded.take(range(2, canvas.shape[axis] + 2), axis),
        )
        canvas = (1 - 2 * style.blur) * canvas + style.blur * (before + after)
    if style.noise:
        canvas = canvas + rng.normal(0, style.noise, canvas.shape)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
