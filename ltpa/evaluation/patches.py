"""Patch boxes from saliency maps, and how well they hit (the parts a fine-grained network would look at).

A box is x0, y0, x1, y1 in whole pixels, right and lower edge exclusive. All boxes of a run have the same size, so the
controls (`center`, `random`) differ from attention in position alone.
"""

import dataclasses

import numpy as np

from ltpa.core.errors import ConfigError, DataError
from ltpa.core.seeds import derive

ATTENTION, CENTER, RANDOM = "attention", "center", "random"
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclasses.dataclass(frozen=True)
class PatchSettings:
    """Settings of the extraction.

    Attributes:
        boxes: boxes per image.
        box_fraction: side of a box as a fraction of the image's, 0 to 1.
        percentile: a map's cells at or above this percentile of what is left of it are its peak regions, 0 to 100.
        seed: of the random boxes.
        batch_size: images per forward pass.
    """

    boxes: int = 3
    box_fraction: float = 0.4
    percentile: float = 90.0
    seed: int = 0
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.boxes < 1 or self.batch_size < 1:
            raise ConfigError("patches: needs boxes >= 1 and batch_size >= 1")
        if not 0 < self.box_fraction <= 1 or not 0 < self.percentile < 100:
            raise ConfigError("patches: needs 0 < box_fraction <= 1 and 0 < percentile < 100")

    def box_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a box in an image of height and width `size`, at least one pixel each."""
        height, width = (max(1, round(self.box_fraction * side)) for side in size)
        return height, width


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of N images.

    Attributes:
        boxes: (N, n, 4) int64, best first.
        scores: (N, n) float64, the map's value at the peak each box was drawn around.
        repeated: (N, n) bool, boxes taken again because the map had no further peak.
    """

    boxes: np.ndarray
    scores: np.ndarray
    repeated: np.ndarray


def attention_boxes(maps: np.ndarray, settings: PatchSettings) -> Boxes:
    """Boxes around the peaks of maps (N, H, W), each the size of its image; always `settings.boxes` rows an image.

    Peak by peak: of the cells at or above the percentile, those connected (8 neighbours) to the highest form a region;
    the box is centred on it, or kept inside it around the peak where the region is larger; then the box's cells are
    suppressed. Equal values go in reading order. Where no cell above the map's minimum is left, the boxes found are
    taken again in turn; a constant map gives the central box.

    Raises:
        DataError: a map is not finite.
    """
    if not np.isfinite(maps).all():
        raise DataError("saliency maps are not finite; retrain the network")
    found = [_boxes_of_map(each.astype(np.float64), settings) for each in maps]
    return Boxes(*(np.array(column) for column in zip(*found, strict=True)))


