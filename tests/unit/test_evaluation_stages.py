"""The evaluation stages on a small prepared dataset and untrained networks: what they write, and what they refuse."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from protocol_values import linear

from ltpa.core import layout
from ltpa.core.errors import ConfigError, DataError, ModelError, RecordError
from ltpa.core.records import Record, read_record, write_record
from ltpa.core.specs import ProtocolSpec
from ltpa.data.arrays import PreparedDataset, Split, write_prepared
from ltpa.data.normalise import fit_normaliser
from ltpa.evaluation.controls import CONTROLS
from ltpa.evaluation.inference import extract_features, network_pixels
from ltpa.evaluation.mask_metrics import BOX_METRICS, MASK_METRICS
from ltpa.evaluation.segmentation import score_maps
from ltpa.evaluation.svm import cross_validate
from ltpa.models import create_model, get_variant, load, save_model
from ltpa.protocols.base import Target
from ltpa.protocols.transfer import TransferSettings
from ltpa.stages import measure

SIZE, CLASSES = 20, ["ant", "bee", "cat"]
TRAINING = "0" * 64


def make_split(count, size, seed, known=True):
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), dtype=np.uint8)
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    box = np.array([size // 4, size // 4, size // 2, size // 2], dtype=np.float32)
    extra = {"masks": masks, "boxes": np.tile(box, (count, 1)), "parts": np.tile(box, (count, 1))} if known else {}
    return Split(
        generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        np.arange(count) % len(CLASSES),
        np.array([f"toy/{seed}/{index}" for index in range(count)]),
        **extra,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two datasets (`toy` with masks, `plain` without and of another size) and three networks trained on nothing."""
    folder = tmp_path_factory.mktemp("results")
    for name, size, known in (("toy", SIZE, True), ("plain", 24, False)):
        splits = {"train": make_split(18, size, 1, known), "test": make_split(12, size, 2, known)}
        write_prepared(layout.data_dir(folder, name), name, CLASSES, splits, {})
    for variant in ("vgg-att2-concat-dp", "vgg-att2-concat-pc", "vgg-gap"):
        torch.manual_seed(0)
        model = create_model(variant, 3, image_size=SIZE, width=1 / 16)
        if variant.endswith("dp"):  # without training, global vectors are too small to tell from rounding
            model.branches["shared"].fc16.weight.data.mul_(1e4)
        run = layout.run_dir(folder, "train", "toy", variant, 0)
        save_model(
            run / layout.MODEL,
            model,
            variant=variant,
            architecture=model.architecture,
            num_classes=3,
            image_size=SIZE,
            classes=CLASSES,
        )
        write_record(run / layout.RECORD, trained_record(variant))
    return folder


def trained_record(variant, seed=0, **changes):
    values = {
        "stage": "train", "scale": "toy", "dataset": "toy", "variant": variant, "seed": seed, "metrics": [],
        "config_hash": TRAINING, "data_hash": "", "code_hash": "", "code_version": "", "libraries": {}, "device": "cpu",
        "threads": 1, "seconds": 0.0, "peak_memory_mb": 0.0,
    }  # fmt: skip
    return Record(**{**values, **changes})


DECLARED = {
    "segmentation": {"saliency": None},
    "maps": {"saliency": None, "controls": []},
    "fgsm": {"transferred": None},
}
INPUTS = {"saliency", "controls", "transferred"}


def run_stage(results, stage, variant, targets, protocol, seeds=(0,)):
    """Measure by a protocol and give back the last record; `protocol` holds settings, inputs and the companion."""
    protocol = dict(protocol)
    companion = protocol.pop("companion", None)
    names = INPUTS | ({"upsampling", "threshold"} if stage == "maps" else set())
    inputs = {"upsampling": "bilinear", "threshold": None} if stage == "maps" else {}
    inputs |= DECLARED.get(stage, {}) | {key: value for key, value in protocol.items() if key in names}
    settings = {key: value for key, value in protocol.items() if key not in names}
    shaped = [
        dataclasses.asdict(Target(t["name"], t.get("kind", ""), {key: t[key] for key in t.keys() - {"name", "kind"}}))
        for t in targets
    ]
    spec = ProtocolSpec("toy", "toy", 1, variant, stage, TRAINING, shaped, settings, inputs, companion)
    for seed in seeds:
        measure.run(spec, results, seed)
    return read_record(layout.run_dir(results, stage, "toy", variant, seeds[-1]) / layout.RECORD)


