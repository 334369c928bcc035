"""One `.npz` per split: JPEG files end to end in `blob`, where each begins in `offsets` (N + 1), and `labels`."""

import itertools
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ltpa.core.errors import DataError
from ltpa.data.listing import Listing
from ltpa.data.source import Source


def read(root: Path, source: Source) -> dict[str, Listing]:
    """List every split; `root` holds the files.

    Raises:
        DataError: a file is damaged.
    """
    listings = {}
    for split, declaration in source.splits.items():
        path = root / declaration["file"]
        try:
            with np.load(path, allow_pickle=False) as content:
                blob, offsets, labels = (content[key] for key in ("blob", "offsets", "labels"))
        except (ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not readable ({error}); put the right file there") from error
        _check(path, blob, offsets, labels)
        images = [blob[start:end].tobytes() for start, end in itertools.pairwise(offsets)]
        ids = [f"{split}/{index:05d}" for index in range(len(labels))]
        listings[split] = Listing(images, labels.astype(np.int64), ids)
    return listings


def _check(path: Path, blob: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> None:
    if blob.dtype != np.uint8 or any(array.ndim != 1 for array in (blob, offsets, labels)):
        raise DataError(f"{path}: blob, offsets or labels are not lists of bytes and numbers; put the right file there")
    if any(array.dtype.kind not in "iu" for array in (offsets, labels)) or len(offsets) != len(labels) + 1:
        raise DataError(
            f"{path}: {len(offsets) - 1} images for {len(labels)} labels, or no whole numbers; put the right file there"
        )
    ends = offsets.astype(np.int64)
    if ends[0] < 0 or (np.diff(ends) < 0).any() or ends[-1] > len(blob):
        raise DataError(f"{path}: offsets do not lie one after the other in the blob; put the right file there")
