"""Decoding: against plain Pillow, a float64 triangle filter, and block means; streaming against arrays held whole."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from ltpa.core.errors import DataError, LtpaError
from ltpa.data.arrays import PreparedDataset, write_prepared
from ltpa.data.decode import Stored, load_image, load_mask, load_picture, whole_pixels
from ltpa.data.listing import Listing
from ltpa.data.rows import RowWriter, draft_path, remove_drafts
from ltpa.data.shards import prepare_split
from ltpa.data.source import Options, Source

PHOTO = load_sample_image("china.jpg")


def jpeg(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **{"quality": 90, **options})
    return stream.getvalue()


def photographs(count, height=333, width=500):
    rng = np.random.default_rng(0)
    photos = [PHOTO, load_sample_image("flower.jpg")]
    corners = rng.integers(0, (427 - height + 1, 640 - width + 1), (count, 2))
    return [jpeg(photos[i % 2][y : y + height, x : x + width]) for i, (y, x) in enumerate(corners)]


def plain(data, size=32, how=Image.Resampling.BILINEAR):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((size, size), how))


def triangle(length, size):
    """(size, length) weights of a bilinear filter widened to the source area of a pixel, from its definition."""
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def source(size=32, classes=("a", "b"), **options):
    return Source("toy", list(classes), size, {"all": {}}, {}, Options(**options))


def test_full_decoding_is_that_of_pillow():
    for data in photographs(4):
        found, stored = load_image(data, None, 32, Options(reduced=False))
        np.testing.assert_array_equal(found, plain(data))
        assert stored[:2] == (500, 333)


def test_antialias_is_a_widened_triangle_filter():
    found, _ = load_image(PHOTO, None, 32, Options())
    rows, columns = triangle(427, 32), triangle(640, 32)
    expected = np.einsum("ih,hwc,jw->ijc", rows, PHOTO.astype(np.float64), columns)
    assert np.abs(found - expected).max() < 1.6  # two roundings to whole grey levels


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [("L", "png", 0), ("LA", "png", 0), ("RGBA", "png", 0), ("1", "png", 0), ("P", "gif", 0), ("CMYK", "jpg", 40)],
)
def test_pictures_of_every_kind_look_as_they_do_in_rgb(tmp_path, mode, suffix, tolerance):
    path = tmp_path / f"picture.{suffix}"
    shown = Image.fromarray(PHOTO[:60, :80]).convert(mode)
    shown.save(path)
    expected = np.asarray(shown.convert("RGB")).astype(int)
    assert np.abs(load_picture(path, 1000) - expected).mean() <= tolerance / 10
    assert np.abs(load_picture(path, 1000) - expected).max() <= tolerance
    whole = load_image(path, None, 60, Options(upright=True, reduced=False))[0]
    np.testing.assert_array_equal(whole, load_image(load_picture(path, 1000), None, 60, Options())[0])


def test_sixteen_bits_are_scaled_to_eight_and_thirty_two_refused(tmp_path):
    deep = np.array([[0, 128, 129, 1000], [30000, 40000, 65406, 65535]], dtype=np.uint16)
    for suffix in ("png", "tif"):
        path = tmp_path / f"deep.{suffix}"
        Image.fromarray(deep).save(path)
        np.testing.assert_array_equal(load_picture(path, 1000)[..., 0], np.round(deep / 257))
        assert load_image(path, None, 2, Options())[0].max() < 255
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"float.tif: cannot be decoded \(its pixels are 32-bit numbers"):
        load_picture(tmp_path / "float.tif", 1000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_their_camera_says(tmp_path, orientation):
    """The eight values of EXIF's orientation, by what each says of the first row and column."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored = PHOTO[:40, :60]
    Image.fromarray(stored).save(path, exif=exif)
    turned = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: stored.transpose(1, 0, 2)[:, ::-1],
        7: stored.transpose(1, 0, 2)[::-1, ::-1], 8: stored.transpose(1, 0, 2)[::-1],
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(load_picture(path, 1000), turned)
    found, size = load_image(path, None, 16, Options(upright=True))
    np.testing.assert_array_equal(found, load_image(np.ascontiguousarray(turned), None, 16, Options())[0])
    assert size == (*turned.shape[1::-1], orientation)
    np.testing.assert_array_equal(
        load_image(path, None, 16, Options())[0], load_image(np.ascontiguousarray(stored), None, 16, Options())[0]
    )


