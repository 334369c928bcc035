"""The checks of a scale's own results: each must be able to fail, and failure must be loud."""

import dataclasses
import json
import statistics

import numpy as np
import pytest
from scipy.stats import t
from tables_support import put, record

from ltpa.core.errors import LtpaError, RecordError
from ltpa.core.records import Metric
from ltpa.stages import check as stage
from ltpa.stages.check import examine
from ltpa.tables.spec import CheckSpec

FACTS = {
    "segmentation": {"attending": ["vgg-att-pc", "vgg-att-dp"], "beats": ["random", "untrained"], "must_attend": None},
    "query": {"compatibility": {"vgg-att-pc": "pc", "vgg-att-dp": "dp"}, "pc_max": 1e-4},
    "finegrained": {"local_beats": {}},
}
SPEC = CheckSpec(
    scale="demo",
    max_error_of_chance={"cross-entropy": 0.5, "two-stream": 0.9},
    protocols=FACTS,
    strict=True,
)


def knowing(protocol, **facts):
    """The specification with other facts of one protocol."""
    return dataclasses.replace(SPEC, protocols={**FACTS, protocol: {**FACTS[protocol], **facts}})


def training(error, seed=0, variant="vgg", chance=90.0):
    metrics = [Metric("test_error_pct", error, 500, "digits10"), Metric("chance_error_pct", chance, 500, "digits10")]
    return record("train", "digits10", variant, seed, metrics)


DRAWS = (5.0, 8.0, 10.0, 12.0, 15.0, 18.0, 20.0, 30.0)


def segmentation(hit, variant="vgg-att-pc", seed=0, chance=20.0, untrained=DRAWS, centre=50.0):
    """Hit rates of the combined map, and of maps that nothing was learnt for."""
    values = {"conv13": 99.0, "combined": hit, "centre": centre}
    values |= {f"untrained-{draw}": value for draw, value in enumerate(untrained)}
    metrics = [Metric("pointing_pct", value, 500, "digits10", condition) for condition, value in values.items()]
    metrics.append(Metric("pointing_chance_pct", chance, 6400, "digits10", "combined"))
    return record("segmentation", "digits10", variant, seed, metrics)


def query(change, variant):
    metrics = [Metric("relative_change", value, 50, "digits10", level) for level, value in change.items()]
    return record("query", "digits10", variant, 0, metrics)