def by_key(record):
    return {(metric.name, metric.target, metric.condition): metric for metric in record.metrics}


def test_transfer(results):
    targets = [
        {"name": "plain", "kind": "svm"},
        {"name": "toy", "kind": "direct", "splits": ["train", "test"], "class_map": [1, None, 2]},
    ]
    record = run_stage(results, "transfer", "vgg-att2-concat-pc", targets, {"folds": 3, "batch_size": 7})
    metrics = by_key(record)
    assert set(metrics) == {("svm_accuracy_pct", "plain", condition) for condition in ("raw", "l2")} | {
        ("direct_accuracy_pct", f"toy/{split}", condition)
        for split in ("train", "test")
        for condition in ("mapped", "mapped-all", "identity")
    }
    assert metrics["svm_accuracy_pct", "plain", "raw"].n == 30
    assert metrics["direct_accuracy_pct", "toy/test", "mapped"].n == 8
    network = load(layout.run_dir(results, "train", "toy", "vgg-att2-concat-pc", 0) / layout.MODEL)
    pooled = PreparedDataset.open(layout.data_dir(results, "plain")).pooled()
    features = extract_features(network, pooled.images, 7)
    for normalise in ("raw", "l2"):
        expected = cross_validate(features, pooled.labels, linear(folds=3), normalise, "plain")
        assert record.extra["fold_accuracies_pct"][f"plain/{normalise}"] == expected.fold_accuracies_pct
    assert record.extra["fold_accuracies_pct"]["plain/raw"] != record.extra["fold_accuracies_pct"]["plain/l2"]
    assert metrics["svm_accuracy_pct", "plain", "l2"].value == pytest.approx(
        np.mean(record.extra["fold_accuracies_pct"]["plain/l2"])
    )
    assert record.status == "ok" and record.stage == "transfer"


def test_transfer_names_its_protocol_and_forgets_its_features(results):
    target = [{"name": "plain", "kind": "svm"}]
    changed = {"folds": 3, "normalise": ["l2"], "preprocessing": "zca", "storage": "float16"}
    own = run_stage(results, "transfer", "vgg-gap", target, {"folds": 3})
    folder = layout.run_dir(results, "transfer", "toy", "vgg-gap", 0)
    (folder / "features").mkdir()
    (folder / "features" / "cut-off.npy").write_bytes(b"half a file")
    other = run_stage(results, "transfer", "vgg-gap", target, changed)
    assert own.extra["protocol"] == TransferSettings(folds=3).of_job()
    assert other.extra["protocol"] == own.extra["protocol"] | changed
    assert own.extra["largest_duality_gap"]["plain/raw"] < 1e-8
    assert [key[2] for key in by_key(other)] == ["l2"]
    assert not (folder / "features").exists()


def test_half_precision_features_give_nearly_the_same_accuracy(results):
    target = [{"name": "plain", "kind": "svm"}]
    whole, half = (
        by_key(run_stage(results, "transfer", "vgg-att2-concat-pc", target, {"folds": 3, "storage": storage}))
        for storage in ("memory", "float16")
    )
    for key, metric in whole.items():
        assert half[key].value == pytest.approx(metric.value, abs=7)  # two of 30 images


def test_whitening_of_the_evaluated_set_is_what_the_network_then_sees(results):
    target = [{"name": "plain", "kind": "svm"}]
    network = load(layout.run_dir(results, "train", "toy", "vgg-gap", 0) / layout.MODEL)
    pooled = PreparedDataset.open(layout.data_dir(results, "plain")).pooled()
    network.preprocessing = fit_normaliser("gcn-zca", network_pixels(network, pooled.images, 500)).eval()
    features = extract_features(network, pooled.images, 500)
    expected = cross_validate(features, pooled.labels, linear(folds=3), "raw", "plain")
    found = run_stage(results, "transfer", "vgg-gap", target, {"folds": 3, "preprocessing": "zca"})
    assert found.extra["fold_accuracies_pct"]["plain/raw"] == expected.fold_accuracies_pct


