"""The checks of a scale's own results: each must be able to fail, and failure must be loud."""

import dataclasses
import json

import pytest
from tables_support import put, record, trained

from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.records import Metric
from ltpa.stages import check as stage
from ltpa.stages.check import examine
from ltpa.tables.spec import CheckSpec

SPEC = CheckSpec(
    scale="demo",
    compatibility={"vgg-att-pc": "pc", "vgg-att-dp": "dp"},
    primary="digits10",
    max_error_of_chance=0.5,
    max_error_of_chance_elsewhere=0.75,
    min_pointing_over_chance=1.2,
    query_pc_max=1e-4,
)


def training(error, seed=0, variant="vgg", chance=90.0):
    metrics = [Metric("test_error_pct", error, 500, "digits10"), Metric("chance_error_pct", chance, 500, "digits10")]
    return record("train", "digits10", variant, seed, metrics)


def segmentation(hits, variant="vgg-att-pc", seed=0, chance=20.0):
    """`hits` maps a level to its hit rate."""
    metrics = [
        Metric(name, value, 500, "digits10", level)
        for level, hit in hits.items()
        for name, value in (("pointing_pct", hit), ("pointing_chance_pct", chance))
    ]
    return record("segmentation", "digits10", variant, seed, metrics)


def query(change, variant):
    metrics = [Metric("relative_change", value, 50, "digits10", level) for level, value in change.items()]
    return record("query", "digits10", variant, 0, metrics)


def test_elsewhere_the_mean_over_seeds_decides():
    def other(error, seed):
        metrics = [
            Metric("test_error_pct", error, 500, "digits20"),
            Metric("chance_error_pct", 95.0, 500, "digits20"),
        ]
        return record("train", "digits20", "vgg", seed, metrics)

    (check,) = examine(SPEC, [other(40.0, 0), other(80.0, 1)])
    assert check.passed and check.value == pytest.approx(60 / 95)
    (check,) = examine(SPEC, [other(70.0, 0), other(80.0, 1)])
    assert not check.passed


@pytest.mark.parametrize(
    ("item", "passed", "value"),
    [
        (training(45.0), True, 0.5),
        (training(45.1), False, 45.1 / 90),
        (segmentation({"conv13": 24.0}), True, 1.2),
        (segmentation({"conv13": 23.9}), False, 1.195),
        (segmentation({"conv10": 90.0, "conv13": 24.0}), True, 1.2),
        (segmentation({"conv10": 90.0, "conv13": 23.0}), False, 1.15),
        (segmentation({"conv13": 10.0, "combined": 30.0}), True, 1.5),
        (segmentation({"conv13": 90.0, "combined": 10.0}), False, 0.5),
        (query({"conv10": 0.0, "conv13": 1e-4}, "vgg-att-pc"), True, 1e-4),
        (query({"conv10": 1.1e-4, "conv13": 0.0}, "vgg-att-pc"), False, 1.1e-4),
        (query({"conv13": 0.3}, "vgg-att-dp"), True, 0.3),
        (query({"conv13": 0.0}, "vgg-att-dp"), False, 0.0),
    ],
)
def test_each_check_at_its_limit(item, passed, value):
    (found,) = examine(SPEC, [item])
    assert found.passed is passed
    assert found.value == pytest.approx(value)


def test_the_worst_seed_decides_whether_a_network_learned():
    (found,) = examine(SPEC, [training(9.0), training(81.0, seed=1)])
    assert (found.passed, found.value) == (False, 0.9)


def test_pointing_is_the_mean_over_seeds():
    (found,) = examine(SPEC, [segmentation({"conv13": 20.0}), segmentation({"conv13": 30.0}, seed=1)])
    assert found.value == pytest.approx(1.25)


@pytest.mark.parametrize(
    "item", [segmentation({}), query({}, "vgg-att-dp"), record("segmentation", "d", "vgg-att-dp", 0, [])]
)
def test_a_record_without_the_numbers_fails(item):
    (found,) = examine(SPEC, [item])
    assert (found.passed, found.value) == (False, None)


def test_variants_without_attention_are_not_checked_for_it():
    assert examine(SPEC, [segmentation({"cam": 1.0}, variant="vgg-gap")]) == []


def test_all_passed(tmp_path, capsys):
    paths = [put(tmp_path, item) for item in (training(9.0), segmentation({"combined": 60.0}))]
    stage.run(stage.SPEC.from_json(SPEC.to_json()), tmp_path, paths)
    written = json.loads((tmp_path / "checks.json").read_text())
    assert (written["passed"], len(written["checks"])) == (True, 2)
    assert "All 2 checks passed." in (tmp_path / "checks.md").read_text()
    assert capsys.readouterr().err == ""
    assert "the worst seed on digits10" in (tmp_path / "checks.md").read_text()
    stage.run(dataclasses.replace(SPEC, primary=""), tmp_path, paths[:1])
    assert "of guessing; the mean over seeds." in (tmp_path / "checks.md").read_text()