def _boxes_of_map(each: np.ndarray, settings: PatchSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = settings.box_size(each.shape)
    floor = each.min()
    free = np.ones(each.shape, dtype=bool)
    rows: list[tuple[int, int, int, int]] = []
    scores: list[float] = []
    while len(rows) < settings.boxes and (each[free] > floor).any():
        peak = np.unravel_index(np.where(free, each, -np.inf).argmax(), each.shape)
        region = _peak_region(each, free, (int(peak[0]), int(peak[1])), floor, settings.percentile)
        y0 = _window(np.flatnonzero(region.any(axis=1)), int(peak[0]), height, each.shape[0])
        x0 = _window(np.flatnonzero(region.any(axis=0)), int(peak[1]), width, each.shape[1])
        rows.append((x0, y0, x0 + width, y0 + height))
        scores.append(float(each[peak]))
        free[y0 : y0 + height, x0 : x0 + width] = False
    if not rows:
        y0, x0 = (each.shape[0] - height) // 2, (each.shape[1] - width) // 2
        rows, scores = [(x0, y0, x0 + width, y0 + height)], [float(floor)]
    order = np.arange(settings.boxes)
    cycle = order % len(rows)
    return np.array(rows, dtype=np.int64)[cycle], np.array(scores)[cycle], order >= len(rows)


def _peak_region(
    each: np.ndarray, free: np.ndarray, peak: tuple[int, int], floor: float, percentile: float
) -> np.ndarray:
    """Free cells that reach the percentile, exceed the minimum and are connected to the peak, bool (H, W)."""
    from scipy import ndimage

    threshold = np.percentile(each[free], percentile)
    high = free & (each >= threshold) & (each > floor)
    parts, _ = ndimage.label(high, structure=_EIGHT_NEIGHBOURS)
    return parts == parts[peak]


def _window(occupied: np.ndarray, peak: int, length: int, limit: int) -> int:
    """Start of a window of `length` within 0..limit: centred on the occupied stretch, or around the peak inside it."""
    low, high = int(occupied[0]), int(occupied[-1]) + 1
    around_peak = min(max(peak - length // 2, low), high - length)
    start = (low + high - length) // 2 if high - low <= length else around_peak
    return min(max(start, 0), limit - length)


def center_boxes(count: int, size: tuple[int, int], settings: PatchSettings) -> np.ndarray:
    """The central box of images of height and width `size`, `settings.boxes` times for each: (count, n, 4) int64."""
    height, width = settings.box_size(size)
    y0, x0 = (size[0] - height) // 2, (size[1] - width) // 2
    return np.tile(np.array([x0, y0, x0 + width, y0 + height]), (count, settings.boxes, 1))


def random_boxes(count: int, size: tuple[int, int], settings: PatchSettings, purpose: str) -> np.ndarray:
    """Boxes at uniformly random places, (count, n, 4) int64; the stream depends on the seed and `purpose` alone."""
    height, width = settings.box_size(size)
    generator = np.random.default_rng(derive(settings.seed, "patches", purpose))
    x0 = generator.integers(0, size[1] - width + 1, (count, settings.boxes))
    y0 = generator.integers(0, size[0] - height + 1, (count, settings.boxes))
    return np.stack([x0, y0, x0 + width, y0 + height], axis=-1)


def inside_masks(boxes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each box's area on its image's mask (N, H, W), (N, n) 0-1."""
    totals = np.zeros((len(masks), masks.shape[1] + 1, masks.shape[2] + 1), dtype=np.int64)
    totals[:, 1:, 1:] = (masks > 0).cumsum(axis=1).cumsum(axis=2)
    rows = np.arange(len(masks))[:, None]
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    covered = totals[rows, y1, x1] - totals[rows, y0, x1] - totals[rows, y1, x0] + totals[rows, y0, x0]
    return covered / ((x1 - x0) * (y1 - y0))


def inside_boxes(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Share of each box's area inside its image's object box (N, 4), (N, n) 0-1."""
    around = objects[:, None, :].astype(np.float64)
    low, high = np.maximum(boxes[..., :2], around[..., :2]), np.minimum(boxes[..., 2:], around[..., 2:])
    return np.clip(high - low, 0, None).prod(axis=-1) / (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def part_coverage(boxes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Share of each image's part box (N, 4) that its boxes cover together, (N,) 0-1.

    Raises:
        DataError: a part box has no area.
    """
    if ((parts[:, 2:] - parts[:, :2]) <= 0).any():
        raise DataError("a part box has no area; prepare the dataset again")
    return np.array([_union_share(each, part) for each, part in zip(boxes, parts.astype(np.float64), strict=True)])


def _union_share(boxes: np.ndarray, part: np.ndarray) -> float:
    """Covered share of one part, exactly: the edges of all boxes cut it into tiles, each covered or not."""
    xs = np.unique(np.clip(np.append(boxes[:, [0, 2]], part[[0, 2]]), part[0], part[2]))
    ys = np.unique(np.clip(np.append(boxes[:, [1, 3]], part[[1, 3]]), part[1], part[3]))
    middle_x, middle_y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    inside_x = (boxes[:, [0]] <= middle_x) & (middle_x < boxes[:, [2]])
    inside_y = (boxes[:, [1]] <= middle_y) & (middle_y < boxes[:, [3]])
    covered = (inside_y[:, :, None] & inside_x[:, None, :]).any(axis=0)
    return float((covered * np.diff(ys)[:, None] * np.diff(xs)).sum() / (part[2:] - part[:2]).prod())