def test_fgsm(results):
    record = run_stage(results, "fgsm", "vgg-att2-concat-pc", [{"name": "toy"}], {"epsilons": [0, 0.5, 8.0]})
    metrics = by_key(record)
    assert {condition for _, _, condition in metrics} == {"", "eps=0", "eps=0.5", "eps=8"}
    assert metrics["fooling_rate_pct", "toy", "eps=0"].value == 0
    assert record.metrics[0].name == "clean_accuracy_pct"
    clean = record.metrics[0].value
    assert metrics["robust_accuracy_pct", "toy", "eps=0"].value == clean
    assert {metric.n for metric in record.metrics} == {12}


def test_fgsm_beyond_the_paper_and_the_protocol_in_the_record(results):
    protocol = {
        "epsilons": [0, 4.0],
        "pgd": {"epsilons": [2.0, 4.0], "steps": 2},
        "transferred": "vgg-gap",
        "companion": {"variant": "vgg-gap", "training": TRAINING},
        "loss": "score",
    }
    record = run_stage(results, "fgsm", "vgg-att2-concat-pc", [{"name": "toy"}], protocol)
    assert record.extra["protocol"]["loss"] == "score" and record.extra["protocol"]["transferred"] == "vgg-gap"
    assert record.extra["protocol"]["pgd"]["steps"] == 2
    assert record.extra["transferred"] == "vgg-gap"
    metrics = by_key(record)
    assert {(name, condition) for name, _, condition in metrics if "pgd" in name} == {
        (f"pgd_{name}_pct", f"eps={epsilon}") for name in ("fooling_rate", "robust_accuracy") for epsilon in (2, 4)
    }
    worst = {key: metric.value for key, metric in metrics.items() if key[0] == "robust_accuracy_pct"}
    assert [condition for _, _, condition in worst] == ["eps=0", "eps=4", "eps=2"]
    for name, target, condition in metrics:
        if name.endswith("robust_accuracy_pct"):
            value = metrics[name, target, condition].value
            assert value <= metrics["clean_accuracy_pct", "toy", ""].value
            assert "transferred" in name or worst["robust_accuracy_pct", target, condition] <= value
    assert metrics["transferred_fooling_rate_pct", "toy", "eps=0"].value == 0
    plain = by_key(run_stage(results, "fgsm", "vgg-att2-concat-pc", [{"name": "toy"}], {"epsilons": [0, 4.0]}))
    assert not any("pgd" in name or "transferred" in name for name, _, _ in plain)


def test_perturbations_of_a_network_that_is_not_there(results):
    protocol = {"transferred": "vgg", "companion": {"variant": "vgg", "training": TRAINING}}
    with pytest.raises(RecordError, match=r"vgg/seed-0/result.json: .* train it first, or change protocols.fgsm"):
        run_stage(results, "fgsm", "vgg-gap", [{"name": "toy"}], protocol)
    run = layout.run_dir(results, "train", "toy", "vgg", 8)
    write_record(run / layout.RECORD, trained_record("vgg", 8, status="failed", reason="loss is nan"))
    model = layout.run_dir(results, "train", "toy", "vgg-gap", 0)
    shutil.copytree(model, layout.run_dir(results, "train", "toy", "vgg-gap", 8))
    write_record(
        layout.run_dir(results, "train", "toy", "vgg-gap", 8) / layout.RECORD, trained_record("vgg-gap", seed=8)
    )
    record = run_stage(results, "fgsm", "vgg-gap", [{"name": "toy"}], protocol, seeds=[8])
    assert record.status == "ok" and record.extra["transferred"] == "training of vgg failed: loss is nan"
    names = ("clean_accuracy_pct", "fooling_rate_pct", "robust_accuracy_pct")
    assert {metric.name for metric in record.metrics} == set(names)


def segmentation_protocol(variant):
    return {"saliency": get_variant(variant).saliency, "batch_size": 5}