def test_area_is_the_mean_of_blocks_and_nearest_takes_pixels():
    pixels = PHOTO[:384, :576]
    found, _ = load_image(pixels, None, 32, Options(resize="area"))
    np.testing.assert_allclose(found, pixels.reshape(32, 12, 32, 18, 3).mean(axis=(1, 3)), atol=1.1)
    found, _ = load_image(pixels, None, 32, Options(resize="nearest"))
    np.testing.assert_array_equal(found, pixels[6::12, 9::18])


@pytest.mark.parametrize(("height", "width"), [(333, 500), (427, 640), (301, 397)])
def test_reduced_decoding_stays_close_to_full_decoding(height, width):
    """Closer than Pillow's own shortcut `reducing_gap=3.0` on average, and nowhere visibly off."""
    ours, pillows = [], []
    for data in photographs(10, height, width):
        full = plain(data).astype(int)
        ours.append(np.abs(load_image(data, None, 32, Options())[0] - full))
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        pillows.append(np.abs(np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=3.0)) - full))
    assert 0 < np.mean(ours) < 0.5
    assert np.mean(ours) < np.mean(pillows) + 0.05
    assert np.percentile(ours, 99.9) <= 4 and np.max(ours) <= 10


def test_reduced_decoding_leaves_small_images_and_other_formats_alone():
    small = jpeg(PHOTO[:150, :150])
    np.testing.assert_array_equal(load_image(small, None, 32, Options())[0], plain(small))
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "PNG")
    np.testing.assert_array_equal(load_image(stream.getvalue(), None, 32, Options())[0], plain(stream.getvalue()))


def test_box_is_cut_before_resizing_with_and_without_reduction():
    data = jpeg(PHOTO, quality=95)
    box = (40.0, 20.0, 460.0, 380.0)
    expected = np.asarray(
        Image.open(io.BytesIO(data)).crop((40, 20, 460, 380)).resize((32, 32), Image.Resampling.BILINEAR)
    )
    full, stored = load_image(data, box, 32, Options(crop="box", reduced=False))
    assert np.abs(full.astype(int) - expected).max() <= 1 and stored[:2] == (640, 427)
    reduced, _ = load_image(data, box, 32, Options(crop="box"))
    assert np.abs(reduced.astype(int) - expected).mean() < 0.5


def test_boxes_are_widened_to_pixels_and_clipped():
    assert whole_pixels((-3, 1.2, 20.5, 99), 30, 40) == (0, 1, 21, 40)
    with pytest.raises(ValueError, match="lies outside its 30 x 40 pixels"):
        whole_pixels((30, 0, 35, 10), 30, 40)


def test_masks_mark_any_channel_and_do_not_invent_values(tmp_path):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:5, :10, 2] = 3
    for mode in ("RGB", "P"):
        Image.fromarray(pixels).convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "mask.png")
        found = load_mask(tmp_path / "mask.png", None, 8, Stored(20, 10))
        np.testing.assert_array_equal(found, np.kron([[1, 0], [0, 0]], np.ones((4, 4))))


def test_threads_and_blocks_do_not_change_a_byte(tmp_path, monkeypatch):
    listing = Listing(photographs(9, 120, 160), [0, 1, 0] * 3, [f"{i}" for i in range(9)])
    one, facts = prepare_split(tmp_path / "one", "all", listing, source(), threads=1)
    monkeypatch.setattr("ltpa.data.shards._BLOCK", 2)
    two, again = prepare_split(tmp_path / "two", "all", listing, source(), threads=3)
    np.testing.assert_array_equal(one.images, two.images)
    assert facts == again == {"stored_width": 160.0, "stored_height": 120.0, "skipped": []}


