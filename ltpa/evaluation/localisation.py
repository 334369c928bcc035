"""How well maps find objects at thresholds that are not chosen on the images scored, and over all thresholds.

A threshold is chosen on a fifth of the images, the same fifth for every network and map, and applied to the others
(Choe et al., CVPR 2020). What the best threshold on the scored images themselves would give is kept beside it: the
difference is what choosing on test images is worth.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from ltpa.core.errors import DataError
from ltpa.core.records import Metric
from ltpa.data.masks import OBJECT, VOID, Masks
from ltpa.evaluation.saliency import COMBINED, Masking, Saliency, upsample
from ltpa.evaluation.segmentation import jaccard, min_max, pointing_hits, same_size
from ltpa.evaluation.subsets import fixed_subset

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))  # of stretched maps; a pixel above one is marked
OVERLAPS = (0.3, 0.5, 0.7)  # intersection over union from which a box counts as found
TOLERANCE = 0.067  # of the side: how far from the object a peak may lie in the tolerant game (Zhang et al., 2018)
LEAST_IMAGES = 5  # of which one is held out
_STEPS = 4096  # of a stretched map, over which average precision is computed
_TOUCHING = np.zeros((3, 3, 3), dtype=bool)
_TOUCHING[1] = True  # 8 neighbours within an image, none between images


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What one kind of map finds in N images with an object.

    Attributes:
        tolerant: (N,) share of the highest pixels that lie on the object or near it.
        overlaps: (N, thresholds) intersection over union of the largest component's box with the object's.
        jaccard: (N, thresholds) of the binary mask with the object.
        counts: (2, steps) pixels beside and on objects by the stretched map's value.
    """

    tolerant: np.ndarray
    overlaps: np.ndarray
    jaccard: np.ndarray
    counts: np.ndarray


def find_objects(
    levels: Mapping[str, np.ndarray],
    masks: "Masks | Sequence[np.ndarray]",
    saliency: Saliency | None,
    masking: Masking,
) -> dict[str, Found]:
    """By kind, what maps (N, h, w) find; with a `saliency` they are what its `maps` gave, and `combined` is scored.

    Every image must have an object; void pixels count neither way.
    """
    parts: dict[str, list[Found]] = {}
    for rows, block in same_size(masks):
        size = block.shape[1:]
        chosen = {kind: maps[rows] for kind, maps in levels.items()}
        if saliency is None:
            scored = {kind: upsample(maps, size, masking.upsampling) for kind, maps in chosen.items()}
        else:
            scored = {COMBINED: saliency.at(chosen, size, masking.upsampling)[COMBINED]}
        truth, void = block == OBJECT, block == VOID
        for kind, maps in scored.items():
            parts.setdefault(kind, []).append(_find(maps, truth, void))
    return {
        kind: Found(
            np.concatenate([part.tolerant for part in some]),
            np.concatenate([part.overlaps for part in some]),
            np.concatenate([part.jaccard for part in some]),
            np.sum([part.counts for part in some], axis=0),
        )
        for kind, some in parts.items()
    }


def _find(maps: np.ndarray, truth: np.ndarray, void: np.ndarray) -> Found:
    stretched = min_max(maps)
    near = ndimage.distance_transform_edt(~truth, sampling=(1e9, 1, 1)) <= TOLERANCE * max(truth.shape[1:])
    boxes = enclosing_boxes(truth)
    overlaps, agreement = [], []
    for threshold in THRESHOLDS:
        marked = stretched > threshold
        overlaps.append(box_overlap(enclosing_boxes(largest_component(marked)), boxes))
        agreement.append(jaccard(marked & ~void, truth))
    bins = np.minimum((stretched * _STEPS).astype(np.int64), _STEPS - 1)
    counts = [np.bincount(bins[where], minlength=_STEPS) for where in (~truth & ~void, truth)]
    tolerant = pointing_hits(maps, near, void & ~near)
    return Found(tolerant, np.stack(overlaps, axis=1), np.stack(agreement, axis=1), np.stack(counts))


def largest_component(marked: np.ndarray) -> np.ndarray:
    """The largest component (8 neighbours) of each of (N, H, W) bool, the first of equals."""
    regions, count = ndimage.label(marked, structure=_TOUCHING)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    area = sizes[regions].reshape(len(marked), -1)
    largest = np.take_along_axis(regions.reshape(len(marked), -1), area.argmax(axis=1)[:, None], axis=1)
    found: np.ndarray = (regions == largest[:, :, None]) & marked
    return found


def enclosing_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) int64, x0, y0, x1, y1 with last edges exclusive, around (N, H, W) bool; all zero of an empty one."""
    edges = []
    for axis in (1, 2):  # columns, then rows
        used = np.asarray(masks.any(axis=axis))
        first, last = used.argmax(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1)
        edges += [first, np.where(used.any(axis=1), last, 0)]
    x0, x1, y0, y1 = edges
    return np.stack([x0, y0, x1, y1], axis=1)


def box_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union (N,) of boxes (N, 4)."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    both = np.maximum(high - low, 0).prod(axis=1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (first, second)]
    union = areas[0] + areas[1] - both
    return both / np.maximum(union, 1)


def average_precision(counts: np.ndarray) -> float:
    """Mean precision over recall (0-1) of pixels counted by value, (2, steps): beside and on objects (PxAP)."""
    beside, inside = (each[::-1].cumsum() for each in counts)
    precision = inside / np.maximum(beside + inside, 1)
    return float((np.diff(inside, prepend=0) * precision).sum() / inside[-1])


def localisation_metrics(found: Mapping[str, Found], dataset: str) -> list[Metric]:
    """Metrics of each kind of map.

    `pxap_pct` and `pointing_tolerant_pct` are over all images. `held_out_threshold_pct` (Jaccard) and
    `held_out_boxes_pct` (the mean over `OVERLAPS` of the share of boxes found, MaxBoxAccV2) are over four fifths, at
    thresholds chosen on the other fifth; where fewer than `LEAST_IMAGES` images have an object they are left out.
    `best_threshold_pct` and `best_boxes_pct` are at the best thresholds for the scored images.

    Raises:
        DataError: no image has an object.
    """
    metrics = []
    for kind, each in found.items():
        count = len(each.tolerant)
        if count == 0:
            raise DataError(f"dataset {dataset}: no mask holds an object; prepare the dataset again")
        metrics += [
            Metric("pxap_pct", 100 * average_precision(each.counts), count, dataset, kind),
            Metric("pointing_tolerant_pct", 100 * float(each.tolerant.mean()), count, dataset, kind),
        ]
        if count < LEAST_IMAGES:
            continue
        held_out = np.zeros(count, bool)
        held_out[fixed_subset(count, count // 5, dataset)] = True
        scores = {
            "threshold_pct": [each.jaccard],
            "boxes_pct": [(each.overlaps >= overlap).astype(float) for overlap in OVERLAPS],
        }
        for name, some in scores.items():
            chosen = np.mean([values[~held_out][:, values[held_out].mean(axis=0).argmax()].mean() for values in some])
            best = np.mean([values[~held_out].mean(axis=0).max() for values in some])
            scored = count - int(held_out.sum())
            metrics += [
                Metric(f"held_out_{name}", 100 * float(chosen), scored, dataset, kind),
                Metric(f"best_{name}", 100 * float(best), scored, dataset, kind),
            ]
    return metrics
