"""Input that does not fit, through the real command line: one line that names file and remedy, and nothing is lost."""

import json
import re
import shutil
import tarfile

import miniature_datasets as miniature
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_twostream_training import made, training_spec
from test_twostream_training import results as results

from ltpa.cli import main
from ltpa.core import layout
from ltpa.core.hashing import digest, sha256_file
from ltpa.core.specs import PrepareSpec
from ltpa.data.arrays import PreparedDataset, Split, write_prepared
from ltpa.data.boxes import FORMAT, Boxes, read_sidecar, sidecar_path, write_boxes
from ltpa.models.twostream.trunks import build_trunk

BOXES = "patches/squares/made/seed-0/boxes.parquet"


def refused(capsys, code, *command):
    """The one line of a command that must fail; `prepare` says before what it is at."""
    assert main([*map(str, command)]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("birds: ")]
    assert len(lines) == 1 and lines[0].startswith("ltpa: error: "), lines
    return lines[0]


def put_boxes(folder, results, order=slice(None), name="squares"):
    """Boxes of the same squares, prepared in another order or under another name, where those of `squares` lie."""
    splits, found = {}, {}
    for split, count, seed in (("train", 24, 0), ("test", 12, 1)):
        images, labels, boxes, _ = made(count, seed)
        ids = np.array([f"{split}/{number}.jpg" for number in range(count)])
        splits[split] = Split(images[order], labels[order], ids[order])
        found[split] = Boxes(boxes[order], *(np.zeros(boxes.shape[:2], kind) for kind in ("f4", "i4", "i2")))
    write_prepared(folder / name, name, list("rgb"), splits, {})
    write_boxes(results / BOXES, PreparedDataset.open(folder / name), found, {})


def reseal(path, **changes):
    """Make the sidecar vouch for the table as it is, as one who makes boxes by hand would."""
    facts = {"format": FORMAT, **read_sidecar(path), "sha256": {path.name: sha256_file(path)}, **changes}
    sidecar_path(path).write_text(json.dumps({**facts, "seal": digest(facts)}))


def replaced(column, values):
    def spoil(path):
        table = pq.read_table(path)
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, column, pa.array(values(table[column].to_numpy().copy()))), path)
        reseal(path)

    return spoil


def first(value):
    def change(values):
        values[0] = value
        return values

    return change


def dropped(path):
    pq.write_table(pq.read_table(path).drop_columns(["x1"]), path)
    reseal(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            replaced("y1", first(-1)),
            r"boxes\.parquet: box 0 of image 0, .* has no area; delete .* and run `ltpa patches`",
        ),
        (replaced("x1", first(17)), r"boxes\.parquet: box 0 of image 0, .* is not within 16 x 16 pixels; delete"),
        (replaced("y0", lambda values: values + 0.5), r"boxes\.parquet: column 'y0' is not of whole numbers"),
        (dropped, r"boxes\.parquet: no column 'x1'; delete"),
        (lambda path: reseal(path, data_hash="0" * 64), r"boxes\.parquet: made from another preparation of squares"),
        (lambda path: path.write_bytes(path.read_bytes()[:99]), r"boxes\.parquet: does not match its SHA-256"),
        (lambda path: path.unlink(), r"boxes\.parquet: no such file; delete .* and run `ltpa patches` again"),
        (lambda path: sidecar_path(path).unlink(), r"boxes\.json: no such file; run `ltpa patches` for these boxes"),
    ],
)
def test_boxes_that_are_none(results, capsys, spoil, message):
    spoil(results / BOXES)
    command = ["train", "--spec", training_spec().to_json(), "--results", results]
    assert re.search(message, refused(capsys, 3, *command))
    assert not list(results.glob("train/**/result.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "circles"}, r"boxes\.parquet: boxes of dataset circles, not squares; name the boxes of that one"),
        (
            {"order": slice(None, None, -1)},
            r"boxes\.parquet: made from another preparation of squares .*; delete .* run",
        ),
    ],
)
def test_boxes_of_other_images(results, tmp_path, capsys, changes, message):
    put_boxes(tmp_path / "other", results, **changes)
    command = ["train", "--spec", training_spec().to_json(), "--results", results]
    assert re.search(message, refused(capsys, 3, *command))


def test_boxes_in_another_order_that_claim_to_be_of_these_images(results, tmp_path, capsys):
    put_boxes(tmp_path / "other", results, order=slice(None, None, -1))
    reseal(results / BOXES, data_hash=PreparedDataset.open(layout.data_dir(results, "squares")).data_hash)
    command = ["train", "--spec", training_spec().to_json(), "--results", results]
    found = refused(capsys, 3, *command)
    assert re.search(r"rows are not in the order of split train .*'train/0\.jpg'.*'train/23\.jpg'.*; delete", found)


