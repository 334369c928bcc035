"""Patch boxes: N boxes per image, best first, one way for every patch source, and the sources that look at nothing.

A source offers *candidates*, boxes best first (`ltpa.evaluation.patch_maps`, or the controls here); `fill` makes N rows
of them. Under `parity` they stay as the reference draws them; under `clean` near-copies are replaced
(docs/choices.md). Boxes are y0, x0, y1, x1 in whole pixels, last row and column exclusive.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ltpa.core.errors import ConfigError
from ltpa.core.seeds import derive
from ltpa.data.boxes import Boxes, Flag

CLEAN, PARITY = "clean", "parity"
Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class PatchSettings:
    """Settings of the extraction; lengths and areas are fractions of the image's.

    Attributes:
        boxes: boxes per image, N.
        cleaning: `clean`, or `parity` with the reference.
        percentile: a map's box holds what is at or above this percentile of its values; it alone sets the scale.
        smooth: side in cells of the mean that a map passes first under `clean`, odd; 1 for none.
        grid: maps of more cells on a side are averaged down to this many.
        level: layer whose map is read, a name among the network's local features; empty for its last.
        min_side: sides below it are grown to `grown_side`.
        grown_side: see `min_side`.
        max_aspect: the short side is grown until the long one is at most so many times as long.
        max_area: a map whose box is larger is passed over.
        max_iou: a box that overlaps a better one more than this is passed over.
        window_iou: the same among windows of one scale.
        clusters: prototypes sought by k-means (`protolite`).
        cells_per_image: cells of a training image it looks at.
        iterations: its most iterations.
        min_share: prototypes present in a smaller share of the training images are dropped.
        center_sides: sides of the smallest and the largest of the central boxes.
        random_areas: quantiles of the area of random boxes as (probability, area), between which log area is linear.
        random_aspect: 95 % of random boxes have an aspect of at most this.
        batch_size: images per forward pass.
    """

    boxes: int = 10
    cleaning: str = CLEAN
    percentile: float = 95.0
    smooth: int = 3
    grid: int = 14
    level: str = ""
    min_side: float = 32 / 448
    grown_side: float = 64 / 448
    max_aspect: float = 4.0
    max_area: float = 0.9
    max_iou: float = 0.9
    window_iou: float = 0.25
    clusters: int = 200
    cells_per_image: int = 20
    iterations: int = 50
    min_share: float = 0.01
    center_sides: Sequence[float] = (96 / 448, 320 / 448)
    random_areas: Sequence[Sequence[float]] = ((0, 0.053), (0.05, 0.0621), (0.5, 0.1031), (0.95, 0.567), (1, 1))
    random_aspect: float = 2.68
    batch_size: int = 64

    def __post_init__(self) -> None:
        for key, fits, allowed in (
            ("boxes", self.boxes >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("cleaning", self.cleaning in (CLEAN, PARITY), f"{CLEAN} or {PARITY}"),
            ("percentile", 0 < self.percentile < 100, "between 0 and 100"),
            ("smooth", self.smooth >= 1 and self.smooth % 2 == 1, "odd, 1 for none"),
            ("grid", self.grid >= 1, "at least 1"),
            ("grown_side", 0 <= self.min_side <= self.grown_side <= 1, "from min_side to 1"),
            ("max_aspect", self.max_aspect >= 1, "at least 1"),
            ("max_area", 0 < self.max_area <= 1, "above 0, at most 1"),
            ("max_iou", 0 < self.max_iou <= 1, "above 0, at most 1"),
            ("window_iou", 0 <= self.window_iou <= 1, "from 0 to 1"),
            ("clusters", min(self.clusters, self.cells_per_image, self.iterations) >= 1, "at least 1, like its kin"),
            ("min_share", 0 <= self.min_share <= 1, "from 0 to 1"),
            ("center_sides", len(self.center_sides) == 2 and min(self.center_sides) > 0, "two, above 0"),
            ("center_sides", max(self.center_sides) <= 1, "at most 1"),
            ("random_aspect", self.random_aspect >= 1, "at least 1"),
            ("random_areas", _is_quantiles(self.random_areas), "rising (probability, area) from 0 to 1"),
        ):
            if not fits:
                raise ConfigError(f"patches: {key} is {getattr(self, key)}; it must be {allowed}")


def _is_quantiles(pairs: Sequence[Sequence[float]]) -> bool:
    table = np.array(pairs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 2 or len(table) < 2:
        return False
    ends = table[0, 0] == 0 and table[-1, 0] == 1 and table[0, 1] > 0 and table[-1, 1] <= 1
    return bool(ends and (np.diff(table, axis=0) >= 0).all() and (np.diff(table[:, 0]) > 0).all())


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
    return _repeated(stack([fill(row, size, dataclasses.replace(settings, cleaning=PARITY))]), count)


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
    parity = dataclasses.replace(settings, cleaning=PARITY)
    rows = [fill([Candidate(as_box(box), 0.0, -1) for box in row], size, parity) for row in boxes]
    return stack(rows)


def as_box(corners: np.ndarray) -> Box:
    """Corners (4,) as plain numbers."""
    y0, x0, y1, x1 = corners.tolist()
    return y0, x0, y1, x1