@pytest.mark.parametrize(
    ("item", "passed", "value"),
    [
        (training(45.0), True, 0.5),
        (training(45.1), False, 45.1 / 90),
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


@pytest.mark.parametrize(
    ("hits", "beats", "passed", "missed"),
    [
        ([40.0, 40.0], ["random", "untrained"], True, []),
        ([11.0, 70.0], ["random", "untrained"], False, ["every seed clearly beats a random pixel"]),
        ([21.5, 38.0], ["random", "untrained"], False, ["the median seed beats the network untrained"]),
        ([21.0, 38.0], ["random", "untrained"], False, ["every seed", "untrained"]),
        ([21.1, 22.0, 70.0], ["random", "untrained"], False, ["untrained"]),
        ([21.1, 40.0, 70.0], ["random", "untrained", "centre"], False, ["the centre"]),
        ([21.1, 51.0, 70.0], ["random", "untrained", "centre"], True, []),
        ([1.0, 2.0], [], True, []),
    ],
)
def test_attention_is_judged_seed_by_seed(hits, beats, passed, missed):
    """A random pixel hits 20 to 21 % of 6,400 images, the highest untrained draw of any seed 30 %, the centre 50 %."""
    records = [segmentation(hit, seed=seed, untrained=(5.0, 30.0 - 10 * (seed > 0))) for seed, hit in enumerate(hits)]
    (check,) = examine(knowing("segmentation", beats=beats), records)
    assert check.passed is passed and check.value == statistics.median(hits)
    told = check.detail.partition("not shown: ")[2]
    assert all(text in told for text in missed) and bool(missed) == bool(told)
    for seed, hit in enumerate(hits):
        names = [name for name, bar in (("random", 21), ("untrained", 30), ("centre", 50)) if hit > bar]
        assert check.seeds[seed] == {"seed": seed, "pointing_pct": hit, "beats": names}
        assert f"seed {seed} {hit:.1f} % (beats {', '.join(names) or 'nothing'})" in check.detail


def test_a_single_seed_must_exceed_what_further_draws_are_likely_to_reach():
    draws = (10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 22.0, 24.0)
    limit = np.mean(draws) + t.ppf(0.99, 7) * np.std(draws, ddof=1) * np.sqrt(9 / 8)
    for hit, passed in ((limit - 0.1, False), (limit + 0.1, True)):
        (check,) = examine(SPEC, [segmentation(hit, chance=5.0, untrained=draws)])
        assert check.passed is passed and limit > max(draws)
    (pair,) = examine(SPEC, [segmentation(24.1, seed=seed, chance=5.0, untrained=draws) for seed in (0, 1)])
    assert pair.passed


@pytest.mark.parametrize(("named", "fails"), [(None, True), (["vgg-att-pc"], True), (["vgg-att-dp"], False)])
def test_a_run_fails_only_for_networks_that_must_attend(named, fails, tmp_path):
    """Of others it is reported that attention does not attend."""
    records = [training(9.0), *(segmentation(10.0, seed=seed, untrained=(5.0, 30.0)) for seed in (0, 1))]
    spec = knowing("segmentation", must_attend=named)
    paths = [put(tmp_path, item) for item in records]
    if fails:
        with pytest.raises(LtpaError, match="1 of 2 checks failed: attends"):
            stage.run(spec, tmp_path, paths)
    else:
        stage.run(spec, tmp_path, paths)
    text = (tmp_path / "checks.md").read_text()
    assert ("**FAIL**" in text, "not shown |" in text) == (fails, not fails)
    assert json.loads((tmp_path / "checks.json").read_text())["passed"] is not fails


def test_the_seed_that_did_not_learn_is_named():
    (check,) = examine(SPEC, [training(9.0), training(46.0, seed=3)])
    assert not check.passed and "(seed 3)" in check.detail
    assert [seed["learned"] for seed in check.seeds] == [True, False]


@pytest.mark.parametrize("item", [query({}, "vgg-att-dp"), record("segmentation", "d", "vgg-att-dp", 0, [])])
def test_a_record_without_the_numbers_fails(item):
    (found,) = examine(SPEC, [item])
    assert (found.passed, found.value) == (False, None)


def test_variants_without_attention_are_not_checked_for_it():
    assert examine(SPEC, [segmentation(1.0, variant="vgg-gap")]) == []


def test_all_passed(tmp_path, capsys):
    paths = [put(tmp_path, item) for item in (training(9.0), segmentation(60.0))]
    stage.run(stage.SPEC.from_json(SPEC.to_json()), tmp_path, paths)
    written = json.loads((tmp_path / "checks.json").read_text())
    assert (written["passed"], len(written["checks"])) == (True, 2)
    assert "2 checks, none failed." in (tmp_path / "checks.md").read_text()
    assert capsys.readouterr().err == ""


def test_failures_are_written_printed_and_raised(tmp_path, capsys):
    failed = record("train", "digits10", "vgg", 1, [], status="failed", reason="the loss is nan")
    paths = [put(tmp_path, item) for item in (training(80.0), failed, segmentation(60.0))]
    with pytest.raises(LtpaError, match=r"2 of 3 checks failed: learns: vgg on digits10") as caught:
        stage.run(SPEC, tmp_path, paths)
    assert "\n" not in str(caught.value)
    errors = capsys.readouterr().err
    assert errors.count("FAILED learns") == 2
    assert "the loss is nan" in errors
    assert json.loads((tmp_path / "checks.json").read_text())["passed"] is False
    assert (tmp_path / "checks.md").read_text().count("**FAIL**") == 2


def test_checks_that_are_not_strict_warn_and_fail_no_run(tmp_path, capsys):
    paths = [put(tmp_path, training(80.0))]
    stage.run(dataclasses.replace(SPEC, strict=False), tmp_path, paths)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("WARNING learns: vgg on digits10: test error 80.0 %")
    written, text = json.loads((tmp_path / "checks.json").read_text()), (tmp_path / "checks.md").read_text()
    assert (written["passed"], written["strict"], len(written["warnings"])) == (False, False, 1)
    assert "**warning**" in text and "**FAIL**" not in text and "These are warnings" in text


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
        examine(SPEC, [record("train", "digits10", "vgg", 0, [Metric("test_error_pct", 9.0, 500, "digits10")])])


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
    spec = knowing("finegrained", local_beats={"digits-parts": {"row": ["row-full"]}})
    records = [two_streams("row", seed, local + shift, 80.0) for seed, shift in ((0, 5.0), (1, -5.0))]
    records.append(two_streams("row-full", 0, control, 99.0, held=100.0))
    found = [check for check in examine(spec, records) if check.check.startswith("local beats")]
    assert [check.passed for check in found] == passed
    assert found[0].value == pytest.approx(local - 80) and found[1].value == pytest.approx(local - control)
    (alone,) = [check for check in examine(spec, records[:2]) if check.check == "local beats control"]
    assert not alone.passed and "no result of row-full" in alone.detail