def test_segmentation_of_attention(results):
    variant = "vgg-att2-concat-pc"
    targets = [
        {"name": "toy", "kind": "masks", "class_ids": None},
        {"name": "plain", "kind": "pointing", "split": "test"},
    ]
    record = run_stage(results, "segmentation", variant, targets, segmentation_protocol(variant))
    metrics = by_key(record)
    assert {target for _, target, _ in metrics} == {"toy"}
    assert record.extra["plain"] == {"skipped": "no masks or boxes"}
    for subset in CLASSES:
        assert metrics["jaccard_pct", "toy", subset].n == 10
        assert metrics["jaccard_all_pct", "toy", subset].value == metrics["jaccard_pct", "toy", subset].value
    for level in ("conv10", "conv13", "combined"):
        assert metrics["pointing_pct", "toy", level].n == 30
        assert metrics["pointing_chance_pct", "toy", level].value == pytest.approx(100 / 16)
        assert 0 < metrics["mass_in_mask_pct", "toy", level].value < 100
        for name, same in zip(BOX_METRICS, MASK_METRICS, strict=True):  # these objects are rectangles
            assert metrics[name, "toy", level].value == metrics[same, "toy", level].value


@pytest.mark.parametrize("stage", ["segmentation", "maps"])
@pytest.mark.parametrize("choice", [{"upsampling": "nearest"}, {"upsampling": "bicubic"}, {"threshold": 0.2}])
def test_other_ways_to_binarise_change_the_scores_and_stand_in_the_record(results, stage, choice):
    variant = "vgg-att2-concat-dp"
    targets = [{"name": "toy", "kind": "masks", "class_ids": None}]
    own, other = (
        run_stage(results, stage, variant, targets, {**segmentation_protocol(variant), **chosen})
        for chosen in ({}, choice)
    )
    assert other.extra["protocol"] == own.extra["protocol"] | choice
    name = {"segmentation": "jaccard_pct", "maps": "attention_last_jaccard_pct"}[stage]
    scores = [[by_key(record)[name, "toy", subset].value for subset in CLASSES] for record in (own, other)]
    assert scores[0] != scores[1]


def test_class_activation_maps_of_the_predicted_class(results):
    targets = [{"name": "toy", "kind": "masks", "class_ids": [1, None, 2]}]
    protocol = {**segmentation_protocol("vgg-gap"), "cam_class": "predicted"}
    record = run_stage(results, "segmentation", "vgg-gap", targets, protocol)
    assert {condition for name, _, condition in by_key(record) if name == "jaccard_pct"} == set(CLASSES)
    other = by_key(run_stage(results, "maps", "vgg-gap", [{"name": "toy", "kind": "masks"}], {}))
    for subset in CLASSES:
        expected = other["cam_predicted_jaccard_pct", "toy", subset].value
        assert by_key(record)["jaccard_pct", "toy", subset].value == pytest.approx(expected)


def test_pointing_where_boxes_alone_are_known(results):
    boxed = dataclasses.replace(make_split(12, SIZE, 2), masks=None)
    write_prepared(layout.data_dir(results, "boxed"), "boxed", CLASSES, {"test": boxed}, {})
    target = [{"name": "boxed", "kind": "pointing", "split": "test"}]
    record = run_stage(results, "segmentation", "vgg-gap", target, segmentation_protocol("vgg-gap"))
    assert {metric.name for metric in record.metrics} == set(BOX_METRICS)
    assert by_key(record)["box_chance_pct", "boxed", "cam"].value == pytest.approx(100 / 16)


def test_segmentation_of_class_activation_maps_leaves_out_unknown_classes(results):
    targets = [{"name": "toy", "kind": "masks", "class_ids": [1, None, 2]}]
    record = run_stage(results, "segmentation", "vgg-gap", targets, segmentation_protocol("vgg-gap"))
    metrics = by_key(record)
    assert {condition for name, _, condition in metrics if name == "jaccard_pct"} == {"ant", "cat"}
    assert metrics["pointing_pct", "toy", "cam"].n == metrics["pointing_pct", "toy", "combined"].n == 20
    assert record.extra["toy"]["subsets_without_class"] == ["bee"]
    none = run_stage(
        results, "segmentation", "vgg-gap", [{**targets[0], "class_ids": None}], segmentation_protocol("vgg-gap")
    )
    assert none.metrics == [] and none.extra["toy"]["subsets_without_class"] == CLASSES
    target = [{"name": "toy", "kind": "pointing", "split": "test"}]
    predicted = run_stage(results, "segmentation", "vgg-gap", target, segmentation_protocol("vgg-gap"))
    assert by_key(predicted)["pointing_pct", "toy", "cam"].n == 12


