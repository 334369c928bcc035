"""The patch stage on a small dataset and untrained networks: every source, what is written, what is refused."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_evaluation_stages import CLASSES, SIZE, TRAINING, make_split, trained_record

from ltpa.cli import main
from ltpa.core import layout
from ltpa.core.declared import load_declaration
from ltpa.core.errors import ConfigError, DataError, ModelError
from ltpa.core.hashing import sha256_file
from ltpa.core.records import read_record, write_record
from ltpa.core.specs import PatchSpec
from ltpa.data.arrays import PreparedDataset, write_prepared
from ltpa.data.boxes import read_boxes, read_sidecar
from ltpa.models import create_model, get_variant, save_model
from ltpa.stages import patch_pictures, patch_sources, patches
from ltpa.training.prototypes import PrototypeTrainer

SOURCES = load_declaration("patches")
NETWORKS = {
    "protolite": "vgg-gap",
    "protopnet": "vgg-gap",
    "cam_window-mean": "vgg-gap",
    "cam_window-cam": "vgg-gap",
    "cam_window-gradcam": "vgg-att2-concat-pc",
    "cam_window-attention": "vgg-att2-concat-pc",
    "center": None,
    "random": None,
    "full": None,
}
SETTINGS = {"boxes": 3, "clusters": 5, "cells_per_image": 4, "smooth": 1, "percentile": 80.0, "level": ""}


def prepare(results, name="toy", relabel=lambda labels: labels):
    splits = {"train": make_split(10, SIZE, 1), "test": make_split(6, SIZE, 2)}
    splits["test"] = dataclasses.replace(splits["test"], labels=relabel(splits["test"].labels))
    write_prepared(layout.data_dir(results, name), name, CLASSES, splits, {})


def symmetrise(model):
    """Make a network treat a mirrored image as the mirror of the image: every kernel equals its own mirror."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = (module.weight.data + module.weight.data.flip(-1)) / 2


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    prepare(folder)
    for variant in sorted({"vgg", *filter(None, NETWORKS.values())}):
        torch.manual_seed(0)
        model = create_model(variant, 3, image_size=SIZE, width=1 / 16)
        symmetrise(model)
        run = layout.run_dir(folder, "train", "toy", variant, 0)
        facts = {"architecture": model.architecture, "num_classes": 3, "image_size": SIZE, "classes": CLASSES}
        save_model(run / layout.MODEL, model, variant=variant, **facts)
        write_record(run / layout.RECORD, trained_record(variant))
    return folder


def make_spec(source, /, network=..., **changes):
    network = NETWORKS.get(source) if network is ... else network
    origin = {
        **SOURCES[source], "network": network or "",
        "saliency": get_variant(network).saliency if network else None, "released": None,
        "protopnet": {
            "routine": "protopnet", "epochs": 2, "warm_epochs": 1, "per_class": 2, "width": 4, "batch_size": 5,
            "last_epochs": 1,
        },
    }  # fmt: skip
    origin |= {key: changes.pop(key) for key in changes.keys() & origin.keys()}
    return PatchSpec("toy", "toy", 1, source, TRAINING, origin, {**SETTINGS, **changes})


def extract(results, source, /, seed=0, **changes):
    patches.run(make_spec(source, **changes), results, [seed])
    path = layout.boxes_path(results, "toy", source, seed)
    return path, read_record(path.with_name(layout.RECORD))


@pytest.mark.parametrize("source", NETWORKS)
def test_every_source_writes_boxes_sidecar_and_record(results, source):
    path, record = extract(results, source)
    dataset = PreparedDataset.open(layout.data_dir(results, "toy"))
    for split in ("train", "test"):
        assert read_boxes(path, dataset, split).shape == (len(dataset.split(split)), 3, 4)
    facts = read_sidecar(path)
    assert facts["source"] == source and facts["config_hash"] == record.config_hash == make_spec(source).hash()
    assert facts["code_hash"] == record.code_hash and facts["data_hash"] == record.data_hash == dataset.data_hash
    assert record.extra["sha256"] == sha256_file(path) == facts["sha256"]["boxes.parquet"]
    if NETWORKS[source]:
        model = layout.run_dir(results, "train", "toy", NETWORKS[source], 0) / layout.MODEL
        assert facts["network_sha256"] == sha256_file(model) and facts["training_hash"] == TRAINING
    metrics = {(metric.target, metric.condition): metric for metric in record.metrics if metric.name != "boxes"}
    assert record.metrics[0].name == "boxes" and record.metrics[0].value == 48 and record.metrics[0].n == 16
    assert metrics["toy/test", "inside_object"].n == 6 and ("toy/train", "part_coverage_union") in metrics
    table = pq.read_table(path)
    assert table.column_names == [
        "split", "id", "index", "rank", "y0", "x0", "y1", "x1", "score", "map_id", "flags",
    ]  # fmt: skip


