"""Corruptions: their parts against SciPy and scikit-image, what must not decide, and relative errors."""

from types import SimpleNamespace

import numpy as np
import pytest
from libraries import library
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv
from tiny_networks import linear_network, random_images

from ltpa.core.errors import DataError
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.evaluation.corruption_errors import corruption_errors, relative_to
from ltpa.evaluation.corruptions import (
    KINDS,
    SEVERITIES,
    Streams,
    along_lines,
    bilinear,
    corrupt,
    disk,
    plasma,
    zoomed,
)
from ltpa.evaluation.inference import predict
from ltpa.evaluation.subsets import fixed_subset
from ltpa.protocols.base import Context, Target
from ltpa.protocols.registry import find

SIZE = 32


def smooth_images(count: int, size: int = SIZE) -> np.ndarray:
    values = np.random.default_rng(3).random((count, size, size, 3))
    values = ndimage.gaussian_filter(values, (0, 3, 3, 0), mode="wrap")
    low, high = values.min(), values.max()
    return (255 * (values - low) / (high - low)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_corrupted_alone_and_the_same_each_time(kind):
    images = smooth_images(4)
    together = corrupt(images, [5, 6, 7, 8], kind, 3, "set")
    assert together.dtype == np.uint8
    assert together.shape == images.shape
    assert (together != images).any(axis=(1, 2, 3)).all()
    assert (corrupt(images[2:3], [7], kind, 3, "set")[0] == together[2]).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("elastic_transform", "glass_blur", "frost")])
def test_the_fifth_severity_changes_more_than_the_first(kind):
    images = smooth_images(6)
    first, fifth = (np.abs(corrupt(images, range(6), kind, s, "set") - images.astype(int)).mean() for s in (1, 5))
    assert fifth > 1.2 * first > 0


def test_streams_differ_between_images_kinds_severities_and_datasets():
    images = np.full((2, SIZE, SIZE, 3), 128, np.uint8)
    found = corrupt(images, [0, 1], "gaussian_noise", 1, "set")
    assert (found[0] != found[1]).any()
    assert (corrupt(images, [0, 1], "gaussian_noise", 1, "other")[0] != found[0]).any()
    deviations = [corrupt(images, [0, 1], "gaussian_noise", s, "set").std() for s in SEVERITIES]
    assert np.array(deviations) / 255 == pytest.approx([0.04, 0.06, 0.08, 0.09, 0.10], rel=0.05)


def test_impulse_noise_strikes_its_share_of_values():
    images = np.full((4, SIZE, SIZE, 3), 128, np.uint8)
    found = corrupt(images, range(4), "impulse_noise", 5, "set")
    assert (found == 0).mean() == pytest.approx(0.035, abs=0.008)
    assert (found == 255).mean() == pytest.approx(0.035, abs=0.008)


def test_brightness_raises_the_value_of_hsv():
    images = random_images(3, SIZE)
    images[0, 0, 0] = 0
    hsv = rgb2hsv(images / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.15, 0, 1)
    wanted = (np.clip(hsv2rgb(hsv), 0, 1) * 255).astype(int)
    assert np.abs(corrupt(images, range(3), "brightness", 3, "set") - wanted).max() <= 1


@pytest.mark.parametrize("factor", [1.0, 1.05, 1.25, 2.25])
def test_zoomed_equals_scipy(factor):
    images = random_images(2, SIZE) / 255
    cut = int(np.ceil(SIZE / factor))
    start = (SIZE - cut) // 2
    inner = images[:, start : start + cut, start : start + cut]
    wanted = ndimage.zoom(inner, (1, factor, factor, 1), order=1)
    trim = (wanted.shape[1] - SIZE) // 2
    assert zoomed(images, factor) == pytest.approx(wanted[:, trim : trim + SIZE, trim : trim + SIZE], abs=1e-12)


