"""Saliency maps, Otsu masks, Jaccard, pointing game and mass: by hand and against scikit-image and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import EVERY
from skimage.filters import threshold_otsu
from skimage.transform import resize
from sklearn.metrics import jaccard_score
from tiny_networks import linear_network, random_images

from ltpa.core.errors import ConfigError, DataError, ModelError
from ltpa.core.schema import read_plain
from ltpa.evaluation.inference import attention_maps
from ltpa.evaluation.mask_metrics import pointing_metrics, subset_metrics
from ltpa.evaluation.saliency import Saliency, upsample, upsample_logarithms
from ltpa.evaluation.segmentation import (
    binary_masks,
    box_masks,
    jaccard,
    mass_inside,
    min_max,
    otsu_masks,
    otsu_thresholds,
    pointing_hits,
    score_maps,
)
from ltpa.models import create_model
from ltpa.models.variants import chosen_saliency, get_variant, list_models
from ltpa.protocols.segmentation import SegmentationSettings

BOTH = Saliency("attention", ("low", "high"), sqrt=True)


def random_maps(count=6, size=8, seed=0):
    return np.random.default_rng(seed).gamma(0.5, size=(count, size, size))


def random_masks(count=6, size=8, seed=1):
    return (np.random.default_rng(seed).random((count, size, size)) < 0.3).astype(np.uint8)


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (31, 17)])
def test_upsampling_agrees_with_scikit_image(size):
    maps = random_maps(size=4)
    expected = np.stack([resize(each, size, order=1, mode="edge", anti_aliasing=False) for each in maps])
    np.testing.assert_allclose(upsample(maps, size), expected, atol=1e-12)


def test_nearest_upsampling_repeats_cells():
    maps = random_maps(size=4)
    np.testing.assert_array_equal(upsample(maps, (8, 12), "nearest"), maps.repeat(2, axis=1).repeat(3, axis=2))


def test_bicubic_upsampling_agrees_with_keys_formula_and_stays_in_range():
    """Cubic convolution (Keys 1981) with a = -3/4, edges repeated; what overshoots is cut off at the map's range."""

    def weight(distance):
        x, a = abs(distance), -0.75
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        return near if x <= 1 else far if x < 2 else 0.0

    def matrix(cells, pixels):
        rows = np.zeros((pixels, cells))
        for pixel in range(pixels):
            place = (pixel + 0.5) * cells / pixels - 0.5
            for cell in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
                rows[pixel, min(max(cell, 0), cells - 1)] += weight(place - cell)
        return rows

    maps = random_maps(size=4)
    expected = matrix(4, 11) @ maps @ matrix(4, 9).T
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    assert (expected < low).any() and (expected > high).any()
    np.testing.assert_allclose(upsample(maps, (11, 9), "bicubic"), np.clip(expected, low, high), atol=1e-12)


def test_a_threshold_is_a_share_of_each_maps_range():
    maps = np.array([[[0.0, 1], [2, 4]], [[8.0, 9], [10, 12]], [[5.0, 5], [5, 5]]])
    marked = [[[False, False], [False, True]]] * 2 + [[[False, False], [False, False]]]
    np.testing.assert_array_equal(binary_masks(maps, 0.5), marked)
    assert binary_masks(maps, 0.0).sum() == 6 and not binary_masks(maps, 1.0).any()
    np.testing.assert_array_equal(binary_masks(maps), otsu_masks(maps))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"upsampling": "lanczos"}, "'upsampling' is 'lanczos'"),
        ({"threshold": 1.5}, "'threshold' is 1.5"),
        ({"threshold": float("nan")}, "'threshold' is nan"),
    ],
)
def test_impossible_ways_to_binarise_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        read_plain(SegmentationSettings, values, "segmentation")


def test_levels_and_root_are_chosen_per_variant():
    levels = {"declared": ["conv10", "conv13"], "last": ["conv13"], "all": ["conv7", "conv10", "conv13"]}
    for chosen, expected in levels.items():
        for root in ("declared", "always", "never"):
            found = chosen_saliency("vgg-att3-concat-pc", chosen, root)
            sqrt = root == "always" or (root == "declared" and chosen != "last")
            assert found == {"source": "attention", "levels": expected, "sqrt": sqrt}
    assert chosen_saliency("vgg-pan", "all", "always")["sqrt"] and not chosen_saliency("vgg-pan", "all")["sqrt"]
    assert chosen_saliency("vgg-gap", "last", "always") == {"source": "cam"}
    assert chosen_saliency("vgg") is None
    for name in EVERY:
        assert chosen_saliency(name) == get_variant(name).saliency


