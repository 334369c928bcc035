"""Released boxes: arrays in the authors' layout, made here, and what is refused."""

import numpy as np
import pytest

from ltpa.core.errors import DataError
from ltpa.data.arrays import Split
from ltpa.data.released import read_released

# In the order of a list of images; sorted by folder and name the rows are 2, 0, 3, 1.
IDS = ["001.Wren/b.jpg", "002.Owl/b.jpg", "001.Wren/a.jpg", "002.Owl/a.jpg"]
SORTED = [2, 0, 3, 1]


def make_split(size=448):
    return Split(np.zeros((4, size, size, 3), np.uint8), np.array([0, 1, 0, 1]), np.array(IDS))


def rows(ranks=3):
    """Box `rank` of the image of row r of the sorted list: y 10 r ..., x 10 rank ...; columns y0, y1, x0, x1, class."""
    r, k = np.mgrid[:4, :ranks]
    return np.stack([10 * r, 10 * r + 100, 10 * k + 5, 10 * k + 250, r // 2], -1).astype(float)


def write(path, array):
    np.save(path, array)
    return path


def test_rows_come_in_the_splits_order_and_corners_in_ours(tmp_path):
    found = read_released(write(tmp_path / "train.npy", rows()), make_split(), 2)
    assert found.shape == (4, 2, 4) and found.dtype == np.int64
    for place, image in enumerate(SORTED):
        assert found[image].tolist() == [[10 * place, 10 * k + 5, 10 * place + 100, 10 * k + 250] for k in range(2)]


def test_other_sizes_are_scaled_outwards(tmp_path):
    found = read_released(write(tmp_path / "train.npy", rows()), make_split(64), 1)
    assert found[SORTED[1], 0].tolist() == [1, 0, 16, 36]  # 10/7, 5/7, 110/7, 250/7


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a[:, :, :4], r"expected finite numbers \(images, boxes, 5\)"),
        (lambda a: a.astype(str), "expected finite numbers"),
        (lambda a: a + 0j, "expected finite numbers"),
        (lambda a: np.where(np.arange(5) == 4, np.nan, a), "expected finite numbers"),
        (lambda a: a.astype(object), "not a NumPy array"),
        (lambda a: a[:3], "boxes of 3 images, the split has 4"),
        (lambda a: a[:, :1], "1 boxes per image, 2 wanted; lower"),
        (lambda a: a[::-1], "row 0 has class 1, but '001.Wren/a.jpg' stands there"),
        (lambda a: np.where(np.arange(5) == 1, a[..., [0]], a), "box 0 of image 0, .* has no area"),
        (lambda a: np.add(a, [0, 400, 0, 0, 0]), "not within 448 x 448"),
        (lambda a: a * np.nan, "expected finite"),
    ],
)
def test_what_is_not_of_this_split_is_refused(tmp_path, spoil, message):
    path = write(tmp_path / "train.npy", spoil(rows()))
    with pytest.raises(DataError, match=message) as caught:
        read_released(path, make_split(), 2)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(DataError, match=r"no such file; name your copy under protocols\.patches\.released"):
        read_released(tmp_path / "none.npy", make_split(), 1)
    (tmp_path / "text.npy").write_text("boxes")
    with pytest.raises(DataError, match="not a NumPy array"):
        read_released(tmp_path / "text.npy", make_split(), 1)


def test_an_archive_and_a_size_that_the_file_does_not_have_are_refused(tmp_path):
    np.savez(tmp_path / "train.npz", rows())
    with pytest.raises(DataError, match="an archive of arrays"):
        read_released(tmp_path / "train.npz", make_split(), 2)
    path = tmp_path / "train.npy"
    with open(path, "wb") as stream:
        claimed = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10, 5)}
        np.lib.format.write_array_header_1_0(stream, claimed)
    with pytest.raises(DataError, match="not a NumPy array"):
        read_released(path, make_split(), 2)
