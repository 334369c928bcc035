"""Maps against object masks: Otsu masks and Jaccard (paper section 5.4, figure 9), pointing game and mass.

Functions take maps (N, H, W) and masks of the same shape, True on the object, unless they say otherwise.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.masks import OBJECT, VOID, Masks
from ltpa.evaluation.saliency import COMBINED, Masking, Saliency, upsample

_BLOCK_PIXELS = 2**18  # of maps upsampled at a time: arrays of this size stay in a processor's cache
_BINS = 256
PAPER = Masking("bilinear", None)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of N images.

    Attributes:
        jaccard: (N,) of the binary mask, 0-1, for `combined`, or by level where there is none or all were asked for.
        pointing: by level and for `combined`, (N,) share of the highest pixels that lie on the object: 0 or 1
            but for ties.
        mass: by level and for `combined`, (N,) share of the map's sum on the object.
        area: (N,) share of the image the object covers, which is what chance gives for `pointing` and `mass`.
            Void pixels are left out of all four, as if the image had none there.
        constant: (N,) bool, images whose last of these maps is without any contrast.
    """

    jaccard: dict[str, np.ndarray]
    pointing: dict[str, np.ndarray]
    mass: dict[str, np.ndarray]
    area: np.ndarray
    constant: np.ndarray


def min_max(maps: np.ndarray) -> np.ndarray:
    """Each map stretched to 0-1, float64; a constant map becomes 0."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return (maps - low) / np.where(span > 0, span, 1)


def otsu_thresholds(stretched: np.ndarray) -> np.ndarray:
    """Otsu's threshold of each map, (N,), from maps that `min_max` stretched; 1 for a constant map.

    The steps and the bins are those of `skimage.filters.threshold_otsu`, bit for bit: bins of 0-1 begin at multiples of
    1/256, so that a pixel's bin is its product with 256, cut off.
    """
    count = len(stretched)
    bins = np.minimum((stretched.reshape(count, -1) * _BINS).astype(np.int64), _BINS - 1)
    bins += np.arange(count)[:, None] * _BINS
    counts = np.bincount(bins.ravel(), minlength=count * _BINS).reshape(count, _BINS)
    centres = (np.arange(_BINS) + 0.5) / _BINS
    below, above = counts.cumsum(axis=1), counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    moments = counts * centres
    with np.errstate(invalid="ignore"):
        mean_below = moments.cumsum(axis=1) / below
        mean_above = (moments[:, ::-1].cumsum(axis=1) / above[:, ::-1])[:, ::-1]
    between = below[:, :-1] * above[:, 1:] * (mean_below[:, :-1] - mean_above[:, 1:]) ** 2
    constant = below[:, 0] == below[:, -1]
    return np.where(constant, 1.0, centres[np.where(constant, 0, between.argmax(axis=1))])


def otsu_masks(maps: np.ndarray) -> np.ndarray:
    """Pixels above each map's Otsu threshold after min-max stretching, bool. A constant map marks nothing."""
    stretched = min_max(maps)
    return stretched > otsu_thresholds(stretched)[:, None, None]