def test_more_boxes_than_there_are(results, capsys):
    command = ["train", "--spec", training_spec(boxes=4).to_json(), "--results", results]
    assert "3 boxes per image, 4 wanted; ask for at most 3, or set protocols.patches.boxes" in refused(
        capsys, 3, *command
    )


def test_what_writes_boxes_makes_no_wrong_ones(results, tmp_path):
    from ltpa.core.errors import DataError

    dataset = PreparedDataset.open(layout.data_dir(results, "squares"))
    found = Boxes(np.zeros((24, 1, 4), np.int64), *(np.zeros((24, 1), kind) for kind in ("f4", "i4", "i2")))
    path = tmp_path / "boxes.parquet"
    with pytest.raises(DataError, match="has no area; correct the boxes of this patch source"):
        write_boxes(path, dataset, {"train": found}, {})
    found.boxes[...] = [0, 0, 4, 4]
    with pytest.raises(DataError, match="boxes of 24 images for 12 of split test of squares; give every image"):
        write_boxes(path, dataset, {"test": found}, {})
    assert not path.exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            lambda: build_trunk("vgg11_bn", 0.0625).state_dict(),
            r"weights of another trunk than vgg6_bn .*; name",
        ),
        (lambda: build_trunk("vgg6_bn", 0.125).state_dict(), r"weights of another trunk than vgg6_bn .*; name"),
        (lambda: [1, 2], "holds no mapping of names to tensors; name a state_dict"),
    ],
)
def test_weights_of_another_trunk(results, tmp_path, capsys, tensors, message):
    path = tmp_path / "trunk.pth"
    torch.save(tensors(), path)
    spec = training_spec(weights=str(path))
    found = refused(capsys, 5, "train", "--spec", spec.to_json(), "--results", results)
    assert str(path) in found and re.search(message, found)
    assert not list(results.glob("train/**/result.json"))


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A miniature of CUB, extracted, and its declaration with heads."""
    folder = tmp_path_factory.mktemp("birds")
    declared, _ = miniature.cub200(folder)
    with tarfile.open(folder / "CUB_200_2011.tgz") as archive:
        archive.extractall(folder / "extracted", filter="data")
    return folder / "extracted", {**declared, "image_size": 16, "options": {"crop": "none", "parts": "head"}}


def prepare_birds(birds, folder, changes=None):
    spec = PrepareSpec("mini", "birds", 1, {**birds[1], **(changes or {})})
    return ["prepare", "--spec", spec.to_json(), "--results", folder / "mini", "--extracted", folder / "copy"]


@pytest.mark.parametrize(
    "name",
    [
        "images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt",
        "parts/part_locs.txt", "images/001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
    ],
)  # fmt: skip
def test_every_file_of_cub_that_is_missing_is_named(birds, tmp_path, capsys, name):
    shutil.copytree(birds[0], tmp_path / "copy")
    missing = tmp_path / "copy" / "CUB_200_2011" / name
    missing.unlink()
    found = refused(capsys, 3, *prepare_birds(birds, tmp_path))
    assert str(missing) in found and re.search("; (extract|fetch|restore|correct its name)", found), found
    assert not list(tmp_path.glob("mini/data/birds/manifest.json"))


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("bounding_boxes.txt", "1 0.0 0.0 0.0 32.0", r"bounding_boxes\.txt: image 1 has a box without area"),
        ("bounding_boxes.txt", "1 90.0 0.0 9.0 32.0", "the object box of image 001.* has no area within the image"),
        ("parts/part_locs.txt", "1 2 99.0 8.0 1", "the part box of image 001.* has no area within the image"),
    ],
)
def test_objects_and_parts_without_area(birds, tmp_path, capsys, name, line, message):
    shutil.copytree(birds[0], tmp_path / "copy")
    path = tmp_path / "copy" / "CUB_200_2011" / name
    kept = path.read_text().splitlines()[1:] if "bounding" in name else []
    path.write_text("\n".join([line, *kept]) + "\n")
    assert re.search(message + ".*; extract", refused(capsys, 3, *prepare_birds(birds, tmp_path)))


def test_birds_that_are_whole_are_prepared(birds, tmp_path):
    shutil.copytree(birds[0], tmp_path / "copy")
    assert main([*map(str, prepare_birds(birds, tmp_path))]) == 0
    assert PreparedDataset.open(layout.data_dir(tmp_path / "mini", "birds")).split("test").parts is not None
