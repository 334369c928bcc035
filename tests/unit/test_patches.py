"""Patch boxes: properties on any map, known maps by hand, and the measures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ltpa.core.errors import ConfigError, DataError
from ltpa.evaluation.patches import (
    PatchSettings,
    attention_boxes,
    center_boxes,
    inside_boxes,
    inside_masks,
    part_coverage,
    random_boxes,
)

any_map = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-3, 6).map(float))
)
any_settings = st.builds(
    PatchSettings, boxes=st.integers(1, 8), box_fraction=st.floats(0.01, 1), percentile=st.floats(1, 99)
)


@settings(max_examples=150, deadline=None)
@given(any_map, any_settings)
def test_always_n_boxes_of_one_size_inside_the_image(each, chosen):
    found = attention_boxes(each[None], chosen)
    height, width = chosen.box_size(each.shape)
    assert found.boxes.shape == (1, chosen.boxes, 4) and found.boxes.dtype == np.int64
    assert found.scores.shape == found.repeated.shape == (1, chosen.boxes)
    x0, y0, x1, y1 = found.boxes[0].T
    assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= each.shape[1]).all() and (y1 <= each.shape[0]).all()
    assert (x1 - x0 == width).all() and (y1 - y0 == height).all() and height > 0 and width > 0


@settings(max_examples=100, deadline=None)
@given(any_map, any_settings)
def test_boxes_hold_their_peaks_in_falling_order_and_repeat_only_at_the_end(each, chosen):
    found = attention_boxes(each[None], chosen)
    fresh = ~found.repeated[0]
    assert fresh[0] and (np.diff(fresh.astype(int)) <= 0).all()
    assert (np.diff(found.scores[0][fresh]) <= 0).all()
    for (x0, y0, x1, y1), score in zip(found.boxes[0], found.scores[0], strict=True):
        assert (each[y0:y1, x0:x1] == score).any()
    assert found.scores[0, 0] == each.max()
    assert len(np.unique(found.boxes[0][fresh], axis=0)) == fresh.sum()


@settings(max_examples=50, deadline=None)
@given(any_map, any_settings, st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**30]))
def test_boxes_do_not_depend_on_the_scale_of_the_map(each, chosen, scale):
    np.testing.assert_array_equal(
        attention_boxes(each[None], chosen).boxes, attention_boxes(scale * each[None], chosen).boxes
    )


def test_one_cell_is_centred():
    each = np.zeros((11, 11))
    each[4, 7] = 1
    found = attention_boxes(each[None], PatchSettings(boxes=3, box_fraction=3 / 11))
    assert found.boxes[0].tolist() == [[6, 3, 9, 6]] * 3
    assert found.repeated[0].tolist() == [False, True, True]


def test_two_peaks_give_two_boxes_best_first():
    each = np.zeros((20, 20))
    each[3:5, 3:5] = 1
    each[14:16, 15:17] = 2
    found = attention_boxes(each[None], PatchSettings(boxes=3, box_fraction=0.2, percentile=95))
    assert found.boxes[0].tolist() == [[14, 13, 18, 17], [2, 2, 6, 6], [14, 13, 18, 17]]
    assert found.scores[0].tolist() == [2, 1, 2]
    assert found.repeated[0].tolist() == [False, False, True]


def test_cells_that_touch_at_a_corner_are_one_region():
    each = np.zeros((10, 10))
    each[3, 3], each[4, 4] = 2, 1
    assert attention_boxes(each[None], PatchSettings(boxes=1)).boxes[0].tolist() == [[2, 2, 6, 6]]


def test_a_region_larger_than_the_box_is_cut_around_the_peak():
    each = np.zeros((10, 10))
    each[5, 1:9] = 1
    each[5, 8] = 2
    found = attention_boxes(each[None], PatchSettings(boxes=1, box_fraction=0.3, percentile=90))
    assert found.boxes[0].tolist() == [[6, 4, 9, 7]]


def test_a_peak_in_the_corner_keeps_the_box_inside():
    each = np.zeros((10, 10))
    each[0, 9] = 1
    assert attention_boxes(each[None], PatchSettings(boxes=1)).boxes[0].tolist() == [[6, 0, 10, 4]]


def test_ties_go_in_reading_order():
    each = np.zeros((9, 9))
    for row, column in ((7, 1), (1, 7), (1, 1)):
        each[row, column] = 1
    found = attention_boxes(each[None], PatchSettings(boxes=3, box_fraction=1 / 9))
    assert found.boxes[0][:, :2].tolist() == [[1, 1], [7, 1], [1, 7]]


def test_a_constant_map_gives_the_central_box():
    found = attention_boxes(np.full((2, 10, 10), 0.3), PatchSettings(boxes=2))
    np.testing.assert_array_equal(found.boxes, center_boxes(2, (10, 10), PatchSettings(boxes=2)))
    assert found.boxes[0].tolist() == [[3, 3, 7, 7], [3, 3, 7, 7]]
    assert found.repeated.tolist() == [[False, True]] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused(bad):
    maps = np.zeros((2, 4, 4))
    maps[1, 2, 2] = bad
    with pytest.raises(DataError, match="not finite"):
        attention_boxes(maps, PatchSettings())


def test_random_boxes_lie_inside_reach_every_place_and_follow_the_seed():
    chosen = PatchSettings(boxes=4, box_fraction=0.5, seed=3)
    boxes = random_boxes(500, (8, 12), chosen, "toy")
    assert boxes.shape == (500, 4, 4)
    assert set(np.unique(boxes[..., 0])) == set(range(7)) and set(np.unique(boxes[..., 1])) == set(range(5))
    assert (boxes[..., 2] - boxes[..., 0] == 6).all() and (boxes[..., 3] - boxes[..., 1] == 4).all()
    np.testing.assert_array_equal(boxes, random_boxes(500, (8, 12), chosen, "toy"))
    assert (boxes != random_boxes(500, (8, 12), chosen, "other")).any()
    assert (boxes != random_boxes(500, (8, 12), PatchSettings(boxes=4, box_fraction=0.5, seed=4), "toy")).any()


def test_share_inside_masks_equals_the_mean_over_the_cut_out():
    masks = (np.random.default_rng(0).random((20, 9, 13)) < 0.4).astype(np.uint8)
    boxes = random_boxes(20, (9, 13), PatchSettings(boxes=5), "toy")
    expected = [[masks[i, y0:y1, x0:x1].mean() for x0, y0, x1, y1 in rows] for i, rows in enumerate(boxes)]
    np.testing.assert_allclose(inside_masks(boxes, masks), expected)


def test_share_inside_object_boxes_agrees_with_masks_and_takes_fractions():
    boxes = random_boxes(20, (12, 12), PatchSettings(boxes=5, box_fraction=0.2), "toy")  # some miss it altogether
    masks = np.zeros((20, 12, 12), dtype=np.uint8)
    masks[:, 2:7, 3:11] = 1
    objects = np.tile(np.array([3, 2, 11, 7], dtype=np.float32), (20, 1))
    np.testing.assert_allclose(inside_boxes(boxes, objects), inside_masks(boxes, masks))
    half = inside_boxes(np.array([[[0, 0, 2, 2]]]), np.array([[0.5, 1.0, 5, 5]]))
    np.testing.assert_allclose(half, [[0.75 * 0.5]])


def test_part_coverage_counts_overlap_once():
    boxes = np.array([[[0, 0, 4, 4], [2, 2, 6, 6]], [[0, 0, 4, 4], [0, 0, 4, 4]], [[0, 0, 1, 1], [1, 1, 2, 2]]])
    parts = np.array([[0, 0, 6, 6], [2, 0, 6, 4], [4, 4, 5, 5]], dtype=np.float32)
    np.testing.assert_allclose(part_coverage(boxes, parts), [28 / 36, 0.5, 0])
    np.testing.assert_allclose(part_coverage(boxes[:1], np.array([[0.5, 0.5, 1.5, 4.5]])), [3.5 / 4])


def test_part_coverage_agrees_with_painted_pixels():
    boxes = random_boxes(30, (15, 15), PatchSettings(boxes=4), "toy")
    parts = random_boxes(30, (15, 15), PatchSettings(boxes=1, box_fraction=0.5), "parts")[:, 0]
    for rows, part, share in zip(boxes, parts, part_coverage(boxes, parts), strict=True):
        canvas = np.zeros((15, 15))
        for x0, y0, x1, y1 in rows:
            canvas[y0:y1, x0:x1] = 1
        assert share == pytest.approx(canvas[part[1] : part[3], part[0] : part[2]].mean())


def test_a_part_without_area_is_refused():
    with pytest.raises(DataError, match="no area"):
        part_coverage(np.array([[[0, 0, 2, 2]]]), np.array([[1.0, 1.0, 1.0, 2.0]]))


@pytest.mark.parametrize(
    "values", [{"boxes": 0}, {"box_fraction": 0}, {"box_fraction": 1.1}, {"percentile": 100}, {"batch_size": 0}]
)
def test_bad_settings_are_refused(values):
    with pytest.raises(ConfigError, match="patches"):
        PatchSettings(**values)
