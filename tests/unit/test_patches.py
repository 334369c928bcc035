"""Patch boxes: from maps by both ways of cleaning, from windows, the controls, and properties on any map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import label, regionprops

from ltpa.core.errors import ConfigError, DataError
from ltpa.core.patches import PatchSettings
from ltpa.core.schema import read_plain
from ltpa.data.boxes import Flag
from ltpa.evaluation.patch_maps import WINDOWS, box_of_map, grow, map_candidates, window_candidates
from ltpa.evaluation.patches import (
    Candidate,
    center_boxes,
    fill,
    full_boxes,
    overlap,
    random_boxes,
    stack,
)

CLEAN, PARITY = PatchSettings(), PatchSettings(cleaning="parity")
SIZE = 448

any_maps = st.tuples(st.integers(1, 6), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float64, (shape[0], shape[1], shape[1]), elements=st.integers(-3, 6).map(float))
)
any_settings = st.builds(
    PatchSettings,
    boxes=st.integers(1, 7),
    cleaning=st.sampled_from(["clean", "parity"]),
    percentile=st.floats(1, 99),
    smooth=st.sampled_from([1, 3]),
)


def boxes_of(maps, chosen=CLEAN, size=SIZE):
    return stack([fill(map_candidates(np.asarray(maps, dtype=np.float64), size, chosen), size, chosen)])


def bump(*places, size=14, spread=1.5):
    """A smooth map with a peak (height, row, column) at each place."""
    y, x = np.mgrid[:size, :size]
    return sum(h * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * spread**2)) for h, row, column in places)


def check_rows(found, count, size):
    y0, x0, y1, x1 = np.moveaxis(found.boxes, -1, 0)
    assert found.boxes.shape == (1, count, 4) and found.scores.shape == found.flags.shape == (1, count)
    assert (y0 >= 0).all() and (x0 >= 0).all() and (y1 <= size).all() and (x1 <= size).all()
    assert (y1 > y0).all() and (x1 > x0).all()


@settings(max_examples=120, deadline=None)
@given(any_maps, any_settings, st.integers(4, 40))
def test_always_n_boxes_with_an_area_inside_the_image(maps, chosen, size):
    found = boxes_of(maps, chosen, size)
    check_rows(found, chosen.boxes, size)
    fresh = found.flags[0] & Flag.REPEAT == 0
    assert fresh[0] and (np.diff(fresh.astype(int)) <= 0).all()
    assert (np.diff(found.scores[0][fresh]) <= 0).all()
    whole = (found.boxes[0] == [0, 0, size, size]).all(axis=1)
    np.testing.assert_array_equal(found.flags[0] & Flag.FULL != 0, whole)
    if chosen.cleaning == "clean":
        kept = found.boxes[0][fresh]
        for rank in range(1, len(kept)):
            assert overlap(kept[rank], kept[:rank]).max() <= chosen.max_iou
        sides = kept[:, 2:] - kept[:, :2]
        assert (sides.max(axis=1) <= chosen.max_aspect * sides.min(axis=1)).all() or size < 8


@settings(max_examples=60, deadline=None)
@given(any_maps, any_settings, st.integers(4, 40))
def test_windows_fill_n_rows_too(maps, chosen, size):
    candidates = list(window_candidates(maps[0], size, chosen))
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
    check_rows(stack([fill(candidates, size, chosen)]), chosen.boxes, size)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 14), st.sampled_from([20, 63, 64, 448]), st.booleans())
def test_parity_is_the_reference_loop(seed, cells, size, smooth_map):
    maps = np.random.default_rng(seed).normal(size=(3, cells, cells))
    maps = ndimage.gaussian_filter(maps, (0, 1, 1)) if smooth_map else maps
    found = boxes_of(maps, PARITY.model_copy(update={"boxes": 3}), size)
    order = sorted(range(3), key=lambda number: -maps[number].max())
    for rank, number in enumerate(order):
        high = grow(maps[number : number + 1], size)[0]
        high = high >= np.percentile(high, 95)
        rows = [i for i in range(size) if high[i].max()]
        columns = [j for j in range(size) if high[:, j].max()]
        assert found.boxes[0, rank].tolist() == [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        assert found.map_ids[0, rank] == number
        if size >= 63:  # elsewhere a percentile may hold fewer pixels than its share
            assert np.prod(found.boxes[0, rank, 2:] - found.boxes[0, rank, :2]) >= 0.05 * size**2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 14))
def test_the_component_of_the_peak_is_that_of_scikit_image(seed, cells):
    grown = grow(np.random.default_rng(seed).normal(size=(1, cells, cells)), 64)[0]
    high = grown >= np.percentile(grown, 95)
    regions = label(high, connectivity=2)
    peak = np.unravel_index(grown.argmax(), grown.shape)
    expected = regionprops((regions == regions[peak]).astype(int))[0].bbox
    loose = CLEAN.model_copy(update={"min_side": 0.0, "max_aspect": 64.0, "max_area": 1.0})
    box, flags = box_of_map(grown, loose)
    assert box == expected and (flags == Flag.MULTIBLOB) == (regions.max() > 1)


def test_upsampling_is_bicubic_as_in_opencv():
    """Weights of the cubic kernel with a = -0.75 at half-pixel offsets, by hand."""
    each = np.zeros((1, 8, 8))
    each[0, :, 3] = 1

    def kernel(distance):
        d, a = abs(distance), -0.75
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    expected = [kernel((x + 0.5) / 4 - 0.5 - 3) for x in range(32)]
    np.testing.assert_allclose(grow(each, 32)[0, 5], expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 14), st.sampled_from(["clean", "parity"]), st.sampled_from([20, 64, 448]))
def test_mirrored_maps_give_mirrored_boxes(seed, cells, cleaning, size):
    maps = np.random.default_rng(seed).random((6, cells, cells))
    chosen = PatchSettings(boxes=4, cleaning=cleaning)
    for offer in (map_candidates, lambda m, *rest: window_candidates(m[0], *rest)):
        found, turned = (stack([fill(offer(m, size, chosen), size, chosen)]).boxes[0] for m in (maps, maps[:, :, ::-1]))
        back = np.stack([turned[:, 0], size - turned[:, 3], turned[:, 2], size - turned[:, 1]], axis=1)
        assert np.abs(found - back).max() <= 1


# --- the cases of the reference that go wrong ------------------------------------------------------------------------


def test_a_constant_map_is_the_whole_image_or_passed_over():
    constant, good = np.full((14, 14), 9.0), bump((1, 7, 7))
    found = boxes_of([constant, good], PARITY.model_copy(update={"boxes": 2}))
    assert found.boxes[0, 0].tolist() == [0, 0, 448, 448] and found.flags[0, 0] == Flag.FULL | Flag.BORDER
    assert found.map_ids[0].tolist() == [0, 1]
    found = boxes_of([constant, good], CLEAN.model_copy(update={"boxes": 2}))
    assert found.map_ids[0].tolist() == [1, 1] and found.flags[0].tolist() == [0, Flag.REPEAT]


def test_nothing_but_constant_maps_falls_back_to_the_whole_image():
    found = boxes_of(np.zeros((4, 14, 14)), CLEAN.model_copy(update={"boxes": 2}))
    assert found.boxes[0].tolist() == [[0, 0, 448, 448]] * 2 and found.map_ids[0].tolist() == [-1, -1]
    whole = Flag.FALLBACK | Flag.FULL | Flag.BORDER
    assert found.flags[0].tolist() == [whole, whole | Flag.REPEAT]
    assert list(window_candidates(np.ones((5, 5)), 448, CLEAN)) == []


def test_a_small_support_among_zeros_is_passed_over_or_kept_small():
    """Parity: the percentile is zero, so all of the image reaches it."""
    each = np.zeros((448, 448))
    each[100:110, 200:210] = 1
    assert boxes_of([each], PARITY.model_copy(update={"boxes": 1})).boxes[0, 0].tolist() == [0, 0, 448, 448]
    found = boxes_of([each], CLEAN.model_copy(update={"boxes": 1, "smooth": 1}))
    assert found.flags[0, 0] & Flag.FALLBACK


def test_one_hot_cell():
    """Parity: under five per cent of the image is above zero, so all that is not ringing reaches the percentile, the
    whole image; on a sloping ground the box is inflated. Smoothed first it is one compact box about the cell."""
    each = np.zeros((14, 14))
    each[4, 9] = 1
    alone = PARITY.model_copy(update={"boxes": 1})
    assert boxes_of([each], alone).boxes[0, 0].tolist() == [0, 0, 448, 448]
    ground = 1e-3 * np.arange(14)[:, None] + np.zeros(14)
    parity = boxes_of([each + ground], alone).boxes[0, 0]
    clean = boxes_of([each], CLEAN.model_copy(update={"boxes": 1})).boxes[0, 0]
    np.testing.assert_allclose((clean[:2] + clean[2:]) / 2, (np.array([4, 9]) + 0.5) * 32, atol=1)
    sides = clean[2:] - clean[:2]
    assert (sides >= 64).all() and (sides <= 130).all() and (parity[2:] - parity[:2]).max() > sides.max()


def test_two_peaks_span_one_box_or_the_higher_one_wins():
    each = bump((1.0, 3, 3), (0.98, 10, 11))
    parity = boxes_of([each], PARITY.model_copy(update={"boxes": 1})).boxes[0, 0]
    assert parity[0] < 3.5 * 32 < 10.5 * 32 < parity[2] and parity[1] < 3.5 * 32 < 11.5 * 32 < parity[3]
    clean = boxes_of([each], CLEAN.model_copy(update={"boxes": 1}))
    assert clean.flags[0, 0] == Flag.MULTIBLOB
    y0, x0, y1, x1 = clean.boxes[0, 0]
    assert y0 < 3.5 * 32 < y1 < 10 * 32 and x0 < 3.5 * 32 < x1 < 11 * 32


def test_a_box_of_nearly_the_whole_image_is_passed_over():
    ring = np.ones((14, 14))
    ring[1:-1, 1:-1] = 0
    low = CLEAN.model_copy(update={"boxes": 1, "percentile": 60, "smooth": 1})
    found = boxes_of([2 * ring, bump((1, 7, 7))], low)
    assert found.map_ids[0, 0] == 1
    assert boxes_of([2 * ring, bump((1, 7, 7))], low.model_copy(update={"max_area": 1.0})).map_ids[0, 0] == 0


def test_short_sides_are_grown_about_the_middle_and_kept_inside():
    grown = np.zeros((448, 448))
    grown[100:120, 300:320] = 1
    sharp = CLEAN.model_copy(update={"percentile": 99.9})
    assert box_of_map(grown, sharp) == ((78, 278, 142, 342), Flag.TINY)
    assert box_of_map(np.roll(grown, (-100, 128), (0, 1)), sharp) == ((0, 384, 64, 448), Flag.TINY)


def test_slivers_are_widened_to_a_quarter_of_their_length():
    grown = np.zeros((448, 448))
    grown[200:240, 20:420] = 1
    box, flags = box_of_map(grown, CLEAN.model_copy(update={"percentile": 92.5}))
    assert box == (170, 20, 270, 420) and flags == 0
    assert box_of_map(grown, PARITY.model_copy(update={"percentile": 92.5})) == ((200, 20, 240, 420), 0)


def test_near_copies_are_replaced_by_the_next_map():
    maps = np.stack([bump((1, 5, 5)), 0.9 * bump((1, 5, 5)), 0.5 * bump((1, 9, 9))])
    clean = boxes_of(maps, CLEAN.model_copy(update={"boxes": 2}))
    assert clean.map_ids[0].tolist() == [0, 2] and not clean.flags[0].any()
    parity = boxes_of(maps, PARITY.model_copy(update={"boxes": 2}))
    assert parity.map_ids[0].tolist() == [0, 1] and parity.flags[0].tolist() == [0, Flag.DUP]


@pytest.mark.parametrize("chosen", [CLEAN, PARITY])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused(chosen, bad):
    maps = np.zeros((3, 4, 4))
    maps[1, 2, 2] = bad
    with pytest.raises(DataError, match="1 of an image's 3 maps are not finite; retrain"):
        boxes_of(maps, chosen)
    with pytest.raises(DataError, match="not finite"):
        list(window_candidates(maps[1], 20, chosen))


# --- windows ---------------------------------------------------------------------------------------------------------


def test_windows_are_of_the_declared_sizes_in_the_declared_numbers():
    each = np.random.default_rng(0).random((14, 14))
    candidates = list(window_candidates(each, SIZE, CLEAN))
    shapes = [{(32 * h, 32 * w) for h, w in group} for _, group in WINDOWS]
    sizes = [(box[2] - box[0], box[3] - box[1]) for box, *_ in candidates]
    assert [sum(size in group for size in sizes) for group in shapes] == [4, 4, 2]
    assert len({c.map_id for c in candidates}) == 10


def test_the_best_window_has_the_greatest_mean_of_all():
    each = np.random.default_rng(1).random((14, 14))
    best = next(window_candidates(each, SIZE, CLEAN))
    grown = grow(((each - each.min()) / np.ptp(each))[None], SIZE)[0]
    means = [
        grown[y : y + 32 * h, x : x + 32 * w].mean()
        for _, group in WINDOWS for h, w in group
        for y in range(0, SIZE - 32 * h + 1, 32) for x in range(0, SIZE - 32 * w + 1, 32)
    ]  # fmt: skip
    y0, x0, y1, x1 = best.box
    assert best.score == pytest.approx(max(means)) == pytest.approx(grown[y0:y1, x0:x1].mean())


# --- controls --------------------------------------------------------------------------------------------------------


def test_central_boxes_begin_with_a_tenth_of_the_area():
    found = center_boxes(3, SIZE, CLEAN)
    sides = found.boxes[0, :, 2] - found.boxes[0, :, 0]
    assert sorted(sides) == [96, 121, 146, 171, 196, 220, 245, 270, 295, 320] and sides[0] == 146
    np.testing.assert_array_equal(found.boxes[0], found.boxes[2])
    assert (np.abs(found.boxes[..., :2] + found.boxes[..., 2:] - SIZE) <= 1).all()


def test_full_boxes_are_the_image():
    found = full_boxes(2, 20, CLEAN.model_copy(update={"boxes": 3}))
    assert found.boxes.tolist() == [[[0, 0, 20, 20]] * 3] * 2
    assert found.flags[0].tolist() == [Flag.FULL | Flag.BORDER, *[Flag.FULL | Flag.BORDER | Flag.REPEAT] * 2]


def test_random_boxes_have_the_declared_sizes_and_follow_the_seed():
    found = random_boxes(2000, SIZE, CLEAN, 0, "birds/test").boxes
    sides = (found[..., 2:] - found[..., :2]).astype(float)
    area = sides.prod(axis=-1) / SIZE**2
    np.testing.assert_allclose(np.percentile(area, [5, 50, 95]), [0.0621, 0.1031, 0.567], rtol=0.06)
    aspect = np.maximum(sides[..., 0] / sides[..., 1], sides[..., 1] / sides[..., 0])
    assert np.percentile(aspect, 95) == pytest.approx(2.68, rel=0.1)
    assert (found[..., :2] >= 0).all() and (found[..., 2:] <= SIZE).all()
    np.testing.assert_array_equal(found, random_boxes(2000, SIZE, CLEAN, 0, "birds/test").boxes)
    for seed, purpose in ((1, "birds/test"), (0, "birds/train")):
        assert (found != random_boxes(2000, SIZE, CLEAN, seed, purpose).boxes).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 99))
def test_random_boxes_lie_in_images_of_any_size(size, count, seed):
    check_rows(random_boxes(1, size, PatchSettings(boxes=count), seed, "x"), count, size)


def test_overlap_by_hand_and_of_nothing():
    boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [0, 0, 4, 4], [4, 0, 8, 4]])
    np.testing.assert_allclose(overlap(boxes[0], boxes), [1, 4 / 28, 1, 0])
    row = fill([Candidate((0, 0, 2, 2), 1.0, 3)], 4, CLEAN.model_copy(update={"boxes": 2}))
    assert [each.map_id for each in row] == [3, 3] and row[1].flags == Flag.REPEAT | Flag.BORDER


@pytest.mark.parametrize(
    "values",
    [
        {"boxes": 0}, {"cleaning": "wash"}, {"percentile": 100.0}, {"smooth": 2}, {"grid": 0}, {"min_side": 0.5},
        {"max_aspect": 0.5}, {"max_area": 0.0}, {"max_iou": 0.0}, {"window_iou": 2.0}, {"clusters": 0},
        {"min_share": 2.0}, {"center_sides": [0.1]}, {"center_sides": [0.1, 2.0]}, {"random_aspect": 0.5},
        {"random_areas": [[0, 0.1]]}, {"random_areas": [[0, 0.2], [1, 0.1]]}, {"random_areas": [[0, 0.0], [1, 1.0]]},
        {"random_areas": [[0.5, 0.1], [1, 1.0]]}, {"batch_size": 0},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(values):
    with pytest.raises(ConfigError, match=f"patches: .*{next(iter(values)).replace('min_side', 'grown_side')}"):
        read_plain(PatchSettings, values, "patches")