@pytest.mark.parametrize("source", NETWORKS)
def test_the_same_seed_gives_the_same_bytes_and_test_labels_change_none(results, tmp_path, source):
    path, _ = extract(results, source)
    before = path.read_bytes()
    extract(results, source)
    assert path.read_bytes() == before
    prepare(tmp_path, relabel=lambda labels: (labels + 1) % 3)
    (tmp_path / "train").symlink_to(results / "train")
    moved, _ = extract(tmp_path, source)
    assert moved.read_bytes() == before


@pytest.mark.parametrize("source", [name for name, network in NETWORKS.items() if network and name != "protopnet"])
def test_mirrored_images_have_mirrored_boxes(results, tmp_path, source):
    """Prototypes are those of the images as they are: the training images keep their side."""
    path, _ = extract(results, source)
    found = read_boxes(path, PreparedDataset.open(layout.data_dir(results, "toy")), "test")
    splits = {"train": make_split(10, SIZE, 1), "test": make_split(6, SIZE, 2)}
    turned = splits["test"].images[:, :, ::-1].copy()
    splits["test"] = dataclasses.replace(splits["test"], images=turned)
    write_prepared(layout.data_dir(tmp_path, "toy"), "toy", CLASSES, splits, {})
    (tmp_path / "train").symlink_to(results / "train")
    path, _ = extract(tmp_path, source)
    mirrored = read_boxes(path, PreparedDataset.open(layout.data_dir(tmp_path, "toy")), "test")
    back = np.stack([mirrored[..., 0], SIZE - mirrored[..., 3], mirrored[..., 2], SIZE - mirrored[..., 1]], axis=-1)
    assert np.abs(found - back).max() <= 1


def test_cut_off_prototypes_go_on_and_leave_the_same_bytes(results, tmp_path, monkeypatch, capsys):
    """By a time limit after every step, and by a signal between the training and the end of the extraction."""
    whole, record = extract(results, "protopnet")
    for name in ("data", "train"):
        (tmp_path / name).symlink_to(results / name)
    command = ["patches", "--spec", make_spec("protopnet").to_json(), "--results", str(tmp_path)]
    codes = []
    for _ in range(8):  # ten images in batches of five: two epochs, a push, a pass of the last layer
        codes.append(main([*command, "--max-seconds", "1e-9"]))
    assert codes == [75] * 8 and capsys.readouterr().err.count("the same command resumes it\n") == 8
    learned = []
    monkeypatch.setattr(PrototypeTrainer, "_learn", lambda *_: learned.append(1))
    monkeypatch.setattr(patch_sources.Job, "check_stop", signalled(patch_sources.Job.check_stop))
    assert main(command) == 75
    monkeypatch.undo()
    path = layout.boxes_path(tmp_path, "toy", "protopnet", 0)
    assert not learned and not path.exists() and list(tmp_path.glob("state/patches/*/*/step-*.pt"))
    assert main(command) == 0
    assert path.read_bytes() == whole.read_bytes() and not list(tmp_path.glob("state/patches/*/*/step-*.pt"))
    again = read_record(path.with_name(layout.RECORD))
    for key in ("prototype_losses", "prototype_network_sha256"):
        assert again.extra[key] == record.extra[key]


def signalled(check):
    """`Job.check_stop`, the first time after a SIGTERM."""
    sent = []

    def checked(job):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        check(job)

    return checked


def test_random_boxes_follow_the_seed(results):
    first, second = (extract(results, "random", seed)[0].read_bytes() for seed in (0, 1))
    assert first != second