def logs(levels):
    """Maps by level as `Saliency.maps` gives them."""
    with np.errstate(divide="ignore"):
        return {name: np.log(maps, dtype=np.float64) for name, maps in levels.items()}


def scaled(maps):
    return maps / maps.max(axis=(1, 2), keepdims=True)


def test_product_and_root_by_hand():
    maps = {"first": np.full((1, 2, 2), 9.0), "low": np.array([[[4.0, 1], [0, 9]]]), "high": np.full((1, 2, 2), 4.0)}
    size, levels = (2, 2), logs(maps)
    found = BOTH.at(levels, size)
    assert list(found) == ["first", "low", "high", "combined"]
    np.testing.assert_allclose(found["combined"], [[[4 / 6, 2 / 6], [0, 1]]], atol=1e-200)
    np.testing.assert_allclose(found["low"], scaled(maps["low"]), atol=1e-200)
    plain = Saliency("attention", ("low", "high")).at(levels, size)["combined"]
    np.testing.assert_allclose(plain, [[[16 / 36, 4 / 36], [0, 1]]], atol=1e-200)
    three = Saliency("attention", ("first", "low", "high"), True).at(levels, size)["combined"]
    np.testing.assert_allclose(three, found["combined"], atol=1e-200)
    np.testing.assert_array_equal(Saliency("cam").at({"cam": -maps["low"]}, size)["combined"], -maps["low"])


@pytest.mark.parametrize("method", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("size", [(11, 9), (5, 4), (3, 2), (1, 1), (40, 40)])
def test_interpolated_logarithms_are_those_of_interpolated_maps(method, size):
    maps = random_maps(20, 5)[:, :, :4]
    np.testing.assert_allclose(np.exp(upsample_logarithms(np.log(maps), size, method)), upsample(maps, size, method))
    for sqrt in (True, False):
        levels = {"low": maps, "high": random_maps(20, 3, 2)}
        product = upsample(levels["low"], size, method) * upsample(levels["high"], size, method)
        expected = scaled(np.sqrt(product) if sqrt else product)
        found = Saliency("attention", ("low", "high"), sqrt).at(logs(levels), size, method)["combined"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_weights_that_underflow_still_make_a_map():
    """Both levels are nearly one-hot, at different places: no float64 holds their product."""
    low, high = np.full((1, 3, 3), -2000.0), np.full((1, 3, 3), -1500.0)
    low[0, 0, 0], low[0, 1, 2], high[0, 1, 1] = 0, -900, 0
    found = BOTH.at({"low": low, "high": high}, (3, 3))["combined"]
    assert found[0, 0, 0] == 1 and np.count_nonzero(found == 1) == 1  # -1500 in all, before -2000 and -2400
    assert np.count_nonzero(found > 1e-150) == 2 and found[0, 1, 1] == pytest.approx(np.exp(-250))
    constant = BOTH.at({"low": np.full((1, 2, 2), -900.0), "high": np.full((1, 2, 2), -np.inf)}, (4, 4))
    assert all(np.ptp(each) == 0 for each in constant.values())


def test_one_hot_levels_are_interpolated_exactly():
    row = np.full((1, 1, 2), -800.0)
    row[0, 0, 1] = 0
    found = upsample_logarithms(row, (1, 4))
    np.testing.assert_allclose(found, [[[-800, np.log(0.25), np.log(0.75), 0]]], atol=1e-12)


@pytest.mark.parametrize("variant", ["vgg-att2-concat-dp", "vgg-att2-concat-pcsigmoid", "vgg-pan", "rn164-att2"])
def test_flushing_denormals_changes_no_bit_of_a_combined_map(variant):
    """Scores far apart, as those of trained networks are: softmax weights underflow, their logarithms do not."""
    torch.manual_seed(0)
    options = {"blocks_per_stage": 1} if variant == "rn164-att2" else {}
    model = create_model(variant, 4, 32, 1 / 8, bn_weight="one", **options).eval()
    saliency = Saliency.from_declaration(get_variant(variant).saliency, "test")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.mul_(3)
    images = random_images(6, 32)
    found = []
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        try:
            found.append(saliency.at(saliency.maps(model, images, 6), (32, 32)))
        finally:
            torch.set_flush_denormal(False)
    logarithms = saliency.maps(model, images, 6)
    assert min(each.min() for each in logarithms.values()) < -200
    for level, maps in found[0].items():
        assert maps.tobytes() == found[1][level].tobytes()
        if variant in ("vgg-att2-concat-dp", "rn164-att2"):  # a sigmoid near 1 is 1 everywhere
            assert (np.ptp(maps, axis=(1, 2)) > 0).all()
    direct = attention_maps(model, images, 6)
    for level, maps in direct.items():
        np.testing.assert_allclose(np.exp(logarithms[level]), maps, rtol=1e-3, atol=1e-7)


def test_maps_come_from_the_networks_attention():
    network, images = linear_network(4), np.maximum(random_images(5, 4), 1)
    maps = Saliency("attention", ("red", "green")).maps(network, images, 2)
    np.testing.assert_allclose(np.exp(maps["red"]), images[..., 0])
    np.testing.assert_allclose(np.exp(maps["green"]), images[..., 1])


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (None, "declares no saliency"),
        ({"source": "gradient"}, "source is 'gradient'"),
        ({"source": "attention"}, "with levels \\[\\]"),
        ({"source": "cam", "levels": ["conv13"]}, "cam with levels"),
        ({"source": "cam", "root": True}, "root"),
        ({"levels": ["conv13"]}, "source"),
    ],
)
def test_bad_declarations_are_refused(declared, message):
    with pytest.raises(ConfigError, match=message):
        Saliency.from_declaration(declared, "segmentation")


