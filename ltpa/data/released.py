"""Boxes that the authors of the two-stream network released for CUB-200-2011, from a user's own copy of the arrays.

The arrays bear no licence and are not part of this project. `train_patches.npy` and `test_patches.npy` are (images, 10,
5) floats: y0, y1, x0, x1 and class, half-open, on the image at 448 x 448 pixels without its aspect; rows go by class
folder and file name, as torchvision's ImageFolder lists them, and the boxes of an image from best to worst.
"""

from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.arrays import Split
from ltpa.data.boxes import check_boxes

FRAME = 448


def read_released(path: Path, split: Split, count: int) -> np.ndarray:
    """The first `count` boxes of every image of `split`, (N, count, 4) int64, in the split's own order and size.

    Labels serve to check that the rows are those of the split's images, and for nothing else.

    Raises:
        DataError: no such file, not such an array, too few boxes, other images, or a box without area.
    """
    path = Path(path)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)  # refuses a size that the file does not have
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; name your copy under protocols.patches.released") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a NumPy array ({error}); copy it anew") from error
    if not isinstance(rows, np.ndarray):
        raise DataError(f"{path}: an archive of arrays; expected one array, as numpy.save writes it")
    if rows.dtype.kind not in "fiu" or rows.ndim != 3 or rows.shape[2] != 5 or not np.isfinite(rows).all():
        raise DataError(f"{path}: {rows.dtype} {rows.shape}, expected finite numbers (images, boxes, 5); copy it anew")
    if len(rows) != len(split):
        raise DataError(f"{path}: boxes of {len(rows)} images, the split has {len(split)}; name the split's own file")
    if count > rows.shape[1]:
        raise DataError(f"{path}: {rows.shape[1]} boxes per image, {count} wanted; lower protocols.patches.boxes")
    order = np.array(sorted(range(len(split)), key=lambda row: _folder_and_name(str(split.ids[row]))))
    wrong = np.flatnonzero(rows[:, 0, 4] != split.labels[order])
    if len(wrong):
        image = str(split.ids[order[wrong[0]]])
        raise DataError(
            f"{path}: row {wrong[0]} has class {rows[wrong[0], 0, 4]:g}, but {image!r} stands there when images are "
            "ordered by folder and name; use the file of this split and dataset"
        )
    size = split.images.shape[1]
    scaled = rows[:, :count, :4][..., [0, 2, 1, 3]] * (size / FRAME)
    boxes = np.concatenate([np.floor(scaled[..., :2]), np.ceil(scaled[..., 2:])], axis=-1).astype(np.int64)
    check_boxes(path, boxes, size, "copy the arrays anew")
    placed = np.empty_like(boxes)
    placed[order] = boxes
    return placed


def _folder_and_name(identifier: str) -> tuple[str, str]:
    folder, _, name = identifier.rpartition("/")
    return folder, name