def test_released_arrays_are_laid_over_the_images(results, tmp_path):
    dataset = PreparedDataset.open(layout.data_dir(results, "toy"))
    released = {}
    for name, split in dataset.splits.items():
        order = np.argsort(split.ids)
        corners = np.tile([0, 224, 112, 448], (len(split), 10, 1))
        rows = np.concatenate([corners, np.repeat(split.labels[order][:, None, None], 10, axis=1)], axis=-1)
        np.save(tmp_path / f"{name}.npy", rows.astype(float))
        released[name] = str(tmp_path / f"{name}.npy")
    path, _ = extract(results, "released", released=released)
    assert (read_boxes(path, dataset, "test") == [0, SIZE // 4, SIZE // 2, SIZE]).all()
    assert read_sidecar(path)["released_sha256"]["test"] == sha256_file(tmp_path / "test.npy")
    with pytest.raises(ConfigError, match=r"set protocols\.patches\.released, test: PATH"):
        extract(results, "released", released={"train": released["train"]})
    with pytest.raises(DataError, match="10 boxes per image, 11 wanted"):
        extract(results, "released", released=released, boxes=11)


def test_a_failed_training_gives_a_failed_record_and_no_boxes(results):
    run = layout.run_dir(results, "train", "toy", "vgg-gap", 5)
    write_record(run / layout.RECORD, trained_record("vgg-gap", 5, status="failed", reason="loss is nan"))
    path, record = extract(results, "protolite", seed=5)
    assert record.status == "failed" and "loss is nan" in record.reason and not path.exists()


@pytest.mark.parametrize(
    ("source", "changes", "error", "message"),
    [
        ("protolite", {"network": None}, ConfigError, "mode protolite needs the network behind it"),
        ("center", {"network": "vgg"}, ConfigError, "mode center has no network behind it"),
        ("released", {}, ConfigError, "set protocols.patches.released"),
        ("full", {"mode": "middle"}, ConfigError, "'mode' is 'middle': must be 'protolite', "),
        ("cam_window-cam", {"map": "x"}, ConfigError, "'map' is 'x': must be"),
        ("center", {"boxen": 3}, ConfigError, "patches: .*boxen"),
        ("protolite", {"level": "conv99"}, ModelError, "no layer 'conv99'; use one of conv7, conv10, conv13"),
        ("cam_window-cam", {"network": "vgg"}, ModelError, "no class activation map"),
        ("cam_window-attention", {"network": "vgg", "saliency": None}, ConfigError, "declares no saliency"),
    ],
)
def test_what_does_not_fit_is_refused(results, source, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        extract(results, source, **changes)
    assert "\n" not in str(caught.value)


def test_grad_cam_is_the_gradient_of_the_predicted_score(results):
    """On a network that ends in a spatial mean and a linear layer it is the class activation map, scaled and cut."""
    from ltpa.evaluation.trunk import saliency_maps
    from ltpa.models import load

    model = load(layout.run_dir(results, "train", "toy", "vgg-gap", 0) / layout.MODEL)
    images = PreparedDataset.open(layout.data_dir(results, "toy")).split("test").images
    cam = saliency_maps(model, images, 4, "cam", None)
    gradcam = saliency_maps(model, images, 4, "gradcam", None)
    np.testing.assert_allclose(gradcam * cam.shape[1] * cam.shape[2], np.maximum(cam, 0), atol=1e-5)


def test_statistics_stand_beside_those_of_the_released_boxes(results, tmp_path):
    for source in ("random", "full"):
        extract(results, source)
    text = patch_pictures.report(results, "toy").read_text()
    header = next(line for line in text.splitlines() if line.startswith("| statistic"))
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert {"full", "random", "released test", "center142 test"} <= set(names)
    line = next(line for line in text.split("## test")[1].splitlines() if line.startswith("| inside"))
    cells = dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
    assert cells["full"] == "0.062" and cells["released test"] == "0.734"  # a quarter of each side
    with pytest.raises(DataError, match="no patch boxes; run"):
        patch_pictures.report(tmp_path, "toy")


def test_boxes_are_drawn_by_rank(results):
    extract(results, "random")
    path = patch_pictures.draw(make_spec("random"), results, 0, 2)
    assert path == layout.boxes_picture_path(results, "toy", "random", 0)
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    patch_pictures.draw(make_spec("random"), results, 0, 2)
    assert path.read_bytes() == first
    with pytest.raises(ConfigError, match="--show 0; ask for at least one image"):
        patch_pictures.draw(make_spec("random"), results, 0, 0)
    with pytest.raises(DataError, match="no such file"):
        patch_pictures.draw(make_spec("random"), results, 9, 2)


def test_the_command_extracts_draws_and_reports(results, tmp_path, capsys):
    shutil.copytree(layout.data_dir(results, "toy"), layout.data_dir(tmp_path, "toy"))
    specs = [make_spec(source).to_json() for source in ("center", "random", "full")]
    place = ["--results", str(tmp_path)]
    for spec in specs:
        assert main(["patches", "--spec", spec, *place, "--seed", "0", "1"]) == 0
    for source in ("center", "random", "full"):
        for seed in (0, 1):
            boxes = read_boxes(
                layout.boxes_path(tmp_path, "toy", source, seed),
                PreparedDataset.open(layout.data_dir(tmp_path, "toy")),
                "test",
            )
            assert boxes.shape == (6, 3, 4)
    capsys.readouterr()
    assert main(["patches", "--spec", specs[1], *place, "--quality", "--show", "2"]) == 0
    report, picture = capsys.readouterr().out.split()
    assert "random" in Path(report).read_text() and Path(picture).read_bytes()[1:4] == b"PNG"
    assert main(["patches", "--spec", make_spec("protolite").to_json(), *place]) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["patches", "protolight", "digits-marks"]) == 2
    assert "did you mean" in capsys.readouterr().err