def test_every_declared_variant_reads():
    declared = [get_variant(name).saliency for name in EVERY]
    read = [Saliency.from_declaration(each, "segmentation") for each in declared if each is not None]
    assert {each.source for each in read} == {"attention", "cam"}


def test_a_missing_level_is_named():
    with pytest.raises(ModelError, match="needs level high; the network has low"):
        BOTH.at({"low": random_maps()}, (4, 4))


def test_otsu_masks_agree_with_scikit_image():
    maps = random_maps(20)
    np.testing.assert_array_equal(otsu_masks(maps), np.stack([each > threshold_otsu(each) for each in maps]))


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(2, 12)),
        elements=st.one_of(st.floats(0, 1), st.integers(-3, 300).map(lambda level: level / 256), st.just(1e-300)),
    )
)
def test_otsu_thresholds_are_those_of_scikit_image_bit_for_bit(maps):
    stretched = min_max(maps)
    expected = [threshold_otsu(each) if each.any() else 1.0 for each in stretched]
    assert otsu_thresholds(stretched).tolist() == expected


@given(st.sampled_from([2.0**-9, 0.5, 2.0, 1024.0]), st.integers(-100, 100))
def test_scale_and_shift_leave_otsu_masks_alone(scale, shift):
    maps = np.round(random_maps(3) * 64) / 64  # so that scaling and shifting are exact
    np.testing.assert_array_equal(otsu_masks(maps * scale + shift), otsu_masks(maps))


def test_a_constant_map_marks_nothing():
    maps = np.stack([np.zeros((4, 4)), np.full((4, 4), 0.3), np.eye(4)])
    np.testing.assert_array_equal(otsu_masks(maps), np.stack([np.zeros((4, 4)), np.zeros((4, 4)), np.eye(4)]) > 0)
    np.testing.assert_array_equal(min_max(maps)[:2], 0)


def test_jaccard_agrees_with_scikit_learn_and_empty_matches_empty():
    predicted, truth = random_masks(seed=3) > 0, random_masks(seed=4) > 0
    expected = [jaccard_score(t.ravel(), p.ravel()) for t, p in zip(truth, predicted, strict=True)]
    np.testing.assert_allclose(jaccard(predicted, truth), expected)
    empty = np.zeros((1, 8, 8), dtype=bool)
    assert jaccard(empty, empty) == [1.0]
    assert jaccard(empty, truth[:1]) == [0.0]
    assert jaccard(predicted[:1], empty) == [0.0]


