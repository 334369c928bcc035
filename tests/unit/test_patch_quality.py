"""Statistics of patch boxes: against painted pixels, and by hand."""

import dataclasses

import numpy as np
import pytest

from ltpa.core.errors import DataError
from ltpa.data.arrays import Split
from ltpa.data.boxes import Boxes
from ltpa.evaluation.patch_quality import (
    inside_boxes,
    inside_masks,
    pair_overlaps,
    part_coverage,
    shape_statistics,
    statistics,
)
from ltpa.evaluation.patches import PatchSettings, random_boxes


def drawn(count, size, ranks, seed=0):
    return random_boxes(count, size, PatchSettings(boxes=ranks), seed, "toy").boxes


def columns_first(boxes):
    return boxes[..., [1, 0, 3, 2]].astype(np.float32)


def painted(boxes, size):
    canvas = np.zeros((size, size), dtype=bool)
    for y0, x0, y1, x1 in boxes:
        canvas[y0:y1, x0:x1] = True
    return canvas


def test_share_inside_masks_equals_the_mean_over_the_cut_out():
    masks = (np.random.default_rng(0).random((20, 13, 13)) < 0.4).astype(np.uint8)
    boxes = drawn(20, 13, 5)
    expected = [[masks[i, y0:y1, x0:x1].mean() for y0, x0, y1, x1 in rows] for i, rows in enumerate(boxes)]
    np.testing.assert_allclose(inside_masks(boxes, masks), expected)


def test_share_inside_object_boxes_agrees_with_masks_and_takes_fractions():
    boxes = drawn(20, 12, 5)  # some miss it altogether
    masks = np.zeros((20, 12, 12), dtype=np.uint8)
    masks[:, 2:7, 3:11] = 1
    objects = np.tile(np.array([3, 2, 11, 7], dtype=np.float32), (20, 1))
    np.testing.assert_allclose(inside_boxes(boxes, objects), inside_masks(boxes, masks))
    half = inside_boxes(np.array([[[0, 0, 2, 2]]]), np.array([[1.0, 0.5, 5, 5]]))
    np.testing.assert_allclose(half, [[0.75 * 0.5]])


def test_part_coverage_agrees_with_painted_pixels_and_takes_fractions():
    boxes, parts = drawn(30, 15, 4), drawn(30, 15, 1, seed=1)[:, 0]
    for rows, part, share in zip(boxes, parts, part_coverage(boxes, columns_first(parts)), strict=True):
        assert share == pytest.approx(painted(rows, 15)[part[0] : part[2], part[1] : part[3]].mean())
    twice = np.array([[[0, 0, 4, 4], [2, 2, 6, 6]]])
    np.testing.assert_allclose(part_coverage(twice, np.array([[0.5, 0.5, 4.5, 1.5]])), [3.5 / 4])


def test_shapes_and_pairs_against_painted_pixels():
    size = 16
    boxes = drawn(25, size, 4)
    found = shape_statistics(boxes, size)
    assert found["union_area"] == pytest.approx(np.mean([painted(rows, size).mean() for rows in boxes]))
    pairs = [
        (painted(rows[i : i + 1], size) & painted(rows[j : j + 1], size)).sum()
        / (painted(rows[i : i + 1], size) | painted(rows[j : j + 1], size)).sum()
        for rows in boxes for i in range(4) for j in range(i + 1, 4)
    ]  # fmt: skip
    np.testing.assert_allclose(pair_overlaps(boxes).ravel(), pairs)
    assert found["pair_iou_mean"] == pytest.approx(np.mean(pairs))
    areas = [painted(rows[:1], size).mean() for rows in boxes]
    assert found["mean_area_rank1"] == pytest.approx(np.mean(areas))


def test_statistics_by_hand():
    boxes = np.array([[[0, 0, 4, 4], [4, 4, 8, 8]], [[0, 0, 8, 8], [0, 0, 8, 8]]])
    zeros = np.zeros((2, 2))
    found = Boxes(boxes, zeros, zeros.astype(int), np.array([[8, 8], [65, 97]]))
    split = Split(
        np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int64), np.array(["a", "b"]),
        boxes=np.array([[0, 0, 4, 8], [0, 0, 8, 8]], np.float32),
        parts=np.array([[0, 0, 2, 4], [6, 6, 8, 8]], np.float32),
    )  # fmt: skip
    values = statistics(found, split)
    expected = {
        "area_frac_p50": 0.625, "mean_area_rank1": 0.625, "full_image_rate": 0.5, "touches_border_rate": 1.0,
        "exact_unique_per_image": 1.5, "pair_iou_mean": 0.5, "pair_iou_gt_0.9_rate": 0.5, "union_area": 0.75,
        "min_side": 0.5, "aspect_max": 1.0, "fallback_rate": 0.5, "repeat_rate": 0.25, "inside_object": 0.75,
        "misses_object_rate": 0.25, "centre_in_object": 0.75, "part_coverage_union": 1.0, "part_coverage_rank1": 1.0,
        "part_coverage_box": 0.75, "contains_part": 0.75, "any_contains_part": 1.0, "rank1_contains_part": 1.0,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    hidden = np.array([[0, 0, 2, 4], [np.nan] * 4], np.float32)
    first = statistics(found, dataclasses.replace(split, parts=hidden))
    assert first["part_coverage_box"] == 0.5 and first["overlaps_part"] == 0.5 and first["inside_object"] == 0.75
    unknown = statistics(found, dataclasses.replace(split, parts=np.full((2, 4), np.nan, np.float32)))
    assert not {name for name in unknown if "part" in name}
    bare = statistics(found, Split(split.images, split.labels, split.ids))
    assert not {name for name in bare if "object" in name or "part" in name}


def test_a_single_box_has_no_pairs():
    found = shape_statistics(drawn(3, 9, 1), 9)
    assert found["pair_iou_mean"] == found["pair_iou_gt_0.9_rate"] == 0


def test_a_part_without_area_is_refused():
    with pytest.raises(DataError, match="no area"):
        part_coverage(np.array([[[0, 0, 2, 2]]]), np.array([[1.0, 1.0, 1.0, 2.0]]))