def test_lines_run_in_the_direction_of_the_angle():
    image = np.zeros((2, 9, 9, 1))
    image[:, 4, 4] = 1
    found = along_lines(image, 2, 1.0, np.array([0.0, 90.0]))
    taps = np.exp(-0.5 * np.arange(5) ** 2) / np.exp(-0.5 * np.arange(5) ** 2).sum()
    assert found[0, 4, 4::-1, 0] == pytest.approx(taps)
    assert found[1, 4::-1, 4, 0] == pytest.approx(taps)
    assert (found == 0).sum() == 2 * (81 - 5)
    assert along_lines(np.ones((1, 9, 9, 1)), 6, 2.0, np.array([33.0])) == pytest.approx(1)


@pytest.mark.parametrize("mode", ["mirror", "reflect"])
def test_bilinear_equals_scipy(mode):
    values = np.random.default_rng(0).random((1, 8, 8, 1))
    rows, columns = np.random.default_rng(1).uniform(-5, 12, (2, 1, 6, 6))
    wanted = ndimage.map_coordinates(values[0, :, :, 0], [rows[0], columns[0]], order=1, mode=mode)
    assert bilinear(values, rows, columns, mode)[0, :, :, 0] == pytest.approx(wanted, abs=1e-12)


def test_fractals_span_their_range_and_are_smoother_with_more_decay():
    rough, soft = (plasma(SIZE, decay, Streams(1, range(5))) for decay in (1.5, 3.0))
    for heights in (rough, soft):
        assert heights.min(axis=(1, 2)).tolist() == [0] * 5
        assert heights.max(axis=(1, 2)).tolist() == [1] * 5
    assert np.abs(np.diff(rough, axis=1)).mean() > 1.3 * np.abs(np.diff(soft, axis=1)).mean()
    assert plasma(20, 3.0, Streams(1, range(2))).shape == (2, 20, 20)


def test_larger_subsets_hold_smaller_ones_and_depend_on_the_name_alone():
    small, large = fixed_subset(100, 10, "set"), fixed_subset(100, 40, "set")
    assert set(small) < set(large)
    assert len(small) == 10
    assert fixed_subset(100, 10, "other").tolist() != small.tolist()
    assert fixed_subset(7, 10, "set").tolist() == fixed_subset(7, None, "set").tolist() == list(range(7))


def test_relative_errors_of_a_case_worked_out_by_hand():
    reference = np.array([[0.2, 0.4], [0.4, 0.6]])
    errors = np.array([[0.1, 0.2], [0.4, 0.6]])
    found = relative_to(0.05, errors, 0.1, reference)
    assert found["mce"] == pytest.approx((0.3 / 0.6 + 1) / 2)
    assert found["relative_mce"] == pytest.approx((0.2 / 0.4 + 0.9 / 0.8) / 2)
    assert relative_to(0.1, reference, 0.1, reference) == {"mce": pytest.approx(1), "relative_mce": pytest.approx(1)}
    assert relative_to(0.05, errors, 0.3, reference)["relative_mce"] is None


def dataset(rows: int, size: int) -> PreparedDataset:
    split = Split(smooth_images(rows, size), np.arange(rows) % 4, np.array([f"{row}" for row in range(rows)]))
    return PreparedDataset("set", list("abcd"), {"test": split}, "", {})


def test_the_protocol_counts_what_the_network_gets_wrong(tmp_path):
    data, network, reference = dataset(13, 8), linear_network(8, seed=1), linear_network(8, seed=2)
    protocol = find("corruptions")
    inputs = {"reference": "vgg", "is_reference": False}
    settings = protocol.Settings(images=9, batch_size=4)
    context = Context([Target("set")], inputs, 0, tmp_path, companion=reference, no_companion="")
    found = protocol.measure(network, [data], settings, context)
    values = {(metric.name, metric.condition): metric.value for metric in found.metrics}
    chosen = fixed_subset(13, 9, "set")
    split = data.split("test")
    noisy = corrupt(split.images[chosen], chosen, "fog", 4, "set")
    wrong = predict(network, noisy, 9) != split.labels[chosen]
    assert values["error_pct", "fog/4"] == pytest.approx(100 * wrong.mean())
    errors = [[values["error_pct", f"{kind}/{s}"] for s in SEVERITIES] for kind in KINDS]
    assert values["mean_error_pct", ""] == pytest.approx(np.mean(errors))
    assert values["error_pct", "severity 2"] == pytest.approx(np.mean(errors, axis=0)[1])
    (_, theirs) = corruption_errors([reference], split, chosen, "set", 9)[0]
    assert values["mce_pct", ""] == pytest.approx(np.mean(np.sum(errors, axis=1) / theirs.sum(axis=1)))
    alone = protocol.measure(network, [data], settings, Context([Target("set")], inputs, 0, tmp_path))
    assert "mce_pct" not in {metric.name for metric in alone.metrics}
    assert "not asked for" in alone.extra["no_mce"]