def test_pointing_by_hand():
    truth = np.zeros((3, 2, 2), dtype=bool)
    truth[:, 0, 0] = True
    maps = np.array([[[3.0, 1], [0, 0]], [[0, 1], [0, 0]], [[2, 2], [2, 2]]])
    np.testing.assert_allclose(pointing_hits(maps, truth), [1, 0, 0.25])


def test_mass_by_hand_with_negative_and_zero_maps():
    truth = np.zeros((3, 2, 2), dtype=bool)
    truth[:, 0] = True
    maps = np.array([[[0.1, 0.2], [0.3, 0.4]], [[3.0, -1], [-1, -1]], [[0, 0], [0, 0]]])
    np.testing.assert_allclose(mass_inside(maps, truth), [0.3, 1, 0.5])


def test_scores_of_a_perfect_and_a_constant_map():
    masks = np.zeros((2, 8, 8), dtype=np.uint8)
    masks[:, 2:5, 1:4] = 1
    maps = masks.astype(np.float32)
    maps[1] = 0.5
    scores = score_maps(logs({"low": maps, "high": maps}), masks, BOTH)
    np.testing.assert_allclose(scores.jaccard["combined"], [1, 0])
    np.testing.assert_allclose(scores.pointing["combined"], [1, 9 / 64])
    np.testing.assert_allclose(scores.mass["high"], [1, 9 / 64])
    np.testing.assert_array_equal(scores.constant, [False, True])
    np.testing.assert_allclose(scores.area, 9 / 64)


def test_objects_of_one_pixel_and_images_of_one_pixel():
    maps = np.zeros((2, 5, 7))
    maps[:, 2, 3] = 3
    maps[:, 0, 0] = 1
    masks = np.zeros((2, 5, 7), dtype=np.uint8)
    masks[0, 2, 3] = masks[1, 4, 6] = 1
    scores = score_maps(logs({"low": maps}), masks, Saliency("attention", ("low",)))
    assert scores.jaccard["combined"].tolist() == [1, 0]
    assert scores.pointing["low"].tolist() == [1, 0]
    np.testing.assert_allclose(scores.mass["low"], [0.75, 0], atol=1e-200)
    alone = score_maps({"low": maps[:1]}, np.ones((1, 1, 1), dtype=np.uint8), None)
    assert (alone.jaccard["low"], alone.pointing["low"], alone.constant) == ([0], [1], [True])


def test_boxes_cover_the_pixels_whose_centres_they_hold():
    boxes = np.array([[1, 0, 3, 2], [0.4, 0.6, 2.5, 4], [2, 2, 2, 2], [-5, -5, 9, 9]], dtype=np.float32)
    masks = box_masks(boxes, 4)
    expected = np.zeros((4, 4, 4), dtype=np.uint8)
    expected[0, 0:2, 1:3] = 1
    expected[1, 1:4, 0:2] = 1
    expected[3] = 1
    np.testing.assert_array_equal(masks, expected)
    boxes[1, 2] = np.nan
    with pytest.raises(DataError, match="boxes of 1 of 4 images are not finite"):
        box_masks(boxes, 4)


def test_a_mask_of_one_pixel_and_a_map_of_one_cell():
    masks = np.zeros((2, 8, 8), dtype=np.uint8)
    masks[:, 3, 5] = 1
    maps = np.zeros((2, 8, 8), dtype=np.float32)
    maps[0, 3, 5] = maps[1, 0, 0] = 1
    scores = score_maps(logs({"only": maps}), masks, Saliency("attention", ("only",)))
    np.testing.assert_allclose(scores.jaccard["combined"], [1, 0])
    np.testing.assert_allclose(scores.pointing["only"], [1, 0])
    np.testing.assert_allclose(scores.mass["only"], [1, 0], atol=1e-200)
    flat = score_maps(logs({"only": np.ones((2, 1, 1))}), masks, Saliency("attention", ("only",)))
    np.testing.assert_allclose(flat.pointing["combined"], 1 / 64)
    assert flat.constant.all() and (flat.jaccard["combined"] == 0).all()


def test_without_a_combined_map_every_level_has_a_jaccard_of_its_own():
    masks = random_masks(70)
    levels = {"low": random_maps(70), "high": random_maps(70, 4, 2)}
    alone = score_maps(levels, masks, None)
    assert list(alone.jaccard) == list(alone.pointing) == ["low", "high"]
    for name, maps in levels.items():
        expected = score_maps(logs({name: maps}), masks, Saliency("attention", (name,)))
        np.testing.assert_array_equal(alone.jaccard[name], expected.jaccard["combined"])


