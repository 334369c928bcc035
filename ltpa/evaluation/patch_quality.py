"""What patch boxes are like, and how well they hit, by the statistics that the released boxes are known by.

Boxes are y0, x0, y1, x1 (N, n, 4); objects and parts x0, y0, x1, y1 (N, 4) as prepared datasets store them. Names of
statistics are those of `reference` in `config/patches.yaml`.
"""

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.arrays import Split
from ltpa.data.boxes import Boxes, Flag
from ltpa.data.masks import squashed
from ltpa.evaluation.patches import overlap

_NEAR = 0.9  # overlap from which two boxes count as the same


def statistics(found: Boxes, split: Split) -> dict[str, float]:
    """All that can be said of the boxes of one split, by name; what needs objects or parts only where they are known.

    Images whose part is hidden do not count for parts. A box contains a part if it covers half of it.

    Raises:
        DataError: an object or part box has no area.
    """
    size = split.images.shape[1]
    values = shape_statistics(found.boxes, size)
    values["fallback_rate"] = float((found.flags & Flag.FALLBACK != 0).mean())
    values["repeat_rate"] = float((found.flags & Flag.REPEAT != 0).mean())
    if split.masks is not None:
        values |= _inside_statistics(inside_masks(found.boxes, squashed(split.masks, size)))
    elif split.boxes is not None:
        values |= _inside_statistics(inside_boxes(found.boxes, split.boxes))
    if split.boxes is not None:
        values["centre_in_object"] = float(_within(_centres(found.boxes), split.boxes[:, None]).mean())
    if split.parts is not None and (shown := np.isfinite(split.parts).all(axis=1)).any():
        boxes, parts = found.boxes[shown], split.parts[shown]
        covered = part_coverage(boxes, parts)
        held = part_coverage(boxes.reshape(-1, 1, 4), np.repeat(parts, boxes.shape[1], axis=0))
        per_box = held.reshape(len(covered), -1)
        values |= {
            "overlaps_part": float((per_box > 0).mean()),
            "part_coverage_union": float(covered.mean()),
            "part_coverage_rank1": float(per_box[:, 0].mean()),
            "part_coverage_box": float(per_box.mean()),
            "contains_part": float((per_box >= 0.5).mean()),
            "rank1_contains_part": float((per_box[:, 0] >= 0.5).mean()),
            "any_contains_part": float((per_box >= 0.5).any(axis=1).mean()),
        }
    return values


def _inside_statistics(inside: np.ndarray) -> dict[str, float]:
    return {"inside_object": float(inside.mean()), "misses_object_rate": float((inside == 0).mean())}


def shape_statistics(boxes: np.ndarray, size: int) -> dict[str, float]:
    """What boxes (N, n, 4) in images of `size` pixels are like, each by itself and among those of their image."""
    height, width = np.moveaxis(boxes[..., 2:] - boxes[..., :2], -1, 0)
    area = height * width / size**2
    aspect = np.maximum(height / width, width / height)
    at_edge = (boxes[..., :2] == 0).any(axis=-1) | (boxes[..., 2:] == size).any(axis=-1)
    pairs = pair_overlaps(boxes)
    return {
        "area_frac_p5": float(np.percentile(area, 5)),
        "area_frac_p50": float(np.percentile(area, 50)),
        "area_frac_p95": float(np.percentile(area, 95)),
        "mean_area_rank1": float(area[:, 0].mean()),
        "mean_area_last_rank": float(area[:, -1].mean()),
        "min_side": float(min(height.min(), width.min()) / size),
        "aspect_p95": float(np.percentile(aspect, 95)),
        "aspect_max": float(aspect.max()),
        "full_image_rate": float((area == 1).mean()),
        "touches_border_rate": float(at_edge.mean()),
        "exact_unique_per_image": float(np.mean([len(np.unique(each, axis=0)) for each in boxes])),
        "pair_iou_mean": float(pairs.mean()) if pairs.size else 0.0,
        "pair_iou_gt_0.9_rate": float((pairs > _NEAR).mean()) if pairs.size else 0.0,
        "union_area": float(np.mean([_union_share(each, np.array([0, 0, size, size])) for each in boxes])),
    }


def pair_overlaps(boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of every two boxes of an image, (N, n (n - 1) / 2)."""
    first, second = np.triu_indices(boxes.shape[1], k=1)
    return overlap(boxes[:, first], boxes[:, second])


def inside_masks(boxes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each box's area on its image's mask (N, H, W), which is as large as the image, (N, n) 0-1."""
    totals = np.zeros((len(masks), masks.shape[1] + 1, masks.shape[2] + 1), dtype=np.int64)
    totals[:, 1:, 1:] = (masks > 0).cumsum(axis=1).cumsum(axis=2)
    rows = np.arange(len(masks))[:, None]
    y0, x0, y1, x1 = np.moveaxis(boxes, -1, 0)
    covered = totals[rows, y1, x1] - totals[rows, y0, x1] - totals[rows, y1, x0] + totals[rows, y0, x0]
    found: np.ndarray = covered / ((y1 - y0) * (x1 - x0))
    return found


def inside_boxes(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Share of each box's area inside its image's object box, (N, n) 0-1."""
    around = _rows_first(objects)[:, None]
    low, high = np.maximum(boxes[..., :2], around[..., :2]), np.minimum(boxes[..., 2:], around[..., 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    found: np.ndarray = common / (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
    return found


def part_coverage(boxes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Share of each image's part box that its boxes cover together, (N,) 0-1.

    Raises:
        DataError: a part box has no area.
    """
    if ((parts[:, 2:] - parts[:, :2]) <= 0).any():
        raise DataError("a part box has no area; prepare the dataset again")
    pairs = zip(boxes, _rows_first(parts), strict=True)
    return np.array([_union_share(each, part) for each, part in pairs])


def _rows_first(corners: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 as y0, x0, y1, x1, float64."""
    return corners[..., [1, 0, 3, 2]].astype(np.float64)


def _centres(boxes: np.ndarray) -> np.ndarray:
    """Middles (N, n, 2) as x, y."""
    found: np.ndarray = (boxes[..., :2] + boxes[..., 2:])[..., ::-1] / 2
    return found


def _within(points: np.ndarray, objects: np.ndarray) -> np.ndarray:
    inside = (points >= objects[..., :2]) & (points < objects[..., 2:])
    return inside[..., 0] & inside[..., 1]


def _union_share(boxes: np.ndarray, part: np.ndarray) -> float:
    """Covered share of one box, exactly: the edges of all boxes cut it into tiles, each covered or not."""
    ys = np.unique(np.clip(np.append(boxes[:, [0, 2]], part[[0, 2]]), part[0], part[2]))
    xs = np.unique(np.clip(np.append(boxes[:, [1, 3]], part[[1, 3]]), part[1], part[3]))
    middle_y, middle_x = (ys[1:] + ys[:-1]) / 2, (xs[1:] + xs[:-1]) / 2
    inside_y = (boxes[:, [0]] <= middle_y) & (middle_y < boxes[:, [2]])
    inside_x = (boxes[:, [1]] <= middle_x) & (middle_x < boxes[:, [3]])
    covered = (inside_y[:, :, None] & inside_x[:, None, :]).any(axis=0)
    return float((covered * np.diff(ys)[:, None] * np.diff(xs)).sum() / (part[2:] - part[:2]).prod())