def binary_masks(maps: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Pixels above a `threshold` of the stretched maps (N, H, W), bool; None for Otsu's. Constant maps mark nothing."""
    return otsu_masks(maps) if threshold is None else min_max(maps) > threshold


def jaccard(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair of bool masks, (N,) 0-1; two empty masks agree fully (1)."""
    union, both = _count(predicted | truth), _count(predicted & truth)
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def pointing_hits(maps: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """Share of each map's highest pixels that lie on the object, (N,), among those that are not void.

    For a single peak this is the pointing game's hit or miss; ties count in proportion, so that a map without contrast
    scores what chance does.
    """
    seen = maps if void is None or not void.any() else np.where(void, -np.inf, maps)
    peaks = seen == seen.max(axis=(1, 2), keepdims=True)
    return _count(peaks & truth) / _count(peaks)


def mass_inside(maps: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """Share of each map's sum outside void pixels that lies on the object, (N,).

    Maps with negative values are lifted to a minimum of 0. A map that is zero everywhere counts as uniform.
    """
    low = maps.min(axis=(1, 2), keepdims=True)
    lifted = maps - np.minimum(low, 0) if (low < 0).any() else maps
    if void is not None and void.any():
        lifted = np.where(void, 0, lifted)
    total = lifted.sum(axis=(1, 2))
    inside = (lifted * truth).sum(axis=(1, 2))
    return np.where(total > 0, inside / np.where(total > 0, total, 1), _area(truth, void))


def _area(truth: np.ndarray, void: np.ndarray | None) -> np.ndarray:
    """Share of the pixels that are not void which the object covers, (N,); 0 where all are void."""
    if void is None or not void.any():
        return truth.mean(axis=(1, 2))
    return truth.sum(axis=(1, 2)) / np.maximum(np.count_nonzero(~void, axis=(1, 2)), 1)


def _count(masks: np.ndarray) -> np.ndarray:
    return np.count_nonzero(masks.reshape(len(masks), -1), axis=1)


def box_masks(boxes: np.ndarray, size: int) -> np.ndarray:
    """Masks (N, size, size) uint8 of boxes (N, 4), x0, y0, x1, y1 in pixels: pixels whose centre lies in the box.

    Raises:
        DataError: a box is not finite.
    """
    if not np.isfinite(boxes).all():
        bad = int((~np.isfinite(boxes)).any(axis=1).sum())
        raise DataError(f"boxes of {bad} of {len(boxes)} images are not finite; prepare the dataset again")
    centres = np.arange(size) + 0.5
    x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).T[:, :, None]
    columns = (x0 <= centres) & (centres < x1)
    rows = (y0 <= centres) & (centres < y1)
    return (rows[:, :, None] & columns[:, None, :]).astype(np.uint8)


def score_maps(
    levels: dict[str, np.ndarray],
    masks: Masks | Sequence[np.ndarray],
    saliency: Saliency | None,
    each: bool = False,
    masking: Masking = PAPER,
) -> Scores:
    """Score a network's maps (N, h, w), by level in the order of depth, against N masks, each of any height and width.

    Masks hold `OBJECT`, `VOID` and 0 (`ltpa.data.masks`). Maps are upsampled to the size of each mask; every level is
    scored. With a `saliency` the levels are what its `maps` gave, and `combined` is scored as well; without one they
    are plain maps. Binary masks are made as `masking` says, of `combined` alone where there is one, unless `each` asks
    for those of all maps.

    Raises:
        DataError: no maps or masks, their numbers differ, or a map is not finite.
        ModelError: the saliency needs a level that is not there.
    """
    counts = {len(maps) for maps in levels.values()}
    if counts != {len(masks)} or len(masks) == 0:
        raise DataError(f"maps of {sorted(counts)} images for {len(masks)} masks; both must be of the same images")
    blocks = [
        _score_block({name: maps[rows] for name, maps in levels.items()}, truth, saliency, each, masking)
        for rows, truth in same_size(masks)
    ]
    names = blocks[0].pointing
    return Scores(
        {name: np.concatenate([block.jaccard[name] for block in blocks]) for name in blocks[0].jaccard},
        {name: np.concatenate([block.pointing[name] for block in blocks]) for name in names},
        {name: np.concatenate([block.mass[name] for block in blocks]) for name in names},
        np.concatenate([block.area for block in blocks]),
        np.concatenate([block.constant for block in blocks]),
    )


def same_size(masks: Masks | Sequence[np.ndarray]) -> Iterator[tuple[slice, np.ndarray]]:
    """Runs of neighbours of one size, of up to `_BLOCK_PIXELS`: which they are, and the masks as one array."""
    start, run = 0, [masks[0]]
    for row in range(1, len(masks)):
        mask = masks[row]
        if (len(run) + 1) * mask.size > _BLOCK_PIXELS or mask.shape != run[0].shape:
            yield slice(start, row), np.stack(run)
            start, run = row, []
        run.append(mask)
    yield slice(start, len(masks)), np.stack(run)


def _score_block(
    levels: dict[str, np.ndarray], masks: np.ndarray, saliency: Saliency | None, each: bool, masking: Masking
) -> Scores:
    height, width = masks.shape[1:]
    truth, void = masks == OBJECT, masks == VOID
    if saliency is None:
        scored = {name: upsample(maps, (height, width), masking.upsampling) for name, maps in levels.items()}
    else:
        scored = saliency.at(levels, (height, width), masking.upsampling)
    binary = scored if each or saliency is None else (COMBINED,)
    return Scores(
        {
            name: jaccard(binary_masks(maps, masking.threshold) & ~void, truth)
            for name, maps in scored.items()
            if name in binary
        },
        {name: pointing_hits(maps, truth, void) for name, maps in scored.items()},
        {name: mass_inside(maps, truth, void) for name, maps in scored.items()},
        _area(truth, void),
        np.ptp(list(scored.values())[-1], axis=(1, 2)) == 0,
    )