def test_maps(results):
    variant = "vgg-att2-concat-pc"
    targets = [{"name": "toy", "kind": "masks"}, {"name": "plain", "kind": "pointing"}]
    protocol = {**segmentation_protocol(variant), "controls": ["centre"], "batch_size": 7}
    record = run_stage(results, "maps", variant, targets, protocol)
    metrics = by_key(record)
    networks = ("attention_last", "attention_previous", "activation_last", "activation_previous", "gradcam")
    kinds = (*networks, "centre", "untrained", "combined")
    assert {name for name, _, _ in metrics if "jaccard" in name} == {
        f"{kind}_{name}" for kind in kinds for name in ("jaccard_pct", "jaccard_all_pct")
    }
    for subset in CLASSES:
        assert metrics["gradcam_jaccard_pct", "toy", subset].n == 10
    assert {condition for name, _, condition in metrics if name == "mass_in_mask_pct"} == set(kinds)
    assert metrics["pointing_chance_pct", "toy", "centre"].value == pytest.approx(100 / 16)
    assert set(record.extra["toy"]["constant_maps"]) == {*networks, "centre", "untrained"}
    assert record.extra["plain"] == {"skipped": "no masks or boxes"}
    attention = by_key(run_stage(results, "segmentation", variant, [
        {"name": "toy", "kind": "masks", "class_ids": None}], segmentation_protocol(variant)))  # fmt: skip
    for kind, level in (("attention_last", "conv13"), ("attention_previous", "conv10"), ("combined", "combined")):
        for name in (*MASK_METRICS, *BOX_METRICS):
            assert metrics[name, "toy", kind].value == pytest.approx(attention[name, "toy", level].value)
    for subset in CLASSES:
        expected = attention["jaccard_pct", "toy", subset].value
        assert metrics["combined_jaccard_pct", "toy", subset].value == pytest.approx(expected)


def test_maps_of_one_split_and_controls_at_the_size_that_networks_see(results):
    large = make_split(12, 2 * SIZE, 4)
    write_prepared(layout.data_dir(results, "large"), "large", CLASSES, {"train": large, "test": large}, {})
    target = [{"name": "large", "kind": "pointing", "split": "test"}]
    record = run_stage(results, "maps", "vgg-gap", target, {"controls": ["centre"]})
    assert {metric.n for metric in record.metrics} == {12}
    assert {metric.name for metric in record.metrics} == {*MASK_METRICS, *BOX_METRICS}
    centre = CONTROLS["centre"](np.zeros((12, SIZE, SIZE, 3), np.uint8))
    scores = score_maps({"centre": centre}, large.masks, None)
    assert by_key(record)["mass_in_mask_pct", "large", "centre"].value == 100 * scores.mass["centre"].mean()


def test_maps_where_boxes_alone_are_known(results):
    boxed = dataclasses.replace(make_split(12, SIZE, 2), masks=None)
    write_prepared(layout.data_dir(results, "actors"), "actors", CLASSES, {"test": boxed}, {})
    record = run_stage(results, "maps", "vgg-gap", [{"name": "actors", "kind": "pointing"}], {})
    assert {metric.name for metric in record.metrics} == set(BOX_METRICS)
    assert by_key(record)["pointing_in_box_pct", "actors", "cam_predicted"].n == 12


def test_a_network_that_gives_no_finite_numbers_is_named_by_its_file(results):
    shutil.copytree(
        layout.run_dir(results, "train", "toy", "vgg-gap", 0),
        folder := layout.run_dir(results, "train", "toy", "vgg-gap", 9),
    )
    model = load(folder / layout.MODEL)
    model.head.weight.data.fill_(float("inf"))
    facts = {key: model.metadata[key] for key in ("variant", "architecture", "num_classes", "image_size", "classes")}
    save_model(folder / layout.MODEL, model, **facts)
    write_record(folder / layout.RECORD, trained_record("vgg-gap", 9))
    for stage, protocol in (("segmentation", segmentation_protocol("vgg-gap")), ("maps", {})):
        target = [{"name": "toy", "kind": "masks", "class_ids": [0, 1, 2]}]
        with pytest.raises(DataError, match=r"train/toy/vgg-gap/seed-9/model\.safetensors: its .*not finite; retrain"):
            run_stage(results, stage, "vgg-gap", target, protocol, seeds=[9])


