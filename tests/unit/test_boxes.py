"""Patch boxes on disk: what is written is what is read, and nothing else is read."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ltpa.core.errors import DataError
from ltpa.core.hashing import digest, sha256_file
from ltpa.data.arrays import PreparedDataset, Split
from ltpa.data.boxes import FORMAT, Boxes, Flag, flag_counts, read_boxes, read_sidecar, sidecar_path, write_boxes

SIZE = 12


def make_dataset(name="birds", count=4, data_hash="a" * 64, prefix="bird"):
    splits = {
        split: Split(
            np.zeros((n, SIZE, SIZE, 3), np.uint8),
            np.zeros(n, np.int64),
            np.array([f"{prefix}/{split}/{i}" for i in range(n)]),
        )
        for split, n in (("train", count), ("test", 3))
    }
    return PreparedDataset(name, ["one"], splits, data_hash, {})


def make_boxes(count, ranks=2, seed=0):
    generator = np.random.default_rng(seed)
    low = generator.integers(0, SIZE - 1, (count, ranks, 2))
    high = generator.integers(low + 1, SIZE + 1)
    return Boxes(
        np.concatenate([low, high], axis=-1),
        generator.random((count, ranks), np.float32),
        generator.integers(-1, 9, (count, ranks)).astype(np.int32),
        generator.integers(0, 128, (count, ranks)).astype(np.int16),
    )


@pytest.fixture
def written(tmp_path):
    dataset = make_dataset()
    found = {"train": make_boxes(4), "test": make_boxes(3, seed=1)}
    path = tmp_path / "boxes.parquet"
    write_boxes(path, dataset, found, {"source": {"mode": "random"}})
    return path, dataset, found


def test_what_is_written_is_read(written):
    path, dataset, found = written
    for split, boxes in found.items():
        np.testing.assert_array_equal(read_boxes(path, dataset, split), boxes.boxes)
        np.testing.assert_array_equal(read_boxes(path, dataset, split, 1), boxes.boxes[:, :1])
    facts = read_sidecar(path)
    assert facts["source"] == {"mode": "random"} and facts["images"] == {"train": 4, "test": 3}
    assert facts["sha256"] == {"boxes.parquet": sha256_file(path)}
    assert facts["flags"]["train"] == flag_counts(found["train"].flags)


def test_flags_are_counted():
    flags = np.array([[Flag.FULL | Flag.REPEAT, Flag.REPEAT]], dtype=np.int16)
    assert flag_counts(flags) == {
        "FULL": 1, "MULTIBLOB": 0, "TINY": 0, "BORDER": 0, "DUP": 0, "REPEAT": 2, "FALLBACK": 0,
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.data())
def test_any_boxes_come_back_as_they_were(tmp_path_factory, ranks, data):
    low = data.draw(arrays(np.int64, (4, ranks, 2), elements=st.integers(0, SIZE - 1)))
    extent = data.draw(arrays(np.int64, (4, ranks, 2), elements=st.integers(1, SIZE)))
    boxes = np.concatenate([low, np.minimum(low + extent, SIZE)], axis=-1)
    flat = (4, ranks)
    found = Boxes(boxes, np.zeros(flat, np.float32), np.zeros(flat, np.int32), np.zeros(flat, np.int16))
    path = tmp_path_factory.mktemp("boxes") / "boxes.parquet"
    write_boxes(path, make_dataset(), {"train": found}, {})
    np.testing.assert_array_equal(read_boxes(path, make_dataset(), "train"), boxes)


@pytest.mark.parametrize(
    ("dataset", "split", "count", "message"),
    [
        (make_dataset(name="dogs"), "train", None, "boxes of dataset birds, not dogs; "),
        (make_dataset(data_hash="b" * 64), "train", None, "another preparation of birds .*; delete .* run"),
        (make_dataset(count=5), "train", None, "boxes of 4 images, split train of birds has 5; delete"),
        (make_dataset(prefix="wren"), "test", None, r"not in the order of split test .*'wren/test/0'.*'bird/test/0'"),
        (make_dataset(), "train", 3, "2 boxes per image, 3 wanted; ask for at most 2"),
        (make_dataset(), "train", 0, "2 boxes per image, 0 wanted"),
        (make_dataset(), "validation", None, "no split 'validation'"),
    ],
)
def test_what_does_not_fit_is_refused(written, dataset, split, count, message):
    path = written[0]
    with pytest.raises(DataError, match=message) as caught:
        read_boxes(path, dataset, split, count)
    assert "\n" not in str(caught.value)


def test_images_in_another_order_are_refused(written):
    path, dataset, _ = written
    split = dataset.splits["train"]
    turned = dataclasses.replace(split, ids=split.ids[::-1].copy())
    with pytest.raises(DataError, match="not in the order of split train"):
        read_boxes(path, dataclasses.replace(dataset, splits={**dataset.splits, "train": turned}), "train")


def test_a_split_without_boxes_is_refused(tmp_path):
    path = tmp_path / "boxes.parquet"
    write_boxes(path, make_dataset(), {"train": make_boxes(4)}, {})
    with pytest.raises(DataError, match="no boxes of split 'test', only train; delete"):
        read_boxes(path, make_dataset(), "test")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("y1", 0, "has no area; delete"), ("x1", SIZE + 1, "not within 12 x 12 pixels; delete"), ("x0", -1, "not within")],
)
def test_boxes_that_are_none_are_refused(written, column, value, message):
    path, dataset, _ = written
    table = pq.read_table(path)
    values = np.array(table[column].to_pylist())
    values[0] = value
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), path)
    with pytest.raises(DataError, match=r"does not match its SHA-256 in boxes\.json; delete"):
        read_boxes(path, dataset, "train")
    facts = {"format": FORMAT, **read_sidecar(path), "sha256": {path.name: sha256_file(path)}}
    sidecar_path(path).write_text(json.dumps({**facts, "seal": digest(facts)}))
    with pytest.raises(DataError, match=f"box 0 of image 0, .* {message}"):
        read_boxes(path, dataset, "train")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "boxes.parquet: no such file; delete"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "does not match its SHA-256"),
        (lambda path: sidecar_path(path).unlink(), "boxes.json: no such file; run `ltpa patches`"),
        (lambda path: sidecar_path(path).write_text("{"), "boxes.json: not readable"),
        (lambda path: sidecar_path(path).write_text("{}"), "boxes.json: holds no seal"),
    ],
)
def test_damaged_files_are_refused(written, spoil, message):
    path, dataset, _ = written
    spoil(path)
    with pytest.raises(DataError, match=message) as caught:
        read_boxes(path, dataset, "train")
    assert "\n" not in str(caught.value)


def reseal(path):
    """A sidecar that knows the file as it is now."""
    sidecar = sidecar_path(path)
    content = json.loads(sidecar.read_text())
    del content["seal"]
    content["sha256"] = {path.name: sha256_file(path)}
    sidecar.write_text(json.dumps({**content, "seal": digest(content)}))


def test_rows_that_no_image_has_are_refused_before_they_are_read(written, monkeypatch):
    path, dataset, _ = written
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table] * 3), path)
    reseal(path)
    monkeypatch.setattr(pq, "read_table", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(DataError, match=r"42 rows, of which boxes\.json knows 14"):
        read_boxes(path, dataset, "train")


def test_identifiers_must_be_text(written):
    path, dataset, _ = written
    table = pq.read_table(path)
    lists = pa.array([[name] for name in table["id"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("id"), "id", lists), path)
    reseal(path)
    with pytest.raises(DataError, match="column 'id' is not of text"):
        read_boxes(path, dataset, "train")