def test_the_root_is_taken_for_products_of_softmax_maps_alone():
    for name in list_models(extensions=False):
        saliency = get_variant(name).saliency or {}
        wanted = len(saliency.get("levels", ())) > 1 and name != "vgg-pan"
        assert saliency.get("sqrt", False) is wanted, name


def test_scores_do_not_depend_on_how_images_are_grouped():
    levels, masks = logs({"low": random_maps(150), "high": random_maps(150, 4, 2)}), random_masks(150, 16)
    whole = score_maps(levels, masks, BOTH)
    for index in (0, 63, 64, 149):
        one = score_maps({name: maps[[index]] for name, maps in levels.items()}, masks[[index]], BOTH)
        assert one.jaccard["combined"][0] == whole.jaccard["combined"][index]
        assert one.mass["combined"][0] == whole.mass["combined"][index]
    assert list(whole.pointing) == ["low", "high", "combined"]


def test_random_maps_point_as_often_as_chance():
    masks = random_masks(3000, 6)
    scores = score_maps(logs({"only": random_maps(3000, 6)}), masks, Saliency("attention", ("only",)))
    assert scores.pointing["only"].mean() == pytest.approx(scores.area.mean(), abs=0.03)


def test_maps_that_are_not_finite_are_refused():
    for bad in (np.nan, np.inf):
        maps = random_maps()
        maps[2, 1, 1] = bad
        with pytest.raises(DataError, match="maps of 1 of 6 images are not finite"):
            score_maps(logs({"low": maps, "high": random_maps()}), random_masks(), BOTH)


def test_every_map_is_brought_to_the_size_of_its_own_mask():
    """In any order of sizes an image scores what it does alone."""
    rng = np.random.default_rng(3)
    sizes = [(8, 12)] * 70 + [(5, 4), (8, 12), (30, 7), (30, 7)]
    masks = [(rng.random(size) < 0.3).astype(np.uint8) for size in sizes]
    levels = logs({"low": random_maps(len(sizes)), "high": random_maps(len(sizes), 4, 2)})
    whole = score_maps(levels, masks, BOTH)
    for index, mask in enumerate(masks):
        one = score_maps({name: maps[[index]] for name, maps in levels.items()}, mask[None], BOTH)
        assert one.jaccard["combined"] == whole.jaccard["combined"][index]
        assert one.mass["low"] == whole.mass["low"][index]


def test_maps_and_masks_of_different_images_are_refused():
    with pytest.raises(DataError, match="5 masks"):
        score_maps(logs({"low": random_maps(), "high": random_maps()}), random_masks(5), BOTH)
    with pytest.raises(DataError, match="0 masks"):
        score_maps(logs({"low": random_maps(0)}), random_masks(0), BOTH)


def test_empty_masks_count_in_the_second_jaccard_only_and_never_in_pointing():
    masks = np.zeros((3, 4, 4), dtype=np.uint8)
    masks[0, :2] = 1
    maps = np.stack([masks[0], np.zeros((4, 4)), np.eye(4)]).astype(np.float32)
    scores = score_maps(logs({"only": maps}), masks, Saliency("attention", ("only",)))
    headline, everything = subset_metrics(scores, "toy", "cat")
    assert (headline.name, headline.value, headline.n) == ("jaccard_pct", 100, 1)
    assert everything.name == "jaccard_all_pct" and everything.n == 3
    assert everything.value == pytest.approx(200 / 3)  # right, rightly empty, wrongly marked
    found = {(metric.name, metric.condition): metric for metric in pointing_metrics([scores], "toy")}
    assert found["pointing_pct", "only"].value == pytest.approx(found["mass_in_mask_pct", "combined"].value) == 100
    assert found["pointing_chance_pct", "only"].value == 50
    assert {metric.n for metric in found.values()} == {1}


def test_a_subset_without_any_object_is_refused():
    scores = score_maps(logs({"only": random_maps()}), np.zeros((6, 8, 8)), Saliency("attention", ("only",)))
    with pytest.raises(DataError, match="toy: no image of cat"):
        subset_metrics(scores, "toy", "cat")
    with pytest.raises(DataError, match="toy: no mask"):
        pointing_metrics([scores], "toy")