@pytest.mark.parametrize(("variant", "moves"), [("vgg-att2-concat-dp", True), ("vgg-att2-concat-pc", False)])
def test_query(results, variant, moves):
    record = run_stage(results, "query", variant, [{"name": "toy"}], {"pairs": 7})
    metrics = by_key(record)
    assert len(metrics) == 2 * 6 + 1
    assert metrics["effective_rank", "toy", ""].n == 12
    assert 1 <= metrics["effective_rank", "toy", ""].value <= 12
    for level in ("conv10", "conv13"):
        assert metrics["relative_change", "toy", level].n == 7
        assert (metrics["relative_change", "toy", level].value > 1e-4) is moves


def test_another_query_moves_maps_otherwise_and_stands_in_the_record(results):
    own, other = (
        run_stage(results, "query", "vgg-att2-concat-dp", [{"name": "toy"}], protocol)
        for protocol in ({"pairs": 7}, {"pairs": 7, "query": "first"})
    )
    assert other.extra["protocol"] == {"pairs": 7, "query": "first", "batch_size": 250}
    key = ("relative_change", "toy", "conv10")
    assert by_key(own)[key].value != by_key(other)[key].value and by_key(other)[key].n == 7


def test_the_same_spec_gives_the_same_bytes(results):
    variant = "vgg-att2-concat-dp"
    protocol = {"saliency": get_variant(variant).saliency}
    targets = [{"name": "toy", "kind": "pointing", "split": "test"}]
    first = run_stage(results, "segmentation", variant, targets, protocol)
    again = run_stage(results, "segmentation", variant, targets, protocol)
    assert (first.metrics, first.extra) == (again.metrics, again.extra)


def test_a_failed_training_gives_a_failed_record(results):
    run = layout.run_dir(results, "train", "toy", "vgg-gap", 5)
    write_record(run / layout.RECORD, trained_record("vgg-gap", 5, status="failed", reason="loss is nan"))
    record = run_stage(results, "fgsm", "vgg-gap", [{"name": "toy"}], {}, seeds=[5])
    assert record.status == "failed" and "loss is nan" in record.reason and record.metrics == []


def test_a_network_trained_otherwise_is_refused(results):
    run = layout.run_dir(results, "train", "toy", "vgg-gap", 6)
    write_record(run / layout.RECORD, trained_record("vgg-gap", 6, config_hash="1" * 64))
    with pytest.raises(ModelError, match="another configuration"):
        run_stage(results, "fgsm", "vgg-gap", [{"name": "toy"}], {}, seeds=[6])
    with pytest.raises(RecordError, match="no such result record"):
        run_stage(results, "fgsm", "vgg-gap", [{"name": "toy"}], {}, seeds=[7])


@pytest.mark.parametrize(
    ("stage", "variant", "targets", "protocol", "error", "message"),
    [
        ("transfer", "vgg-gap", [], {"kernel": "rbf"}, ConfigError, "transfer: .*kernel"),
        ("transfer", "vgg-gap", [{"name": "toy", "kind": "svm"}], {"folds": 20}, DataError, "toy: .* 20 folds"),
        ("segmentation", "vgg-gap", [], {}, ModelError, "no attention map"),
        ("segmentation", "vgg-gap", [], {"saliency": {"source": "gap"}}, ConfigError, "source is 'gap'"),
        ("segmentation", "vgg-gap", [], {"saliency": None, "upsampling": "area"}, ConfigError, "upsampling.*area"),
        ("segmentation", "vgg-gap", [], {"saliency": None, "cam_class": "cat"}, ConfigError, "cam_class.*cat"),
        ("segmentation", "vgg-gap", [], {"threshold": 2}, ConfigError, "threshold.*2"),
        ("segmentation", "vgg-gap", [{"name": "plain", "kind": "masks"}], {"saliency": {"source": "cam"}}, DataError,
         "plain has no masks"),
        ("segmentation", "vgg-gap", [{"name": "toy", "kind": "masks", "class_ids": [1]}],
         {"saliency": {"source": "cam"}}, ConfigError, "1 entries for 3 classes"),
        ("maps", "vgg-gap", [{"name": "plain", "kind": "masks"}], {}, DataError, "plain has no masks"),
        ("query", "vgg-gap", [{"name": "toy"}], {}, ModelError, "no attention map"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(results, stage, variant, targets, protocol, error, message):
    with pytest.raises(error, match=message) as caught:
        run_stage(results, stage, variant, targets, protocol)
    assert "\n" not in str(caught.value)
