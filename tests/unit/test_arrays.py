import dataclasses
import json

import numpy as np
import pytest

from ltpa.core.errors import DataError
from ltpa.data.arrays import PreparedDataset, Split, write_prepared
from ltpa.data.masks import RaggedMasks, squashed


def make_split(count=6, seed=0, size=5, masks=True):
    rng = np.random.default_rng(seed)
    return Split(
        images=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % 3,
        ids=np.array([f"seed-{seed}/image-{i:02d}" for i in range(count)]),
        masks=rng.integers(0, 2, (count, size, size), dtype=np.uint8) if masks else None,
        boxes=rng.random((count, 4)).astype(np.float32),
    )


@pytest.fixture
def folder(tmp_path):
    splits = {"train": make_split(6, 0), "test": make_split(4, 1, masks=False)}
    write_prepared(tmp_path / "toy", "toy", ["a", "b", "c"], splits, {"note": "x"})
    return tmp_path / "toy"


def test_round_trip(folder):
    opened = PreparedDataset.open(folder)
    assert (opened.name, opened.classes, opened.facts, opened.image_size) == ("toy", ["a", "b", "c"], {"note": "x"}, 5)
    for name, original in {"train": make_split(6, 0), "test": make_split(4, 1, masks=False)}.items():
        arrays = opened.split(name).arrays()
        assert arrays.keys() == original.arrays().keys()
        for field, array in original.arrays().items():
            np.testing.assert_array_equal(arrays[field], array)
            assert arrays[field].dtype == array.dtype
    assert isinstance(opened.split("train").images, np.memmap)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["splits"]["test"]["per_class"] == [2, 1, 1]
    assert manifest["data_hash"] == opened.data_hash


def test_pooled_keeps_order_and_common_fields(folder):
    pooled = PreparedDataset.open(folder).pooled()
    assert len(pooled) == 10
    assert pooled.ids[6] == "seed-1/image-00"
    assert pooled.masks is None and pooled.boxes is not None and pooled.parts is None


def ragged_split(count, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, (count, 2))
    masks = [rng.integers(0, 2, size, dtype=np.uint8) for size in sizes]
    pixels = np.concatenate([mask.ravel() for mask in masks])
    return dataclasses.replace(make_split(count, seed), masks=RaggedMasks(pixels, sizes)), masks


def test_masks_of_many_sizes_are_mapped_hashed_and_pooled(tmp_path):
    (train, first), (test, second) = ragged_split(7, 0), ragged_split(4, 1)
    write_prepared(tmp_path, "toy", ["a", "b", "c"], {"train": train, "test": test}, {})
    opened = PreparedDataset.open(tmp_path)
    assert isinstance(opened.split("train").masks.pixels, np.memmap)
    for masks, originals in ((opened.split("test").masks, second), (opened.pooled().masks, [*first, *second])):
        assert len(masks) == len(originals)
        for mask, original in zip(masks, originals, strict=True):
            np.testing.assert_array_equal(mask, original)
    path = tmp_path / "train.mask_pixels.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\5")
    with pytest.raises(DataError, match=r"train\.mask_pixels\.npy: content does not match"):
        PreparedDataset.open(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "sizes", "message"),
    [
        ([0, 1, 1, 2], [[1, 2], [2, 1]], "masks hold values"),
        ([0, 1, 1], [[1, 2], [2, 1]], r"mask_pixels is uint8 \(3,\), expected u1 \(4,\)"),
        ([0, 1], [[1, 2], [0, 3]], "a mask has no pixels"),
        ([0, 1], [[1, 2]], r"mask_sizes is int64 \(1, 2\), expected i8 \(2, 2\)"),
    ],
)
def test_bad_ragged_masks_are_refused(tmp_path, pixels, sizes, message):
    masks = RaggedMasks(np.array(pixels, np.uint8), np.array(sizes))
    with pytest.raises(DataError, match=message):
        write_prepared(tmp_path, "toy", ["a", "b", "c"], {"all": dataclasses.replace(make_split(2), masks=masks)}, {})


def test_squashed_masks_keep_their_place():
    mask = np.zeros((6, 10), np.uint8)
    mask[:3, 5:] = 1
    np.testing.assert_array_equal(
        squashed([mask, mask[:2, 5:]], 4), [np.kron([[0, 1], [0, 0]], np.ones((2, 2))), np.ones((4, 4))]
    )


def test_same_content_same_bytes_and_hash_depends_on_content(tmp_path):
    for name in ("one", "two"):
        write_prepared(tmp_path / name, "toy", ["a", "b", "c"], {"all": make_split()}, {})
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()
    write_prepared(tmp_path / "three", "toy", ["a", "b", "d"], {"all": make_split()}, {})
    write_prepared(tmp_path / "four", "toy", ["a", "b", "c"], {"all": make_split(seed=1)}, {})
    assert len({PreparedDataset.open(tmp_path / name).data_hash for name in ("one", "three", "four")}) == 3


def test_truncated_file(folder):
    path = folder / "train.images.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"train\.images\.npy: \d+ bytes.*prepare the dataset again"):
        PreparedDataset.open(folder)


def test_edited_file(folder):
    path = folder / "test.labels.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"test\.labels\.npy: content does not match.*prepare"):
        PreparedDataset.open(folder)


def test_large_dataset_still_checked_by_shape(folder, monkeypatch):
    monkeypatch.setattr("ltpa.data.arrays.HASHED_BELOW", 0)
    path = folder / "test.labels.npy"
    labels = np.load(path).astype(np.float64)
    np.save(path, labels)
    with pytest.raises(DataError, match=r"test\.labels\.npy: float64"):
        PreparedDataset.open(folder)


def test_missing_file(folder):
    (folder / "train.boxes.npy").unlink()
    with pytest.raises(DataError, match=r"train\.boxes\.npy: missing; delete .*manifest\.json"):
        PreparedDataset.open(folder)


def test_missing_manifest(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest\.json: no such file; prepare the dataset first"):
        PreparedDataset.open(folder)


@pytest.mark.parametrize("damage", [lambda text: text[:-30], lambda text: text.replace('"a"', '"z"'), lambda _: "[]"])
def test_damaged_manifest(folder, damage):
    path = folder / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=r"manifest\.json: .*prepare the dataset again"):
        PreparedDataset.open(folder)


def test_unknown_split(folder):
    with pytest.raises(DataError, match="no split 'validation'; it has train, test"):
        PreparedDataset.open(folder).split("validation")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full(6, 3)}, "labels 3 to 3 with 3 classes"),
        ({"images": np.zeros((6, 5, 5, 3), np.float32)}, "images is float32"),
        ({"masks": np.full((6, 5, 5), 254, np.uint8)}, "masks hold values"),
        ({"boxes": np.zeros((5, 4), np.float32)}, r"boxes is float32 \(5, 4\)"),
    ],
)
def test_bad_arrays_are_refused_and_leave_no_manifest(tmp_path, changes, message):
    split = Split(**{**make_split().arrays(), **changes})
    with pytest.raises(DataError, match=message):
        write_prepared(tmp_path, "toy", ["a", "b", "c"], {"all": split}, {})
    assert not (tmp_path / "manifest.json").exists()


def test_interrupted_rewrite_leaves_no_manifest(folder, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(Exception, match="No space left"):
        write_prepared(folder, "toy", ["a", "b", "c"], {"train": make_split()}, {})
    with pytest.raises(DataError, match="prepare the dataset first"):
        PreparedDataset.open(folder)
