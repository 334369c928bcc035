"""Faithfulness: imputation, curves and ROAD against cases with known answers, invariants, and libraries."""

import numpy as np
import pytest
import torch
from libraries import library
from tiny_networks import LinearNetwork, linear_network, random_images

from ltpa.core.errors import ConfigError, DataError
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation.faithfulness import beside_controls, gradient_map, same_order
from ltpa.evaluation.imputation import impute
from ltpa.evaluation.perturbation import (
    Subsets,
    area,
    baseline,
    curve,
    dropped_subsets,
    faithfulness_correlation,
    ranks,
    road,
    stimuli,
)
from ltpa.models import create_model
from ltpa.protocols.base import Context, Target
from ltpa.protocols.registry import find

SIZE = 8


def seen_by(network, count: int = 6):
    return stimuli(network, random_images(count, SIZE), np.arange(count), 4)


def maps(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, SIZE, SIZE))


# --- imputation ---


def test_imputing_nothing_changes_nothing_and_a_constant_image_stays():
    image = maps(2)[..., None]
    assert (impute(image, np.zeros((2, SIZE, SIZE), bool)) == image).all()
    removed = maps(2, seed=1) < 0.8
    assert impute(np.full((2, SIZE, SIZE, 3), 7.0), removed) == pytest.approx(7.0, abs=1e-12)


def test_a_ramp_is_imputed_exactly_away_from_the_border():
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    ramp = (3 * rows - 2 * columns)[None, ..., None]
    removed = np.zeros((1, SIZE, SIZE), bool)
    removed[0, 2:6, 1:5] = True
    assert impute(ramp, removed) == pytest.approx(ramp, abs=1e-12)
    removed[0, 0] = True
    assert np.abs(impute(ramp, removed) - ramp).max() > 0.1


def test_a_single_pixel_is_the_weighted_mean_of_its_neighbours():
    image = maps(1)[..., None]
    removed = np.zeros((1, SIZE, SIZE), bool)
    removed[0, 0, 3] = True
    beside, across = image[0, [0, 0, 1], [2, 4, 3], 0], image[0, [1, 1], [2, 4], 0]
    wanted = (2 * beside.sum() + across.sum()) / 8
    assert impute(image, removed)[0, 0, 3, 0] == pytest.approx(wanted)


def test_an_image_without_any_pixel_is_refused():
    with pytest.raises(DataError, match="all pixels of an image are removed"):
        impute(np.ones((1, SIZE, SIZE, 1)), np.ones((1, SIZE, SIZE), bool))


# --- orders ---


def test_ranks_depend_on_the_order_of_values_alone():
    first = maps()
    assert (ranks(first, np.arange(6)) == ranks(np.exp(5 * first) - 3, np.arange(6))).all()


def test_ties_are_broken_at_random_alike_for_all_maps_and_never_by_position():
    flat = ranks(np.zeros((40, SIZE, SIZE)), np.arange(40))
    assert (
        np.abs(flat.mean(axis=0) - flat.mean()).max() < 12
    )  # 31.5 on average everywhere; by position it would be 0-63
    one_hot = np.zeros((40, SIZE, SIZE))
    one_hot[:, 4, 4] = 1
    others = ranks(one_hot, np.arange(40))
    assert (others[:, 4 * SIZE + 4] == 0).all()
    rest = np.arange(SIZE * SIZE) != 4 * SIZE + 4
    assert (np.argsort(others[:, rest], axis=1) == np.argsort(flat[:, rest], axis=1)).all()


# --- curves ---


def test_curves_begin_and_end_alike_for_every_map():
    network = linear_network(SIZE)
    seen = seen_by(network)
    for name in ("mean", "blur", "black"):
        other = baseline(name, seen.pixels, [100.0, 110.0, 120.0])
        curves = [curve(network, seen, ranks(maps(seed=s), seen.indices), other, False, 5, 4) for s in (0, 1)]
        back = [curve(network, seen, ranks(maps(seed=s), seen.indices), other, True, 5, 4) for s in (0, 1)]
        for found in curves:
            assert found[:, 0] == pytest.approx(seen.probability)
            assert found[:, -1] == pytest.approx(curves[0][:, -1])
        for found in back:
            assert found[:, 0] == pytest.approx(curves[0][:, -1])
            assert found[:, -1] == pytest.approx(seen.probability)
        assert (curves[0][:, 2] != curves[1][:, 2]).any()