def test_skipped_rows_are_left_out_of_every_field(tmp_path):
    for name in ("a", "b", "c"):
        Image.new("L", (40, 20), 255 * (name != "b")).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    paths = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    listing = Listing(paths, [0, 1, 1], ["a", "b", "c"], [[0, 0, 20, 20], [1, 1, 2, 2], [-5, 0, 90, 10]], paths)
    split, facts = prepare_split(tmp_path / "out", "all", listing, source(8, skip_corrupt=True), 2)
    assert split.ids.tolist() == ["a", "c"] and split.labels.tolist() == [0, 1]
    np.testing.assert_allclose(split.boxes, [[0, 0, 4, 8], [0, 0, 8, 4]])
    assert split.images.shape == (2, 8, 8, 3) and split.masks.shape == (2, 8, 8)
    assert [text.partition(":")[0] for text in facts["skipped"]] == ["b"]


def test_a_corrupt_mask_is_not_taken_for_its_image(tmp_path):
    Image.new("L", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "mask.png").write_bytes(b"no image")
    good, bad = tmp_path / "a.png", tmp_path / "mask.png"
    listing = Listing([good, good], [0, 1], ["x", "y"], masks=[good, bad])
    with pytest.raises(DataError, match=r"mask\.png: cannot be decoded"):
        prepare_split(tmp_path / "out", "all", listing, source(8), 1)
    split, facts = prepare_split(tmp_path / "out", "all", listing, source(8, skip_corrupt=True), 1)
    assert split.ids.tolist() == ["x"] and facts["skipped"][0].startswith("y: its mask: ")


def test_missing_file_stops_even_if_corrupt_ones_are_skipped(tmp_path):
    listing = Listing([tmp_path / "gone.jpg"], [0], ["gone"])
    with pytest.raises(DataError, match=r"gone\.jpg: missing; "):
        prepare_split(tmp_path / "out", "all", listing, source(skip_corrupt=True), 1)
    assert not list((tmp_path / "out").iterdir())


def test_drafts_become_the_arrays_without_a_copy(tmp_path):
    listing = Listing(np.stack([PHOTO[:32, :32], PHOTO[32:64, :32]]), [0, 1], ["x", "y"])
    split, _ = prepare_split(tmp_path, "all", listing, source(), 1)
    inode = draft_path(tmp_path, "all", "images").stat().st_ino
    write_prepared(tmp_path, "toy", ["a", "b"], {"all": split}, {})
    assert (tmp_path / "all.images.npy").stat().st_ino == inode
    np.testing.assert_array_equal(PreparedDataset.open(tmp_path).split("all").images, listing.images)
    assert not list(tmp_path.glob(".*"))


def test_row_writer_is_np_save_in_pieces(tmp_path):
    rows = np.arange(60, dtype=np.float32).reshape(12, 5)
    with RowWriter(tmp_path / "pieces.npy", (5,), np.float32) as writer:
        for start in range(0, 12, 5):
            writer.append(rows[start : start + 5])
    np.save(tmp_path / "whole.npy", rows)
    assert (tmp_path / "pieces.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    with pytest.raises(ValueError, match="rows are float64"), RowWriter(tmp_path / "x.npy", (5,), np.float32) as writer:
        writer.append(rows.astype(np.float64))
    assert not (tmp_path / "x.npy").exists()


class _Full(io.BytesIO):
    def write(self, data):
        raise OSError(28, "No space left on device")


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    message = r"x\.npy: cannot write \(No space left on device\); free space"
    with pytest.raises(LtpaError, match=message), RowWriter(tmp_path / "x.npy", (5,), np.uint8) as writer:
        writer._stream.close()
        monkeypatch.setattr(writer, "_stream", _Full())
        writer.append(np.zeros((3, 5), np.uint8))
    assert not (tmp_path / "x.npy").exists()


def test_drafts_of_an_interrupted_run_are_removed(tmp_path):
    draft_path(tmp_path, "train", "images").touch()
    (tmp_path / "train.images.npy").touch()
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.images.npy"]
