"""Candidates for patch boxes that maps offer, best first.

Either the region above a percentile of each of several maps (`map_candidates`, as ProtoPNet's local analysis draws
them), or fixed windows laid over one map (`window_candidates`). Under `parity` a box is what the reference draws: all
that reaches the percentile, whatever comes of it. Under `clean` it is the region of the peak alone, maps without a
region are passed over, and slivers are grown (docs/choices.md).
"""

from collections.abc import Iterable, Iterator

import numpy as np

from ltpa.core.errors import DataError
from ltpa.core.patches import CLEAN, PARITY, PatchSettings
from ltpa.data.boxes import Boxes, Flag
from ltpa.evaluation.patches import Box, Candidate, as_box, fill, overlap, stack

# Windows in fourteenths of the image's side (height, width), in groups of one scale, and how many of ten boxes each
# group gives: those of MMAL-Net for CUB, with 4 + 4 + 2 of them.
WINDOWS = (
    (4, ((4, 4), (3, 5), (5, 3))),
    (4, ((6, 6), (5, 7), (7, 5))),
    (2, ((8, 8), (6, 10), (10, 6), (7, 9), (9, 7), (7, 10), (10, 7))),
)
_CELLS = 14
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def boxes_of_maps(batches: Iterable[np.ndarray], size: int, settings: PatchSettings) -> Boxes:
    """N boxes of each image, of `size` pixels, from batches of several maps each, (B, m, h, w)."""
    return stack([fill(map_candidates(maps, size, settings), size, settings) for batch in batches for maps in batch])


def grow(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (m, h, w) brought to (m, size, size) float64 by bicubic interpolation, as OpenCV's INTER_CUBIC does."""
    import torch
    from torch.nn import functional

    batch = torch.from_numpy(np.asarray(maps, dtype=np.float64))[None]
    return functional.interpolate(batch, (size, size), mode="bicubic", align_corners=False)[0].numpy()


def map_candidates(maps: np.ndarray, size: int, settings: PatchSettings) -> Iterator[Candidate]:
    """A box from each of one image's maps (m, h, w), from the map with the greatest value on; ties in order of maps.

    Under `clean` maps without a region of their own give none.

    Raises:
        DataError: a map is not finite.
    """
    _check_finite(maps)
    scores = maps.reshape(len(maps), -1).max(axis=1)
    order = np.argsort(-scores, kind="stable")
    smooth = settings.cleaning == CLEAN and settings.smooth > 1
    for start in range(0, len(order), settings.boxes):
        block = order[start : start + settings.boxes]
        chosen = _smoothed(maps[block], settings.smooth) if smooth else maps[block]
        for number, grown in zip(block, grow(chosen, size), strict=True):
            found = box_of_map(grown, settings)
            if found is not None:
                yield Candidate(found[0], float(scores[number]), int(number), found[1])


def _smoothed(maps: np.ndarray, side: int) -> np.ndarray:
    """Mean over `side` x `side` cells; beyond an edge its own cells count on."""
    from scipy import ndimage

    return ndimage.uniform_filter(maps.astype(np.float64), size=(0, side, side), mode="nearest")


def box_of_map(grown: np.ndarray, settings: PatchSettings) -> tuple[Box, int] | None:
    """Box around what reaches the percentile in a map (H, W), and its flags.

    Under `parity`: the tight box of all of it. Under `clean`: that of the part connected (8 neighbours) to the peak,
    grown to a minimal side and aspect; None where that is the whole map, or larger than allowed.
    """
    from scipy import ndimage

    threshold = np.percentile(grown, settings.percentile)
    high = grown >= threshold
    if settings.cleaning == PARITY:
        return _tight(high), 0
    if high.all():
        return None
    parts, count = ndimage.label(high, structure=_EIGHT_NEIGHBOURS)
    box = _tight(parts == parts[np.unravel_index(grown.argmax(), grown.shape)])
    grown_box, tiny = _proportioned(box, grown.shape[0], settings)
    if _area(grown_box) > settings.max_area * grown.size:
        return None
    return grown_box, (Flag.MULTIBLOB if count > 1 else 0) | (Flag.TINY if tiny else 0)


def _tight(region: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _proportioned(box: Box, size: int, settings: PatchSettings) -> tuple[Box, bool]:
    """The box with its short sides grown, and whether one was too short (and not just too slender)."""
    height, width = box[2] - box[0], box[3] - box[1]
    tiny = min(height, width) < settings.min_side * size
    grown = max(1, round(settings.grown_side * size))
    height, width = (grown if side < settings.min_side * size else side for side in (height, width))
    shortest = -int(-max(height, width) // settings.max_aspect)
    y0, y1 = _widened(box[0], box[2], max(height, shortest), size)
    x0, x1 = _widened(box[1], box[3], max(width, shortest), size)
    return (y0, x0, y1, x1), tiny


def _widened(low: int, high: int, length: int, size: int) -> tuple[int, int]:
    """A stretch of `length` about the middle of low..high, moved into 0..size where it would reach beyond."""
    start = min(max((low + high - length) // 2, 0), size - length)
    return start, start + length


def window_candidates(each: np.ndarray, size: int, settings: PatchSettings) -> Iterator[Candidate]:
    """Windows of fixed sizes over one map (h, w), those with the greatest mean first; none for a constant map.

    Per scale the best windows are taken greedily, none overlapping a better one by more than `window_iou`.

    Raises:
        DataError: the map is not finite.
    """
    _check_finite(each[None])
    low, high = each.min(), each.max()
    if high <= low:
        return
    grown = grow(((each - low) / (high - low))[None], size)[0]
    totals = np.zeros((size + 1, size + 1))
    totals[1:, 1:] = grown.cumsum(axis=0).cumsum(axis=1)
    edges = np.round(np.arange(_CELLS + 1) * size / _CELLS).astype(np.int64)
    picked: list[Candidate] = []
    first = 0
    for share, shapes in WINDOWS:
        wanted = -(-share * settings.boxes // sum(share for share, _ in WINDOWS))
        boxes = np.concatenate([_windows(edges, *shape) for shape in shapes])
        y0, x0, y1, x1 = boxes.T
        means = (totals[y1, x1] - totals[y0, x1] - totals[y1, x0] + totals[y0, x0]) / ((y1 - y0) * (x1 - x0))
        kept = _suppressed(boxes, means, wanted, settings.window_iou)
        picked += [Candidate(as_box(boxes[i]), float(means[i]), first + i) for i in kept]
        first += len(boxes)
    yield from sorted(picked, key=lambda candidate: -candidate.score)


def _windows(edges: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every place of a window of so many cells, (n, 4), less those without area."""
    y, x = (grid.ravel() for grid in np.mgrid[: len(edges) - height, : len(edges) - width])
    boxes = np.stack([edges[y], edges[x], edges[y + height], edges[x + width]], axis=1)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def _suppressed(boxes: np.ndarray, scores: np.ndarray, wanted: int, limit: float) -> list[int]:
    """Indices of the `wanted` best boxes of which none overlaps a better one by more than `limit`."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if len(kept) == wanted:
            break
        if not kept or overlap(boxes[index], boxes[kept]).max() <= limit:
            kept.append(int(index))
    return kept


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _check_finite(maps: np.ndarray) -> None:
    if not np.isfinite(maps).all():
        bad = int((~np.isfinite(maps)).any(axis=(1, 2)).sum())
        raise DataError(f"patches: {bad} of an image's {len(maps)} maps are not finite; retrain the network")