def oracle_case():
    """A network that looks at the pixels of a square alone, and images with all there is to see in it."""
    weight = np.zeros((2, 3, SIZE, SIZE))
    weight[0, :, 2:5, 2:5], weight[1, :, 2:5, 2:5] = 2e-3, -2e-3
    network = LinearNetwork(weight.reshape(2, -1).astype(np.float32), np.array([-3.0, 3.0], np.float32), SIZE)
    images = random_images(12, SIZE) // 8
    images[:, 2:5, 2:5] += 200
    mask = np.zeros((12, SIZE, SIZE))
    mask[:, 2:5, 2:5] = 1
    return network, stimuli(network, images, np.arange(12), 12), mask


def test_the_mask_beats_random_maps_by_every_measure():
    network, seen, mask = oracle_case()
    other = baseline("black", seen.pixels, [])
    random = ranks(maps(12), seen.indices)
    best = ranks(mask, seen.indices)
    for insert, sign in ((False, 1), (True, -1)):
        areas = [area(curve(network, seen, order, other, insert, 16, 12)).mean() for order in (random, best)]
        assert sign * (areas[0] - areas[1]) > 0.1
    most, least = road(network, seen, [best, random], [0.15, 0.3, 0.5], 12).mean(axis=2).T
    assert least[0] - most[0] > 0.9
    assert abs(least[1] - most[1]) < 0.5
    subsets = dropped_subsets(network, seen, other, 60, 12)
    assert faithfulness_correlation(mask, subsets).mean() > 0.4
    assert abs(faithfulness_correlation(maps(12), subsets).mean()) < 0.2


def test_a_constant_map_is_a_random_order():
    network, seen, _ = oracle_case()
    other = baseline("black", seen.pixels, [])
    constant, random = (
        area(curve(network, seen, ranks(each, seen.indices), other, False, 16, 12))
        for each in (np.ones((12, SIZE, SIZE)), maps(12))
    )
    assert abs(constant.mean() - random.mean()) < 3 * np.hypot(constant.std(), random.std()) / np.sqrt(12)
    assert faithfulness_correlation(
        np.ones((12, SIZE, SIZE)), Subsets(np.ones((12, 5, 64), bool), maps(12)[:, :5, 0])
    ) == pytest.approx(0)


def test_road_of_a_negated_map_swaps_most_and_least_relevant():
    network, seen, _ = oracle_case()
    order = ranks(maps(12), seen.indices)
    found = road(network, seen, [order, 63 - order], [0.2, 0.6], 12)
    assert (found[0] == found[1][::-1]).all()


@pytest.mark.parametrize("kind", ["one-hot", "constant", "plateau"])
def test_road_removes_exactly_its_share_of_any_map(kind, monkeypatch):
    network, seen, mask = oracle_case()
    shown = {"one-hot": np.zeros((12, SIZE, SIZE)), "constant": np.ones((12, SIZE, SIZE)), "plateau": mask}[kind]
    if kind == "one-hot":
        shown[:, 1, 1] = 1
    counts = []

    def counting(pixels, removed):
        counts.extend(removed.sum(axis=(1, 2)))
        return pixels + 0.0

    monkeypatch.setattr("ltpa.evaluation.perturbation.impute", counting)
    road(network, seen, [ranks(shown, seen.indices)], [0.2, 0.5], 12)
    assert sorted(set(counts)) == [13, 32]


def test_the_gradient_map_of_a_linear_network_is_its_weights():
    network = linear_network(SIZE)
    seen = seen_by(network)
    weight = network.weight.detach().numpy().reshape(4, 3, SIZE, SIZE)
    assert gradient_map(network, seen, 4) == pytest.approx(np.abs(weight[seen.predicted]).sum(axis=1))


def test_every_value_stands_beside_random_and_the_mask():
    values = {"random": np.array([0.2, 0.4]), "oracle": np.array([0.7, 0.9]), "map": np.array([0.4, 0.6])}
    found = beside_controls(values, True)
    assert found["map"] == pytest.approx((0.5, 0.2, 40.0))
    assert found["oracle"] == pytest.approx((0.8, 0.5, 100.0))
    assert found["random"] == (pytest.approx(0.3), 0.0, None)
    del values["oracle"]
    assert beside_controls(values, True)["map"][2] is None


