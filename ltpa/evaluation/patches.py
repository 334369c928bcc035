"""Patch boxes: N boxes per image, best first, one way for every patch source, and the sources that look at nothing.

A source offers *candidates*, boxes best first (`ltpa.evaluation.patch_maps`, or the controls here); `fill` makes N rows
of them. Under `parity` they stay as the reference draws them; under `clean` near-copies are replaced
(docs/choices.md). Boxes are y0, x0, y1, x1 in whole pixels, last row and column exclusive.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ltpa.core.patches import CLEAN, PARITY, PatchSettings
from ltpa.core.seeds import derive
from ltpa.data.boxes import Boxes, Flag

Box = tuple[int, int, int, int]


class Candidate(NamedTuple):
    """A box on offer: its corners, the value it ranks by, the number of its map, and what there is to say (`Flag`)."""

    box: Box
    score: float
    map_id: int
    flags: int = 0


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,), or boxes (..., 4), with `others` (..., 4), by broadcasting; 0-1."""
    low, high = np.maximum(box[..., :2], others[..., :2]), np.minimum(box[..., 2:], others[..., 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    areas = (box[..., 2:] - box[..., :2]).prod(axis=-1) + (others[..., 2:] - others[..., :2]).prod(axis=-1)
    return common / (areas - common)


def fill(candidates: Iterable[Candidate], size: int, settings: PatchSettings) -> list[Candidate]:
    """Exactly N boxes from candidates that come best first.

    Under `clean` a box that overlaps a better one by more than `max_iou` is passed over; under `parity` it stays, and
    an exact copy is flagged. Too few are taken again in turn; the whole image stands in where there is none.
    """
    chosen: list[Candidate] = []
    for candidate in candidates:
        others = np.array([kept.box for kept in chosen]).reshape(-1, 4)
        nearest = overlap(np.array(candidate.box), others).max(initial=0.0)
        if settings.cleaning == CLEAN and nearest > settings.max_iou:
            continue
        copy = Flag.DUP if nearest == 1 else 0
        chosen.append(candidate._replace(flags=candidate.flags | _place_flags(candidate.box, size) | copy))
        if len(chosen) == settings.boxes:
            return chosen
    if not chosen:
        whole = (0, 0, size, size)
        chosen = [Candidate(whole, 0.0, -1, _place_flags(whole, size) | Flag.FALLBACK)]
    found = len(chosen)
    again = (chosen[rank % found] for rank in range(found, settings.boxes))
    return chosen + [each._replace(flags=each.flags | Flag.REPEAT) for each in again]


def _place_flags(box: Box, size: int) -> int:
    border = min(box[:2]) == 0 or max(box[2:]) == size
    return (Flag.FULL if box == (0, 0, size, size) else 0) | (Flag.BORDER if border else 0)


def stack(rows: Sequence[Sequence[Candidate]]) -> Boxes:
    """N candidates of each image, as `fill` gives them, in arrays."""
    return Boxes(
        np.array([[each.box for each in row] for row in rows], dtype=np.int64),
        np.array([[each.score for each in row] for row in rows], dtype=np.float32),
        np.array([[each.map_id for each in row] for row in rows], dtype=np.int32),
        np.array([[each.flags for each in row] for row in rows], dtype=np.int16),
    )


def center_boxes(count: int, size: int, settings: PatchSettings) -> Boxes:
    """Central squares of N sizes, evenly spaced, for each of `count` images; first the one nearest a tenth in area."""
    sides = np.linspace(settings.center_sides[0], settings.center_sides[1], settings.boxes)
    ordered = sides[np.argsort(np.abs(sides**2 - 0.1), kind="stable")]
    row = []
    for length in np.maximum(1, np.round(ordered * size).astype(np.int64)).tolist():
        start = (size - length) // 2
        row.append(Candidate((start, start, start + length, start + length), 0.0, -1))
    return _repeated(stack([fill(row, size, settings.model_copy(update={"cleaning": PARITY}))]), count)


def full_boxes(count: int, size: int, settings: PatchSettings) -> Boxes:
    """The whole image, N times for each of `count` images."""
    return _repeated(stack([fill([Candidate((0, 0, size, size), 0.0, -1)], size, settings)]), count)


def _repeated(one: Boxes, count: int) -> Boxes:
    return Boxes(*(np.repeat(getattr(one, field.name), count, axis=0) for field in dataclasses.fields(one)))


def random_boxes(count: int, size: int, settings: PatchSettings, seed: int, purpose: str) -> Boxes:
    """Boxes of random size, shape and place for each of `count` images; the stream hangs on seed and `purpose` alone.

    Log area is uniform between the quantiles of `random_areas`, log aspect normal, the place uniform.
    """
    generator = np.random.default_rng(derive(seed, "patches", purpose))
    shape = (count, settings.boxes)
    table = np.array(settings.random_areas, dtype=np.float64)
    area = np.exp(np.interp(generator.random(shape), table[:, 0], np.log(table[:, 1])))
    log_aspect = generator.normal(0.0, np.log(settings.random_aspect) / 1.96, shape)
    limit = -np.log(area)  # neither side may exceed the image's
    aspect = np.exp(np.clip(log_aspect, -limit, limit))
    sides = np.sqrt(area)[..., None] * np.stack([aspect, 1 / aspect], axis=-1) ** 0.5
    lengths = np.clip(np.round(sides * size), 1, size).astype(np.int64)
    low = np.floor(generator.random((*shape, 2)) * (size - lengths + 1)).astype(np.int64)
    boxes = np.concatenate([low, low + lengths], axis=-1)
    parity = settings.model_copy(update={"cleaning": PARITY})
    rows = [fill([Candidate(as_box(box), 0.0, -1) for box in row], size, parity) for row in boxes]
    return stack(rows)


def as_box(corners: np.ndarray) -> Box:
    """Corners (4,) as plain numbers."""
    y0, x0, y1, x1 = corners.tolist()
    return y0, x0, y1, x1