def test_failures_are_written_printed_and_raised(tmp_path, capsys):
    failed = record("train", "digits10", "vgg", 1, [], status="failed", reason="the loss is nan")
    paths = [put(tmp_path, item) for item in (training(80.0), failed, segmentation({"combined": 60.0}))]
    with pytest.raises(LtpaError, match=r"2 of 3 checks failed: learns: vgg on digits10") as caught:
        stage.run(SPEC, tmp_path, paths)
    assert "\n" not in str(caught.value)
    errors = capsys.readouterr().err
    assert errors.count("FAILED learns") == 2
    assert "the loss is nan" in errors
    assert json.loads((tmp_path / "checks.json").read_text())["passed"] is False
    assert (tmp_path / "checks.md").read_text().count("**FAIL**") == 2


def test_nothing_to_check_is_an_error(tmp_path):
    with pytest.raises(LtpaError, match="no training records"):
        stage.run(SPEC, tmp_path, [])


def test_edited_record_is_refused(tmp_path):
    path = put(tmp_path, training(80.0))
    path.write_text(path.read_text().replace("80.0", "8.0"))
    with pytest.raises(RecordError, match="SHA-256"):
        stage.run(SPEC, tmp_path, [path])


def test_a_training_record_without_chance_is_named():
    with pytest.raises(LtpaError, match="train digits10 vgg seed 0 has no chance_error_pct"):
        examine(SPEC, [trained("digits10", "vgg", 0, 9.0)])


def test_patch_boxes_stay_within_their_sources_limits():
    def extracted(value, seed, source="protolite"):
        metrics = [
            Metric("patch_statistic", value, 480, "digits-marks/test", "pair_iou_mean"),
            Metric("patch_statistic", 0.0, 1500, "digits-marks/train", "pair_iou_mean"),
        ]
        return record("patches", "digits-marks", source, seed, metrics)

    spec = dataclasses.replace(SPEC, patch_limits={"protolite": {"pair_iou_mean": [0.3, 0.6]}})
    (check,) = examine(spec, [extracted(0.2, 0), extracted(0.5, 1)])
    assert check.passed and check.value == pytest.approx(0.35) and check.limit == "0.3 to 0.6"
    for value in (0.1, 0.9):
        (check,) = examine(spec, [extracted(value, 0), extracted(0.4, 1)])
        assert check.passed is (0.3 <= (value + 0.4) / 2 <= 0.6) and "pair_iou_mean" in check.detail
    assert examine(spec, [extracted(0.9, 0, "random")]) == []
    missing = dataclasses.replace(SPEC, patch_limits={"protolite": {"centre_in_object": [0.85, 1]}})
    with pytest.raises(LtpaError, match="has no patch_statistic"):
        examine(missing, [extracted(0.5, 0)])


def two_streams(variant, seed, local, whole, held=60.0):
    values = {
        ("mean_n_accuracy_pct", "joint"): 80.0,
        ("mean_n_accuracy_pct", "local"): 70.0,
        ("chance_accuracy_pct", ""): 25.0,
        ("part_held_pct", ""): held,
        ("part_held_accuracy_pct", "local"): local,
        ("part_held_accuracy_pct", "global"): whole,
    }
    metrics = [Metric(name, value, 480, "digits-parts", condition) for (name, condition), value in values.items()]
    return record("finegrained", "digits-parts", variant, seed, metrics)


@pytest.mark.parametrize(
    ("local", "control", "passed"),
    [
        (90.0, 70.0, [True, True]),
        (79.0, 70.0, [False, True]),
        (85.0, 95.0, [True, False]),
        (80.0, 80.0, [False, False]),
    ],
)
def test_the_local_stream_is_held_against_the_global_one_and_its_controls(local, control, passed):
    spec = dataclasses.replace(SPEC, local_beats={"digits-parts": {"row": ["row-full"]}})
    records = [two_streams("row", seed, local + shift, 80.0) for seed, shift in ((0, 5.0), (1, -5.0))]
    records.append(two_streams("row-full", 0, control, 99.0, held=100.0))
    found = [check for check in examine(spec, records) if check.check.startswith("local beats")]
    assert [check.passed for check in found] == passed
    assert found[0].value == pytest.approx(local - 80) and found[1].value == pytest.approx(local - control)
    (alone,) = [check for check in examine(spec, records[:2]) if check.check == "local beats control"]
    assert not alone.passed and "no result of row-full" in alone.detail