def test_share_of_the_way_to_the_mask_is_withheld_where_the_mask_is_no_better_than_random():
    values = {"random": np.array([0.2, 0.4]), "oracle": np.array([0.7, 0.9]), "map": np.array([0.4, 0.6])}
    assert beside_controls(values, False)["map"][2] is None  # lower is better, and the mask is higher
    unsure = {**values, "oracle": np.array([0.9, 0.0])}
    assert beside_controls(unsure, True)["map"] == (pytest.approx(0.5), pytest.approx(0.2), None)
    lower = {"random": np.array([0.7, 0.9]), "oracle": np.array([0.2, 0.4]), "map": np.array([0.6, 0.8])}
    assert beside_controls(lower, False)["map"][2] == pytest.approx(20)


def test_a_ranking_that_turns_is_counted():
    assert same_order([1, 2, 3], [10, 20, 30]) == (1.0, 0)
    assert same_order([1, 2, 3], [1, 3, 2]) == (pytest.approx(1 / 3), 1)
    assert same_order([1.0], [2.0]) == (1.0, 0)


# --- the protocol ---


def dataset(rows: int, masks: bool = True) -> PreparedDataset:
    shapes = np.zeros((rows, 20, 20), np.uint8)
    shapes[:, 5:12, 6:14] = 1
    split = Split(random_images(rows, 20), np.arange(rows) % 4, np.array([f"{row}" for row in range(rows)]))
    test = Split(split.images, split.labels, split.ids, masks=shapes if masks else None)
    return PreparedDataset("set", list("abcd"), {"test": test}, "", {})


@pytest.mark.parametrize("masks", [True, False])
def test_the_protocol_has_every_control_beside_every_map(tmp_path, masks):
    torch.manual_seed(0)
    network = create_model("vgg-att2-concat-pc", 4, image_size=20, width=1 / 16).eval()
    protocol = find("faithfulness")
    settings = protocol.Settings(images=3, steps=2, removed=[0.5], random_maps=2, subsets=4)
    saliency = {"source": "attention", "levels": ["conv10", "conv13"], "sqrt": True}
    context = Context([Target("set")], {"saliency": saliency}, 0, tmp_path)
    found = protocol.measure(network, [dataset(7, masks)], settings, context)
    kinds = {metric.condition for metric in found.metrics if metric.name == "road_pct_over_random"}
    controls = {"random", "centre", "other", "untrained"} | ({"oracle"} if masks else set())
    assert kinds - controls == {
        "combined",
        "attention_last",
        "attention_previous",
        "activation_last",
        "activation_previous",
        "gradcam",
        "gradient",
    }
    assert controls < kinds
    names = {metric.name for metric in found.metrics}
    assert {"deletion_mean_auc", "deletion_blur_auc", "insertion_blur_auc", "deletion_order_tau"} < names
    assert masks or not any(name.endswith("_of_oracle_pct") for name in names)
    if not masks:
        return
    for size in (1, 2):
        again = protocol.measure(
            network, [dataset(7, masks)], settings.model_copy(update={"batch_size": size}), context
        )
        for metric, other in zip(found.metrics, again.metrics, strict=True):
            assert other.value == pytest.approx(metric.value, rel=1e-3, abs=1e-4), metric


def test_kinds_of_map_that_the_network_lacks_are_refused(tmp_path):
    network = create_model("vgg", 4, image_size=20, width=1 / 16).eval()
    protocol = find("faithfulness")
    settings = protocol.Settings(images=2, steps=1, removed=[0.5], random_maps=1, subsets=2, maps=["attention_last"])
    with pytest.raises(ConfigError, match=r"protocols\.faithfulness\.maps.*none of attention_last"):
        protocol.measure(network, [dataset(4)], settings, Context([Target("set")], {"saliency": None}, 0, tmp_path))


# --- libraries ---


@pytest.mark.libraries
def test_imputation_equals_that_of_grad_cam():
    theirs = library("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0.0)
    image = torch.from_numpy(random_images(1, SIZE)[0].transpose(2, 0, 1) / 255).float()
    removed = maps(1) < 0.6
    wanted = theirs(image, torch.from_numpy(~removed[0]).float()).numpy()
    found = impute(image.numpy().transpose(1, 2, 0)[None].astype(float), removed)[0]
    assert found.transpose(2, 0, 1) == pytest.approx(wanted, abs=1e-6)