def test_images_that_others_corrupted_are_measured_like_own_ones(tmp_path):
    data, network = dataset(10, 8), linear_network(8, seed=1)
    test, rows = data.split("test"), np.arange(10)
    splits = {}
    for kind in KINDS:
        images = np.concatenate([corrupt(test.images, rows, kind, severity, "set") for severity in SEVERITIES])
        splits[kind] = Split(images, np.tile(test.labels, len(SEVERITIES)), np.array([str(row) for row in range(50)]))
    theirs = PreparedDataset("theirs", list("abcd"), splits, "", {})
    protocol = find("corruptions")
    classes = {"set": "abcd", "theirs": "abcd", "other": "ab"}
    scene = SimpleNamespace(
        using=lambda use: ["theirs", "other"] if use == "corrupted" else [],
        declared=lambda name: {"classes": classes[name]},
    )
    targets = protocol.targets(scene, "set", "vgg")
    assert [(target.name, target.use) for target in targets] == [("set", ""), ("theirs", "corrupted")]
    context = Context(targets, {"reference": "vgg", "is_reference": True}, 0, tmp_path)
    found = protocol.measure(network, [data, theirs], protocol.Settings(), context)
    by_set = {
        name: [(m.name, m.value, m.n, m.condition) for m in found.metrics if m.target == name] for name in classes
    }
    assert by_set["set"] == by_set["theirs"] and by_set["set"]
    cut = {
        **splits,
        "fog": Split(*(each[:49] for each in (splits["fog"].images, splits["fog"].labels, splits["fog"].ids))),
    }
    with pytest.raises(DataError, match="split fog: 49 images are not 5 severities"):
        protocol.measure(
            network, [data, PreparedDataset("theirs", list("abcd"), cut, "", {})], protocol.Settings(), context
        )


def test_images_of_other_classes_are_refused(tmp_path):
    data, network = dataset(13, 8), linear_network(8, classes=3)
    context = Context([Target("set")], {"reference": "vgg", "is_reference": True}, 0, tmp_path)
    for name in ("corruptions", "calibration", "robustness"):
        protocol = find(name)
        images = PreparedDataset("set", list("abcd"), {"test": repeated(data.split("test"), 3)}, "", {})
        with pytest.raises(DataError, match="dataset set has class 3, and the network classes 0 to 2"):
            protocol.measure(network, [images], protocol.Settings(), context)


def repeated(split: Split, times: int) -> Split:
    return Split(*(np.concatenate([each] * times) for each in (split.images, split.labels, split.ids)))


@pytest.mark.libraries
def test_parts_equal_those_of_imagecorruptions():
    theirs = library("imagecorruptions.corruptions")
    image = random_images(1, SIZE)[0] / 255
    for radius, deviation, angle in ((10, 3, -33.0), (15, 8, 12.0), (20, 15, 44.0)):
        wanted = theirs._motion_blur(image, radius, deviation, angle)
        found = along_lines(image[None], radius, deviation, np.array([angle]))[0]
        inner = slice(2 * radius + 1 - SIZE // 2, SIZE // 2) if radius < 10 else slice(None)
        assert found[inner, inner] == pytest.approx(wanted[inner, inner], abs=1e-5)
    for radius, blur in ((3, 0.1), (4, 0.5), (6, 0.5)):
        wanted = theirs.disk(radius, blur)
        found = disk(radius, blur)
        edge = (len(wanted) - len(found)) // 2
        assert found == pytest.approx(wanted[edge:-edge, edge:-edge] if edge else wanted, abs=1e-6)
