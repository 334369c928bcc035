"""Localisation: boxes, components and average precision against libraries; thresholds chosen on other images."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score

from ltpa.evaluation.controls import CONTROLS
from ltpa.evaluation.localisation import (
    THRESHOLDS,
    Found,
    average_precision,
    box_overlap,
    enclosing_boxes,
    find_objects,
    largest_component,
    localisation_metrics,
)
from ltpa.evaluation.map_controls import control_maps
from ltpa.evaluation.saliency import Masking
from ltpa.evaluation.segmentation import min_max
from ltpa.evaluation.subsets import fixed_subset

MASKING = Masking("bilinear", None)


def blobs(count: int, size: int = 16, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((count, size, size))
    return ndimage.gaussian_filter(noise, (0, 1.5, 1.5), mode="wrap")


def objects(count: int, size: int = 16) -> np.ndarray:
    masks = np.zeros((count, size, size), np.uint8)
    for row, (top, left) in enumerate(np.random.default_rng(5).integers(0, 9, (count, 2))):
        masks[row, top : top + 6, left : left + 5] = 1
    return masks


def test_the_largest_component_is_that_of_each_image_alone():
    marked = blobs(30) > 0.52
    marked[3] = False
    found = largest_component(marked)
    for one, each in zip(marked, found, strict=True):
        regions, count = ndimage.label(one, structure=np.ones((3, 3)))
        sizes = ndimage.sum_labels(one, regions, np.arange(1, count + 1)) if count else [0]
        assert each.sum() == max(sizes)
        assert not (each & ~one).any()
        assert ndimage.label(each, structure=np.ones((3, 3)))[1] == min(count, 1)


def test_boxes_enclose_and_overlap():
    masks = objects(4).astype(bool)
    masks[1] = False
    for mask, box in zip(masks, enclosing_boxes(masks), strict=True):
        (where,) = ndimage.find_objects(mask.astype(int)) or [None]
        wanted = [0] * 4 if where is None else [where[1].start, where[0].start, where[1].stop, where[0].stop]
        assert box.tolist() == wanted
    first, second = (
        np.array([[0, 0, 4, 4], [0, 0, 0, 0], [0, 0, 2, 2]]),
        np.array([[2, 0, 6, 4], [0, 0, 1, 1], [2, 2, 3, 3]]),
    )
    assert box_overlap(first, second).tolist() == [8 / 24, 0, 0]


def test_average_precision_equals_scikit_learn():
    maps, masks = blobs(12), objects(12)
    found = find_objects({"map": maps}, masks, None, MASKING)["map"]
    wanted = average_precision_score(masks.ravel(), min_max(maps).ravel())
    assert average_precision(found.counts) == pytest.approx(wanted, abs=1e-4)
    stepped = np.minimum((min_max(maps) * 4096).astype(int), 4095)
    assert average_precision(found.counts) == pytest.approx(average_precision_score(masks.ravel(), stepped.ravel()))


def test_the_mask_finds_everything_and_a_constant_map_nothing():
    masks = objects(20)
    levels = {"oracle": masks.astype(float), "flat": np.ones(masks.shape)}
    values = {
        (metric.name, metric.condition): metric.value
        for metric in localisation_metrics(find_objects(levels, masks, None, MASKING), "set")
    }
    names = {name for name, _ in values}
    assert all(values[name, "oracle"] == pytest.approx(100) for name in names)
    area = 100 * masks.mean()
    assert values["pxap_pct", "flat"] == pytest.approx(area)
    assert values["held_out_boxes_pct", "flat"] == values["held_out_threshold_pct", "flat"] == 0
    assert area < values["pointing_tolerant_pct", "flat"] < 100


def test_thresholds_are_chosen_on_images_that_are_not_scored():
    count = 25
    held_out = np.zeros(count, bool)
    held_out[fixed_subset(count, 5, "set")] = True
    agreement = np.zeros((count, len(THRESHOLDS)))
    agreement[held_out, 3], agreement[~held_out, 3], agreement[~held_out, 7] = 1.0, 0.25, 0.75
    overlaps = np.where(agreement == 0.75, 0.6, agreement)
    found = {"map": Found(np.ones(count), overlaps, agreement, np.ones((2, 4)))}
    values = {metric.name: metric for metric in localisation_metrics(found, "set")}
    assert values["held_out_threshold_pct"].value == pytest.approx(25)
    assert values["best_threshold_pct"].value == pytest.approx(75)
    assert values["held_out_threshold_pct"].n == 20
    assert values["held_out_boxes_pct"].value == 0
    assert values["best_boxes_pct"].value == pytest.approx(100 * 2 / 3)  # found at 0.3 and 0.5, not at 0.7


def test_a_peak_near_the_object_counts_as_far_as_the_tolerance():
    masks = np.zeros((2, 30, 30), np.uint8)
    masks[:, 10:20, 10:20] = 1
    maps = np.zeros((2, 30, 30))
    maps[0, 15, 21] = maps[1, 15, 22] = 1  # 2 and 3 pixels beside it; the tolerance is 2.01
    assert find_objects({"map": maps}, masks, None, MASKING)["map"].tolerant.tolist() == [1, 0]


def test_void_pixels_count_neither_way():
    masks, maps = objects(6), blobs(6)
    masks[:, 0] = 255
    plain = find_objects({"map": maps}, masks, None, MASKING)["map"]
    assert plain.counts.sum() == (masks != 255).sum()


def test_few_images_choose_no_threshold():
    found = find_objects({"map": blobs(4)}, objects(4), None, MASKING)
    assert {metric.name for metric in localisation_metrics(found, "set")} == {"pxap_pct", "pointing_tolerant_pct"}


def test_controls_are_those_that_the_images_allow():
    from ltpa.data.arrays import Split

    images = np.zeros((3, 16, 16, 3), np.uint8)
    split = Split(images, np.zeros(3, np.int64), np.array(["a", "b", "c"]), masks=objects(3))
    found = control_maps(["centre", "random", "oracle"], images, split, "set")
    assert (found["oracle"] == objects(3)).all()
    assert (found["centre"] == CONTROLS["centre"](images)).all()
    assert (found["random"] == control_maps(["random"], images, split, "set")["random"]).all()
    assert len(np.unique(found["random"])) == 3 * 256
    bare = Split(images, split.labels, split.ids)
    assert list(control_maps(["oracle", "random"], images, bare, "set")) == ["random"]
